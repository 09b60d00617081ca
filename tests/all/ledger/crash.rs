//! A process that dies in the middle: the next start says what it does not know, and goes on.

use std::io::Write as _;

use keybearer_tests::Site;
use serde_json::json;

use super::segments;

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_kill_in_flight_leaves_unknown_outcomes_that_the_next_start_lists() -> anyhow::Result<()> {
    // If this failed, nobody would know after a crash which upstreams may have acted.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything/before").await?.status, 200);
    let pid = site.server.pid();
    let (cut, killed) = tokio::join!(holder.get("/anything/hold"), async {
        site.arrived("/hold").await?;
        anyhow::Ok(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?.success())
    });
    assert!(cut.is_err() && killed?, "the caller hears nothing");
    site.server.kill()?;
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "what is there holds");
    // As if the last record had been written by half when the power went.
    let ledger = site.server.home().join("ledger");
    let last = segments(&ledger)?.pop().expect("a segment");
    std::fs::OpenOptions::new().append(true).open(&last)?.write_all(b"{\"seq\":99,\"ti")?;
    site.let_go();
    site.server.restart()?;
    let log = site.server.log();
    assert!(log.contains("outcome unknown: the call was cut off"), "{log}");
    assert!(log.contains("outcome unknown: the upstream may have acted") && log.contains("torn record"), "{log}");
    let records = site.ledger()?;
    let unknown: Vec<_> = records
        .iter()
        .filter(|record| matches!(record["kind"].as_str(), Some("call_unknown" | "dispatch_unknown")))
        .collect();
    assert_eq!(unknown.len(), 2, "{unknown:?}");
    assert_eq!(unknown[0]["call"], unknown[1]["call"]);
    assert!(unknown.iter().all(|record| record["tenant"] == holder.tenant.id.as_str()));
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "the chain goes on over the crash");
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    assert_eq!(client.post("/v1/calls", &call).await?.status, 200);
    let explained = client.get(&format!("/v1/calls/{}/explain", unknown[0]["call"].as_str().expect("an id"))).await?;
    assert!(explained.text().contains("unknown"), "explain says so too: {}", explained.text());
    site.server.stop()?;
    site.server.restart()?;
    assert_eq!(site.ledger()?.iter().filter(|record| record["kind"] == "call_unknown").count(), 1, "said once");
    Ok(())
}
