//! The terms on which a credential is held.

use keybearer_tests::Holder;
use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

const DAY_MS: u64 = 24 * 3_600_000;

async fn store(holder: &Holder, name: &str, more: Value) -> anyhow::Result<(u16, Value)> {
    let mut body = json!({"name": name, "kind": {"kind": "bearer"}, "owner": "ops@acme.test",
        "justification": "a case", "value": canary("terms-")});
    more.as_object().into_iter().flatten().for_each(|(field, value)| body[field] = value.clone());
    let answer = holder.tenant.client.post("/v1/credentials", &body).await?;
    Ok((answer.status, answer.json()))
}

// If it failed, credentials would be stored that nobody answers for, that never end, or that are never rotated.
#[tokio::test]
async fn onboarding_asks_who_and_why_and_chooses_the_rest_as_a_person_would() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let (status, stored) = store(&holder, "plain", json!({})).await?;
    assert_eq!(status, 201, "{stored}");
    assert_eq!(stored["rotation"], json!({"every_h": 90 * 24, "sensitive": false}));
    let (created, expires) = (stored["created"].as_u64().expect("a time"), stored["expires"].as_u64().expect("a time"));
    assert_eq!(expires, created + 365 * DAY_MS);
    let due = stored["rotation_due"].as_u64().expect("a time");
    assert!(due.abs_diff(created + 90 * DAY_MS) < 60_000, "{due}");

    let (_, stored) = store(&holder, "much", json!({"rotation": {"sensitive": true}})).await?;
    assert_eq!(stored["rotation"]["every_h"], 24);
    for (name, wrong) in [
        ("owner", json!({"owner": " "})),
        ("justification", json!({"justification": ""})),
        ("never", json!({"rotation": {"every_h": 0}})),
        ("rarely", json!({"rotation": {"every_h": 90 * 24 + 1}})),
        ("rarely-much", json!({"rotation": {"every_h": 48, "sensitive": true}})),
        ("nowhere", json!({"binding": [{"host": "a.test", "methods": [], "paths": ["/"]}]})),
        ("headers", json!({"binding": [{"host": "a.test", "methods": ["GET"], "paths": ["/"], "headers": ["x"]}]})),
    ] {
        let (status, problem) = store(&holder, name, wrong).await?;
        assert_eq!((status, &problem["code"]), (400, &json!("malformed_request")), "{name}: {problem}");
    }
    Ok(())
}

// If it failed, a credential would go to a place that its owner had closed for it.
#[tokio::test]
async fn a_credential_goes_no_further_than_its_own_terms_whatever_the_slot_asks() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything/a").await?.status, 200);
    let terms = format!("/v1/credentials/{}/terms", holder.credential);
    let change = |body: Value| {
        let (client, terms) = (holder.tenant.client.clone(), terms.clone());
        async move { client.post(&terms, &body).await }
    };
    let narrow = json!({"binding": [{"host": "httpbin.org", "methods": ["GET"], "paths": ["/anything/{id}"]}]});
    let changed = change(narrow.clone()).await?;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(changed.json()["binding"][0]["paths"], json!(["/anything/{id}"]));

    assert_eq!(holder.get("/anything/b").await?.status, 200);
    let before = site.upstream.recorded().len();
    let refused = holder.get("/status/200").await?;
    assert_eq!(refused.code(), "denied", "{}", refused.text());
    assert_eq!(site.upstream.recorded().len(), before, "the request left");
    let call = refused.json()["instance"].as_str().unwrap_or_default().to_owned();
    let explained = holder.tenant.explain(&call).await?;
    assert!(explained.contains("its own binding is narrower"), "{explained}");

    // What is left out stays, and an empty list leaves it to the slots again.
    let kept = change(json!({"owner": "new@acme.test", "rotation": {"every_h": 720}})).await?.json();
    assert_eq!((&kept["owner"], &kept["binding"][0]["host"]), (&json!("new@acme.test"), &json!("httpbin.org")));
    assert_eq!(change(json!({"binding": []})).await?.status, 200);
    assert_eq!(holder.get("/status/200").await?.status, 200);
    Ok(())
}
