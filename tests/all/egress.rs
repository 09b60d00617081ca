//! The way out, from outside: which places a guest reaches, what it may say, whom the server believes, and
//! how much and how long it listens.

mod amounts;
mod names;
mod places;
mod requests;
mod trust;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::json;

const PACKAGE: &str = "probe";
const API: &str = "api.test";

/// A server with a probe whose one slot is bound to these hosts, and a tenant that has granted it.
struct Stage {
    server: Server,
    tenant: Tenant,
    token: String,
}

impl Stage {
    async fn new(authority: &Authority, hosts: &[&str], options: ServerOptions) -> anyhow::Result<Self> {
        let server = Server::start(&Built::find()?, authority, options)?;
        let rest = probe::slot("api", "{ kind = \"bearer\" }", hosts) + &probe::open("open.test");
        server.publish_as("hostile", &probe::manifest(PACKAGE, "1.0.0", &rest)).await?;
        let (tenant, token) = tenant(&server, "acme").await?;
        Ok(Self { server, tenant, token })
    }
}

/// A tenant that has granted the slot, and its credential.
async fn tenant(server: &Server, name: &str) -> anyhow::Result<(Tenant, String)> {
    let token = canary("egr_");
    let tenant = server.tenant_with(json!({"name": name, "calls_per_second": 100_000})).await?;
    tenant.grant(PACKAGE, "api", &token).await?;
    Ok((tenant, token))
}
