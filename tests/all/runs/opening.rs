//! A run from its opening to its end, and what it may not do meanwhile.

use keybearer_tests::Site;
use serde_json::json;

use super::open;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_opened_called_by_its_token_and_ended() -> anyhow::Result<()> {
    // If this failed, a platform could not tie what an agent does to one bounded, recorded context.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let run = open(&site, &holder.tenant.client, json!({"agent": "support-bot"})).await?;
    let called = run.get("/anything/in").await?;
    assert_eq!(called.status, 200, "{}", called.text());
    assert_eq!(called.json()["run"], run.id.as_str());
    let outside = holder.get("/anything/out").await?.json();
    assert_ne!(outside["run"], run.id.as_str(), "a call outside of a run has one of its own");
    let shown = run.client.get(&format!("/v1/runs/{}", run.id)).await?.json();
    assert_eq!(
        (&shown["state"], &shown["agent"], &shown["generation"]),
        (&"open".into(), &"support-bot".into(), &0.into())
    );
    assert_eq!(shown["grants"], json!([holder.grant]));
    let listed = holder.tenant.client.get("/v1/runs").await?;
    assert!(listed.text().contains(&run.id) && !listed.text().contains(&run.token), "{}", listed.text());
    for path in ["/v1/runs", "/v1/credentials", "/v1/grants", "/v1/tokens"] {
        assert_eq!(run.client.get(path).await?.code(), "forbidden", "{path}: a run calls, and nothing else");
    }

    let ended = run.act("end").await?;
    assert_eq!((&ended["state"], &ended["runs"], &ended["cancelled"]), (&"finished".into(), &1.into(), &0.into()));
    let refused = run.get("/anything/late").await?;
    let nobody = site.server.public().post("/v1/calls", &json!({"tool": "http-get.get", "arguments": {}})).await?;
    assert_eq!((refused.status, &refused.body), (401, &nobody.body), "as a revoked token");
    let again = holder.tenant.client.post(&format!("/v1/runs/{}/end", run.id), &json!({})).await?.json();
    assert_eq!((&again["state"], &again["runs"]), (&"finished".into(), &0.into()), "to end it again is no error");

    let ledger = site.ledger()?;
    let of =
        |kind: &str| ledger.iter().filter(|record| record["kind"] == kind && record["run"] == run.id.as_str()).count();
    let kinds = ["run_opened", "call_begun", "dispatch_intended", "dispatch_closed", "call_closed", "run_ended"];
    assert_eq!(kinds.map(of), [1; 6], "{ledger:#?}");
    Ok(())
}
