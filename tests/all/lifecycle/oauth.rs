//! OAuth client credentials: a token is minted once for all who wait, used until shortly before it ends,
//! minted again, and shown to no guest and no caller.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::json;

use super::bearer;

/// How long a minted token says that it lives. A quarter of it is kept in reserve.
const LIFE_S: u64 = 4;

struct Stage {
    server: Server,
    site: Upstream,
    login: Upstream,
    tenant: Tenant,
    credential: String,
    client_secret: String,
    tokens: Vec<String>,
}

async fn stage(fails: &'static [usize]) -> anyhow::Result<Stage> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let tokens: Vec<_> = (0..8).map(|_| canary("minted-")).collect();
    let (minted, known) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokens.clone()));
    let login = Upstream::start(&authority, &["login.example.com"], move |_| {
        let count = minted.fetch_add(1, Ordering::SeqCst);
        let known = Arc::clone(&known);
        async move {
            // Long enough that many callers wait for one token.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if fails.contains(&count) {
                return Reply::json(401, &json!({"error": "invalid_client", "error_description": "who are you"}));
            }
            Reply::json(200, &json!({"access_token": known[count % 8], "token_type": "Bearer", "expires_in": LIFE_S}))
        }
    })
    .await?;
    let site = Upstream::start(&authority, &["httpbin.org"], |request: Recorded| async move {
        Reply::json(200, &json!({"echo": request.header("authorization"), "target": request.target}))
    })
    .await?;
    let options = ServerOptions::default().pin("httpbin.org", &site).pin("login.example.com", &login);
    let server = Server::start(&built, &authority, options)?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let client_secret = canary("client-secret-");
    let kind = json!({
        "kind": "oauth_client_credentials", "token_url": "https://login.example.com/oauth/token",
        "client_id": "acme-client", "scope": "read",
    });
    let grant = json!({"package": "http-get", "slot": "site"});
    let (credential, _) = tenant.grant_as(kind, &client_secret, grant).await?;
    Ok(Stage { server, site, login, tenant, credential, client_secret, tokens })
}

impl Stage {
    async fn get(&self, path: &str) -> anyhow::Result<keybearer_tests::Answer> {
        self.tenant.call("http-get.get", json!({"path": path})).await
    }
}

/// What a token endpoint answered to each request for a token, by the ledger.
fn mint_statuses(ledger: &[serde_json::Value]) -> Vec<u64> {
    let mints: Vec<_> = ledger
        .iter()
        .filter(|record| record["kind"] == "dispatch_intended" && record["purpose"] == "mint")
        .map(|record| &record["dispatch"])
        .collect();
    let closed =
        ledger.iter().filter(|record| record["kind"] == "dispatch_closed" && mints.contains(&&record["dispatch"]));
    closed.filter_map(|record| record["status"].as_u64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn x10_p11_a_token_is_minted_once_for_all_used_until_it_ends_and_never_shown() -> anyhow::Result<()> {
    // If this failed, a token endpoint would be stormed by every burst of calls, or an agent would get hold of a token.
    let stage = stage(&[]).await?;
    let calls: Vec<_> =
        (0..16).map(|count| stage.get(if count % 2 == 0 { "/anything/a" } else { "/anything/b" })).collect();
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(stage.tokens.iter().all(|token| !answer.text().contains(token)), "{}", answer.text());
        assert!(answer.text().contains("redacted"), "the echoed token was taken out: {}", answer.text());
    }
    assert_eq!(stage.login.recorded().len(), 1, "one token for all who wait");
    let asked = &stage.login.recorded()[0];
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/oauth/token"));
    let body = String::from_utf8(asked.body.clone())?;
    assert!(body.contains("grant_type=client_credentials") && body.contains("scope=read"), "{body}");
    let arrived = stage.site.recorded();
    assert_eq!(arrived.len(), 16);
    assert!(arrived.iter().all(|request| bearer(request) == Some(stage.tokens[0].as_str())));
    assert!(arrived.iter().all(|request| !format!("{request:?}").contains(&stage.client_secret)));

    // Time itself is what is waited for.
    tokio::time::sleep(Duration::from_secs(LIFE_S)).await;
    assert_eq!(stage.get("/anything/later").await?.status, 200);
    assert_eq!(stage.login.recorded().len(), 2, "a token that has ended is minted again");
    assert_eq!(stage.site.recorded().last().and_then(bearer), Some(stage.tokens[1].as_str()));

    let path = format!("/v1/credentials/{}/versions", stage.credential);
    let rotated = stage.tenant.client.post(&path, &json!({"value": canary("next-secret-")})).await?;
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    assert_eq!(stage.get("/anything/rotated").await?.status, 200);
    assert_eq!(stage.login.recorded().len(), 3, "a rotation forgets what the old secret minted");
    assert_eq!(stage.site.recorded().last().and_then(bearer), Some(stage.tokens[2].as_str()));

    let path = format!("/v1/credentials/{}/revoke", stage.credential);
    assert_eq!(stage.tenant.client.post(&path, &json!({})).await?.status, 200);
    assert_eq!(stage.get("/anything/revoked").await?.code(), "credential_unusable");
    assert_eq!((stage.login.recorded().len(), stage.site.recorded().len()), (3, 18), "nothing is sent any more");

    let ledger = stage.server.ledger()?;
    assert_eq!(mint_statuses(&ledger), [200, 200, 200], "each request to the token endpoint is in the ledger");
    let everything = format!("{ledger:?}{}", stage.server.log());
    let secrets = stage.tokens.iter().chain([&stage.client_secret]);
    secrets.for_each(|secret| assert!(!everything.contains(secret.as_str()), "a secret in the ledger or the log"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a01_a_token_endpoint_that_refuses_is_asked_once_and_nothing_is_sent_without_a_token() -> anyhow::Result<()> {
    // If this failed, requests would leave without a credential, or a client that is locked out would be locked out
    // for longer by every call.
    let stage = stage(&[0]).await?;
    let calls: Vec<_> = (0..8).map(|_| stage.get("/anything")).collect();
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer?;
        assert!(answer.status >= 400 && answer.code() != "internal", "{} {}", answer.status, answer.text());
        assert!(
            !answer.text().contains("who are you") && !answer.text().contains("login.example"),
            "{}",
            answer.text()
        );
    }
    assert_eq!((stage.login.recorded().len(), stage.site.recorded().len()), (1, 0));
    assert_eq!(mint_statuses(&stage.server.ledger()?), [401], "an auditor finds what the endpoint answered");
    // A failure is the answer for a second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(stage.get("/anything").await?.status, 200, "and then it is asked again");
    Ok(())
}
