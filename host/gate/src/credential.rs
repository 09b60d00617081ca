//! A credential's record: everything about it but its values, which are here as sealed bytes that
//! this room cannot open.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::Placement;
use keybearer_contract::SigningAlgorithm;
use keybearer_contract::Signs;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::AwsRole;
use crate::AwsSecret;
use crate::ClientAuth;
use crate::OauthAssertion;
use crate::OauthClient;
use crate::OauthExchange;
use crate::PrincipalLabel;
use crate::RecipeRefused;
use crate::Registration;
use crate::SpiffeId;
use crate::SpiffeJwt;
use crate::SpiffeX509;
use crate::Terms;
use crate::VaultDatabase;
use crate::VaultKv;
use crate::VaultLogin;

/// Bytes sealed by the strongbox. Opaque everywhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Arc<[u8]>);

/// What kind of thing a credential holds, and so what its value must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialKind {
    /// One token, for `Authorization: Bearer`.
    Bearer,
    /// `user:password` (RFC 7617).
    Basic,
    /// The value of a header of its own.
    Header,
    /// The value of a query parameter.
    Query,
    /// An access key of AWS: its id, its secret and, where it is a session's, the session token, on lines of their
    /// own. It signs, and is itself on no request but for the session token.
    AwsKeys,
    /// The key of a MAC: its text is the key, byte for byte. It is itself on no request.
    HmacKey,
    /// A private key that signs JWTs. It is itself on no request.
    JwtKey(JwtKey),
    /// A recipe: the client secret is the value; an access token is minted with it (RFC 6749 §4.4) and
    /// is what goes out, as a bearer.
    OauthClientCredentials(OauthClient),
    /// A recipe: the value is a refresh token, in a line after the client's secret or key unless the client is a
    /// public one. Access tokens are minted with it (RFC 6749 §6); a new refresh token that comes with one is stored
    /// as the next version before the access token is used.
    OauthRefreshToken(OauthClient),
    /// A recipe: the value is an access key of AWS, which reads a secret of Secrets Manager; that goes out.
    AwsSecret(AwsSecret),
    /// A recipe: a token is exchanged for one of another audience, resource or scope (RFC 8693). The value is the
    /// client's secret or key and the token, as for a refresh token; or without the token, where it is minted first.
    OauthTokenExchange(OauthExchange),
    /// A recipe: the value is a private key; what it signs is exchanged for an access token (RFC 7523 §2.1).
    OauthJwtBearer(OauthAssertion),
    /// A recipe: the value is an access key of AWS, or a JWT that AWS trusts; what goes out is the access key of a session in
    /// a role, which signs.
    AwsRole(AwsRole),
    /// A recipe: the value logs in to a server of the Vault API; what stands under a key of its KV 2 engine goes out.
    VaultKv(VaultKv),
    /// A recipe: the value logs in there, too; an account of a database that its database engine made goes out.
    VaultDatabase(VaultDatabase),
    /// A recipe without a value: the newest X.509-SVID that the Workload API gave the host under this id is what the
    /// connection proves.
    SpiffeX509(SpiffeX509),
    /// A recipe without a value: a JWT-SVID of the Workload API goes out, as a bearer.
    SpiffeJwt(SpiffeJwt),
}

/// What is known of a private key that signs JWTs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtKey {
    /// What it signs by, as its slot must say.
    pub alg: SigningAlgorithm,
    /// The key's id, for the header; where its upstream has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
}

/// What a stored value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredForm {
    /// Printable text.
    Text,
    /// `user:password`, `role_id:secret_id`: two texts with a colon between them.
    Pair,
    /// One private key and its chain of certificates in PEM.
    Identity,
    /// An access key of AWS, on two or three lines.
    AwsKeys,
    /// A private key for this algorithm, in PEM or as a JWK.
    Key(SigningAlgorithm),
    /// A client's secret, or a private key for this algorithm; and on a line of its own, the last, a token.
    KeyAndToken(Option<SigningAlgorithm>),
    /// There is none: the host's own identity is all that is needed.
    Nothing,
}

/// What goes out: by form, whatever it was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Yields {
    /// One token, for `Authorization: Bearer`.
    Bearer,
    /// `user:password` (RFC 7617).
    Basic,
    /// The value of a header of its own.
    Header,
    /// The value of a query parameter.
    Query,
    /// An access key of AWS, which signs (see [`CredentialKind::AwsKeys`]).
    AwsKeys,
    /// One private key and its chain of certificates in PEM, which a connection proves.
    Identity,
    /// The key of a MAC (see [`CredentialKind::HmacKey`]).
    HmacKey,
    /// A private key that signs JWTs. Stored, and never fetched: no recipe says this.
    #[serde(skip)]
    JwtKey(SigningAlgorithm),
}

impl Yields {
    /// Whether this goes there.
    #[must_use]
    pub fn fits(self, placement: &Placement) -> bool {
        match (self, placement) {
            (Self::Bearer, Placement::Bearer)
            | (Self::Basic, Placement::Basic)
            | (Self::Header, Placement::Header { .. })
            | (Self::Query, Placement::Query { .. })
            | (Self::AwsKeys, Placement::Sigv4 { .. })
            | (Self::HmacKey, Placement::Hmac(_))
            | (Self::Identity, Placement::MutualTls) => true,
            (Self::JwtKey(alg), Placement::Jwt(jwt)) => alg == jwt.algorithm,
            (_, Placement::Function(function)) => match &function.signs {
                Signs::Hmac(_) => self == Self::HmacKey,
                Signs::Jwt(jwt) => self == Self::JwtKey(jwt.algorithm),
                Signs::Sigv4(_) => self == Self::AwsKeys,
            },
            _ => false,
        }
    }
}

impl CredentialKind {
    /// The name of every kind, as `kind` says it.
    pub const NAMES: &'static [&'static str] = &[
        "bearer",
        "basic",
        "header",
        "query",
        "aws_keys",
        "hmac_key",
        "jwt_key",
        "oauth_client_credentials",
        "oauth_refresh_token",
        "aws_secret",
        "oauth_token_exchange",
        "oauth_jwt_bearer",
        "aws_role",
        "vault_kv",
        "vault_database",
        "spiffe_x509",
        "spiffe_jwt",
    ];

    /// What goes out of this kind of credential.
    #[must_use]
    pub fn yields(&self) -> Yields {
        match self {
            Self::Bearer
            | Self::OauthClientCredentials(_)
            | Self::OauthRefreshToken(_)
            | Self::OauthTokenExchange(_)
            | Self::OauthJwtBearer(_)
            | Self::SpiffeJwt(_) => Yields::Bearer,
            Self::Basic => Yields::Basic,
            Self::Header => Yields::Header,
            Self::Query => Yields::Query,
            Self::AwsKeys | Self::AwsRole(_) => Yields::AwsKeys,
            Self::HmacKey => Yields::HmacKey,
            Self::JwtKey(key) => Yields::JwtKey(key.alg),
            Self::AwsSecret(recipe) => recipe.yields,
            Self::VaultKv(recipe) => recipe.yields,
            Self::VaultDatabase(recipe) => recipe.yields,
            Self::SpiffeX509(_) => Yields::Identity,
        }
    }

    /// Looks at a recipe before it is stored.
    ///
    /// # Errors
    /// [`RecipeRefused`] says which field must not be as it is.
    pub fn check(&self) -> Result<(), RecipeRefused> {
        match self {
            Self::Bearer | Self::Basic | Self::Header | Self::Query | Self::AwsKeys | Self::HmacKey => Ok(()),
            Self::JwtKey(JwtKey { kid: Some(kid), .. }) if !crate::recipe::is_plain(kid) => {
                Err(RecipeRefused("the key's id is 1 to 1024 printable characters"))
            }
            Self::JwtKey(_) => Ok(()),
            Self::OauthClientCredentials(client) if client.client_auth == ClientAuth::None => {
                Err(RecipeRefused("client credentials are for a client that proves itself"))
            }
            Self::OauthClientCredentials(client) | Self::OauthRefreshToken(client) => client.check(),
            Self::AwsSecret(recipe) => recipe.check(),
            Self::OauthTokenExchange(exchange) => exchange.check(),
            Self::OauthJwtBearer(assertion) => assertion.check(),
            Self::AwsRole(recipe) => recipe.check(),
            Self::VaultKv(recipe) => recipe.check(),
            Self::VaultDatabase(recipe) => recipe.server.check(),
            // An id that was read is a good one.
            Self::SpiffeX509(_) => Ok(()),
            Self::SpiffeJwt(recipe) => recipe.check(),
        }
    }

    /// What the stored value must look like.
    #[must_use]
    pub fn stored(&self) -> StoredForm {
        match self {
            Self::Basic => StoredForm::Pair,
            Self::VaultKv(VaultKv { server, .. }) | Self::VaultDatabase(VaultDatabase { server, .. }) => {
                server.login.stored()
            }
            Self::AwsKeys => StoredForm::AwsKeys,
            Self::AwsSecret(recipe) => recipe.role.as_ref().map_or(StoredForm::AwsKeys, |role| role.proof.stored()),
            Self::AwsRole(recipe) => recipe.proof.stored(),
            Self::OauthClientCredentials(client) => client.key_form(),
            Self::OauthRefreshToken(client) => client.token_form(),
            Self::OauthTokenExchange(exchange) => exchange.stored(),
            Self::OauthJwtBearer(assertion) => StoredForm::Key(assertion.alg),
            Self::JwtKey(key) => StoredForm::Key(key.alg),
            Self::Bearer | Self::Header | Self::Query | Self::HmacKey => StoredForm::Text,
            Self::SpiffeX509(_) | Self::SpiffeJwt(_) => StoredForm::Nothing,
        }
    }

    /// The id whose X.509-SVID it uses, be it towards its source or towards an upstream.
    #[must_use]
    pub fn x509_svid(&self) -> Option<&SpiffeId> {
        match self {
            Self::SpiffeX509(recipe) => Some(&recipe.spiffe_id),
            Self::VaultKv(VaultKv { server, .. }) | Self::VaultDatabase(VaultDatabase { server, .. }) => {
                match &server.login {
                    VaultLogin::SpiffeX509 { spiffe_id, .. } => Some(spiffe_id),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether what goes out is fetched or minted with what is stored; otherwise it is what is stored.
    #[must_use]
    pub fn is_recipe(&self) -> bool {
        !matches!(
            self,
            Self::Bearer | Self::Basic | Self::Header | Self::Query | Self::AwsKeys | Self::HmacKey | Self::JwtKey(_)
        )
    }

    /// Whether what is stored is replaced by what its source answers: then what is minted is one for all runs, for
    /// two requests at once would use one value twice.
    #[must_use]
    pub fn renews_itself(&self) -> bool {
        matches!(self, Self::OauthRefreshToken(_))
    }

    /// The OAuth client whose id and secret go out as one pair.
    #[must_use]
    pub fn basic_client(&self) -> Option<&str> {
        let client = self.oauth_client()?;
        (client.client_auth == ClientAuth::ClientSecretBasic).then_some(client.client_id.as_str())
    }

    /// Whether what is minted names the tool for whose call it is, so that no other one uses it.
    #[must_use]
    pub fn names_the_tool(&self) -> bool {
        matches!(self, Self::AwsRole(_))
    }

    /// Whether its source may come to hold another value without telling: what was fetched is used for a short time
    /// only, unless something watches.
    #[must_use]
    pub fn changes_unseen(&self) -> bool {
        match self {
            Self::AwsSecret(_) => true,
            Self::VaultKv(recipe) => recipe.version.is_none(),
            _ => false,
        }
    }

    /// Whether its source is listened to, and tells of a change by itself.
    #[must_use]
    pub fn listens(&self) -> bool {
        matches!(self, Self::VaultKv(recipe) if recipe.events)
    }

    /// Whether its value comes from the place that this reference names, as its source writes it.
    #[must_use]
    pub fn is_fetched_from(&self, reference: &str) -> bool {
        match self {
            Self::AwsSecret(recipe) => recipe.is_at(reference),
            Self::VaultKv(recipe) => recipe.is_at(reference),
            _ => false,
        }
    }

    /// Whether what is stored is a refresh token (RFC 6749 §1.5).
    #[must_use]
    pub fn holds_refresh_token(&self) -> bool {
        matches!(self, Self::OauthRefreshToken(_))
    }

    /// Whether this kind of credential fits that placement.
    #[must_use]
    pub fn fits(&self, placement: &Placement) -> bool {
        // Of a role there are sessions only: the token of one would stand in the URL that is signed.
        let is_session = matches!((self, placement), (Self::AwsRole(_), Placement::Function(_)));
        self.yields().fits(placement) && !is_session
    }
}

/// Whether a credential may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// It may.
    Active,
    /// Never again.
    Revoked,
    /// Not until its account has authorized it: what is stored is what is needed for that.
    Pending,
    /// Not until its account authorizes it again, or a new value is stored: its issuer takes the one that is stored
    /// no more.
    Reauthorise,
}

/// How a credential stands at a time: its state, or that its end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may be used.
    Active,
    /// Its end has come; it may be given a later one.
    Expired,
    /// As [`CredentialState::Revoked`].
    Revoked,
    /// As [`CredentialState::Pending`].
    Pending,
    /// As [`CredentialState::Reauthorise`].
    Reauthorise,
}

/// The state of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// The one that dispatches use.
    Current,
    /// Rotated out: not put on a request any more, still scrubbed from answers.
    Retired,
    /// Revoked: not put on a request any more, still scrubbed from answers.
    Revoked,
    /// Its bytes are gone.
    Destroyed,
}

/// One value of a credential, sealed.
#[derive(Clone, Serialize, Deserialize)]
pub struct VersionRecord {
    /// 1, 2, 3, …
    pub version: u32,
    /// The value, sealed under the tenant's data key; empty once destroyed.
    pub sealed: Sealed,
    /// Keyed blake3 of the value, to find the same value elsewhere.
    pub fingerprint: [u8; 32],
    /// When it was stored.
    pub created: UnixMillis,
    /// Its state.
    pub state: VersionState,
}

/// How long a version that was rotated out stays one to which its tenant can go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Which version.
    pub version: u32,
    /// Until then.
    pub until: UnixMillis,
    /// Whether its bytes stay afterwards, to be scrubbed from answers; else they are destroyed then.
    pub pinned: bool,
}

/// A renewal of the stored value that was begun: written down before its source is asked, and gone when the new value
/// is stored. One that stays says that the value may have been used up and the answer lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The version that is being replaced.
    pub version: u32,
    /// When.
    pub since: UnixMillis,
    /// By which process.
    pub process: String,
}

/// An account is being asked for its consent: what is needed when its browser comes back. Asking anew replaces it.
#[derive(Clone, Serialize, Deserialize)]
pub struct AwaitedConsent {
    /// Names it: a part of the `state` that the browser brings back.
    pub name: String,
    /// Who had the account asked.
    pub by: PrincipalLabel,
    /// Where the browser is sent back to.
    pub redirect_uri: String,
    /// The code verifier, and the client's secret or key.
    pub sealed: Sealed,
    /// The credential's epoch: what is answered is for the credential as it was then.
    pub epoch: u64,
    /// When it ends.
    pub until: UnixMillis,
}

/// A credential, without its values.
#[derive(Clone, Serialize, Deserialize)]
pub struct CredentialRecord {
    /// The id.
    pub id: CredentialId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it; unique within the tenant.
    pub name: String,
    /// What kind it is.
    pub kind: CredentialKind,
    /// Who answers for it.
    pub owner: String,
    /// Why it is here.
    pub justification: String,
    /// When it ends.
    pub expires: Option<UnixMillis>,
    /// Whether it may be used.
    pub state: CredentialState,
    /// Raised by every rotation and revocation, never lowered.
    pub epoch: u64,
    /// When it was made.
    pub created: UnixMillis,
    /// Its versions, oldest first.
    pub versions: Vec<VersionRecord>,
    /// The versions that were rotated out a short time ago, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlaps: Vec<Overlap>,
    /// A renewal that is under way, or was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
    /// On which terms it is held.
    #[serde(default)]
    pub terms: Terms,
    /// What is known of its client, if this host registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// What its account was asked and has not answered yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consent: Option<AwaitedConsent>,
}

impl CredentialRecord {
    /// The version that a dispatch would use at this time; none if it is revoked, expired or blank.
    #[must_use]
    pub fn current(&self, now: UnixMillis) -> Option<&VersionRecord> {
        if self.state != CredentialState::Active || self.expires.is_some_and(|end| end <= now) {
            return None;
        }
        self.versions.iter().rfind(|version| version.state == VersionState::Current)
    }

    /// How it stands at this time.
    #[must_use]
    pub fn standing(&self, now: UnixMillis) -> Standing {
        match self.state {
            CredentialState::Revoked => Standing::Revoked,
            _ if self.expires.is_some_and(|end| end <= now) => Standing::Expired,
            CredentialState::Active => Standing::Active,
            CredentialState::Pending => Standing::Pending,
            CredentialState::Reauthorise => Standing::Reauthorise,
        }
    }

    /// When its current version is to be replaced at the latest; none if there is none.
    #[must_use]
    pub fn rotation_due(&self) -> Option<UnixMillis> {
        let current = self.versions.iter().rfind(|version| version.state == VersionState::Current)?;
        Some(self.terms.rotation.due(current.created))
    }

    /// Until when the tenant can go back to a version; none if it was never to be, or if the time is over.
    #[must_use]
    pub fn overlap_of(&self, version: u32, now: UnixMillis) -> Option<&Overlap> {
        self.overlaps.iter().find(|overlap| overlap.version == version && now < overlap.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_kinds_are_those_that_are_read() {
        let unknown = serde_json::json!({ "kind": "none of them" });
        let refused = serde_json::from_value::<CredentialKind>(unknown).expect_err("unknown").to_string();
        let (_, names) = refused.split_once("expected one of ").expect("it lists them");
        let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        assert_eq!(names, CredentialKind::NAMES);
    }
}
