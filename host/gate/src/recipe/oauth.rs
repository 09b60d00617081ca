//! OAuth recipes: a client of an authorization server, how it proves who it is, and what it asks for. Every
//! endpoint is pinned here: written by whoever stores the credential, or found once when it is stored, checked and frozen
//! (see `discovery`). None is taken from an answer later (threats P11).

use keybearer_contract::Scheme;
use keybearer_contract::SigningAlgorithm;
use serde::Deserialize;
use serde::Serialize;

use crate::Assertion;
use crate::Auth;
use crate::Field;
use crate::Ingredient;
use crate::RecipeRefused;
use crate::StoredForm;
use crate::Target;

/// The longest text of a recipe, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;

/// A client assertion lives for this long, in seconds: a request takes less, and the shorter the better (RFC 7523 §3).
const ASSERTION_S: u64 = 60;

/// RFC 7523 §2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The public part of an OAuth client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// The token endpoint, pinned: written by who stores it, or found once and frozen (threats P11).
    pub token_url: Target,
    /// `client_id`. Empty for a client that is still to be registered: nothing is stored for use without one.
    #[serde(default)]
    pub client_id: String,
    /// How the client proves who it is (RFC 7591 §2 `token_endpoint_auth_method`); by `client_secret_basic` if
    /// nothing is said.
    #[serde(default, skip_serializing_if = "ClientAuth::is_default")]
    pub client_auth: ClientAuth,
    /// Space-separated scopes (RFC 6749 §3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// RFC 8707 `resource`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `audience` (RFC 8693 §2.1; some servers take it with every grant).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The issuer's identifier, as it stands in `iss` (RFC 8414 §2): what an authorization's answer must name
    /// (RFC 9207), and whom a client assertion is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whether an authorization's answer names the issuer (RFC 9207 §3); it must, where nothing is said and the issuer is
    /// named here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss_in_response: Option<bool>,
    /// Where tokens are given back (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_url: Option<Target>,
    /// Where a token's state can be asked for (RFC 7662).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection_url: Option<Target>,
}

/// How a client proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuth {
    /// Id and secret in the header `Authorization` (RFC 6749 §2.3.1).
    #[default]
    ClientSecretBasic,
    /// Id and secret in the form.
    ClientSecretPost,
    /// A JWT signed by the client's private key (RFC 7523 §2.2): the stored value is the key, in PEM or as a JWK.
    PrivateKeyJwt {
        /// The algorithm.
        alg: SigningAlgorithm,
        /// The key's id in the client's key set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kid: Option<String>,
    },
    /// It does not: a public client names itself.
    None,
}

impl ClientAuth {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl OauthClient {
    /// A client that proves itself by its secret, and asks for nothing in particular.
    #[must_use]
    pub fn new(token_url: Target, client_id: impl Into<String>) -> Self {
        Self {
            token_url,
            client_id: client_id.into(),
            client_auth: ClientAuth::default(),
            scope: None,
            resource: None,
            audience: None,
            issuer: None,
            iss_in_response: None,
            revocation_url: None,
            introspection_url: None,
        }
    }

    /// What the client adds to its requests at the issuer: a proof, and fields of the form.
    #[must_use]
    pub fn proof(&self, key: Ingredient) -> (Auth, Vec<(&'static str, Field)>) {
        let named = ("client_id", Field::Text(self.client_id.clone()));
        match &self.client_auth {
            ClientAuth::ClientSecretBasic => (Auth::Client { id: self.client_id.clone(), secret: key }, Vec::new()),
            ClientAuth::ClientSecretPost => (Auth::None, vec![named, ("client_secret", Field::Secret(key))]),
            ClientAuth::None => (Auth::None, vec![named]),
            ClientAuth::PrivateKeyJwt { alg, kid } => {
                let assertion = Assertion {
                    alg: *alg,
                    key: Box::new(key),
                    kid: kid.clone(),
                    issuer: self.client_id.clone(),
                    subject: self.client_id.clone(),
                    audience: self.whom(),
                    life_s: ASSERTION_S,
                };
                let assertion = Field::Secret(Ingredient::Assertion(Box::new(assertion)));
                (Auth::None, vec![named, ("client_assertion_type", JWT_BEARER.into()), ("client_assertion", assertion)])
            }
        }
    }

    /// The form of a stored value that is the client's secret or key and nothing else.
    pub(crate) fn key_form(&self) -> StoredForm {
        match &self.client_auth {
            ClientAuth::PrivateKeyJwt { alg, .. } => StoredForm::Key(*alg),
            _ => StoredForm::Text,
        }
    }

    /// The form of a stored value that holds a token beside what proves the client.
    pub(crate) fn token_form(&self) -> StoredForm {
        match &self.client_auth {
            ClientAuth::None => StoredForm::Text,
            ClientAuth::PrivateKeyJwt { alg, .. } => StoredForm::KeyAndToken(Some(*alg)),
            _ => StoredForm::KeyAndToken(None),
        }
    }

    /// Where the client's secret or key, and the token, are in a stored value of that form.
    #[must_use]
    pub fn key_and_token(&self) -> (Ingredient, Ingredient) {
        match &self.client_auth {
            ClientAuth::None => (Ingredient::Stored, Ingredient::Stored),
            _ => (Ingredient::StoredOtherLines, Ingredient::StoredLastLine),
        }
    }

    /// Whom an assertion is for: the issuer, or its token endpoint where the issuer is not named (RFC 7523 §3).
    #[must_use]
    pub fn whom(&self) -> String {
        self.issuer.clone().unwrap_or_else(|| self.token_url.to_string())
    }

    /// Whether an authorization's answer with this `iss` may be its issuer's (RFC 9207 §2.4).
    #[must_use]
    pub fn is_answered_by(&self, issuer: Option<&str>) -> bool {
        match (self.issuer.as_deref(), issuer) {
            (None, _) => true,
            (Some(known), Some(named)) => known == named,
            (Some(_), None) => self.iss_in_response == Some(false),
        }
    }

    /// Whether this can be stored.
    ///
    /// # Errors
    /// [`RecipeRefused`].
    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        let urls = [Some(&self.token_url), self.revocation_url.as_ref(), self.introspection_url.as_ref()];
        if !urls.into_iter().flatten().all(|url| url.destination().scheme() == Scheme::Https) {
            return Err(RecipeRefused("`token_url`, `revocation_url` and `introspection_url` begin with `https://`"));
        }
        if self.client_id.is_empty() {
            return Err(RecipeRefused("`client_id` is missing"));
        }
        let optional = [&self.scope, &self.resource, &self.audience, &self.issuer];
        let kid = match &self.client_auth {
            ClientAuth::PrivateKeyJwt { kid, .. } => kid.as_ref(),
            _ => None,
        };
        let texts = optional.into_iter().flatten().chain(kid).chain([&self.client_id]);
        if !texts.into_iter().all(|text| is_plain(text)) {
            return Err(TEXT);
        }
        Ok(())
    }
}

/// A token exchange (RFC 8693 §2.1). What comes of it is bounded by the client's `scope`, `resource` and `audience`,
/// which nobody who calls can change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthExchange {
    /// Who asks, and for what.
    pub client: OauthClient,
    /// What is exchanged.
    #[serde(default)]
    pub subject: ExchangeSubject,
    /// What kind of token that is; an access token, if nothing is said.
    #[serde(default = "access_token")]
    pub subject_token_type: String,
}

/// What is exchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeSubject {
    /// The stored token.
    #[default]
    Stored,
    /// An access token that the client is given for itself, just before.
    ClientCredentials,
}

/// RFC 8693 §3.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

fn access_token() -> String {
    ACCESS_TOKEN.to_owned()
}

impl OauthExchange {
    pub(crate) fn stored(&self) -> StoredForm {
        match self.subject {
            ExchangeSubject::Stored => self.client.token_form(),
            ExchangeSubject::ClientCredentials => self.client.key_form(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        self.client.check()?;
        if self.subject == ExchangeSubject::ClientCredentials && self.client.client_auth == ClientAuth::None {
            return Err(RecipeRefused("client credentials are for a client that proves itself"));
        }
        if is_plain(&self.subject_token_type) { Ok(()) } else { Err(TEXT) }
    }
}

/// An assertion as a grant (RFC 7523 §2.1): the host says, signed, for whom it asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthAssertion {
    /// Who asks, and for what; a public client, or one that proves itself by the same key.
    pub client: OauthClient,
    /// How the assertion is signed.
    pub alg: SigningAlgorithm,
    /// The key's id, where its issuer has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `iss`; the client's id, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_issuer: Option<String>,
    /// `sub`: the account.
    pub subject: String,
}

impl OauthAssertion {
    /// What is signed, by what is stored.
    #[must_use]
    pub fn assertion(&self) -> Assertion {
        Assertion {
            alg: self.alg,
            key: Box::new(Ingredient::Stored),
            kid: self.kid.clone(),
            issuer: self.assertion_issuer.clone().unwrap_or_else(|| self.client.client_id.clone()),
            subject: self.subject.clone(),
            audience: self.client.whom(),
            life_s: ASSERTION_S,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        self.client.check()?;
        let is_same_key = match &self.client.client_auth {
            ClientAuth::None => true,
            ClientAuth::PrivateKeyJwt { alg, .. } => *alg == self.alg,
            _ => false,
        };
        if !is_same_key {
            return Err(RecipeRefused(
                "`client_auth` of an assertion is `none`, or `private_key_jwt` with the same key",
            ));
        }
        let mut texts = [&self.kid, &self.assertion_issuer].into_iter().flatten().chain([&self.subject]);
        if texts.all(|text| is_plain(text)) { Ok(()) } else { Err(TEXT) }
    }
}

const TEXT: RecipeRefused = RecipeRefused("a text of the recipe is 1 to 1024 printable ASCII characters");

/// RFC 6749 appendix A: VSCHAR, and what URIs and lists of scopes are made of.
pub(crate) fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
