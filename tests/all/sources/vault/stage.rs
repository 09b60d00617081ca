//! A server with one tool, a tenant, and an OpenBao in which a role reads what is below `kv/acme`.

use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Heard;
use keybearer_tests::OpenBao;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

pub(super) struct Stage {
    pub(super) bao: OpenBao,
    pub(super) server: Server,
    pub(super) tenant: Tenant,
    pub(super) site: Upstream,
    /// `role_id:secret_id` of the role `keybearer`.
    pub(super) login: String,
}

impl Stage {
    /// With the OpenBao that all share.
    pub(super) async fn shared() -> anyhow::Result<Self> {
        Self::before(OpenBao::shared().await?, "").await
    }

    /// With one of the case's own, which may be paused, sealed and killed.
    pub(super) async fn own() -> anyhow::Result<Self> {
        Self::own_with("").await
    }

    /// The same, with lines of the table `[egress]`.
    pub(super) async fn own_with(egress: &str) -> anyhow::Result<Self> {
        Self::before(OpenBao::start(&Authority::new()?).await?, egress).await
    }

    async fn before(bao: OpenBao, egress: &str) -> anyhow::Result<Self> {
        bao.enable_kv("kv").await?;
        bao.policy("keybearer", POLICY).await?;
        let role = json!({"token_policies": ["keybearer"], "token_ttl": "10m", "token_max_ttl": "1h"});
        let (role_id, secret_id) = bao.enable_approle("approle", "keybearer", role).await?;
        let site = Upstream::start(bao.authority(), &["api.test", "static.test"], |request: Recorded| async move {
            Reply::json(200, &json!({"said": request.header("authorization"), "target": request.target}))
        })
        .await?;
        let options = ServerOptions::default()
            .pin("api.test", &site)
            .pin("static.test", &site)
            .pin_at(OpenBao::NAME, 8200, bao.address())
            .with_egress(egress)
            .with("[telemetry]\nlevel = \"trace\"");
        let server = Server::start(&Built::find()?, bao.authority(), options)?;
        let slots = [
            probe::slot("api", "{ kind = \"bearer\" }", &["api.test"]),
            probe::slot("static", "{ kind = \"bearer\" }", &["static.test"]),
        ];
        server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slots.concat())).await?;
        let tenant = server.tenant("acme").await?;
        let login = format!("{role_id}:{secret_id}");
        Ok(Self { bao, server, tenant, site, login })
    }

    /// Where the OpenBao is, and how the host logs in.
    pub(super) fn place(&self, login: Value) -> Value {
        let mut server = json!({"url": format!("https://{}:8200/", OpenBao::NAME), "login": login});
        if !self.bao.namespace().is_empty() {
            server["namespace"] = self.bao.namespace().into();
        }
        server
    }

    /// A recipe of `kv/acme/KEY`, field `value`, with more.
    pub(super) fn kv(&self, key: &str, more: Value) -> Value {
        let mut kind = json!({
            "kind": "vault_kv", "server": self.place(json!({"method": "approle"})),
            "mount": "kv", "path": format!("acme/{key}"), "field": "value", "ttl_s": 1,
        });
        if let (Some(kind), Value::Object(more)) = (kind.as_object_mut(), more) {
            kind.extend(more);
        }
        kind
    }

    /// Writes a value of `kv/acme/KEY`: the value, and its version.
    pub(super) async fn put(&self, key: &str) -> anyhow::Result<(String, u64)> {
        let value = canary("kv-");
        let version = self.bao.kv_put("kv", &format!("acme/{key}"), &json!({"value": value})).await?;
        Ok((value, version))
    }

    /// Stores a recipe with the role's login, and grants it for a slot: the credential's id.
    pub(super) async fn grant(&self, kind: Value) -> anyhow::Result<String> {
        self.grant_with(kind, &self.login).await
    }

    /// The same with another login.
    pub(super) async fn grant_with(&self, kind: Value, login: &str) -> anyhow::Result<String> {
        let grant = json!({"package": "probe", "slot": "api"});
        Ok(self.tenant.grant_as(kind, login, grant).await?.0)
    }

    /// Starts the server again, after it was killed.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.server.restart()?;
        self.tenant.client = self.server.public().bearing(&self.tenant.token);
        Ok(())
    }

    /// What a guest of the tenant hears.
    pub(super) async fn get(&self) -> anyhow::Result<Heard> {
        self.tenant.hear_get("probe", "https://api.test/").await
    }

    /// The tokens that arrived at the upstream since this was asked last.
    pub(super) fn arrived(&self) -> Vec<String> {
        let tokens = self.site.recorded().iter().map(bearer).collect();
        self.site.forget();
        tokens
    }

    /// How often this path of this namespace was asked for, as OpenBao's own audit says.
    pub(super) fn asked(&self, path: &str) -> anyhow::Result<usize> {
        let is_one = |entry: &&Value| {
            let of = entry["request"]["namespace"]["path"].as_str().unwrap_or_default().trim_end_matches('/');
            entry["type"] == "request" && entry["request"]["path"] == path && of == self.bao.namespace()
        };
        Ok(self.bao.audit()?.iter().filter(is_one).count())
    }

    /// How many tokens live.
    pub(super) async fn logins(&self) -> anyhow::Result<usize> {
        // A namespace without any has no list.
        Ok(self.bao.list("auth/token/accessors").await.map_or(0, |accessors| accessors.len()))
    }

    /// Panics if one of these is in the ledger, the log or what a guest heard.
    pub(super) fn assert_nowhere(&self, secrets: &[&str], heard: &[&Heard]) -> anyhow::Result<()> {
        let said: String = heard.iter().map(|heard| heard.text()).collect();
        let everything = format!("{:?}{}{said}", self.server.ledger()?, self.server.log());
        for secret in secrets {
            for part in secret.split(':') {
                assert!(!everything.contains(part), "a secret is in the ledger, the log or an answer");
            }
        }
        Ok(())
    }
}

/// What the page about this source says that the role needs.
const POLICY: &str = r#"
path "kv/data/acme/*" { capabilities = ["read"] }
path "database/creds/reader" { capabilities = ["read"] }
path "sys/leases/revoke" { capabilities = ["update"] }
path "auth/token/revoke-accessor" { capabilities = ["update"] }
path "auth/approle/role/keybearer/secret-id" { capabilities = ["update"] }
path "auth/approle/role/keybearer/secret-id/lookup" { capabilities = ["update"] }
path "auth/approle/role/keybearer/secret-id-accessor/destroy" { capabilities = ["update"] }
"#;

/// A time-to-live of one second has passed, and what is read next is read anew.
pub(super) async fn ttl() {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
}

pub(super) fn bearer(request: &Recorded) -> String {
    let value = request.header("authorization").unwrap_or_default();
    value.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}
