//! A server with the tool `http-get`, its upstream, and tenants that hold a credential for it: what most
//! cases of the API and of credentials' lives begin with.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::Answer;
use crate::Authority;
use crate::Built;
use crate::Recorded;
use crate::Reply;
use crate::Server;
use crate::ServerOptions;
use crate::Tenant;
use crate::Upstream;
use crate::canary;

/// The package of a site.
const PACKAGE: &str = "http-get";
/// Its tool.
const TOOL: &str = "http-get.get";
/// Its upstream's name.
const HOST: &str = "httpbin.org";
/// The name by which the hostile guests know the same upstream, for the cases that publish them.
const HOSTILE_HOST: &str = "upstream.test";

/// How long a request may be on its way, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server and the upstream of its tool. The upstream echoes what it is sent, the credential too; a path
/// with `/hold` in it is answered when the case lets it go.
pub struct Site {
    /// The server.
    pub server: Server,
    /// The upstream.
    pub upstream: Upstream,
    /// What was built.
    pub built: Built,
    /// Who signed the upstream's certificate.
    pub authority: Authority,
    arrivals: Arc<Notify>,
    let_go: watch::Sender<bool>,
    hung_up: watch::Sender<usize>,
}

/// A request that is held: counts those whose connection was closed by who sent them.
struct Held {
    hung_up: watch::Sender<usize>,
    answered: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            self.hung_up.send_modify(|count| *count += 1);
        }
    }
}

/// A tenant that holds a credential for the site.
pub struct Holder {
    /// The tenant.
    pub tenant: Tenant,
    /// The credential's id.
    pub credential: String,
    /// The grant's id.
    pub grant: String,
    /// The credential's first value.
    pub value: String,
}

impl Site {
    /// With the defaults.
    ///
    /// # Errors
    /// If the server does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(ServerOptions::default()).await
    }

    /// With further options.
    ///
    /// # Errors
    /// If the server does not start.
    pub async fn start_with(options: ServerOptions) -> anyhow::Result<Self> {
        Self::start_by(Authority::new()?, options).await
    }

    /// With further options, and further upstreams that the same authority vouches for.
    ///
    /// # Errors
    /// If the server does not start.
    pub async fn start_by(authority: Authority, options: ServerOptions) -> anyhow::Result<Self> {
        let built = Built::find()?;
        let arrivals = Arc::new(Notify::new());
        let (let_go, released) = watch::channel(false);
        let (notify, hung_up) = (Arc::clone(&arrivals), watch::Sender::new(0));
        let leaving = hung_up.clone();
        let upstream = Upstream::start(&authority, &[HOST, HOSTILE_HOST], move |request: Recorded| {
            let (mut released, hung_up) = (released.clone(), leaving.clone());
            notify.notify_waiters();
            async move {
                if request.target.contains("/hold") {
                    let mut held = Held { hung_up, answered: false };
                    // The sender lives as long as the site: an error means that the case is over.
                    drop(released.wait_for(|released| *released).await);
                    held.answered = true;
                }
                echo(&request)
            }
        })
        .await?;
        let server = Server::start(&built, &authority, options.pin(HOST, &upstream).pin(HOSTILE_HOST, &upstream))?;
        server.publish(PACKAGE).await?;
        Ok(Self { server, upstream, built, authority, arrivals, let_go, hung_up })
    }

    /// A new tenant with a credential and a grant.
    ///
    /// # Errors
    /// If any of it is refused.
    pub async fn holder(&self, name: &str) -> anyhow::Result<Holder> {
        self.holder_with(json!({"name": name})).await
    }

    /// A new tenant as described, with a credential and a grant.
    ///
    /// # Errors
    /// If any of it is refused.
    pub async fn holder_with(&self, new: Value) -> anyhow::Result<Holder> {
        let value = canary("held-");
        let tenant = self.server.tenant_with(new).await?;
        let (credential, grant) = tenant.grant(PACKAGE, "site", &value).await?;
        Ok(Holder { tenant, credential, grant, value })
    }

    /// Waits until a request with this in its target has arrived at the upstream.
    ///
    /// # Errors
    /// If none does.
    pub async fn arrived(&self, target: &str) -> anyhow::Result<()> {
        let arrived = async {
            loop {
                let news = self.arrivals.notified();
                if self.upstream.recorded().iter().any(|request| request.target.contains(target)) {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(PATIENCE, arrived).await.with_context(|| format!("{target} did not arrive"))
    }

    /// Waits until the connections of so many held requests were closed by who sent them.
    ///
    /// # Errors
    /// If they stay open.
    pub async fn hung_up(&self, count: usize) -> anyhow::Result<()> {
        let mut news = self.hung_up.subscribe();
        let closed = news.wait_for(|closed| *closed >= count);
        tokio::time::timeout(PATIENCE, closed).await.context("a held request's connection stays open")??;
        Ok(())
    }

    /// Lets the held requests go, those that come later too.
    pub fn let_go(&self) {
        self.let_go.send_replace(true);
    }

    /// The records of the ledger.
    ///
    /// # Errors
    /// If it cannot be exported.
    pub fn ledger(&self) -> anyhow::Result<Vec<Value>> {
        self.server.ledger()
    }
}

impl Holder {
    /// Calls the tool for a path.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.tenant.call(TOOL, json!({"path": path})).await
    }

    /// Stores a new value.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn rotate(&self, value: &str) -> anyhow::Result<Value> {
        let path = format!("/v1/credentials/{}/versions", self.credential);
        let answer = self.tenant.client.post(&path, &json!({"value": value})).await?;
        anyhow::ensure!(answer.status == 201, "rotate: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// Revokes the credential.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn revoke(&self) -> anyhow::Result<Value> {
        let path = format!("/v1/credentials/{}/revoke", self.credential);
        let answer = self.tenant.client.post(&path, &json!({})).await?;
        anyhow::ensure!(answer.status == 200, "revoke: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }
}

impl Server {
    /// The records of the ledger.
    ///
    /// # Errors
    /// If it cannot be exported.
    pub fn ledger(&self) -> anyhow::Result<Vec<Value>> {
        let (exported, lines, error) = self.cli(&["ledger", "export"], b"")?;
        anyhow::ensure!(exported, "the ledger does not export: {error}");
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

fn echo(request: &Recorded) -> Reply {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| json!([name, value])).collect();
    Reply::json(200, &json!({"method": request.method, "target": request.target, "headers": headers}))
}
