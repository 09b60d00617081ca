//! Who is calling, and what he may do. Principals are verified here and become a tenant context; a
//! context becomes a permit; a guest's request becomes a cleared one or a refusal.
//!
//! Pure: no socket, no file, no clock but the one passed in; only quotas wait, and so look at the
//! time. What must be looked up (tokens, tenants, grants, credentials' records) comes through the
//! ports in `ports`, which the store implements.
//! No value of a secret is ever in this room: credentials are records with sealed bytes.

mod clear;
mod credential;
mod destination;
mod exchange;
mod facts;
mod grant;
mod jwt;
mod operator;
mod ports;
mod principal;
mod quota;
mod refusal;
mod run;
mod run_checkpoint;
mod spiffe;
mod tenant;
mod token;

// The public interface is:
pub use clear::Attach;
pub use clear::Cleared;
pub use clear::ClearedParts;
pub use clear::How;
pub use clear::clear;
pub use credential::CredentialKind;
pub use credential::CredentialRecord;
pub use credential::CredentialState;
pub use credential::OauthClient;
pub use credential::Overlap;
pub use credential::Sealed;
pub use credential::VersionRecord;
pub use credential::VersionState;
pub use credential::Yields;
pub use destination::Destination;
pub use destination::NotCanonical;
pub use destination::Target;
pub use exchange::AnswerShape;
pub use exchange::At;
pub use exchange::Auth;
pub use exchange::Carried;
pub use exchange::Exchange;
pub use exchange::ExchangeBody;
pub use exchange::Field;
pub use exchange::Ingredient;
pub use exchange::clear_exchange;
pub use facts::Facts;
pub use facts::PrincipalLabel;
pub use grant::Approved;
pub use grant::BaseUrl;
pub use grant::Difference;
pub use grant::Grant;
pub use jwt::JwkSet;
pub use jwt::JwkSetMalformed;
pub use jwt::JwtAlgorithm;
pub use jwt::JwtIssuer;
pub use jwt::JwtKeys;
pub use jwt::VerifyingKey;
pub use jwt::authenticate_jwt;
pub use operator::OperatorContext;
pub use operator::OperatorHash;
pub use operator::authenticate_operator;
pub use operator::issue_operator_token;
pub use ports::CredentialDirectory;
pub use ports::RunDirectory;
pub use ports::TenantDirectory;
pub use ports::TenantRecord;
pub use ports::TenantState;
pub use ports::TokenDirectory;
pub use ports::TokenRecord;
pub use principal::Principal;
pub use principal::Scope;
pub use principal::Scopes;
pub use principal::Unauthenticated;
pub use quota::Place;
pub use quota::QuotaLimits;
pub use quota::Quotas;
pub use refusal::Refusal;
pub use run::IssuedRunToken;
pub use run::RUN_TOKEN_PREFIX;
pub use run::RunEnd;
pub use run::RunRecord;
pub use run::RunState;
pub use run::SealedGrant;
pub use run::ToolScope;
pub use run::authenticate_run;
pub use run::issue_run_token;
pub use run_checkpoint::RunCheckpoint;
pub use run_checkpoint::SignedCheckpoint;
pub use spiffe::SpiffeEntry;
pub use spiffe::SpiffeId;
pub use spiffe::SpiffeIdMalformed;
pub use spiffe::SpiffeTable;
pub use spiffe::authenticate_spiffe;
pub use tenant::Permit;
pub use tenant::TenantContext;
pub use token::IssuedToken;
pub use token::authenticate_token;
pub use token::issue_token;
