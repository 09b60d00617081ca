//! Notices: where a tenant is told that something needs its attention.

use keybearer_tests::Site;
use keybearer_tests::is_signed;
use serde_json::json;

// If it failed, a tenant's notices would go where somebody else wants them, in the clear, or signed with a secret
// that anybody can read.
#[tokio::test]
async fn notices_go_by_https_alone_and_their_secret_is_shown_once() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (holder, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &holder.tenant.client;
    let set = async |url: &str| {
        let body = json!({"url": url}).to_string().into_bytes();
        client.send("PUT", "/v1/notices", &[("content-type", "application/json")], body).await
    };
    assert_eq!(client.get("/v1/notices").await?.code(), "not_found");
    assert_eq!(set("http://notices.test/").await?.code(), "malformed_request");
    let made = set("https://notices.test/hook").await?.json();
    let secret = made["text"].as_str().unwrap_or_default().to_owned();
    assert!(secret.starts_with("whsec_"), "{made}");
    let shown = client.get("/v1/notices").await?;
    assert!(shown.json()["url"] == "https://notices.test/hook" && !shown.text().contains(&secret), "{}", shown.text());
    assert_eq!(other.tenant.client.get("/v1/notices").await?.code(), "not_found");
    let again = set("https://notices.test/hook").await?.json();
    assert_ne!(again["text"].as_str(), Some(&*secret), "each setting has a secret of its own");
    let removed = client.send("DELETE", "/v1/notices", &[], Vec::new()).await?;
    assert_eq!((removed.status, client.get("/v1/notices").await?.status), (204, 404));
    Ok(())
}

// If it failed, nobody would hear that a key is due, or anybody could tell a tenant so.
#[tokio::test]
async fn a_notice_arrives_signed_and_carries_no_credential() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    assert_eq!(client.post("/v1/notices/test", &json!({})).await?.code(), "not_found");
    let body = json!({"url": "https://httpbin.org/notices"}).to_string().into_bytes();
    let made = client.send("PUT", "/v1/notices", &[("content-type", "application/json")], body).await?.json();
    assert_eq!(client.send("POST", "/v1/notices/test", &[], Vec::new()).await?.status, 204);
    site.arrived("/notices").await?;
    let recorded = site.upstream.recorded();
    let notice = recorded.iter().find(|request| request.target == "/notices").expect("it arrived");
    let secret = made["text"].as_str().unwrap_or_default();
    assert!(notice.method == "POST" && is_signed(notice, secret) && !is_signed(notice, "whsec_AAAA"));
    assert!(notice.header("authorization").is_none(), "a notice carries nobody's credential");
    let body: serde_json::Value = serde_json::from_slice(&notice.body)?;
    assert!(body["type"] == "test" && body["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
    let records = site.ledger()?;
    assert!(
        records.iter().any(|record| record["purpose"] == "notify" && record["kind"] == "dispatch_intended"),
        "recorded"
    );
    Ok(())
}
