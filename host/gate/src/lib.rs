//! Who is calling, and what he may do. Principals are verified here and become a tenant context; a
//! context becomes a permit; a guest's request becomes a cleared one or a refusal.
//!
//! Pure: no socket, no file, no clock but the one passed in. What must be looked up (tokens, tenants,
//! grants, credentials' records) comes through the ports in [`ports`], which the store implements.
//! No value of a secret is ever in this room: credentials are records with sealed bytes.

mod clear;
mod credential;
mod destination;
mod facts;
mod grant;
mod operator;
mod ports;
mod principal;
mod refusal;
mod tenant;
mod token;

// The public interface is:
pub use clear::Attach;
pub use clear::Cleared;
pub use clear::ClearedParts;
pub use clear::clear;
pub use clear::clear_mint;
pub use credential::CredentialKind;
pub use credential::CredentialRecord;
pub use credential::CredentialState;
pub use credential::OauthClient;
pub use credential::Sealed;
pub use credential::VersionRecord;
pub use credential::VersionState;
pub use destination::Destination;
pub use destination::NotCanonical;
pub use destination::Target;
pub use facts::Facts;
pub use facts::PrincipalLabel;
pub use grant::Approved;
pub use grant::BaseUrl;
pub use grant::Difference;
pub use grant::Grant;
pub use operator::OperatorContext;
pub use operator::OperatorHash;
pub use operator::authenticate_operator;
pub use operator::issue_operator_token;
pub use ports::CredentialDirectory;
pub use ports::TenantDirectory;
pub use ports::TenantRecord;
pub use ports::TenantState;
pub use ports::TokenDirectory;
pub use ports::TokenRecord;
pub use principal::Principal;
pub use principal::Scope;
pub use principal::Scopes;
pub use principal::Unauthenticated;
pub use refusal::Refusal;
pub use tenant::Permit;
pub use tenant::TenantContext;
pub use token::IssuedToken;
pub use token::authenticate_token;
pub use token::issue_token;
