//! The authorization server that the test command keeps: oidc-provider as it is, with grants of
//! `xtask/peers/oidc`. A case makes clients of its own there, and sees what was issued to them; what the
//! server does for all clients alike it cannot change.

mod process;

use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::Answer;
use crate::Authority;
use crate::Peer;
use crate::Secure;
use crate::oidc::process::Process;
use crate::peers;

/// How many redirects an authorization takes at most.
const REDIRECTS_MAX: usize = 10;

/// The authorization server.
pub struct Oidc {
    peer: Peer,
    secure: Secure,
    token: String,
    /// None of the shared one.
    process: Option<Process>,
}

impl Oidc {
    /// The name that its certificate proves.
    pub const NAME: &'static str = "oidc.test";

    /// Its issuer; endpoints are `/token`, `/auth`, `/token/introspection`, `/token/revocation`, `/reg`, and
    /// the others that `/.well-known/openid-configuration` names.
    pub const ISSUER: &'static str = "https://oidc.test";

    /// The one that runs.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn find() -> anyhow::Result<Self> {
        let peer = Peer::oidc()?;
        let secure = Secure::new(peer.address(), peer.authority(), None)?.named(Self::NAME);
        let token = std::fs::read_to_string(peers::folder()?.join("oidc.token"))?.trim().to_owned();
        Ok(Self { peer, secure, token, process: None })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.peer.address()
    }

    /// Who proves its name; client certificates of the same are accepted.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        self.peer.authority()
    }

    /// The initial access token of dynamic client registration.
    #[must_use]
    pub fn registration_token(&self) -> &str {
        &self.token
    }

    /// Registers a client that may use these grants: its id. `more` is further metadata (RFC 7591), `jwks`,
    /// `token_endpoint_auth_method`, `redirect_uris` or `client_secret`; `test_access_ttl_s` is how long its
    /// access tokens live, `test_keeps_refresh_token` that they are not rotated.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn client(&self, grants: &[&str], more: Value) -> anyhow::Result<String> {
        let id = crate::canary("client-");
        let mut new = json!({"client_id": id, "grant_types": grants});
        if let (Some(new), Value::Object(more)) = (new.as_object_mut(), more) {
            new.extend(more);
        }
        self.order("clients", &new).await?;
        Ok(id)
    }

    /// A refresh token of an account's for a client, as if it had consented: the token, and the grant's id.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn refresh_token(&self, client: &str, account: &str) -> anyhow::Result<(String, String)> {
        let made = self.order("refresh", &json!({"client_id": client, "account": account})).await?;
        let text = |name: &str| made[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        Ok((text("refresh_token")?, text("grant_id")?))
    }

    /// The account takes back what it consented to.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn withdraw(&self, grant: &str) -> anyhow::Result<()> {
        self.order("withdraw", &json!({"grant_id": grant})).await.map(drop)
    }

    /// Assertions (RFC 7523) and tokens to exchange (RFC 8693) of an issuer are believed from now on.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn trust(&self, issuer: &str, key_set: &Value) -> anyhow::Result<()> {
        self.order("issuers", &json!({"issuer": issuer, "jwks": key_set})).await.map(drop)
    }

    /// Spoils the next answers of the token endpoint to a client, one each: `lost` does what it was asked and
    /// closes the connection, `error` is a 503 before anything is done, `hang` is no answer, `garbage` does
    /// what it was asked and answers what is no JSON.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn spoil(&self, client: &str, kinds: &[&str]) -> anyhow::Result<()> {
        self.order("faults", &json!({"client_id": client, "kinds": kinds})).await.map(drop)
    }

    /// What happened to a client, in order: objects with `event` (`client_credentials.saved`,
    /// `access_token.saved`, `refresh_token.consumed`, `grant.revoked`, `grant.error` and so on), `token`,
    /// `account`, `grant_id` and `at_ms`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn events(&self, client: &str) -> anyhow::Result<Vec<Value>> {
        Ok(serde_json::from_value(self.order("events", &json!({"client_id": client})).await?)?)
    }

    /// What is registered of a client; an empty object of one that is not.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn metadata(&self, client: &str) -> anyhow::Result<Value> {
        self.order("metadata", &json!({"client_id": client})).await
    }

    async fn order(&self, what: &str, body: &Value) -> anyhow::Result<Value> {
        let bearer = format!("Bearer {}", self.token);
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        let answer =
            self.secure.send("POST", &format!("/test/{what}"), &headers, body.to_string().into_bytes()).await?;
        anyhow::ensure!(answer.status == 200, "oidc-provider, {what}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// Any request; the path begins with a slash.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        self.secure.send(method, path, headers, body).await
    }

    /// A form to an endpoint, as a client with a secret (`client_secret_basic`; the default of
    /// [`Oidc::client`]) or as what the form says.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn form(
        &self,
        path: &str,
        client: Option<(&str, &str)>,
        fields: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        use base64::Engine as _;
        let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", coded(name), coded(value))).collect();
        let basic = client.map(|(id, secret)| {
            let both = format!("{}:{}", coded(id), coded(secret));
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
        });
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(basic.as_deref().map(|basic| ("authorization", basic)));
        self.secure.send("POST", path, &headers, pairs.join("&").into_bytes()).await
    }

    /// What a person's browser does with the URL of an authorization request: follows it until it is sent to
    /// somebody else, and gives that URL, with `code` and `state` or with `error` in it. The account is the
    /// request's `login_hint`; `nobody` refuses.
    ///
    /// # Errors
    /// If there is no such redirect.
    pub async fn browse(&self, url: &str) -> anyhow::Result<String> {
        let mut cookies: Vec<(String, String)> = Vec::new();
        let mut url = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            let path = url.strip_prefix(Self::ISSUER).unwrap_or(&url);
            if !path.starts_with('/') {
                return Ok(url);
            }
            let held: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let held = held.join("; ");
            let answer = self.secure.send("GET", path, &[("cookie", &held)], Vec::new()).await?;
            for (_, set) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
                let (name, value) = set.split(';').next().and_then(|pair| pair.split_once('=')).context("a cookie")?;
                cookies.retain(|(held, _)| held != name);
                cookies.push((name.to_owned(), value.to_owned()));
            }
            let next = answer.header("location").with_context(|| format!("{url}: {} {}", answer.status, answer.text()));
            url = next?.to_owned();
        }
        anyhow::bail!("no end of redirects: {url}")
    }
}

/// Percent-coded as a form's field.
fn coded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
