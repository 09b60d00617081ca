//! Issuers that register clients and never answer whoever takes one back: how long that lasts is theirs to say, and
//! neither what is stopped nor anybody else waits for it.

use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Client;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;
use tokio::sync::watch;

use super::id;
use super::open;
use super::put;

/// As long as a case waits for what is on its way.
const PATIENCE: Duration = Duration::from_secs(30);

/// An issuer, and how often it was asked to take a client back so far.
async fn issuer(authority: &Authority) -> anyhow::Result<(Upstream, watch::Receiver<usize>)> {
    let (asked, seen) = watch::channel(0);
    let issuer = Upstream::start(authority, &["login.test"], move |request: Recorded| {
        let asked = asked.clone();
        async move {
            if request.method == "DELETE" {
                asked.send_modify(|count| *count += 1);
                std::future::pending::<()>().await;
            }
            let answer = json!({
                "client_id": "client-1", "client_secret": canary("client-secret-"), "client_secret_expires_at": 0,
                "registration_access_token": canary("registration-"),
                "registration_client_uri": "https://login.test/reg/client-1",
                "token_endpoint_auth_method": "client_secret_basic",
            });
            Reply::json(201, &answer)
        }
    });
    Ok((issuer.await?, seen))
}

/// Registers so many clients: their credentials.
async fn registered(tenant: &Tenant, count: usize) -> anyhow::Result<Vec<String>> {
    let mut credentials = Vec::new();
    for number in 0..count {
        let asked = json!({
            "name": format!("client-{number}"), "owner": "the tests", "justification": "a case needs it",
            "kind": {"kind": "oauth_client_credentials", "token_url": "https://login.test/token"},
            "registration_url": "https://login.test/reg",
        });
        let stored = tenant.client.post("/v1/credentials/register", &asked).await?;
        anyhow::ensure!(stored.status == 201, "{}", stored.text());
        credentials.push(stored.json()["id"].as_str().expect("an id").to_owned());
    }
    Ok(credentials)
}

/// Opens an incident about each at once, and does not wait for any.
fn open_own(client: &Client, credentials: &[String]) -> Vec<tokio::task::JoinHandle<anyhow::Result<Answer>>> {
    let open = |credential: &String| {
        let (client, subject) = (client.clone(), json!({"credential": credential}));
        tokio::spawn(async move { client.post("/v1/own/incidents", &subject).await })
    };
    credentials.iter().map(open).collect()
}

async fn asked(seen: &mut watch::Receiver<usize>, count: usize) -> anyhow::Result<()> {
    tokio::time::timeout(PATIENCE, seen.wait_for(|asked| *asked >= count)).await??;
    Ok(())
}

async fn incidents(site: &Site) -> anyhow::Result<Vec<Value>> {
    let listed = site.server.operator().get("/v1/incidents").await?.json();
    Ok(listed["items"].as_array().cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_p9_a_tenants_incidents_hold_up_neither_a_start_nor_whoever_calls_then() -> anyhow::Result<()> {
    // If this failed, a tenant with an issuer of its own could keep every other tenant's calls from being taken for hours.
    let authority = Authority::new()?;
    let (issuer, mut seen) = issuer(&authority).await?;
    let mut site = Site::start_by(authority, ServerOptions::default().pin("login.test", &issuer)).await?;
    let (hostile, other) = (site.server.tenant("hostile").await?, site.holder("other").await?);
    let credentials = registered(&hostile, 20).await?;
    let opening = open_own(&hostile.client, &credentials[..10]);
    asked(&mut seen, 10).await?;
    site.server.kill()?;
    opening.into_iter().for_each(|opening| opening.abort());

    let began = Instant::now();
    site.server.restart()?;
    let client = site.server.public().bearing(&other.tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    let answer = client.post("/v1/calls", &call).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let hostile = site.server.public().bearing(&hostile.token);
    for credential in &credentials[..10] {
        let shown = hostile.get(&format!("/v1/credentials/{credential}")).await?.json();
        assert_eq!(shown["state"], "revoked", "before anybody can ask: {shown}");
    }
    asked(&mut seen, 20).await?;
    let contained = async {
        while incidents(&site).await?.iter().any(|incident| incident["contained"].is_null()) {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, contained).await??;

    // A stop waits for them, and leaves the next start nothing to do.
    let opening = open_own(&hostile, &credentials[10..]);
    asked(&mut seen, 30).await?;
    assert!(site.server.stop()?);
    opening.into_iter().for_each(|opening| opening.abort());
    site.server.restart()?;
    let all = incidents(&site).await?;
    assert_eq!(all.len(), 20);
    assert!(all.iter().all(|incident| incident["contained"].is_u64()), "{all:?}");
    let carried_on = |record: &&Value| record["what"] == "credential_revoked" && record["principal"] == "host";
    assert_eq!(site.ledger()?.iter().filter(carried_on).count(), 10, "those that were killed");
    let (is_clean, audited, error) = site.server.cli(&["ledger", "audit", "--json"], b"")?;
    assert!(is_clean, "{audited} {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_silent_issuers_hold_up_neither_a_revocation_nor_the_word_of_it() -> anyhow::Result<()> {
    // If this failed, whoever is stopped would say how long that takes, and nobody would hear of it meanwhile.
    let authority = Authority::new()?;
    let (issuer, mut seen) = issuer(&authority).await?;
    let (told, mut news) = watch::channel(false);
    let desk = Upstream::start(&authority, &["soc.example.com"], move |_: Recorded| {
        told.send_replace(true);
        async { Reply::json(200, &json!({})) }
    })
    .await?;
    let options = ServerOptions::default().pin("login.test", &issuer).pin("soc.example.com", &desk);
    let site = Site::start_by(authority, options).await?;
    assert_eq!(put(&site.server, "/v1/notify", &json!({"url": "https://soc.example.com/"})).await?.status, 200);
    let hostile = site.server.tenant("hostile").await?;
    registered(&hostile, 32).await?;
    let of_it = async || {
        let listed = site.server.operator().get("/v1/inventory/all").await?.json();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let is_meant = |item: &&Value| item["kind"] == "credential" && item["tenant"] == hostile.id.as_str();
        anyhow::Ok(items.iter().filter(is_meant).count())
    };
    assert_eq!(of_it().await?, 32);
    let began = Instant::now();
    let (opened, seen_meanwhile) = tokio::join!(open(&site.server, json!({"tenant": hostile.id})), async {
        asked(&mut seen, 1).await?;
        tokio::time::timeout(PATIENCE, news.wait_for(|told| *told)).await??;
        anyhow::Ok((began.elapsed(), of_it().await?))
    });
    let (opened, (heard, left)) = (opened?, seen_meanwhile?);
    assert!(heard < Duration::from_secs(5), "the notice: {heard:?}");
    assert_eq!(left, 0, "all are revoked while the first issuers are asked");
    assert_eq!(opened["counts"]["credentials_revoked"], 32, "{opened}");
    assert!(opened["contained"].is_u64(), "{opened}");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());

    // To leave takes no longer, either.
    assert_eq!(super::close(&site.server, id(&opened), super::ROOT_CAUSE).await?.status, 200);
    let began = Instant::now();
    let left = site.server.operator().send("DELETE", &format!("/v1/tenants/{}", hostile.id), &[], Vec::new()).await?;
    assert_eq!(left.status, 200, "{}", left.text());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    Ok(())
}
