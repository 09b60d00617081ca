//! How long a revocation takes, and whether anything is used after it: many trials against the real server,
//! each with a credential of its own that callers use without pause while it is revoked. Calls that begin after the
//! acknowledgement must not arrive, and the ledger's audit must find nothing. What had been handed to the kernel
//! before may be read later by an upstream that is busy: arrivals of calls that began before are counted apart,
//! and are no failure, as from outside one cannot tell why they are late. That the last byte is with the kernel
//! before the acknowledgement is shown by the tests of guards and wire, not by this.
#![expect(clippy::print_stdout, reason = "what it prints is what it is asked for")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::json;

use crate::calls::UPSTREAM;
use crate::stats::median;

/// Trials at the same time, each with so many callers.
const WORKERS: usize = 4;
const CALLERS: usize = 2;

/// Where calls go that begin after the acknowledgement.
const AFTER: &str = "/anything/after";

/// When each value was last seen by the upstream.
type Seen = Arc<parking_lot::Mutex<HashMap<String, Arrived>>>;

#[derive(Clone, Copy)]
struct Arrived {
    at: Instant,
    /// One that began after the acknowledgement has arrived.
    began_after: bool,
}

/// What one trial came to.
struct Trial {
    /// From asking for the revocation to its acknowledgement.
    acknowledged: Duration,
    /// From asking for it to the last use; zero if that was before.
    last_use: Duration,
    used: bool,
    used_after: bool,
    arrived_late: bool,
}

/// Runs so many trials and prints what they came to.
///
/// # Errors
/// If the server does not start, or anything was used after its revocation was acknowledged.
pub(crate) fn run(built: &Built, trials: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (authority, seen) = (Authority::new()?, Seen::default());
        let upstream = {
            let seen = Arc::clone(&seen);
            let answer = move |request: Recorded| {
                let value = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
                let mut seen = seen.lock();
                let before = seen.get(value).is_some_and(|arrived| arrived.began_after);
                let began_after = before || request.target.contains(AFTER);
                seen.insert(value.to_owned(), Arrived { at: Instant::now(), began_after });
                drop(seen);
                std::future::ready(Reply::json(200, &json!({})))
            };
            Upstream::start(&authority, &[UPSTREAM], answer).await?
        };
        let server = Server::start(built, &authority, ServerOptions::default().pin(UPSTREAM, &upstream))?;
        server.publish("http-get").await?;
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let new = json!({"name": format!("w{worker}"), "calls_per_second": 1_000_000, "concurrent_calls": 64});
                (server.tenant_with(new), Arc::clone(&seen))
            })
            .collect();
        let mut running = tokio::task::JoinSet::new();
        for (tenant, seen) in workers {
            let tenant = Arc::new(tenant.await?);
            running.spawn(async move {
                let mut done = Vec::new();
                for number in 0..trials.div_ceil(WORKERS) {
                    done.push(trial(&tenant, &seen, number).await?);
                }
                anyhow::Ok(done)
            });
        }
        let mut done = Vec::new();
        while let Some(worker) = running.join_next().await {
            done.extend(worker??);
        }
        let (is_clean, audited, error) = server.cli(&["ledger", "audit"], b"")?;
        print!("{audited}{error}");
        tell(&done);
        anyhow::ensure!(is_clean && done.iter().all(|trial| !trial.used_after), "used after the acknowledgement");
        Ok(())
    })
}

async fn trial(tenant: &Arc<Tenant>, seen: &Seen, number: usize) -> anyhow::Result<Trial> {
    let value = canary("trial-");
    let new = json!({
        "name": format!("trial-{number}"), "kind": {"kind": "bearer"}, "owner": "the benches",
        "justification": "a trial", "value": value,
    });
    let stored = tenant.client.post("/v1/credentials", &new).await?;
    let credential = stored.json()["id"].as_str().with_context(|| stored.text())?.to_owned();
    let grant = json!({"package": "http-get", "slot": "site", "credential": credential});
    let granted = tenant.client.post("/v1/grants", &grant).await?;
    anyhow::ensure!(granted.status == 201, "{}", granted.text());
    let (stop, is_acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (tenant, stop) = (Arc::clone(tenant), Arc::clone(&stop));
            let is_acknowledged = Arc::clone(&is_acknowledged);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let path = if is_acknowledged.load(Ordering::SeqCst) { AFTER } else { "/anything/before" };
                    let answer = tenant.call("http-get.get", json!({"path": path})).await?;
                    let code = answer.code();
                    let expected = matches!(code.as_str(), "" | "denied" | "credential_unusable");
                    anyhow::ensure!(expected, "{}", answer.text());
                }
                anyhow::Ok(())
            })
        })
        .collect();
    // Anywhere in the first calls.
    tokio::time::sleep(Duration::from_micros(u64::try_from(number % 40)? * 500)).await;
    let asked = Instant::now();
    let revoked = tenant.client.post(&format!("/v1/credentials/{credential}/revoke"), &json!({})).await?;
    let acknowledged = Instant::now();
    is_acknowledged.store(true, Ordering::SeqCst);
    anyhow::ensure!(revoked.status == 200, "{}", revoked.text());
    // The callers go on for a while with what is revoked.
    let after = tenant.call("http-get.get", json!({"path": AFTER})).await?;
    anyhow::ensure!(after.code() == "credential_unusable", "{}", after.text());
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await??;
    }
    let last = seen.lock().remove(&value);
    Ok(Trial {
        acknowledged: acknowledged - asked,
        last_use: last.map(|last| last.at.saturating_duration_since(asked)).unwrap_or_default(),
        used: last.is_some(),
        used_after: last.is_some_and(|last| last.began_after),
        arrived_late: last.is_some_and(|last| last.at > acknowledged),
    })
}

fn tell(done: &[Trial]) {
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    let column = |of: fn(&Trial) -> Duration| {
        let mut all: Vec<f64> = done.iter().map(|trial| ms(of(trial))).collect();
        all.sort_by(f64::total_cmp);
        let at = |part: usize| all[(all.len() - 1) * part / 100];
        (at(99), at(100), median(all.clone()))
    };
    let count = |is: fn(&Trial) -> bool| done.iter().filter(|trial| is(trial)).count();
    println!("{} trials, {} of them used before", done.len(), count(|trial| trial.used));
    for (name, (p99, most, middle)) in [
        ("from asking to the acknowledgement", column(|trial| trial.acknowledged)),
        ("from asking to the last use", column(|trial| trial.last_use)),
    ] {
        println!("{name}: median {middle:.2} ms, 99 % {p99:.2} ms, most {most:.2} ms");
    }
    println!("trials with a late arrival, of a call that began before: {}", count(|trial| trial.arrived_late));
    println!("uses after the acknowledgement: {}", count(|trial| trial.used_after));
}
