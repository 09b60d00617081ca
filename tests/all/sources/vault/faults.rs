//! A server of the Vault API that is down, silent, sealed or talks nonsense: nothing goes out without its
//! credential, nothing is held up for longer than is said, nobody else notices, and it goes on by itself.

use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Reserved;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::json;

/// What is no answer of Vault's, by the host that gives it.
const NONSENSE: &[&str] = &["html.test", "moved.test", "large.test", "torn.test", "twice.test", "empty.test"];

fn nonsense(host: &str) -> Reply {
    let of = |status: u16, content_type: &str, body: Vec<u8>| {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Reply { status, headers, body }
    };
    match host {
        "html.test" => of(200, "text/html", b"<html>It works!</html>".to_vec()),
        "moved.test" => {
            let mut reply = of(307, "text/html", Vec::new());
            reply.headers.push(("location".to_owned(), "https://api.test/v1/auth/approle/login".to_owned()));
            reply
        }
        "large.test" => {
            let token = "x".repeat(200 << 10);
            of(200, "application/json", json!({"auth": {"client_token": token}}).to_string().into_bytes())
        }
        "torn.test" => of(200, "application/json", b"{\"auth\": {\"client_token\": \"s.".to_vec()),
        "twice.test" => {
            let body = r#"{"auth": {"client_token": "s.0123456789012345", "client_token": "s.5432109876543210"}}"#;
            of(200, "application/json", body.into())
        }
        _ => of(200, "application/json", b"{\"auth\": null}".to_vec()),
    }
}

// If it failed, a login page, a redirect or a proxy's error would be taken for a credential, or the role's secret
// would be sent to whoever answers.
#[tokio::test(flavor = "multi_thread")]
async fn a01_what_is_no_answer_of_the_server_is_no_credential() -> anyhow::Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let source = Upstream::start(&authority, NONSENSE, |request: Recorded| async move {
        nonsense(request.header("host").unwrap_or_default())
    })
    .await?;
    let answers = |_| async { Reply::json(200, &json!({})) };
    let site = Upstream::start(&authority, &["api.test"], answers).await?;
    let untrusted = Upstream::start(&stranger, &["untrusted.test"], answers).await?;
    let closed = Reserved::new()?;
    let mut options = ServerOptions::default().pin("api.test", &site).pin("untrusted.test", &untrusted).pin_at(
        "closed.test",
        443,
        closed.address(),
    );
    for host in NONSENSE {
        options = options.pin(host, &source);
    }
    let server = Server::start(&Built::find()?, &authority, options)?;
    let slot = probe::slot("api", "{ kind = \"bearer\" }", &["api.test"]);
    server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slot)).await?;
    for host in NONSENSE.iter().chain(&["untrusted.test", "closed.test"]) {
        let tenant = server.tenant(host.trim_end_matches(".test")).await?;
        let place = json!({"url": format!("https://{host}/"), "login": {"method": "approle"}});
        let kind = json!({"kind": "vault_kv", "server": place, "mount": "kv", "path": "a", "field": "value"});
        let login = format!("{}:{}", canary("role-"), canary("secret-"));
        tenant.grant_as(kind, &login, json!({"package": "probe", "slot": "api"})).await?;
        let began = Instant::now();
        let heard = tenant.hear_get("probe", "https://api.test/").await?;
        assert_eq!(heard.outcome, "upstream: unreachable, not sent", "{host}");
        assert!(began.elapsed() < Duration::from_secs(5), "{host}: {:?}", began.elapsed());
        let secret = login.split(':').next_back().unwrap_or_default();
        let everything = format!("{:?}{}{}", server.ledger()?, server.log(), heard.text());
        assert!(!everything.contains(secret), "{host}");
    }
    assert_eq!(source.recorded().len(), NONSENSE.len(), "each was asked once");
    assert_eq!((site.recorded().len(), untrusted.recorded().len()), (0, 0), "neither redirects nor strangers are");
    Ok(())
}

mod needs_openbao {
    use super::*;

    use super::super::stage::Stage;
    use super::super::stage::ttl;

    // If it failed, one tenant's Vault that hangs would hang another tenant's calls, or this tenant's for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn a02_a_server_that_hangs_is_given_up_and_holds_nobody_else_up() -> anyhow::Result<()> {
        let stage = Stage::own_with("first_byte_ms = 2000\ntls_ms = 2000").await?;
        stage.put("stripe").await?;
        stage.grant(stage.kv("stripe", json!({}))).await?;
        let other = stage.server.tenant("globex").await?;
        other.grant("probe", "static", &canary("static-")).await?;
        let control = || other.hear_get("probe", "https://static.test/");
        assert_eq!((stage.get().await?.outcome.as_str(), control().await?.outcome.as_str()), ("200", "200"));

        stage.bao.pause()?;
        ttl().await;
        stage.arrived();
        let began = Instant::now();
        // More than wait for one answer, and each of them for as long as all.
        let hanging = futures_util::future::join_all((0..8).map(|_| stage.get()));
        let controlled = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..10 {
                let began = Instant::now();
                assert_eq!(control().await?.outcome, "200");
                slowest = slowest.max(began.elapsed());
            }
            anyhow::Ok(slowest)
        };
        let (hung, slowest) = tokio::join!(hanging, controlled);
        assert!(slowest? < Duration::from_secs(2), "the other tenant waited");
        for heard in hung {
            assert_eq!(heard?.outcome, "upstream: timeout, not sent");
        }
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        assert!(stage.arrived().iter().all(|token| token.starts_with("static-")), "nothing went out without its value");

        stage.bao.resume()?;
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "200", "and it goes on by itself");
        Ok(())
    }

    // If it failed, a restart of Vault would need a restart here, or a value would be used longer than is published.
    #[tokio::test(flavor = "multi_thread")]
    async fn a01_a_server_that_was_killed_and_comes_back_sealed_is_asked_again_by_itself() -> anyhow::Result<()> {
        let mut stage = Stage::own().await?;
        let (value, _) = stage.put("stripe").await?;
        stage.grant(stage.kv("stripe", json!({}))).await?;
        assert_eq!(stage.get().await?.outcome, "200");
        stage.bao.kill()?;
        ttl().await;
        stage.arrived();
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        stage.bao.restart_sealed().await?;
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        assert_eq!(stage.arrived().len(), 0);
        stage.bao.unseal().await?;
        ttl().await;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![value]));
        Ok(())
    }
}
