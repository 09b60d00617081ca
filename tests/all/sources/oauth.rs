//! OAuth against oidc-provider: every grant that a recipe can name, what its answers leave behind (nothing), and
//! what becomes of a token when its credential ends.

mod answers;
mod needs_oidc;

use keybearer_tests::Answer;
use keybearer_tests::Built;
use keybearer_tests::Oidc;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use serde_json::Value;
use serde_json::json;

/// The tool's upstream.
const HOST: &str = "httpbin.org";

/// A server, the authorization server, and a tenant whose tool's upstream echoes what it is sent.
struct Stage {
    oidc: Oidc,
    server: Server,
    site: Upstream,
    tenant: Tenant,
}

impl Stage {
    async fn new() -> anyhow::Result<Self> {
        Self::with(ServerOptions::default(), |_| 200).await
    }

    /// With an upstream that answers with this status.
    async fn with(
        options: ServerOptions,
        status: impl Fn(&Recorded) -> u16 + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::at(Oidc::find()?, options, status).await
    }

    /// With an authorization server of the case's own.
    async fn at(
        oidc: Oidc,
        options: ServerOptions,
        status: impl Fn(&Recorded) -> u16 + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let built = Built::find()?;
        let site = Upstream::start(oidc.authority(), &[HOST], move |request: Recorded| {
            let status = status(&request);
            async move { Reply::json(status, &json!({"echo": request.header("authorization")})) }
        })
        .await?;
        let options = options.pin(HOST, &site).pin_at(Oidc::NAME, 443, oidc.address());
        let server = Server::start(&built, oidc.authority(), options)?;
        server.publish("http-get").await?;
        let tenant = server.tenant("acme").await?;
        Ok(Self { oidc, server, site, tenant })
    }

    /// Stores a credential of this kind and grants it: its id.
    async fn hold(&self, kind: Value, value: &str) -> anyhow::Result<String> {
        let grant = json!({"package": "http-get", "slot": "site"});
        Ok(self.tenant.grant_as(kind, value, grant).await?.0)
    }

    async fn get(&self) -> anyhow::Result<Answer> {
        self.tenant.call("http-get.get", json!({"path": "/anything"})).await
    }

    /// Calls until it comes to something: whether that is a result. A source that failed is left alone for a moment.
    async fn settled(&self) -> anyhow::Result<bool> {
        for _ in 0..60 {
            let answer = self.get().await?;
            if answer.status == 200 || answer.code() == "credential_unusable" {
                return Ok(answer.status == 200);
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        anyhow::bail!("it came to nothing")
    }

    async fn act(&self, credential: &str, what: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/credentials/{credential}/{what}");
        let answer = self.tenant.client.post(&path, &json!({})).await?;
        anyhow::ensure!(answer.status == 200, "{what}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    async fn show(&self, credential: &str) -> anyhow::Result<Value> {
        Ok(self.tenant.client.get(&format!("/v1/credentials/{credential}")).await?.json())
    }

    /// The access tokens that arrived at the upstream, in order.
    fn arrived(&self) -> Vec<String> {
        let bearer = |request: &Recorded| Some(request.header("authorization")?.strip_prefix("Bearer ")?.to_owned());
        self.site.recorded().iter().filter_map(bearer).collect()
    }

    /// How often this happened to a client at the authorization server.
    async fn happened(&self, client: &str, event: &str) -> anyhow::Result<usize> {
        let events = self.oidc.events(client).await?;
        Ok(events.iter().filter(|happened| happened["event"] == event).count())
    }

    /// No secret stands in the ledger, the log, the store, or what callers were told.
    fn assert_unseen(&self, secrets: &[&str], answers: &[&Answer]) -> anyhow::Result<()> {
        let mut seen = format!("{:?}{}", self.server.ledger()?, self.server.log());
        answers.iter().for_each(|answer| seen.push_str(&answer.text()));
        for file in ["store.db", "store.db-wal"] {
            let bytes = std::fs::read(self.server.home().join(file)).unwrap_or_default();
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        anyhow::ensure!(seen.len() > 1_000, "there is something to look at");
        for (index, secret) in secrets.iter().enumerate() {
            anyhow::ensure!(secret.len() >= 16 && !seen.contains(secret), "secret {index} was seen");
        }
        Ok(())
    }
}

/// A recipe at the authorization server.
fn recipe(kind: &str, client: &str, more: Value) -> Value {
    let mut recipe = json!({
        "kind": kind, "token_url": format!("{}/token", Oidc::ISSUER), "issuer": Oidc::ISSUER, "client_id": client,
        "revocation_url": format!("{}/token/revocation", Oidc::ISSUER), "scope": "api:read",
    });
    if let (Some(recipe), Value::Object(more)) = (recipe.as_object_mut(), more) {
        recipe.extend(more);
    }
    recipe
}
