//! `cargo xtask demo`: the real server, two tenants with different credentials for the same tool, a
//! rotation and a revocation, and what everybody saw of it; then an agent's run whose credential comes from
//! OpenBao (`life`). Every line that it prints is checked; it exits non-zero if any of it is not so.

mod life;

use std::io::IsTerminal as _;

use anyhow::Context as _;
use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use crate::place::Place;

/// The tool of the demo: it reads one page of its upstream with the tenant's bearer token.
const PACKAGE: &str = "http-get";
const TOOL: &str = "http-get.get";
const UPSTREAM: &str = "httpbin.org";

/// Runs the demo.
///
/// # Errors
/// The first thing that is not so.
pub(crate) async fn run(place: &Place, built: &Built) -> anyhow::Result<()> {
    let paint = Paint { colour: std::io::stdout().is_terminal() };
    call_rotate_revoke(&paint, built).await?;
    life::run(&paint, place, built).await
}

/// The first part: everything that a tenant stores itself.
async fn call_rotate_revoke(paint: &Paint, built: &Built) -> anyhow::Result<()> {
    let tokens = Tokens { acme: canary("acme-"), acme_next: canary("acme-next-"), globex: canary("globex-") };
    let authority = Authority::new()?;
    let upstream = Upstream::echo(&authority, &[UPSTREAM], tokens.all()).await?;
    let options = ServerOptions::default().pin(UPSTREAM, &upstream);
    let mut server = Server::start(built, &authority, options)?;
    paint.title("A server on an embedded store, and an upstream that echoes what it is sent");
    server.publish(PACKAGE).await?;
    let acme = server.tenant("acme").await?;
    let globex = server.tenant("globex").await?;
    let (acme_credential, _) = acme.grant(PACKAGE, "site", &tokens.acme).await?;
    let (globex_credential, _) = globex.grant(PACKAGE, "site", &tokens.globex).await?;
    paint.note("two tenants, acme and globex, each with its own bearer token for the same tool");

    let stage = Stage { paint, upstream: &upstream, tokens: &tokens };
    paint.title("Both call the same tool");
    stage.served(&acme, "acme", &tokens.acme).await?;
    stage.served(&globex, "globex", &tokens.globex).await?;

    paint.title("acme rotates its credential, globex revokes its own");
    let rotated =
        post(&acme, &format!("/v1/credentials/{acme_credential}/versions"), &json!({"value": tokens.acme_next}))
            .await?;
    paint.note(&format!("acme: version {} at epoch {}", rotated["version"], rotated["epoch"]));
    let revoked = post(&globex, &format!("/v1/credentials/{globex_credential}/revoke"), &json!({})).await?;
    paint.note(&format!("globex: revoked at epoch {}", revoked["epoch"]));
    stage.served(&acme, "acme", &tokens.acme_next).await?;
    stage.refused(&globex, "globex").await?;

    paint.title("A token of acme's, however it asks, is acme's");
    let foreign = acme.client.get(&format!("/v1/credentials/{globex_credential}")).await?;
    let missing = acme.client.get("/v1/credentials/cred_aaaaaaaaaaaaaaaaaaaaaaaaaa").await?;
    check(
        foreign.status == 404 && foreign.body == missing.body,
        "another tenant's credential answers as a missing one",
    )?;
    paint.good("globex's credential answers acme exactly as one that does not exist: 404");

    paint.title("The ledger");
    ledger(paint, &server, &tokens)?;
    check(server.stop()?, "the server stops cleanly")?;
    no_secret_at_rest(&server, &tokens.all())?;
    paint.good("no file of the server's, log and ledger included, holds a credential in the open");
    Ok(())
}

struct Tokens {
    acme: String,
    acme_next: String,
    globex: String,
}

impl Tokens {
    fn all(&self) -> Vec<String> {
        vec![self.acme.clone(), self.acme_next.clone(), self.globex.clone()]
    }

    fn none_in(&self, text: &str) -> bool {
        self.all().iter().all(|token| !text.contains(token.as_str()))
    }
}

struct Stage<'demo> {
    paint: &'demo Paint,
    upstream: &'demo Upstream,
    tokens: &'demo Tokens,
}

impl Stage<'_> {
    /// A call that reaches the upstream with exactly this token, and brings nothing of it back.
    async fn served(&self, tenant: &Tenant, name: &str, token: &str) -> anyhow::Result<()> {
        self.upstream.forget();
        let answer = call(tenant).await?;
        check(answer.status == 200, &format!("{name}'s call succeeds: {}", answer.text()))?;
        let recorded = self.upstream.recorded();
        check(recorded.len() == 1, "exactly one request arrived")?;
        let expected = format!("Bearer {token}");
        check(recorded[0].header("authorization") == Some(expected.as_str()), "with the tenant's own token")?;
        self.paint.row(name, "upstream saw", &saw(&recorded[0]));
        let result = answer.json()["result"].clone();
        self.paint.row(name, "guest saw", &echoed(&result)?);
        check(self.tokens.none_in(&answer.text()), "nothing of any token comes back")?;
        self.paint.row(
            name,
            "caller got",
            &format!("{} · call {}", answer.status, answer.json()["call"].as_str().unwrap_or("?")),
        );
        Ok(())
    }

    /// A call whose credential is revoked: nothing arrives at all.
    async fn refused(&self, tenant: &Tenant, name: &str) -> anyhow::Result<()> {
        self.upstream.forget();
        let answer = call(tenant).await?;
        check(answer.code() == "credential_unusable", &format!("{name}'s call is refused: {}", answer.text()))?;
        check(self.upstream.recorded().is_empty(), "nothing arrived at the upstream")?;
        self.paint.row(name, "upstream saw", "nothing");
        self.paint.row(name, "guest saw", "nothing: it was not started");
        self.paint.row(name, "caller got", &format!("{} · {}", answer.status, answer.code()));
        Ok(())
    }
}

async fn call(tenant: &Tenant) -> anyhow::Result<Answer> {
    tenant.call(TOOL, json!({"path": "/anything/demo"})).await
}

async fn post(tenant: &Tenant, path: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = tenant.client.post(path, body).await?;
    check(answer.status < 300, &format!("{path}: {}", answer.text()))?;
    Ok(answer.json())
}

fn saw(request: &Recorded) -> String {
    let token = request.header("authorization").unwrap_or("no authorization");
    format!("{} {} · authorization: {token}", request.method, request.target)
}

/// What the upstream echoed of the authorization header, as the guest saw it and the tool passed it on.
fn echoed(result: &Value) -> anyhow::Result<String> {
    let text = result.to_string();
    let start = text.find("Bearer ").context("the echo names the scheme")?;
    let shown: String = text[start..].chars().take_while(|character| !"\"\\".contains(*character)).collect();
    check(shown.contains("redacted"), &format!("the echoed token is redacted: {shown}"))?;
    Ok(format!("authorization: {shown}"))
}

fn ledger(paint: &Paint, server: &Server, tokens: &Tokens) -> anyhow::Result<()> {
    let (verified, text, error) = server.cli(&["ledger", "verify", "--json"], b"")?;
    check(verified, &format!("the ledger verifies: {error}"))?;
    let (listed, lines, error) = server.cli(&["ledger", "export"], b"")?;
    check(listed, &format!("the ledger exports: {error}"))?;
    check(tokens.none_in(&lines), "the ledger holds no value")?;
    let mut versions = Vec::new();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).context("a record is JSON")?;
        let kind = record["kind"].as_str().unwrap_or("?");
        match kind {
            "dispatch_intended" => {
                versions.push((record["version"].as_u64().unwrap_or(0), record["epoch"].as_u64().unwrap_or(0)));
                paint.line(&format!(
                    "#{} {kind} {} · {} · version {} · epoch {}",
                    record["seq"],
                    record["place"].as_str().unwrap_or("?"),
                    record["tenant"].as_str().unwrap_or("?"),
                    record["version"],
                    record["epoch"],
                ));
            }
            "act" if record["epoch"].is_u64() => paint.line(&format!(
                "#{} {} {} · epoch {}",
                record["seq"],
                record["what"].as_str().unwrap_or("?"),
                record["subject"].as_str().unwrap_or("?"),
                record["epoch"],
            )),
            _ => {}
        }
    }
    check(versions == [(1, 1), (1, 1), (2, 2)], &format!("versions and epochs of the dispatches: {versions:?}"))?;
    paint.good(&format!("the chain verifies: {}", text.trim().replace('\n', " ")));
    Ok(())
}

fn no_secret_at_rest(server: &Server, values: &[String]) -> anyhow::Result<()> {
    let mut folders = vec![server.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path)?;
            for token in values {
                let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
                check(!found, &format!("{} holds a credential", path.display()))?;
            }
        }
    }
    Ok(())
}

fn check(so: bool, what: &str) -> anyhow::Result<()> {
    anyhow::ensure!(so, "not so: {what}");
    Ok(())
}

/// Colours on a terminal, none elsewhere.
struct Paint {
    colour: bool,
}

#[expect(clippy::print_stdout, reason = "the demo is what it prints")]
impl Paint {
    fn wrap(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.wrap("1;36", text));
    }

    fn note(&self, text: &str) {
        println!("  {text}");
    }

    fn line(&self, text: &str) {
        println!("  {}", self.wrap("2", text));
    }

    fn good(&self, text: &str) {
        println!("  {} {text}", self.wrap("32", "✓"));
    }

    fn row(&self, who: &str, what: &str, text: &str) {
        println!("  {} {what:<13} {text}", self.wrap("33", &format!("{who:<7}")));
    }
}
