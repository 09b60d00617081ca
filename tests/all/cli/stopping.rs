//! Stopping: what runs is waited for, for so long as is configured, and then cut off and recorded.

use std::time::Duration;
use std::time::Instant;

use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use serde_json::Value;

fn signal(pid: u32) -> anyhow::Result<()> {
    let sent = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    anyhow::ensure!(sent.success(), "the server is gone");
    Ok(())
}

/// Waits for the line that says that the stop has begun.
async fn stopping(site: &Site) {
    while !site.server.log().contains("running calls are waited for") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_stop_waits_for_the_calls_that_run_and_takes_no_new_ones() -> anyhow::Result<()> {
    // If this failed, every release would cut off what customers' agents are doing.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let (running, late) = tokio::join!(holder.get("/anything/hold"), async {
        site.arrived("/hold").await?;
        signal(site.server.pid())?;
        stopping(&site).await;
        let late = holder.get("/anything/late").await;
        let ready = site.server.admin().get("/readyz").await?;
        anyhow::ensure!(ready.status == 503, "readiness is false: {}", ready.text());
        site.let_go();
        anyhow::Ok(late)
    });
    let (running, late) = (running?, late?);
    assert_eq!(running.status, 200, "what ran is answered: {}", running.text());
    assert!(late.is_err() || late.is_ok_and(|answer| answer.code() == "shutting_down"), "and nothing new begins");
    assert!(site.server.wait()?, "it ends well");
    assert_eq!(site.upstream.recorded().len(), 1);
    let ledger = site.ledger()?;
    let last: Vec<_> = ledger.iter().filter_map(|record| record["what"].as_str()).collect();
    assert_eq!(last.last(), Some(&"server_stopped"), "{last:?}");
    assert_eq!(open_calls(&ledger), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c03_a_stop_does_not_wait_for_ever_and_records_what_it_cut_off() -> anyhow::Result<()> {
    // If this failed, one upstream that hangs would keep a server from ever stopping.
    let options = ServerOptions { grace_ms: Some(300), ..ServerOptions::default() };
    let mut site = Site::start_with(options).await?;
    let holder = site.holder("acme").await?;
    let began = Instant::now();
    let (running, stopped) = tokio::join!(holder.get("/anything/hold"), async {
        site.arrived("/hold").await?;
        signal(site.server.pid())
    });
    stopped?;
    assert!(running.is_err() || running.is_ok_and(|answer| answer.status >= 400), "it was cut off");
    site.server.wait()?;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let ledger = site.ledger()?;
    assert_eq!(open_calls(&ledger), 0, "what was cut off has an end in the ledger");
    let ends: Vec<_> = ledger.iter().filter(|record| record["kind"] == "dispatch_closed").collect();
    assert_eq!((ends.len(), &ends[0]["fault"]), (1, &Value::from("stopped")), "{ends:?}");
    site.let_go();
    site.server.restart()?;
    let verified = site.server.cli(&["ledger", "verify"], b"")?;
    assert!(verified.0, "{verified:?}");
    Ok(())
}

/// Calls that began and have no end.
fn open_calls(ledger: &[Value]) -> isize {
    let count = |kinds: &[&str]| {
        let found = ledger.iter().filter(|record| kinds.iter().any(|kind| record["kind"] == *kind)).count();
        isize::try_from(found).unwrap_or(isize::MAX)
    };
    count(&["call_begun"]) - count(&["call_closed", "call_abandoned", "call_unknown"])
}
