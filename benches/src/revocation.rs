//! How long a revocation takes, and whether anything is used after it: many trials with the executor in this process,
//! each with a credential of its own that callers use without pause while it is revoked. A use is bytes of a head that
//! carries it handed to the kernel: the way out tells of each, with its instant, by the clock that the
//! acknowledgement's is taken from. Beside that stand two witnesses: calls that begin after the acknowledgement must
//! not arrive at the upstream, and the ledger's audit must find nothing. What had been handed over before may be read
//! later by an upstream that is busy, and is no use after.
#![expect(clippy::print_stdout, reason = "what it prints is what it is asked for")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use keybearer_contract::Code;
use keybearer_contract::Limits;
use keybearer_executor::CallRequest;
use keybearer_executor::Carried;
use keybearer_executor::Durability;
use keybearer_executor::EgressConfig;
use keybearer_executor::EgressPin;
use keybearer_executor::Executor;
use keybearer_executor::ExecutorConfig;
use keybearer_executor::NewCredential;
use keybearer_executor::NewGrant;
use keybearer_executor::NewTenant;
use keybearer_executor::PublishOptions;
use keybearer_executor::Rollback;
use keybearer_executor::RowCeilings;
use keybearer_executor::RunLimits;
use keybearer_executor::Signers;
use keybearer_executor::WireObserver;
use keybearer_gate::OperatorContext;
use keybearer_gate::OperatorHash;
use keybearer_gate::TenantContext;
use keybearer_strongbox::SecretInput;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::json;

use crate::calls::UPSTREAM;
use crate::stats::median;
use crate::stats::quantile;

/// Trials at the same time, each with so many callers.
const WORKERS: usize = 4;
const CALLERS: usize = 2;

/// Where calls go that begin after the acknowledgement.
const AFTER: &str = "/anything/after";

/// When the bytes of each version of a credential were last handed to the kernel.
#[derive(Debug, Default)]
struct LastUses(Mutex<HashMap<Carried, Instant>>);

impl WireObserver for LastUses {
    fn handed_over(&self, carried: &Carried, at: Instant) {
        let mut uses = self.0.lock();
        let last = uses.entry(carried.clone()).or_insert(at);
        *last = at.max(*last);
    }
}

/// What one trial came to.
struct Trial {
    asked: Instant,
    acknowledged: Instant,
    last_use: Option<Instant>,
}

/// What the trials have in common.
struct Stage {
    executor: Arc<Executor>,
    uses: Arc<LastUses>,
    /// Calls that began after the acknowledgement and arrived.
    arrived_after: Arc<AtomicU64>,
}

/// Runs so many trials and prints what they came to.
///
/// # Errors
/// If something does not start, or anything was used after its revocation was acknowledged.
pub(crate) fn run(built: &Built, trials: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let (done, arrived_after) = runtime.block_on(measure(built, trials, folder.path()))?;
    let audited = keybearer_ledger::audit(&folder.path().join("ledger"), None)?;
    let used_after = tell(&done);
    println!("calls that began after the acknowledgement and arrived: {arrived_after}");
    println!("the audit of {} records found: {}", audited.records, audited.findings.len());
    let is_clean = used_after == 0 && arrived_after == 0 && audited.findings.is_empty();
    anyhow::ensure!(is_clean, "used after the acknowledgement: {:?}", audited.findings.first());
    Ok(())
}

async fn measure(built: &Built, trials: usize, folder: &Path) -> anyhow::Result<(Vec<Trial>, u64)> {
    let (authority, uses, arrived_after) = (Authority::new()?, Arc::new(LastUses::default()), Arc::default());
    let counted: Arc<AtomicU64> = Arc::clone(&arrived_after);
    let answer = move |request: Recorded| {
        if request.target.contains(AFTER) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        std::future::ready(Reply::json(200, &json!({})))
    };
    let upstream = Upstream::start(&authority, &[UPSTREAM], answer).await?;
    let config = config(folder, built, trials, &authority, &upstream, Arc::clone(&uses))?;
    let executor = Executor::open(config).await?;
    let token = keybearer_gate::issue_operator_token();
    let operator = keybearer_gate::authenticate_operator(&token, &OperatorHash::of(&token))?;
    let options = PublishOptions { rollback: Rollback::Refused, visible_to: None };
    executor.publish(&operator, built.bundle("http-get")?, options).await?;
    let stage = Arc::new(Stage { executor, uses, arrived_after });
    let mut running = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (stage, tenant) = (Arc::clone(&stage), stage.tenant(&operator, worker).await?);
        running.spawn(async move {
            let mut done = Vec::new();
            for number in 0..trials.div_ceil(WORKERS) {
                done.push(stage.trial(&tenant, number).await?);
            }
            anyhow::Ok(done)
        });
    }
    let mut done = Vec::new();
    while let Some(worker) = running.join_next().await {
        done.extend(worker??);
    }
    stage.executor.shutdown(Duration::from_secs(10)).await;
    Ok((done, stage.arrived_after.load(Ordering::Relaxed)))
}

fn config(
    folder: &Path,
    built: &Built,
    trials: usize,
    authority: &Authority,
    upstream: &Upstream,
    uses: Arc<LastUses>,
) -> anyhow::Result<ExecutorConfig> {
    let mut egress = EgressConfig {
        extra_roots: vec![authority.certificate().clone()],
        observer: Some(uses),
        ..EgressConfig::default()
    };
    egress.dangerous.allow_ranges = vec!["127.0.0.0/8".parse()?];
    let host = UPSTREAM.parse().ok().context("a name")?;
    egress.dangerous.pin = vec![EgressPin { host, port: 443, address: upstream.address() }];
    let rows = u32::try_from(trials)?.saturating_add(16);
    Ok(ExecutorConfig {
        folder: folder.to_owned(),
        anchor: folder.join("ledger.anchor"),
        durability: Durability::Process,
        ceilings: Limits::default(),
        egress,
        instances: 256,
        compile_child: None,
        concurrent_calls: 256,
        tenant_defaults: (1_000_000, 64),
        runs: RunLimits::default(),
        rows: RowCeilings { credentials: rows, grants: rows, ..RowCeilings::default() },
        signers: Signers { trusted: vec![built.signer.clone()], revoked: Vec::new() },
        refuse_shared_values: false,
        overlap_s_max: 0,
        dangerous: Vec::new(),
    })
}

/// What the API would be sent.
fn parsed<T: DeserializeOwned>(body: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(body)?)
}

impl Stage {
    /// A tenant's token.
    async fn tenant(&self, operator: &OperatorContext, worker: usize) -> anyhow::Result<String> {
        let new: NewTenant = parsed(json!({"name": format!("w{worker}")}))?;
        let tenant = self.executor.create_tenant(operator, new).await?;
        let scopes = ["call", "credentials", "grants"];
        let new = parsed(json!({"label": "callers", "scopes": scopes, "life_s": 86_400}))?;
        Ok(self.executor.issue_tenant_token(operator, &tenant.id, new).await?.1.to_string())
    }

    fn enter(&self, token: &str) -> anyhow::Result<TenantContext> {
        self.executor.authenticate_token(token).ok().context("the token is valid")
    }

    /// Calls the tool once; the code of the problem, if there was one.
    async fn call(&self, token: &str, path: &str) -> anyhow::Result<Option<Code>> {
        let request = CallRequest {
            tool: "http-get.get".parse().ok().context("a name")?,
            arguments: json!({ "path": path }).to_string(),
            package: None,
            attempt: 1,
            timeout_ms: None,
            idempotency_key: None,
        };
        Ok(self.executor.call(self.enter(token)?, request).await.err().map(|problem| problem.code))
    }

    async fn trial(self: &Arc<Self>, token: &str, number: usize) -> anyhow::Result<Trial> {
        let new: NewCredential = parsed(json!({
            "name": format!("trial-{number}"), "kind": {"kind": "bearer"}, "owner": "the benches",
            "justification": "a trial",
        }))?;
        let context = self.enter(token)?;
        let value = SecretInput::new(canary("trial-").into_bytes());
        let credential = self.executor.store_credential(&context, new, value).await?.id;
        let grant: NewGrant = parsed(json!({"package": "http-get", "slot": "site", "credential": credential}))?;
        self.executor.give_grant(&context, grant).await?;
        let (stop, is_acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (stage, token) = (Arc::clone(self), token.to_owned());
                let (stop, is_acknowledged) = (Arc::clone(&stop), Arc::clone(&is_acknowledged));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let path = if is_acknowledged.load(Ordering::SeqCst) { AFTER } else { "/anything/before" };
                        let code = stage.call(&token, path).await?;
                        let is_expected = matches!(code, None | Some(Code::Denied | Code::CredentialUnusable));
                        anyhow::ensure!(is_expected, "{code:?}");
                        // A call that is refused at once waits for nothing, and would keep the others from running.
                        tokio::task::yield_now().await;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        // Anywhere in the first calls.
        tokio::time::sleep(Duration::from_micros(u64::try_from(number % 40)? * 500)).await;
        let asked = Instant::now();
        self.executor.revoke_credential(&context, &credential).await?;
        let acknowledged = Instant::now();
        is_acknowledged.store(true, Ordering::SeqCst);
        // The callers go on for a while with what is revoked.
        let after = self.call(token, AFTER).await?;
        anyhow::ensure!(after == Some(Code::CredentialUnusable), "{after:?}");
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await??;
        }
        // A trial's credential has the one version.
        let carried = Carried { tenant: context.tenant().clone(), credential, version: Some(1) };
        let last_use = self.uses.0.lock().remove(&carried);
        Ok(Trial { asked, acknowledged, last_use })
    }
}

/// Prints what they came to; how many were used after their acknowledgement.
fn tell(done: &[Trial]) -> usize {
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    // Below zero for what was before.
    let from = |then: Instant, now: Instant| {
        now.checked_duration_since(then).map_or_else(|| -ms(then.duration_since(now)), ms)
    };
    let used: Vec<_> = done.iter().filter_map(|trial| Some((trial, trial.last_use?))).collect();
    println!("{} trials, {} of them used", done.len(), used.len());
    let line = |name: &str, mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        let (p99, most) = (quantile(&all, 0.99), all.last().copied().unwrap_or_default());
        let middle = median(all.clone());
        println!("{name}: median {middle:.3} ms, 99 % {p99:.3} ms, most {most:.3} ms ({} trials)", all.len());
    };
    line("acknowledgement − request", done.iter().map(|trial| from(trial.asked, trial.acknowledged)).collect());
    let since_request = |(trial, last): &(&Trial, Instant)| from(trial.asked, *last);
    line("last use − request", used.iter().map(since_request).filter(|span| *span > 0.0).collect());
    let after: Vec<f64> = used.iter().map(|(trial, last)| from(trial.acknowledged, *last)).collect();
    let most = after.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!("last use − acknowledgement: most {most:.3} ms");
    let used_after = after.iter().filter(|span| **span > 0.0).count();
    println!("uses after the acknowledgement: {used_after}");
    used_after
}
