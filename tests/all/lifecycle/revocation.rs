//! Revocation, in flight and many times over; grants that are taken while a call runs; expiry.

use std::time::Duration;

use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::json;

use super::assert_audited;
use super::assert_order;
use super::bearer;

#[tokio::test(flavor = "multi_thread")]
async fn r05_a_revocation_cuts_off_what_is_in_flight_and_says_so() -> anyhow::Result<()> {
    // If this failed, a leaked credential would go on working in requests that hang, and nobody would know.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let other = site.holder("globex").await?;
    let (call, revoked) = tokio::join!(holder.get("/anything/hold"), async {
        site.arrived("/hold").await?;
        holder.revoke().await
    });
    let (call, revoked) = (call?, revoked?);
    assert_eq!((revoked["dispatches_cancelled"].as_u64(), revoked["epoch"].as_u64()), (Some(1), Some(2)), "{revoked}");
    assert_eq!(call.code(), "denied", "the call that was cut off: {}", call.text());
    let id = call.json()["instance"].as_str().expect("the call's id").to_owned();
    let explained = holder.tenant.explain(&id).await?;
    assert!(explained.contains("revoked"), "the tenant's administrator is told why: {explained}");
    let arrived = site.upstream.recorded().len();
    assert_eq!(holder.get("/anything/after").await?.code(), "credential_unusable");
    assert_eq!(site.upstream.recorded().len(), arrived, "nothing is sent without the credential");
    let again = holder.revoke().await?;
    assert_eq!(again["dispatches_cancelled"], 0, "to revoke again cuts nothing off");
    let path = format!("/v1/credentials/{}/versions", holder.credential);
    let rotated = holder.tenant.client.post(&path, &json!({"value": canary("late-")})).await?;
    assert_eq!(rotated.code(), "conflict", "what is revoked stays so: {}", rotated.text());
    assert_eq!(other.get("/anything").await?.status, 200, "another tenant's is not touched");
    Ok(())
}

/// How often a credential is stored, used, revoked under use, and used again.
const TRIALS: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn r05_after_a_revocation_is_acknowledged_no_request_ever_carries_the_value() -> anyhow::Result<()> {
    // If this failed, an operator who had revoked a stolen key could not say from when on it was dead.
    let site = Site::start().await?;
    let new = json!({"name": "acme", "calls_per_second": 100_000, "concurrent_calls": 64});
    let tenant = site.server.tenant_with(new).await?;
    let mut cut_off = 0;
    let mut last = String::new();
    for trial in 0..TRIALS {
        let stored = json!({
            "name": format!("trial-{trial}"), "kind": {"kind": "bearer"}, "owner": "the tests",
            "justification": "a trial", "value": canary("trial-"),
        });
        let stored = tenant.client.post("/v1/credentials", &stored).await?.json();
        let credential = stored["id"].as_str().expect("an id").to_owned();
        let grant = json!({"package": "http-get", "slot": "site", "credential": credential});
        assert_eq!(tenant.client.post("/v1/grants", &grant).await?.status, 201);
        let call = |path: String| tenant.call("http-get.get", json!({"path": path}));
        let (first, second, revoked) = tokio::join!(
            call(format!("/anything/before-{trial}-a")),
            call(format!("/anything/before-{trial}-b")),
            async {
                // Somewhere between before the first call and after the last.
                tokio::time::sleep(Duration::from_micros(u64::try_from(trial % 50)? * 300)).await;
                let path = format!("/v1/credentials/{credential}/revoke");
                let revoked = tenant.client.post(&path, &json!({})).await?;
                anyhow::ensure!(revoked.status == 200, "{}", revoked.text());
                let after = call(format!("/anything/after-{trial}")).await?;
                anyhow::ensure!(after.code() == "credential_unusable", "{}", after.text());
                anyhow::Ok(revoked.json())
            }
        );
        for answer in [first?, second?] {
            let code = answer.code();
            assert!(matches!(code.as_str(), "" | "denied" | "credential_unusable"), "{}", answer.text());
        }
        cut_off += revoked?["dispatches_cancelled"].as_u64().expect("a number");
        last = credential;
    }
    let recorded = site.upstream.recorded();
    assert!(recorded.iter().all(|request| !request.target.contains("after")), "none after the acknowledgement");
    assert!(recorded.len() >= TRIALS / 2, "the trials used their credentials: {}", recorded.len());
    let ledger = site.ledger()?;
    let credentials: Vec<_> = ledger
        .iter()
        .filter(|record| record["kind"] == "dispatch_closed" && record["status"].is_u64())
        .filter_map(|record| record["credential"].as_str())
        .collect();
    for credential in &credentials {
        assert_order(&ledger, credential)?;
    }
    assert_audited(&site)?;
    assert!(!last.is_empty() && credentials.len() + usize::try_from(cut_off)? >= TRIALS / 2, "{cut_off} cut off");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_grant_that_is_taken_while_a_call_runs_is_gone_from_it_at_once() -> anyhow::Result<()> {
    // If this failed, a tool that was found to misbehave would keep its credential until it ends by itself.
    let site = Site::start().await?;
    site.server.publish("hostile").await?;
    let tenant = site.server.tenant("acme").await?;
    let (_, grant) = tenant.grant("hostile", "api", &canary("held-")).await?;
    let urls = ["https://upstream.test/hold", "https://upstream.test/second"];
    let (outcomes, taken) = tokio::join!(tenant.outcomes("hostile", &urls), async {
        site.arrived("/hold").await?;
        tenant.client.send("DELETE", &format!("/v1/grants/{grant}"), &[], Vec::new()).await
    });
    let taken = taken?;
    assert_eq!((taken.status, &taken.json()["dispatches_cancelled"]), (200, &json!(1)), "{}", taken.text());
    assert_eq!(outcomes?, ["denied", "denied"], "what waits is cut off, and nothing more is sent");
    assert_eq!(site.upstream.recorded().len(), 1);
    let after = tenant.call("hostile.calm", json!({})).await?;
    assert_eq!(after.code(), "grant_missing", "{}", after.text());
    Ok(())
}

#[tokio::test]
async fn r07_what_has_expired_is_used_no_more() -> anyhow::Result<()> {
    // If this failed, a contractor's credential would work after its last day.
    let site = Site::start().await?;
    let tenant = site.server.tenant("acme").await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let life = Duration::from_millis(1500);
    let value = canary("ending-");
    let new = json!({
        "name": "ending", "kind": {"kind": "bearer"}, "owner": "the tests", "justification": "it ends",
        "expires": u64::try_from((now + life).as_millis())?, "value": value,
    });
    let stored = tenant.client.post("/v1/credentials", &new).await?;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let grant = json!({"package": "http-get", "slot": "site", "credential": stored.json()["id"]});
    assert_eq!(tenant.client.post("/v1/grants", &grant).await?.status, 201);
    let token = json!({"label": "ending", "scopes": ["call"], "life_s": 1});
    let token = tenant.client.post("/v1/tokens", &token).await?.json();
    let brief = site.server.public().bearing(token["text"].as_str().expect("a token"));
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    assert_eq!(brief.post("/v1/calls", &call).await?.status, 200, "the token is good for a second");
    assert_eq!(tenant.client.post("/v1/calls", &call).await?.status, 200);
    assert!(site.upstream.recorded().iter().all(|request| bearer(request) == Some(value.as_str())));
    // Time itself is what is waited for.
    tokio::time::sleep(life).await;
    let arrived = site.upstream.recorded().len();
    assert_eq!(brief.post("/v1/calls", &call).await?.code(), "unauthenticated", "the token has ended");
    assert_eq!(tenant.client.post("/v1/calls", &call).await?.code(), "credential_unusable");
    assert_eq!(site.upstream.recorded().len(), arrived, "nothing was sent");
    Ok(())
}
