//! Registration of a client (RFC 7591): where, as what, and what is kept so that the client can be taken back (RFC
//! 7592). All of it but the client's own id is written by whoever onboards the credential; the place where the client is
//! managed comes out of an answer, and is kept only if it lies where the registration went.

use keybearer_contract::Scheme;
use keybearer_contract::SigningAlgorithm;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::de::Error as _;
use serde_json::Value;
use serde_json::json;

use crate::ClientAuth;
use crate::CredentialKind;
use crate::ExchangeSubject;
use crate::Field;
use crate::OauthClient;
use crate::RecipeRefused;
use crate::Sealed;
use crate::Target;
use crate::recipe::oauth::is_plain;

/// RFC 8693 §2.1, RFC 7523 §2.1.
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The longest name of a client, in bytes: what fits a line on the page where accounts consent.
const NAME_BYTES_MAX: usize = 200;

/// Addresses at which a client's people are reached.
const CONTACTS_MAX: usize = 8;

/// A software statement is a JWT of a few claims (RFC 7591 §2.3).
const STATEMENT_BYTES_MAX: usize = 8 << 10;

/// A client that is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthRegistration {
    /// The registration endpoint.
    pub registration_url: Target,
    /// What its issuer is told of it.
    pub client: ClientMetadata,
}

/// What an issuer is told of a client, beside what its recipe says (RFC 7591 §2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientMetadata {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// A page about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<String>,
    /// How its people are reached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<String>,
    /// Its terms of service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos_uri: Option<String>,
    /// What it does with what it learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_uri: Option<String>,
    /// Which software it is, the same for all who run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_id: Option<String>,
    /// Which version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_version: Option<String>,
    /// What somebody whom the issuer trusts signed about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software_statement: Option<String>,
}

/// What is known of a client that this host registered.
#[derive(Clone, Serialize, Deserialize)]
pub struct Registration {
    /// Where.
    pub registration_url: Target,
    /// When.
    pub at: UnixMillis,
    /// How the client is taken back; none if its issuer gave no way, or it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
}

/// How a client is managed (RFC 7592 §2).
#[derive(Clone, Serialize, Deserialize)]
pub struct Management {
    /// `registration_client_uri`, sealed under the tenant's data key: some issuers put a token into it.
    #[serde(deserialize_with = "sealed")]
    pub url: Sealed,
    /// `registration_access_token`, sealed under the tenant's data key.
    pub token: Sealed,
}

/// Without a word of what is there: it may hold a token.
fn sealed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sealed, D::Error> {
    let in_the_open = "a registered client's management URL is not sealed: an earlier build wrote it";
    Sealed::deserialize(deserializer).map_err(|_| D::Error::custom(in_the_open))
}

impl OauthRegistration {
    /// Whether a client for credentials of this kind can be registered so.
    ///
    /// # Errors
    /// [`RecipeRefused`].
    pub fn check(&self, kind: &CredentialKind) -> Result<(), RecipeRefused> {
        if self.registration_url.destination().scheme() != Scheme::Https {
            return Err(RecipeRefused("`registration_url` begins with `https://`"));
        }
        let client = kind.oauth_client().filter(|_| grants_of(kind).is_some()).ok_or(RecipeRefused(
            "a client is registered for `oauth_client_credentials`, `oauth_jwt_bearer`, or an `oauth_token_exchange` of \
             its own token",
        ))?;
        if !client.client_id.is_empty() {
            return Err(RecipeRefused("`client_id` is the issuer's to say: leave it out"));
        }
        if key_of(kind).is_some_and(|(alg, kid)| alg == SigningAlgorithm::Rs256 || kid.is_some()) {
            return Err(RecipeRefused("the host makes the client's key: for ES256 or EdDSA, and names it itself"));
        }
        // As it will be, with an id in place of the issuer's.
        let mut whole = kind.clone();
        whole.set_client("registered", None);
        whole.check()?;
        self.client.check()
    }

    /// The members of the request (RFC 7591 §3.1); `key` is the public half of the key that the host made.
    #[must_use]
    pub fn members(&self, kind: &CredentialKind, key: Option<Value>) -> Vec<(&'static str, Field)> {
        let mut members = vec![
            ("grant_types", Field::Json(json!(grants_of(kind).unwrap_or_default()))),
            // No browser comes back to it; where nothing is said it would be `code` (RFC 7591 §2).
            ("response_types", Field::Json(json!([]))),
            ("redirect_uris", Field::Json(json!([]))),
        ];
        if let Some(client) = kind.oauth_client() {
            members.push(("token_endpoint_auth_method", client.client_auth.name().into()));
            members.extend(client.scope.as_deref().map(|scope| ("scope", Field::from(scope))));
            if let ClientAuth::PrivateKeyJwt { alg, .. } = &client.client_auth {
                members.push(("token_endpoint_auth_signing_alg", alg.as_str().into()));
            }
        }
        members.extend(key.map(|key| ("jwks", Field::Json(json!({ "keys": [key] })))));
        let ClientMetadata { contacts, .. } = &self.client;
        if !contacts.is_empty() {
            members.push(("contacts", Field::Json(json!(contacts))));
        }
        members.extend(self.client.texts().filter_map(|(name, text)| Some((name, Field::from(text?)))));
        members
    }
}

impl ClientMetadata {
    fn texts(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        [
            ("client_name", &self.client_name),
            ("client_uri", &self.client_uri),
            ("tos_uri", &self.tos_uri),
            ("policy_uri", &self.policy_uri),
            ("software_id", &self.software_id),
            ("software_version", &self.software_version),
            ("software_statement", &self.software_statement),
        ]
        .into_iter()
        .map(|(name, text)| (name, text.as_deref()))
    }

    fn check(&self) -> Result<(), RecipeRefused> {
        let fits = |(name, text): (&str, Option<&str>)| {
            text.is_none_or(|text| match name {
                // For people: any script.
                "client_name" => {
                    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
                }
                "software_statement" => {
                    text.len() <= STATEMENT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
                }
                _ => is_plain(text),
            })
        };
        if !self.texts().all(fits) {
            return Err(RecipeRefused(
                "what is said of the client is plain text: 200 bytes of name, 1024 of the others",
            ));
        }
        if self.contacts.len() > CONTACTS_MAX || !self.contacts.iter().all(|contact| is_plain(contact)) {
            return Err(RecipeRefused("`contacts` are 8 at the most, of printable ASCII characters"));
        }
        Ok(())
    }
}

impl Registration {
    /// Whether a client may be managed there: where it was registered, by the same scheme, host and port. What an
    /// answer names beside that is not asked (threats P11).
    #[must_use]
    pub fn may_be_managed_at(registration_url: &Target, url: &Target) -> bool {
        url.destination() == registration_url.destination() && url.destination().scheme() == Scheme::Https
    }
}

impl ClientAuth {
    /// Its name (RFC 7591 §2 `token_endpoint_auth_method`).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::None => "none",
        }
    }
}

impl CredentialKind {
    /// The client of an OAuth recipe.
    #[must_use]
    pub fn oauth_client(&self) -> Option<&OauthClient> {
        match self {
            Self::OauthClientCredentials(client) | Self::OauthRefreshToken(client) => Some(client),
            Self::OauthTokenExchange(exchange) => Some(&exchange.client),
            Self::OauthJwtBearer(assertion) => Some(&assertion.client),
            _ => None,
        }
    }

    /// The algorithm of the key that the host makes for a client that is to be registered; none for one that is given a
    /// secret.
    #[must_use]
    pub fn key_to_register(&self) -> Option<SigningAlgorithm> {
        key_of(self).map(|(alg, _)| alg)
    }

    /// The recipe of a client that was registered: its id, and that of its key.
    pub fn set_client(&mut self, id: &str, key: Option<&str>) {
        let key = key.map(str::to_owned);
        let client = match self {
            Self::OauthClientCredentials(client) | Self::OauthRefreshToken(client) => client,
            Self::OauthTokenExchange(exchange) => &mut exchange.client,
            Self::OauthJwtBearer(assertion) => {
                assertion.kid.clone_from(&key);
                &mut assertion.client
            }
            _ => return,
        };
        id.clone_into(&mut client.client_id);
        if let ClientAuth::PrivateKeyJwt { kid, .. } = &mut client.client_auth {
            *kid = key;
        }
    }
}

/// What a client of that kind is registered for; none if it is not by itself that it asks.
fn grants_of(kind: &CredentialKind) -> Option<&'static [&'static str]> {
    match kind {
        CredentialKind::OauthClientCredentials(_) => Some(&["client_credentials"]),
        CredentialKind::OauthTokenExchange(exchange) if exchange.subject == ExchangeSubject::ClientCredentials => {
            Some(&["client_credentials", TOKEN_EXCHANGE])
        }
        CredentialKind::OauthJwtBearer(_) => Some(&[JWT_BEARER]),
        _ => None,
    }
}

fn key_of(kind: &CredentialKind) -> Option<(SigningAlgorithm, Option<&str>)> {
    if let CredentialKind::OauthJwtBearer(assertion) = kind {
        return Some((assertion.alg, assertion.kid.as_deref()));
    }
    match &kind.oauth_client()?.client_auth {
        ClientAuth::PrivateKeyJwt { alg, kid } => Some((*alg, kid.as_deref())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OauthAssertion;
    use crate::OauthExchange;

    fn url(text: &str) -> Target {
        text.parse().expect("a URL")
    }

    fn registration(url: &str) -> OauthRegistration {
        OauthRegistration { registration_url: self::url(url), client: ClientMetadata::default() }
    }

    fn client(auth: ClientAuth) -> OauthClient {
        let token_url = url("https://login.example.com/token");
        OauthClient { client_auth: auth, ..OauthClient::new(token_url, "") }
    }

    fn by_key(alg: SigningAlgorithm) -> ClientAuth {
        ClientAuth::PrivateKeyJwt { alg, kid: None }
    }

    const PLACE: &str = "https://login.example.com/reg";

    // If it failed, a store of an earlier build would break the start without a word, or show the token in its URL.
    #[test]
    fn a_management_url_in_the_open_is_refused_and_not_repeated() {
        let old = r#"{"url": "https://login.example.com/reg/1?token=canary", "token": [1, 2]}"#;
        let refused = serde_json::from_str::<Management>(old).err().expect("refused").to_string();
        assert!(
            refused.contains("is not sealed: an earlier build wrote it") && !refused.contains("canary"),
            "{refused}"
        );
        assert!(serde_json::from_str::<Management>(r#"{"url": [3], "token": [1, 2]}"#).is_ok());
    }

    #[test]
    fn a_client_is_registered_for_what_its_recipe_says_and_nothing_else() {
        let kind = CredentialKind::OauthClientCredentials(OauthClient {
            scope: Some("a b".to_owned()),
            ..client(ClientAuth::default())
        });
        let asked = registration(PLACE);
        assert_eq!(asked.check(&kind), Ok(()));
        let members = asked.members(&kind, None);
        let of = |name| members.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone());
        assert_eq!(of("grant_types"), Some(Field::Json(json!(["client_credentials"]))));
        assert_eq!(of("response_types"), Some(Field::Json(json!([]))));
        assert_eq!(of("token_endpoint_auth_method"), Some("client_secret_basic".into()));
        assert_eq!((of("scope"), of("jwks"), of("client_name")), (Some("a b".into()), None, None));
        let assertion = CredentialKind::OauthJwtBearer(OauthAssertion {
            client: client(ClientAuth::None),
            alg: SigningAlgorithm::EdDsa,
            kid: None,
            assertion_issuer: None,
            subject: "anna".to_owned(),
        });
        assert_eq!((asked.check(&assertion), assertion.key_to_register()), (Ok(()), Some(SigningAlgorithm::EdDsa)));
        let members = asked.members(&assertion, Some(json!({"kty": "OKP"})));
        assert!(members.contains(&("jwks", Field::Json(json!({"keys": [{"kty": "OKP"}]})))), "{members:?}");
    }

    #[test]
    fn p11_what_cannot_be_registered_is_refused_before_anybody_is_asked() {
        let good = CredentialKind::OauthClientCredentials(client(by_key(SigningAlgorithm::Es256)));
        assert_eq!(registration(PLACE).check(&good), Ok(()));
        assert!(registration("http://login.example.com/reg").check(&good).is_err(), "in the clear");
        let named = OauthClient { client_id: "mine".to_owned(), ..client(ClientAuth::default()) };
        let stored = OauthExchange {
            client: client(ClientAuth::default()),
            subject: ExchangeSubject::Stored,
            subject_token_type: "x".to_owned(),
        };
        let cleartext = OauthClient::new(url("http://login.example.com/token"), "");
        for bad in [
            CredentialKind::Bearer,
            CredentialKind::OauthRefreshToken(client(ClientAuth::default())),
            CredentialKind::OauthTokenExchange(stored),
            CredentialKind::OauthClientCredentials(named),
            CredentialKind::OauthClientCredentials(client(ClientAuth::None)),
            CredentialKind::OauthClientCredentials(client(by_key(SigningAlgorithm::Rs256))),
            CredentialKind::OauthClientCredentials(cleartext),
        ] {
            assert!(registration(PLACE).check(&bad).is_err(), "{bad:?}");
        }
        for metadata in [
            json!({"client_name": "a\nb"}),
            json!({"client_uri": "x".repeat(1025)}),
            json!({"contacts": vec!["a@example.com"; 9]}),
            json!({"software_statement": "a b"}),
        ] {
            let client = serde_json::from_value(metadata).expect("metadata");
            assert!(OauthRegistration { client, ..registration(PLACE) }.check(&good).is_err());
        }
        assert!(serde_json::from_value::<ClientMetadata>(json!({"client_secret": "mine"})).is_err());
    }

    #[test]
    fn p11_a_client_is_managed_where_it_was_registered_and_nowhere_else() {
        let at = |text: &str| Registration::may_be_managed_at(&url(PLACE), &url(text));
        assert!(at("https://login.example.com/reg/abc") && at("https://login.example.com/clients?client_id=abc"));
        for elsewhere in [
            "https://example.com/reg/abc",
            "https://inside.login.example.com/reg/abc",
            "https://login.example.com:8443/reg/abc",
            "http://login.example.com/reg/abc",
        ] {
            assert!(!at(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn a_registered_clients_recipe_has_its_id_and_the_id_of_its_key() {
        let mut kind = CredentialKind::OauthClientCredentials(client(by_key(SigningAlgorithm::Es256)));
        assert!(kind.check().is_err(), "nothing is stored without an id");
        kind.set_client("abc", Some("key-1"));
        assert_eq!(kind.check(), Ok(()));
        let client = kind.oauth_client().expect("a client");
        assert_eq!(client.client_id, "abc");
        let expected = ClientAuth::PrivateKeyJwt { alg: SigningAlgorithm::Es256, kid: Some("key-1".to_owned()) };
        assert_eq!(client.client_auth, expected);
    }
}
