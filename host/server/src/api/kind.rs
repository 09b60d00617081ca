//! What kind a new credential is, as a body says it: whole, or by an issuer whose metadata says the rest.

use keybearer_contract::Problem;
use keybearer_executor::Executor;
use keybearer_gate::CredentialKind;
use keybearer_gate::OauthDiscovery;
use keybearer_gate::Target;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;

/// What kind a new credential is.
pub(crate) enum Kind {
    Whole(Box<CredentialKind>),
    /// Its endpoints are still to be found.
    ByIssuer(Box<OauthDiscovery>),
}

/// It, whole, and what was found beside it.
pub(crate) struct Found {
    pub(crate) kind: CredentialKind,
    pub(crate) authorize_url: Option<Target>,
    pub(crate) registration_url: Option<Target>,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = serde_json::Value::deserialize(deserializer)?;
        let refused = |why| D::Error::custom(format_args!("not a kind of credential: {why}"));
        match OauthDiscovery::of(&written).map_err(refused)? {
            Some(discovery) => Ok(Self::ByIssuer(Box::new(discovery))),
            None => {
                CredentialKind::deserialize(written).map(|kind| Self::Whole(Box::new(kind))).map_err(D::Error::custom)
            }
        }
    }
}

impl Kind {
    /// Asks the issuer, where something is still to be found, for a credential of this name.
    pub(crate) async fn found(
        self,
        executor: &Executor,
        context: &TenantContext,
        name: &str,
    ) -> Result<Found, Problem> {
        match self {
            Self::Whole(kind) => Ok(Found { kind: *kind, authorize_url: None, registration_url: None }),
            Self::ByIssuer(discovery) => {
                let found = executor.discover(context, name, &discovery).await?;
                let (authorize_url, registration_url) = (found.authorize_url, found.registration_url);
                Ok(Found { kind: found.kind, authorize_url, registration_url })
            }
        }
    }
}

/// Where accounts are asked, or clients are registered: as a body says, or else as was found.
pub(crate) fn named(body: Option<Target>, found: Option<Target>, what: &str) -> Result<Target, Problem> {
    let missing = || Problem::new(keybearer_contract::Code::MalformedRequest, format!("`{what}` is missing"));
    body.or(found).ok_or_else(missing)
}
