//! Recipes of the Vault API (HashiCorp Vault, OpenBao): where the server is, how the host logs in, what it
//! reads there.

use std::fmt;
use std::str::FromStr;

use keybearer_contract::Method;
use keybearer_contract::Scheme;
use serde::Deserialize;
use serde::Serialize;

use crate::Exchange;
use crate::NotCanonical;
use crate::RecipeRefused;
use crate::SpiffeId;
use crate::StoredForm;
use crate::Target;
use crate::Yields;

/// Where a server is and how the host logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultServer {
    /// What the API's paths are appended to: `https://vault.example.com:8200/`. HTTPS only.
    pub url: Target,
    /// The namespace that everything is in, login too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<VaultPath>,
    /// How the host logs in.
    pub login: VaultLogin,
}

/// How the host logs in, and so what the stored value is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum VaultLogin {
    /// The stored value is `role_id:secret_id`.
    Approle {
        /// Where the method is mounted.
        #[serde(default = "approle")]
        mount: VaultPath,
        /// In which role; said where a new `secret_id` is to be made by the source.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<VaultPath>,
    },
    /// The stored value is a JWT that the method trusts.
    Jwt {
        /// Where the method is mounted.
        #[serde(default = "jwt")]
        mount: VaultPath,
        /// In which role.
        role: VaultPath,
    },
    /// The stored value is a private key with its certificates, PEM, which the connection proves.
    Cert {
        /// Where the method is mounted.
        #[serde(default = "cert")]
        mount: VaultPath,
        /// In which role.
        role: VaultPath,
    },
    /// There is no stored value: the connection proves the host's newest X.509-SVID of this id.
    SpiffeX509 {
        /// Where the method of certificates is mounted.
        #[serde(default = "cert")]
        mount: VaultPath,
        /// In which role.
        role: VaultPath,
        /// Whose SVID.
        spiffe_id: SpiffeId,
    },
    /// There is no stored value: a JWT-SVID is fetched for every login.
    SpiffeJwt {
        /// Where the method of JWTs is mounted.
        #[serde(default = "jwt")]
        mount: VaultPath,
        /// In which role.
        role: VaultPath,
        /// Whose SVID.
        spiffe_id: SpiffeId,
        /// The one audience that it is for.
        audience: String,
    },
}

impl VaultLogin {
    /// Whether the stored value is a role's id and secret.
    #[must_use]
    pub fn is_approle(&self) -> bool {
        matches!(self, Self::Approle { .. })
    }

    /// Where the role's secrets are made and destroyed, if the recipe says which role it is.
    #[must_use]
    pub fn secret_ids(&self) -> Option<String> {
        match self {
            Self::Approle { mount, role: Some(role) } => Some(format!("auth/{mount}/role/{role}/secret-id")),
            _ => None,
        }
    }

    /// What the stored value must look like.
    #[must_use]
    pub fn stored(&self) -> StoredForm {
        match self {
            Self::Approle { .. } => StoredForm::Pair,
            Self::Jwt { .. } => StoredForm::Text,
            Self::Cert { .. } => StoredForm::Identity,
            Self::SpiffeX509 { .. } | Self::SpiffeJwt { .. } => StoredForm::Nothing,
        }
    }
}

fn approle() -> VaultPath {
    VaultPath("approle".to_owned())
}

fn jwt() -> VaultPath {
    VaultPath("jwt".to_owned())
}

fn cert() -> VaultPath {
    VaultPath("cert".to_owned())
}

/// A key of a KV engine with versions (KV 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultKv {
    /// Where, and as whom.
    pub server: VaultServer,
    /// Where the engine is mounted.
    pub mount: VaultPath,
    /// The key below it.
    pub path: VaultPath,
    /// Which field of its object goes out; the password, if there is a `user_field`.
    pub field: String,
    /// For `basic`: the field with the user. Without it, `field` holds `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_field: Option<String>,
    /// This version and no other; the newest, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// What the key's `custom_metadata` must name as `tenant`: a path that was mixed up holds another's (threats
    /// A04).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// In which form it goes out.
    #[serde(default = "bearer")]
    pub yields: Yields,
    /// For how many seconds what was read is used before it is read again.
    #[serde(default = "ttl_s")]
    pub ttl_s: u64,
    /// Whether the server is listened to: HashiCorp Vault's event notifications (Enterprise, from 1.16 on) tell that
    /// the key changed. While they do not come, what was read is used for 30 seconds at most.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events: bool,
}

/// An account that a database engine makes for us, and takes away again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultDatabase {
    /// Where, and as whom.
    pub server: VaultServer,
    /// Where the engine is mounted.
    #[serde(default = "database")]
    pub mount: VaultPath,
    /// The role of the engine.
    pub role: VaultPath,
    /// `basic` for the account's name and password; any other form is the password alone.
    #[serde(default = "basic")]
    pub yields: Yields,
}

fn database() -> VaultPath {
    VaultPath("database".to_owned())
}

fn basic() -> Yields {
    Yields::Basic
}

fn bearer() -> Yields {
    Yields::Bearer
}

/// A new version is used within a minute.
fn ttl_s() -> u64 {
    60
}

/// An hour: what is rotated there should be used here on the same day's shift.
const TTL_S_MAX: u64 = 3_600;

/// Of a field's name and of what must be found: what fits a line of a report.
const TEXT_BYTES_MAX: usize = 200;

impl VaultServer {
    /// A request to a path of its API, in its namespace.
    ///
    /// # Errors
    /// [`NotCanonical`] if what comes out is too long for a URL.
    pub fn request(&self, method: Method, path: &str) -> Result<Exchange, NotCanonical> {
        let base = self.url.to_string();
        let target = format!("{}/v1/{path}", base.trim_end_matches('/')).parse()?;
        // What Vault's own agent demands, so that no page in a browser can make its users ask.
        let exchange = Exchange::new(method, target).header("x-vault-request", "true");
        Ok(match &self.namespace {
            Some(namespace) => exchange.header("x-vault-namespace", namespace.as_str()),
            None => exchange,
        })
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        if self.url.destination().scheme() != Scheme::Https {
            return Err(RecipeRefused("`url` begins with `https://`"));
        }
        if self.url.query().is_some() {
            return Err(RecipeRefused("`url` has no query"));
        }
        if let VaultLogin::SpiffeJwt { audience, .. } = &self.login {
            return crate::recipe::spiffe::check_audience(audience);
        }
        Ok(())
    }
}

impl VaultKv {
    /// Whether this is the key that a reference `mount/path` names.
    #[must_use]
    pub fn is_at(&self, reference: &str) -> bool {
        reference
            .strip_prefix(self.mount.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|path| path == self.path.as_str())
    }

    /// Whether an event that names this path, as the server writes it, is about this key, whatever was done to it:
    /// `mount/data/path`, `mount/metadata/path` and so on.
    #[must_use]
    pub fn is_told_of(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.mount.as_str()).and_then(|rest| rest.strip_prefix('/'));
        let key = below.and_then(|rest| rest.split_once('/'));
        key.is_some_and(|(_, key)| key.trim_end_matches('/') == self.path.as_str())
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        self.server.check()?;
        if self.events && self.version.is_some() {
            return Err(RecipeRefused("a version that is pinned does not change: leave `events` out"));
        }
        let texts = [Some(&self.field), self.user_field.as_ref(), self.tenant.as_ref()];
        if !texts.into_iter().flatten().all(|text| is_plain(text)) {
            return Err(RecipeRefused("`field`, `user_field` and `tenant` are 1 to 200 bytes of plain text"));
        }
        if self.user_field.is_some() && self.yields != Yields::Basic {
            return Err(RecipeRefused("`user_field` is for what yields `basic`"));
        }
        if self.version == Some(0) {
            return Err(RecipeRefused("`version` is 1 or more"));
        }
        if !(1..=TTL_S_MAX).contains(&self.ttl_s) {
            return Err(RecipeRefused("`ttl_s` is 1 to 3600"));
        }
        Ok(())
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

/// Segments of letters, digits and `._-`, joined by slashes, none of them `.` or `..`: a path into which
/// nothing can be smuggled (threats T03).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VaultPath(String);

/// The longest path, in bytes: Vault's own limits are wider, a record's are not.
const PATH_BYTES_MAX: usize = 400;

impl VaultPath {
    /// Its text, without a slash at either end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for VaultPath {
    type Err = RecipeRefused;

    fn from_str(text: &str) -> Result<Self, RecipeRefused> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_segment =
            |segment: &str| !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(fits);
        if text.len() <= PATH_BYTES_MAX && text.split('/').all(is_segment) {
            return Ok(Self(text.to_owned()));
        }
        Err(RecipeRefused(
            "not a path of Vault: it must be segments of letters, digits and `._-` with slashes between them",
        ))
    }
}

impl TryFrom<String> for VaultPath {
    type Error = RecipeRefused;

    fn try_from(text: String) -> Result<Self, RecipeRefused> {
        text.parse()
    }
}

impl From<VaultPath> for String {
    fn from(path: VaultPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::CredentialKind;

    fn kind(more: &serde_json::Value) -> Result<(), String> {
        let mut kind = json!({
            "kind": "vault_kv", "mount": "kv", "path": "acme/stripe", "field": "value",
            "server": {"url": "https://vault.example.com:8200/", "login": {"method": "approle"}},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            kind[name] = value.clone();
        }
        let kind: CredentialKind = serde_json::from_value(kind).map_err(|error| error.to_string())?;
        kind.check().map_err(|refused| refused.to_string())
    }

    // If it failed, a recipe could lead the host's own login to another path than it names.
    #[test]
    fn t03_a_path_of_vault_is_made_of_checked_segments() {
        assert_eq!(kind(&json!({})), Ok(()));
        for bad in
            ["", "/", "/a", "a/", "a//b", "..", "a/../b", "a/./b", "a%2f..%2fb", "a\0b", "a?b", "a#b", "ä", "a b"]
        {
            for name in ["mount", "path"] {
                assert!(kind(&json!({name: bad})).is_err(), "{name} {bad:?}");
            }
        }
        assert!(kind(&json!({"path": "a".repeat(401)})).is_err());
    }

    // If it failed, a secret_id would be sent in the open, or a recipe would be stored that can never work.
    #[test]
    fn a_recipe_that_cannot_work_is_refused_when_it_is_stored() {
        let server = |url: &str| json!({"url": url, "login": {"method": "approle"}});
        for bad in [
            json!({"server": server("http://vault.example.com/")}),
            json!({"server": server("https://vault.example.com/?a=b")}),
            json!({"server": server("https://10.0.0.1/")}),
            json!({"server": {"url": "https://vault.example.com/", "login": {"method": "root"}}}),
            json!({"ttl_s": 0}),
            json!({"ttl_s": 3601}),
            json!({"version": 0}),
            json!({"field": ""}),
            json!({"tenant": "a\nb"}),
            json!({"user_field": "user"}),
            json!({"unknown": 1}),
        ] {
            assert!(kind(&bad).is_err(), "{bad}");
        }
        assert_eq!(kind(&json!({"user_field": "user", "yields": "basic", "tenant": "acme", "version": 3})), Ok(()));
    }

    #[test]
    fn a_request_stays_below_the_base_and_in_the_namespace() {
        let server: VaultServer = serde_json::from_value(json!({
            "url": "https://vault.example.com/behind/proxy/", "namespace": "team/a", "login": {"method": "approle"},
        }))
        .expect("fits");
        let exchange = server.request(Method::Get, "kv/data/a?version=3").expect("fits");
        assert_eq!(exchange.target.to_string(), "https://vault.example.com/behind/proxy/v1/kv/data/a?version=3");
        assert!(exchange.headers.contains(&("x-vault-namespace", "team/a".to_owned())));
    }
}
