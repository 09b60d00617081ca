//! The rotation scheduler: owners hear in time that a value is due, once at each step, and what is overdue is seen.

use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::is_signed;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

const DAY_H: f64 = 24.0;

/// Waits until so many notices have arrived; they are distinct, or one came twice.
async fn told(desk: &Upstream, news: &Notify, count: usize) -> anyhow::Result<Vec<Recorded>> {
    let arrived = async {
        loop {
            let more = news.notified();
            let recorded = desk.recorded();
            if recorded.len() >= count {
                return recorded;
            }
            more.await;
        }
    };
    Ok(tokio::time::timeout(Duration::from_secs(30), arrived).await?)
}

// If it failed, a key would grow old unseen, or its owner would hear of it so often that nobody listens.
#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_value_that_is_due_hears_a_countdown_and_what_is_overdue_is_flagged() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let news = Arc::new(Notify::new());
    let bell = Arc::clone(&news);
    let desk = Upstream::start(&authority, &["ops.example.com"], move |_: Recorded| {
        bell.notify_waiters();
        async { Reply { status: 204, headers: Vec::new(), body: Vec::new() } }
    })
    .await?;
    let mut site = Site::start_by(authority, ServerOptions::default().pin("ops.example.com", &desk)).await?;
    let mut holder = site.holder("acme").await?;
    let set = json!({"url": "https://ops.example.com/keys"}).to_string().into_bytes();
    let json_body = [("content-type", "application/json")];
    let made = holder.tenant.client.send("PUT", "/v1/notices", &json_body, set).await?.json();
    let secret = made["text"].as_str().unwrap_or_default().to_owned();
    let findings = async |client: &keybearer_tests::Client, credential: &str| {
        let listed = client.get("/v1/inventory").await?.json();
        let items = listed["items"].as_array().cloned().unwrap_or_default();
        let own = items.into_iter().find(|item| item["id"] == credential).unwrap_or_default();
        anyhow::Ok((own["rotation_due"].clone(), own["findings"].to_string()))
    };
    // Held for 90 days: the countdown is at 14, 7 and 1 days, and then every day.
    for (count, (days, left, overdue)) in
        [(77.0, 14, 0), (84.0, 7, 0), (89.5, 1, 0), (92.5, 0, 2)].into_iter().enumerate()
    {
        site.server.make_older(&holder.credential, days * DAY_H)?;
        holder.tenant.client = site.server.public().bearing(&holder.tenant.token);
        let told = told(&desk, &news, count + 1).await?;
        assert_eq!(told.len(), count + 1, "each step once");
        let notice = &told[count];
        assert!(notice.target == "/keys" && is_signed(notice, &secret));
        let body: Value = serde_json::from_slice(&notice.body)?;
        assert_eq!((&body["type"], &body["data"]["version"]), (&json!("credential.rotation_due"), &json!(1)), "{body}");
        let data = &body["data"];
        assert_eq!(
            (&data["credential"], &data["days_left"], &data["overdue_days"]),
            (&json!(holder.credential), &json!(left), &json!(overdue)),
            "{body}"
        );
        assert!(data["owner"].is_string() && data["name"].is_string() && !body.to_string().contains(&holder.value));
        let (due, findings) = findings(&holder.tenant.client, &holder.credential).await?;
        assert_eq!(&due, &data["due"], "{body}");
        assert_eq!(findings.contains("rotation_overdue"), left == 0, "{findings}");
    }
    // Nothing is blocked: who cannot rotate today must not be down today.
    assert_eq!(holder.get("/anything").await?.status, 200);
    let metrics = async |site: &Site| anyhow::Ok(site.server.admin().get("/metrics").await?.text());
    assert!(metrics(&site).await?.contains("keybearer_notices_waiting 0\n"));
    // The same day it is not told again, however often the server starts.
    assert!(site.server.stop()?);
    site.server.restart()?;
    holder.tenant.client = site.server.public().bearing(&holder.tenant.token);
    let asked = |ledger: &[Value]| {
        let of = |record: &&Value| record["what"] == "rotation_asked" && record["subject"] == *holder.credential;
        ledger
            .iter()
            .filter(of)
            .map(|record| record["note"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let steps = ["due within 14 days", "due within 7 days", "due within 1 days", "overdue"];
    assert_eq!(asked(&site.ledger()?), steps);
    // A new value ends it.
    holder.rotate(&keybearer_tests::canary("new-")).await?;
    assert!(!findings(&holder.tenant.client, &holder.credential).await?.1.contains("rotation_overdue"));
    assert_eq!((desk.recorded().len(), asked(&site.ledger()?).len()), (4, 4));
    Ok(())
}

/// Credentials of the tenant whose issuer never answers; one after the other they take this many times ten seconds.
const SILENT: usize = 4;

// If it failed, one tenant's issuers would keep every other tenant's keys from being rotated, or asked for, in time.
#[tokio::test(flavor = "multi_thread")]
async fn r12_p9_a_tenant_whose_issuers_are_silent_holds_up_nobody_elses_rotation() -> anyhow::Result<()> {
    let (authority, news) = (Authority::new()?, Arc::new(Notify::new()));
    let bell = Arc::clone(&news);
    let desk = Upstream::start(&authority, &["ops.example.com"], move |_: Recorded| {
        bell.notify_waiters();
        async { Reply { status: 204, headers: Vec::new(), body: Vec::new() } }
    })
    .await?;
    let issuer = Upstream::start(&authority, &["login.test"], |_: Recorded| async {
        std::future::pending::<()>().await;
        Reply::json(200, &json!({}))
    })
    .await?;
    let options = ServerOptions::default().pin("ops.example.com", &desk).pin("login.test", &issuer);
    let mut site = Site::start_by(authority, options).await?;
    // They are looked at by name.
    let (first, second) = (site.server.tenant("a-tenant").await?, site.holder("b-tenant").await?);
    let mut due = vec![second.credential.clone()];
    for number in 0..SILENT {
        let new = json!({
            "name": format!("silent-{number}"), "owner": "the tests", "justification": "a case needs it",
            "kind": {"kind": "oauth_refresh_token", "token_url": "https://login.test/token", "client_id": "me"},
            "value": format!("{}\n{}", keybearer_tests::canary("secret-"), keybearer_tests::canary("refresh-")),
        });
        let stored = first.client.post("/v1/credentials", &new).await?;
        assert_eq!(stored.status, 201, "{}", stored.text());
        due.push(stored.json()["id"].as_str().expect("an id").to_owned());
    }
    let set = json!({"url": "https://ops.example.com/keys"}).to_string().into_bytes();
    let set = second.tenant.client.send("PUT", "/v1/notices", &[("content-type", "application/json")], set).await?;
    assert_eq!(set.status, 200, "{}", set.text());
    site.server.make_all_older(&due.iter().map(String::as_str).collect::<Vec<_>>(), 100.0 * DAY_H)?;
    let notice = tokio::time::timeout(Duration::from_secs(8), told(&desk, &news, 1)).await??;
    let body: Value = serde_json::from_slice(&notice[0].body)?;
    assert_eq!(body["data"]["credential"], json!(second.credential), "{body}");
    assert!(issuer.recorded().len() < SILENT, "and the first of the others is still waited for");
    Ok(())
}
