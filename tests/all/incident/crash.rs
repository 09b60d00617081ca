//! An incident that is cut off while it stops things: an issuer that hangs holds it, the process is killed, and the
//! next one finds it half-way.

use std::sync::Arc;

use keybearer_tests::Authority;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

use super::ROOT_CAUSE;
use super::close;
use super::id;
use super::put;

/// An issuer that mints tokens and does not answer whoever gives one back, and rings then.
async fn issuer(authority: &Authority, bell: &Arc<Notify>) -> anyhow::Result<Upstream> {
    let bell = Arc::clone(bell);
    Upstream::start(authority, &["login.example.com"], move |request: Recorded| {
        let bell = Arc::clone(&bell);
        async move {
            if request.target == "/oauth/revoke" {
                bell.notify_one();
                std::future::pending::<()>().await;
            }
            Reply::json(200, &json!({"access_token": canary("minted-"), "token_type": "Bearer", "expires_in": 600}))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_c01_an_incident_that_is_killed_half_way_is_carried_on_in_order_before_calls_are_taken()
-> anyhow::Result<()> {
    // If this failed, a crash in the worst moment would leave runs going and a tool in use that an incident is about.
    let (authority, asked, told) = (Authority::new()?, Arc::new(Notify::new()), Arc::new(Notify::new()));
    let login = issuer(&authority, &asked).await?;
    let bell = Arc::clone(&told);
    let desk = Upstream::start(&authority, &["soc.example.com"], move |_: Recorded| {
        bell.notify_one();
        async { Reply::json(200, &json!({})) }
    })
    .await?;
    let options = ServerOptions::default().pin("login.example.com", &login).pin("soc.example.com", &desk);
    let mut site = Site::start_by(authority, options).await?;
    assert_eq!(put(&site.server, "/v1/notify", &json!({"url": "https://soc.example.com/"})).await?.status, 200);
    let tenant = site.server.tenant("acme").await?;
    let kind = json!({
        "kind": "oauth_client_credentials", "token_url": "https://login.example.com/oauth/token",
        "revocation_url": "https://login.example.com/oauth/revoke", "client_id": "acme-client",
    });
    let grant = json!({"package": "http-get", "slot": "site"});
    let (credential, _) = tenant.grant_as(kind, &canary("client-secret-"), grant).await?;
    assert_eq!(tenant.call("http-get.get", json!({"path": "/anything"})).await?.status, 200, "a token is minted");
    let run = tenant.client.post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
    let run = run["id"].as_str().expect("an id").to_owned();

    let operator = site.server.operator();
    let subject = json!({"credential": credential});
    let opening = tokio::spawn(async move { operator.post("/v1/incidents", &subject).await });
    tokio::time::timeout(std::time::Duration::from_secs(30), asked.notified()).await?;
    let half_way = site.server.operator().get("/v1/incidents").await?.json()["items"][0].clone();
    assert!(half_way["contained"].is_null(), "it waits for the issuer: {half_way}");
    let of_run = tenant.client.get(&format!("/v1/runs/{run}")).await?.json();
    assert_eq!(of_run["state"], "open", "and has not come to the runs: {of_run}");
    tokio::time::timeout(std::time::Duration::from_secs(30), told.notified()).await?;
    site.server.kill()?;
    drop(opening.await?);

    site.server.restart()?;
    let shown = site.server.operator().get(&format!("/v1/incidents/{}", id(&half_way))).await?.json();
    assert!(shown["contained"].is_u64(), "as soon as it answers anybody: {shown}");
    assert_eq!(shown["counts"]["runs_ended"], 1, "{shown}");
    let client = site.server.public().bearing(&tenant.token);
    assert_eq!(client.get(&format!("/v1/runs/{run}")).await?.json()["state"], "revoked");
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    assert_eq!(client.post("/v1/calls", &call).await?.code(), "quarantined");
    assert_carried_on(&site.ledger()?, id(&half_way));
    let (is_clean, audited, error) = site.server.cli(&["ledger", "audit", "--json"], b"")?;
    assert!(is_clean, "{audited} {error}");
    assert_eq!(close(&site.server, id(&half_way), ROOT_CAUSE).await?.status, 200);
    Ok(())
}

/// The steps stand in order, each once, and those behind the kill are the new process's own.
fn assert_carried_on(ledger: &[Value], incident: &str) {
    let all = |is_it: &dyn Fn(&Value) -> bool| -> Vec<usize> {
        ledger.iter().enumerate().filter(|(_, record)| is_it(record)).map(|(place, _)| place).collect()
    };
    let act = |what: &'static str| all(&|record| record["what"] == what);
    let started = *act("server_started").last().expect("a start");
    let opened = all(&|record| record["what"] == "incident_opened" && record["subject"] == incident);
    assert_eq!(opened.len(), 1, "what was done is not done again");
    assert!(opened[0] < started, "{opened:?}");
    let sent = act("notice_sent");
    assert!(opened[0] < sent[0] && sent[0] < started, "told as soon as it was stopped: {sent:?}");
    let steps = [act("credential_revoked"), all(&|record| record["kind"] == "run_ended"), act("quarantined")];
    assert!(steps.iter().all(|places| places.len() == 1 && places[0] > started), "{steps:?}");
    assert!(steps.concat().is_sorted(), "{steps:?}");
    let by: Vec<_> = steps.concat().into_iter().map(|place| ledger[place]["principal"].clone()).collect();
    assert!(by.iter().all(|by| *by == "host"), "{by:?}");
}
