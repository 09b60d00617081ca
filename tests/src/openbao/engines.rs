//! What cases enable in an OpenBao: engines of secrets, ways to log in, policies. Each is a few writes that
//! a case could do itself; the names of mounts are the case's.

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::OpenBao;
use crate::Postgres;
use crate::Signer;

impl OpenBao {
    /// Enables an engine of secrets at a path: `kv`, `pki`, `database`, `transit`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable(&self, path: &str, kind: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/mounts/{path}"), &json!({"type": kind})).await.map(drop)
    }

    /// Enables a way to log in at a path: `jwt`, `approle`, `cert`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_auth(&self, path: &str, kind: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/auth/{path}"), &json!({"type": kind})).await.map(drop)
    }

    /// Enables a key-value engine with versions (KV 2) at a path.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_kv(&self, path: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/mounts/{path}"), &json!({"type": "kv", "options": {"version": "2"}})).await?;
        Ok(())
    }

    /// Stores an object under a key of a KV 2 engine: its version.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn kv_put(&self, mount: &str, key: &str, object: &Value) -> anyhow::Result<u64> {
        let stored = self.write(&format!("{mount}/data/{key}"), &json!({"data": object})).await?;
        stored["data"]["version"].as_u64().context("the version")
    }

    /// Writes a policy in OpenBao's language.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn policy(&self, name: &str, rules: &str) -> anyhow::Result<()> {
        self.write(&format!("sys/policies/acl/{name}"), &json!({"policy": rules})).await.map(drop)
    }

    /// An orphan token with these policies; `more` may say `ttl`, `renewable`, `period`, `type` and so on.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn token(&self, policies: &[&str], more: Value) -> anyhow::Result<String> {
        let mut new = json!({"policies": policies, "no_default_policy": true, "ttl": "1h"});
        merge(&mut new, more);
        let made = self.write("auth/token/create-orphan", &new).await?;
        Ok(made["auth"]["client_token"].as_str().context("a token")?.to_owned())
    }

    /// Lets the bearers of a signer's JWTs log in at `path` in a role. `more` says what else the role has:
    /// `token_policies`, `bound_subject`, `claim_mappings`, `token_ttl` and so on; the audience is `openbao`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_jwt(&self, path: &str, signer: &Signer, role: &str, more: Value) -> anyhow::Result<()> {
        self.enable_auth(path, "jwt").await?;
        let keys = json!({"jwt_validation_pubkeys": [signer.public_pem()?]});
        self.write(&format!("auth/{path}/config"), &keys).await?;
        let mut new = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["openbao"]});
        merge(&mut new, more);
        self.write(&format!("auth/{path}/role/{role}"), &new).await.map(drop)
    }

    /// Lets the bearer of a role's id and secret log in at `path`: both.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_approle(&self, path: &str, role: &str, more: Value) -> anyhow::Result<(String, String)> {
        self.enable_auth(path, "approle").await?;
        self.write(&format!("auth/{path}/role/{role}"), &more).await?;
        let id = self.read(&format!("auth/{path}/role/{role}/role-id")).await?;
        let secret = self.write(&format!("auth/{path}/role/{role}/secret-id"), &json!({})).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("an id");
        Ok((text(&id["data"]["role_id"])?, text(&secret["data"]["secret_id"])?))
    }

    /// Lets the holders of the authority's client certificates log in at `path` in a role; `more` says which:
    /// `allowed_uri_sans`, `allowed_dns_sans`, and with which `token_policies`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_cert(&self, path: &str, role: &str, more: Value) -> anyhow::Result<()> {
        self.enable_auth(path, "cert").await?;
        let mut new = json!({"certificate": self.authority().pem()});
        merge(&mut new, more);
        self.write(&format!("auth/{path}/certs/{role}"), &new).await.map(drop)
    }

    /// Enables an authority of its own (PKI) at `path`, with a role that issues what it is asked for; `more`
    /// says what else the role has. The authority's certificate, PEM.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_pki(&self, path: &str, role: &str, more: Value) -> anyhow::Result<String> {
        self.enable(path, "pki").await?;
        let root = json!({"common_name": "OpenBao throw-away authority", "key_type": "ec", "key_bits": 256});
        let generate = "root/generate/internal";
        let root = self.write(&format!("{path}/{generate}"), &root).await?;
        let mut new = json!({"allow_any_name": true, "allowed_uri_sans": "*", "key_type": "ec", "key_bits": 256,
            "require_cn": false, "ttl": "10m"});
        merge(&mut new, more);
        self.write(&format!("{path}/roles/{role}"), &new).await?;
        Ok(root["data"]["certificate"].as_str().context("a certificate")?.to_owned())
    }

    /// Lets it make accounts of PostgreSQL, at `path`, in a role whose accounts live `ttl_s` (read
    /// `path/creds/role`); `more` says what else the role has. They may log in and no more.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn enable_postgres(
        &self,
        path: &str,
        server: &Postgres,
        role: &str,
        ttl_s: u32,
        more: Value,
    ) -> anyhow::Result<()> {
        self.enable(path, "database").await?;
        let address = server.address();
        let url = format!("postgresql://{{{{username}}}}:{{{{password}}}}@{address}/postgres?sslmode=disable");
        let server = json!({"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url,
            "username": Postgres::SUPERUSER, "password": server.password()});
        self.write(&format!("{path}/config/server"), &server).await?;
        let account = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'";
        let mut new = json!({"db_name": "server", "creation_statements": [account],
            "default_ttl": ttl_s, "max_ttl": ttl_s.saturating_mul(10)});
        merge(&mut new, more);
        self.write(&format!("{path}/roles/{role}"), &new).await.map(drop)
    }

    /// Writes as root, and has the answer wrapped: what leads to it is in `wrap_info`, once.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn wrap(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let headers = [("x-vault-wrap-ttl", "300s")];
        let answer = self.send_with("POST", path, Some(self.root_token()), Some(body), &headers).await?;
        anyhow::ensure!(answer.status == 200, "OpenBao, wrapping {path}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// Logs in at `path` with what that way asks for: the token, and the whole answer.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn log_in(&self, path: &str, with: &Value) -> anyhow::Result<(String, Value)> {
        let answer = self.send("POST", &format!("auth/{path}/login"), None, Some(with)).await?;
        anyhow::ensure!(answer.status == 200, "OpenBao, login at {path}: {} {}", answer.status, answer.text());
        let answer = answer.json();
        Ok((answer["auth"]["client_token"].as_str().context("a token")?.to_owned(), answer))
    }
}

/// What is said beyond the defaults, or instead of them.
fn merge(defaults: &mut Value, more: Value) {
    if let (Some(defaults), Value::Object(more)) = (defaults.as_object_mut(), more) {
        defaults.extend(more);
    }
}
