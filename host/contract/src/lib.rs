//! The shared nouns of Keybearer: ids, names, manifest, limits, call, outcome, problem codes.
//!
//! Not for behaviour: nothing here opens a file, a socket or a secret, and nothing here grants
//! anything. A value of these types says what something is called, never that somebody may have it.

mod call;
mod digest;
mod id;
mod limits;
mod manifest;
mod manifest_lint;
mod map;
mod name;
mod placement;
mod problem;
pub mod strict_json;

// The public interface is:
pub use call::Delivery;
pub use call::GuestHeader;
pub use call::GuestRequest;
pub use call::GuestSignature;
pub use call::Method;
pub use call::Party;
pub use call::ToSign;
pub use call::ToolDescription;
pub use call::UnixMillis;
pub use digest::Digest;
pub use digest::DigestMalformed;
pub use id::CallId;
pub use id::CredentialId;
pub use id::DispatchId;
pub use id::GrantId;
pub use id::HookId;
pub use id::IdMalformed;
pub use id::IncidentId;
pub use id::RunId;
pub use id::TenantId;
pub use id::TokenId;
pub use limits::Limits;
pub use manifest::Allow;
pub use manifest::Binding;
pub use manifest::HostRule;
pub use manifest::Manifest;
pub use manifest::ManifestInvalid;
pub use manifest::PackageHead;
pub use manifest::PathPattern;
pub use manifest::PatternMalformed;
pub use manifest::Scheme;
pub use manifest::Slot;
pub use manifest::Wasi;
pub use manifest_lint::Finding;
pub use manifest_lint::check_description;
pub use map::IdHasher;
pub use map::IdMap;
pub use name::AgentName;
pub use name::Host;
pub use name::NameMalformed;
pub use name::PackageName;
pub use name::SlotName;
pub use name::TenantName;
pub use name::ToolName;
pub use name::ToolRef;
pub use placement::Function;
pub use placement::Hmac;
pub use placement::HmacAlgorithm;
pub use placement::HmacEncoding;
pub use placement::HmacOver;
pub use placement::Jwt;
pub use placement::Placement;
pub use placement::SigningAlgorithm;
pub use placement::Signs;
pub use placement::SignsJwt;
pub use placement::SignsMac;
pub use placement::SignsUrl;
pub use placement::is_claim_text;
pub use problem::Code;
pub use problem::Logged;
pub use problem::Problem;
