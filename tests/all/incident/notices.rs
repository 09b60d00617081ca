//! Notices to the operator, when the one who is to hear of them is not there at first.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::is_signed;
use serde_json::json;

use super::id;
use super::open;
use super::put;

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_notice_is_tried_again_over_a_restart_and_under_another_master_key() -> anyhow::Result<()> {
    // If this failed, an incident at the moment of an outage would be heard of by nobody.
    let authority = Authority::new()?;
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let (arrival, mut arrivals) = tokio::sync::mpsc::channel::<Recorded>(16);
    let desk = Upstream::start(&authority, &["soc.example.com"], move |request: Recorded| {
        let status = if up.load(Ordering::SeqCst) { 204 } else { 503 };
        // The case may be over.
        drop(arrival.try_send(request));
        async move { Reply { status, headers: Vec::new(), body: Vec::new() } }
    })
    .await?;
    let mut site = Site::start_by(authority, ServerOptions::default().pin("soc.example.com", &desk)).await?;
    for wrong in ["http://soc.example.com/x", "https://soc.example.com", "https://user@soc.example.com/", "nothing"] {
        assert_eq!(
            put(&site.server, "/v1/notify", &json!({"url": wrong})).await?.code(),
            "malformed_request",
            "{wrong}"
        );
    }
    let set = put(&site.server, "/v1/notify", &json!({"url": "https://soc.example.com/"})).await?.json();
    let secret = set["text"].as_str().expect("a secret").to_owned();
    let shown = site.server.operator().get("/v1/notify").await?;
    assert!(shown.status == 200 && !shown.text().contains("whsec_"), "shown once: {}", shown.text());
    assert_eq!(site.server.operator().post("/v1/master-key/rotate", &json!({})).await?.status, 204);
    let incident = open(&site.server, json!({"tool": "http-get"})).await?;
    assert_eq!(incident["notice"]["state"], "pending", "nothing waits for it: {incident}");
    let mut next = async || tokio::time::timeout(Duration::from_secs(30), arrivals.recv()).await;
    let first = next().await?.expect("a try");
    let second = next().await?.expect("another try");
    site.server.stop()?;
    is_up.store(true, Ordering::SeqCst);
    site.server.restart()?;
    let third = next().await?.expect("a try after the restart");
    for notice in [&first, &second, &third] {
        assert!(is_signed(notice, &secret), "signed by the secret that was shown");
        assert_eq!(notice.header("webhook-id"), first.header("webhook-id"), "one notice, whatever it takes");
    }
    let delivered = async {
        loop {
            let path = format!("/v1/incidents/{}", id(&incident));
            let shown = site.server.operator().get(&path).await?.json();
            if shown["notice"]["state"] == "delivered" {
                return anyhow::Ok(());
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), delivered).await??;
    assert_eq!(site.server.operator().send("DELETE", "/v1/notify", &[], Vec::new()).await?.status, 204);
    assert_eq!(site.server.operator().get("/v1/notify").await?.code(), "not_found");
    assert!(!format!("{:?}{}", site.server.ledger()?, site.server.log()).contains(secret.trim_start_matches("whsec_")));
    Ok(())
}
