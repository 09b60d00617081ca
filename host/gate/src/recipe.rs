//! Recipes: how what goes out is fetched or minted with what is stored. Descriptions only; how a source
//! is asked is in the room of sources.

mod aws;
mod consent;
mod discovery;
mod oauth;
mod registration;
mod spiffe;
mod vault;

pub use aws::AwsProof;
pub use aws::AwsReader;
pub use aws::AwsRole;
pub use aws::AwsSecret;
pub use aws::SessionOf;
pub use aws::SessionUnsayable;
pub use consent::CALLBACK_PATH;
pub use consent::ConsentProof;
pub use consent::OauthConsent;
pub use discovery::Discovered;
pub use discovery::OauthDiscovery;
pub use discovery::clear_discovery;
pub use oauth::ClientAuth;
pub use oauth::ExchangeSubject;
pub use oauth::OauthAssertion;
pub use oauth::OauthClient;
pub use oauth::OauthExchange;
pub(crate) use oauth::is_plain;
pub use registration::ClientMetadata;
pub use registration::Management;
pub use registration::OauthRegistration;
pub use registration::Registration;
pub use spiffe::SpiffeJwt;
pub use spiffe::SpiffeX509;
pub use vault::VaultDatabase;
pub use vault::VaultKv;
pub use vault::VaultLogin;
pub use vault::VaultPath;
pub use vault::VaultServer;

/// Why a recipe cannot be stored: which of its fields says what it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecipeRefused(pub &'static str);
