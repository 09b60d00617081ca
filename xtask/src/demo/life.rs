//! The second part of the demo: an agent's run, whose credential is fetched from an OpenBao that is started
//! for it, is rotated there, and turns out to be compromised.

use anyhow::Context as _;
use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Client;
use keybearer_tests::OpenBao;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::send_event;
use serde_json::Value;
use serde_json::json;

use super::PACKAGE;
use super::Paint;
use super::TOOL;
use super::UPSTREAM;
use super::check;
use super::echoed;
use super::no_secret_at_rest;
use super::post;
use super::saw;
use crate::peers::install;
use crate::place::Place;

/// What the role may do there: read one folder, and end its own login.
const POLICY: &str = r#"path "kv/data/acme/*" { capabilities = ["read"] }"#;

/// Runs it.
///
/// # Errors
/// The first thing that is not so, or that OpenBao cannot be installed.
pub(super) async fn run(paint: &Paint, place: &Place, built: &Built) -> anyhow::Result<()> {
    let binary = install::openbao(place).await.context("the second part needs OpenBao")?;
    paint.title("An agent's run, with a credential that OpenBao keeps");
    let mut act = Act::begin(paint, built, &binary).await?;
    let agent = act.a_run_and_a_rotation().await?;
    act.an_incident(&agent).await
}

/// A server, a tenant and an OpenBao.
struct Act<'demo> {
    paint: &'demo Paint,
    bao: OpenBao,
    server: Server,
    upstream: Upstream,
    acme: Tenant,
    credential: String,
    values: [String; 2],
    login: String,
}

impl<'demo> Act<'demo> {
    async fn begin(paint: &'demo Paint, built: &Built, binary: &std::path::Path) -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let bao = OpenBao::start_from(binary, &authority).await?;
        let values = [canary("bao-1-"), canary("bao-2-")];
        bao.enable_kv("kv").await?;
        bao.policy("keybearer", POLICY).await?;
        let role = json!({"token_policies": ["keybearer"], "token_ttl": "10m"});
        let (role_id, secret_id) = bao.enable_approle("approle", "keybearer", role).await?;
        let login = format!("{role_id}:{secret_id}");
        bao.kv_put("kv", "acme/api", &json!({"token": values[0]})).await?;
        let upstream = Upstream::echo(&authority, &[UPSTREAM], values.to_vec()).await?;
        let options = ServerOptions::default().pin(UPSTREAM, &upstream).pin_at(OpenBao::NAME, 8200, bao.address());
        let server = Server::start(built, &authority, options)?;
        server.publish(PACKAGE).await?;
        let acme = server.tenant("acme").await?;
        let recipe = json!({
            "kind": "vault_kv", "mount": "kv", "path": "acme/api", "field": "token", "ttl_s": 3600,
            "server": {"url": format!("https://{}:8200/", OpenBao::NAME), "login": {"method": "approle"}},
        });
        let (credential, _) = acme.grant_as(recipe, &login, json!({"package": PACKAGE, "slot": "site"})).await?;
        paint.note("acme stores how to log in to OpenBao, and which key to read there; the value stays there");
        Ok(Self { paint, bao, server, upstream, acme, credential, values, login })
    }

    /// The agent, as the bearer of its run's token.
    async fn a_run_and_a_rotation(&self) -> anyhow::Result<Client> {
        let run = post(&self.acme, "/v1/runs", &json!({"agent": "demo", "tools": [TOOL], "life_ms": 600_000})).await?;
        let agent = self.server.public().bearing(run["token"].as_str().context("a run has a token")?);
        self.paint
            .note(&format!("{} for the agent `demo`: one tool, ten minutes, a token of its own", text(&run, "id")));
        let tenants = agent.get("/v1/credentials").await?;
        check(tenants.status == 403, "a run's token calls tools and does nothing else")?;
        self.served(&agent, &self.values[0]).await?;

        let hook = post(&self.acme, "/v1/hooks", &json!({"label": "openbao", "heartbeat_s": 3600})).await?;
        let version = self.bao.kv_put("kv", "acme/api", &json!({"token": self.values[1]})).await?;
        let event = json!({"type": "credential.changed", "data": {"reference": "kv/acme/api"}});
        let (id, secret) = (text(&hook, "id"), text(&hook, "text"));
        let told = send_event(&self.server.public(), &id, &secret, "msg_demo", &event).await?;
        check(told.json()["invalidated"] == 1, &format!("the event is taken: {}", told.text()))?;
        self.paint.note(&format!("OpenBao has version {version} now, and a signed event said so: within the same run"));
        self.served(&agent, &self.values[1]).await?;
        let audited = self.server.cli(&["ledger", "audit"], b"")?;
        check(audited.0, &format!("the ledger shows no use of what had been ended: {}{}", audited.1, audited.2))?;
        self.paint.good("the ledger shows no use of a version after its end was acknowledged");
        Ok(agent)
    }

    async fn an_incident(&mut self, agent: &Client) -> anyhow::Result<()> {
        self.paint.title("The credential turns out to be compromised");
        let opened = self.cli(&["incident", "open", "--credential", &self.credential, "--note", "found in a paste"])?;
        let id = text(&opened, "id");
        check(opened["contained"].is_number(), &format!("everything is stopped: {opened}"))?;
        self.paint.note(&format!("{id}: revoked, the run ended, the tool quarantined"));
        self.upstream.forget();
        let refused = [call(agent).await?, self.acme.call(TOOL, json!({"path": "/anything/demo"})).await?];
        check(refused.iter().all(|answer| answer.status >= 400), "neither the agent nor its tenant is served")?;
        check(self.upstream.recorded().is_empty(), "nothing arrived at the upstream")?;
        self.paint.row("agent", "caller got", &format!("{} · {}", refused[0].status, refused[0].code()));
        self.paint.row("acme", "caller got", &format!("{} · {}", refused[1].status, refused[1].code()));

        let report = self.cli(&["incident", "report", &id])?;
        let is_of_the_tool = |call: &&Value| call["tool"] == TOOL;
        let uses = report["calls"].as_array().map_or(0, |calls| calls.iter().filter(is_of_the_tool).count());
        check(uses == 2, &format!("the report lists both calls of the run: {report}"))?;
        self.paint.good(&format!("the exposure report, out of the ledger: {uses} calls, and where they went"));
        let early = self.server.cli(&["incident", "close", &id, "--root-cause", "oops"], b"")?;
        check(!early.0, "an incident is not closed without a root cause")?;
        self.cli(&["incident", "close", &id, "--root-cause", "The key was pasted into a public page."])?;
        let after = self.acme.call(TOOL, json!({"path": "/anything/demo"})).await?;
        check(
            after.code() == "credential_unusable",
            &format!("the tool runs again, the credential not: {}", after.text()),
        )?;
        self.paint.good("closed with its root cause: the tool may run again, the credential stays revoked");
        let verified = self.server.cli(&["ledger", "verify"], b"")?;
        check(verified.0, &format!("the ledger verifies: {}", verified.2))?;
        check(self.server.stop()?, "the server stops cleanly")?;
        let (role, secret) = self.login.split_once(':').context("a login is a pair")?;
        let everything = [&self.values[0], &self.values[1], secret, role].map(|value| value.to_owned());
        no_secret_at_rest(&self.server, &everything)?;
        self.paint.good("no file of the server's holds what OpenBao keeps, nor how to log in there");
        Ok(())
    }

    fn cli(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let (done, text, error) = self.server.cli(&[arguments, &["--json"]].concat(), b"")?;
        check(done, &format!("{}: {text}{error}", arguments.join(" ")))?;
        serde_json::from_str(&text).with_context(|| format!("an answer in JSON: {text}"))
    }

    /// A call within the run, which reaches the upstream with exactly this value.
    async fn served(&self, agent: &Client, value: &str) -> anyhow::Result<()> {
        self.upstream.forget();
        let answer = call(agent).await?;
        check(answer.status == 200, &format!("the agent's call succeeds: {}", answer.text()))?;
        let recorded = self.upstream.recorded();
        let expected = format!("Bearer {value}");
        check(recorded.len() == 1 && recorded[0].header("authorization") == Some(&expected), "with that value")?;
        check(!answer.text().contains(value), "nothing of it comes back")?;
        self.paint.row("agent", "upstream saw", &saw(&recorded[0]));
        self.paint.row("agent", "guest saw", &echoed(&answer.json()["result"])?);
        Ok(())
    }
}

async fn call(agent: &Client) -> anyhow::Result<Answer> {
    agent.post("/v1/calls", &json!({"tool": TOOL, "arguments": {"path": "/anything/demo"}})).await
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or("?").to_owned()
}
