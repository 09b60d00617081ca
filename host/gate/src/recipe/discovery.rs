//! Discovery (RFC 8414, OpenID Connect Discovery 1.0): a recipe that names its issuer in place of its endpoints. What the
//! issuer's metadata says is held against the issuer's name and against the hosts that the administrator allows, and is
//! frozen in the recipe: nothing is looked up again (threats P11).

use keybearer_contract::Host;
use keybearer_contract::Method;
use keybearer_contract::Scheme;
use serde_json::Map;
use serde_json::Value;

use crate::Cleared;
use crate::ClearedParts;
use crate::CredentialKind;
use crate::Exchange;
use crate::Facts;
use crate::RecipeRefused;
use crate::Refusal;
use crate::Target;
use crate::recipe::oauth::is_plain;

/// Hosts beside the issuer's own that its endpoints may be on.
const HOSTS_MAX: usize = 8;

/// A recipe without endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct OauthDiscovery {
    issuer: String,
    /// RFC 8414 §3.1 and OpenID Connect Discovery §4, in the order in which they are asked.
    places: [Target; 2],
    hosts: Vec<Host>,
    /// The recipe as it was written.
    draft: Value,
}

/// A recipe whose endpoints were found.
#[derive(Debug, Clone, PartialEq)]
pub struct Discovered {
    /// The recipe, whole.
    pub kind: CredentialKind,
    /// Where accounts are asked.
    pub authorize_url: Option<Target>,
    /// Where clients are registered.
    pub registration_url: Option<Target>,
}

/// The members of metadata that are read (RFC 8414 §2, RFC 9207 §3).
const MEMBERS: [&str; 7] = [
    "issuer",
    "token_endpoint",
    "authorization_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
    "introspection_endpoint",
    "authorization_response_iss_parameter_supported",
];

impl OauthDiscovery {
    /// Looks whether this recipe names an issuer in place of its token endpoint; none for any other one.
    ///
    /// # Errors
    /// [`RecipeRefused`] for an issuer that has no metadata, and for hosts that are none.
    pub fn of(kind: &Value) -> Result<Option<Self>, RecipeRefused> {
        let mut draft = kind.clone();
        let Some(client) = client_of(&mut draft) else { return Ok(None) };
        let hosts = client.remove("endpoint_hosts");
        let issuer = client.get("issuer").and_then(Value::as_str).map(str::to_owned);
        let (false, Some(issuer)) = (client.contains_key("token_url"), issuer) else { return Ok(None) };
        let hosts: Vec<Host> = match hosts {
            None => Vec::new(),
            Some(hosts) => serde_json::from_value(hosts)
                .map_err(|_| RecipeRefused("`endpoint_hosts` is a list of lower-case names of hosts"))?,
        };
        if hosts.len() > HOSTS_MAX {
            return Err(RecipeRefused("`endpoint_hosts` are 8 at the most"));
        }
        Ok(Some(Self { places: places(&issuer)?, issuer, hosts, draft }))
    }

    /// The requests for the metadata, in the order in which they are tried.
    #[must_use]
    pub fn exchanges(&self) -> [Exchange; 2] {
        self.places.clone().map(|place| {
            MEMBERS.into_iter().fold(Exchange::new(Method::Get, place), |asked, name| asked.tells(name, &[name]))
        })
    }

    /// The recipe with what the metadata says, by its own names. What the administrator wrote himself stays.
    ///
    /// # Errors
    /// [`RecipeRefused`] if the metadata is another issuer's, lacks the token endpoint, or names one that is in the clear
    /// or on a host that is neither the issuer's nor allowed.
    pub fn recipe<'told>(&self, said: impl Fn(&str) -> Option<&'told str>) -> Result<Discovered, RecipeRefused> {
        if said("issuer") != Some(self.issuer.as_str()) {
            return Err(RecipeRefused("the metadata is of another issuer"));
        }
        let mut draft = self.draft.clone();
        let client = client_of(&mut draft).ok_or(NOT_A_RECIPE)?;
        let endpoints = [
            ("token_url", "token_endpoint"),
            ("revocation_url", "revocation_endpoint"),
            ("introspection_url", "introspection_endpoint"),
        ];
        for (field, name) in endpoints {
            if let Some(endpoint) = self.endpoint(said(name))?
                && !client.contains_key(field)
            {
                client.insert(field.to_owned(), String::from(endpoint).into());
            }
        }
        if !client.contains_key("token_url") {
            return Err(RecipeRefused("the issuer's metadata names no `token_endpoint`"));
        }
        let names_itself = said("authorization_response_iss_parameter_supported") == Some("true");
        client.entry("iss_in_response").or_insert_with(|| names_itself.into());
        let kind = serde_json::from_value(draft).map_err(|_| NOT_A_RECIPE)?;
        Ok(Discovered {
            kind,
            authorize_url: self.endpoint(said("authorization_endpoint"))?,
            registration_url: self.endpoint(said("registration_endpoint"))?,
        })
    }

    fn endpoint(&self, said: Option<&str>) -> Result<Option<Target>, RecipeRefused> {
        let Some(text) = said else { return Ok(None) };
        let endpoint: Target = text.parse().map_err(|_| ELSEWHERE)?;
        let (found, own) = (endpoint.destination(), self.places[0].destination());
        let is_allowed = found == own || (found.port() == 443 && self.hosts.contains(found.host()));
        if found.scheme() == Scheme::Https && is_allowed { Ok(Some(endpoint)) } else { Err(ELSEWHERE) }
    }
}

const NOT_A_RECIPE: RecipeRefused = RecipeRefused("it is no recipe of OAuth");

const ELSEWHERE: RecipeRefused = RecipeRefused(
    "the issuer's metadata names an endpoint that is in the clear, or on a host that is neither the issuer's nor in \
     `endpoint_hosts`",
);

/// Where the client of a recipe of OAuth stands in it.
fn client_of(kind: &mut Value) -> Option<&mut Map<String, Value>> {
    let recipe = kind.as_object_mut()?;
    match recipe.get("kind")?.as_str()? {
        "oauth_client_credentials" | "oauth_refresh_token" => Some(recipe),
        "oauth_token_exchange" | "oauth_jwt_bearer" => recipe.get_mut("client")?.as_object_mut(),
        _ => None,
    }
}

fn places(issuer: &str) -> Result<[Target; 2], RecipeRefused> {
    let wrong = RecipeRefused("`issuer` is a URL in canonical form that begins with `https://` and has no query");
    let rest = issuer.strip_prefix("https://").filter(|rest| is_plain(rest) && !rest.contains(['?', '#']));
    let (host, path) = rest.map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len()))).ok_or(wrong)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let place = |text: String| text.parse().map_err(|_| wrong);
    Ok([
        place(format!("https://{host}/.well-known/oauth-authorization-server{path}"))?,
        place(format!("https://{host}{path}/.well-known/openid-configuration"))?,
    ])
}

/// Clears a request for metadata: it carries nothing of anybody's.
///
/// # Errors
/// [`Refusal::NoBinding`] if it would go out without TLS, or is more than a question.
pub fn clear_discovery(facts: &Facts, exchange: Exchange) -> Result<Cleared, Refusal> {
    let is_question = exchange.method == Method::Get
        && exchange.auth == crate::Auth::None
        && exchange.body == crate::ExchangeBody::None
        && exchange.headers.is_empty();
    if !is_question || exchange.target.destination().scheme() != Scheme::Https {
        let (method, place) = (exchange.method.as_str().to_owned(), exchange.target.place());
        return Err(Refusal::NoBinding { method, place });
    }
    let (destination, path, query) = exchange.target.into_parts();
    let headers = vec![("accept".to_owned(), b"application/json".to_vec())];
    let parts = ClearedParts { destination, method: Method::Get, path, query, headers, body: None };
    Ok(Cleared::without_credential(facts.clone(), parts))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://login.example.com/acme";

    fn draft(more: Value) -> Value {
        let mut kind = json!({"kind": "oauth_client_credentials", "issuer": ISSUER, "client_id": "me"});
        if let (Some(kind), Value::Object(more)) = (kind.as_object_mut(), more) {
            kind.extend(more);
        }
        kind
    }

    fn discovery(more: Value) -> OauthDiscovery {
        OauthDiscovery::of(&draft(more)).expect("good").expect("without endpoints")
    }

    fn found(discovery: &OauthDiscovery, metadata: &Value) -> Result<Discovered, RecipeRefused> {
        let texts: std::collections::BTreeMap<String, String> = metadata
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        discovery.recipe(|name| texts.get(name).map(String::as_str))
    }

    fn metadata() -> Value {
        json!({
            "issuer": ISSUER, "token_endpoint": "https://login.example.com/acme/token",
            "authorization_endpoint": "https://login.example.com/acme/auth",
            "revocation_endpoint": "https://login.example.com/acme/revoke",
        })
    }

    #[test]
    fn metadata_is_asked_for_where_both_standards_say() {
        let places = discovery(json!({})).exchanges().map(|exchange| exchange.target.to_string());
        assert_eq!(
            places,
            [
                "https://login.example.com/.well-known/oauth-authorization-server/acme",
                "https://login.example.com/acme/.well-known/openid-configuration",
            ]
        );
        let root = discovery(json!({"issuer": "https://login.example.com"})).exchanges();
        assert_eq!(
            root.map(|exchange| exchange.target.to_string()),
            [
                "https://login.example.com/.well-known/oauth-authorization-server",
                "https://login.example.com/.well-known/openid-configuration",
            ]
        );
        let whole = draft(json!({"token_url": "https://login.example.com/token"}));
        assert_eq!(OauthDiscovery::of(&whole), Ok(None), "nothing is asked where the administrator wrote it");
        assert_eq!(OauthDiscovery::of(&json!({"kind": "bearer", "issuer": ISSUER})), Ok(None));
        for wrong in
            ["http://login.example.com", "https://127.0.0.1", "https://login.example.com?x", "login", "https://"]
        {
            assert!(OauthDiscovery::of(&draft(json!({"issuer": wrong}))).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_metadata_says_is_frozen_in_the_recipe_and_what_was_written_stays() {
        let written = json!({"revocation_url": "https://login.example.com/mine", "scope": "a"});
        let found = found(&discovery(written), &metadata()).expect("good");
        let client = found.kind.oauth_client().expect("a client");
        assert_eq!(client.token_url.to_string(), "https://login.example.com/acme/token");
        assert_eq!(
            client.revocation_url.as_ref().map(ToString::to_string).as_deref(),
            Some("https://login.example.com/mine")
        );
        assert_eq!((client.introspection_url.is_none(), client.iss_in_response), (true, Some(false)));
        assert_eq!(found.authorize_url.map(String::from).as_deref(), Some("https://login.example.com/acme/auth"));
        assert_eq!(found.kind.check(), Ok(()));
    }

    #[test]
    fn p11_metadata_of_another_issuer_or_with_endpoints_elsewhere_is_refused() {
        let plain = discovery(json!({}));
        for (name, value) in [
            ("issuer", json!("https://login.example.com/acme/")),
            ("issuer", json!("https://evil.example/acme")),
            ("issuer", Value::Null),
            ("token_endpoint", json!("https://evil.example/token")),
            ("token_endpoint", json!("http://login.example.com/acme/token")),
            ("token_endpoint", json!("https://login.example.com:8443/token")),
            ("token_endpoint", json!("https://169.254.169.254/token")),
            ("token_endpoint", json!("https://login.example.com.evil.example/token")),
            ("introspection_endpoint", json!("https://inside.example.com/introspect")),
            ("authorization_endpoint", json!("https://evil.example/auth")),
            ("registration_endpoint", json!("https://evil.example/reg")),
        ] {
            let mut metadata = metadata();
            metadata[name] = value.clone();
            assert!(found(&plain, &metadata).is_err(), "{name} {value}");
        }
        let mut lacking = metadata();
        lacking.as_object_mut().map(|metadata| metadata.remove("token_endpoint"));
        assert!(found(&plain, &lacking).is_err());

        let allowed = discovery(json!({"endpoint_hosts": ["tokens.example.com"]}));
        let mut elsewhere = metadata();
        elsewhere["token_endpoint"] = json!("https://tokens.example.com/token");
        assert!(found(&plain, &elsewhere).is_err());
        let client = found(&allowed, &elsewhere).expect("allowed").kind;
        assert!(client.oauth_client().is_some_and(|it| it.token_url.to_string() == "https://tokens.example.com/token"));
        elsewhere["token_endpoint"] = json!("https://tokens.example.com:8443/token");
        assert!(found(&allowed, &elsewhere).is_err(), "a host is allowed, and not its other ports");
        for hosts in [json!(["*"]), json!("tokens.example.com"), json!(["https://tokens.example.com"])] {
            assert!(OauthDiscovery::of(&draft(json!({"endpoint_hosts": hosts}))).is_err());
        }
    }
}
