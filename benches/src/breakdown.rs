//! Where our time goes: the pieces of a call by themselves, in this process, one call at a time. The
//! executor is opened on the folder of the server that was just measured, so its store, ledger and
//! compiled code are those. What is left between a whole and its pieces is told as such.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use keybearer_contract::Limits;
use keybearer_contract::ToolRef;
use keybearer_contract::strict_json;
use keybearer_executor::CallRequest;
use keybearer_executor::Durability;
use keybearer_executor::EgressConfig;
use keybearer_executor::EgressPin;
use keybearer_executor::Executor;
use keybearer_executor::ExecutorConfig;
use keybearer_executor::RowCeilings;
use keybearer_executor::RunLimits;
use keybearer_executor::Signers;
use keybearer_tests::Built;

use crate::calls::Prepared;
use crate::calls::Stage;
use crate::calls::UPSTREAM;
use crate::instance;
use crate::leases;
use crate::plan::Plan;
use crate::report::Report;
use crate::stats::median;

/// Measures the pieces, and writes the rows.
///
/// # Errors
/// If one of them fails.
pub(crate) fn measure(
    plan: &Plan,
    built: &Built,
    stage: &Stage,
    prepared: Prepared,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Prepared { mut server, token } = prepared;
    anyhow::ensure!(server.stop()?, "the server did not stop cleanly: {}", server.log());
    eprintln!("where our time goes");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let slice = plan.slice;
    runtime.block_on(async {
        let executor = Executor::open(config(&server.home(), built, stage)?).await?;
        let bench = Bench { executor, token, slice };
        bench.pieces(built, report).await?;
        bench.wholes(report).await?;
        leases::measure(slice, report).await?;
        bench.executor.shutdown(Duration::from_secs(1)).await;
        anyhow::Ok(())
    })?;
    rests(report);
    Ok(())
}

fn config(home: &std::path::Path, built: &Built, stage: &Stage) -> anyhow::Result<ExecutorConfig> {
    let mut egress =
        EgressConfig { extra_roots: vec![stage.authority.certificate().clone()], ..EgressConfig::default() };
    egress.dangerous.allow_ranges = vec!["127.0.0.0/8".parse()?];
    let host = UPSTREAM.parse().ok().context("a name")?;
    egress.dangerous.pin = vec![EgressPin { host, port: 443, address: stage.upstream.address() }];
    Ok(ExecutorConfig {
        folder: home.to_owned(),
        anchor: home.join("ledger.anchor"),
        durability: Durability::Process,
        ceilings: Limits::default(),
        egress,
        instances: 256,
        compile_child: None,
        concurrent_calls: 256,
        tenant_defaults: (100, 64),
        runs: RunLimits::default(),
        rows: RowCeilings::default(),
        signers: Signers { trusted: vec![built.signer.clone()], revoked: Vec::new() },
        refuse_shared_values: false,
        overlap_s_max: 0,
        dangerous: Vec::new(),
    })
}

/// What the pieces are measured with.
struct Bench {
    executor: Arc<Executor>,
    token: String,
    slice: Duration,
}

impl Bench {
    async fn pieces(&self, built: &Built, report: &mut Report) -> anyhow::Result<()> {
        let arguments = instance::arguments();
        let enter = || self.executor.authenticate_token(&self.token).ok().context("the token is valid");
        report.part("part.token.us", repeat(self.slice, || enter().map(drop))?);
        let strict = || strict_json::check(arguments.as_bytes(), strict_json::DEPTH_MAX);
        report.part("part.strict_json_1_kib.us", repeat(self.slice, || Ok(strict()?))?);

        let bundle = instance::bundle(built, "echo")?;
        let schema = serde_json::json!({
            "type": "object", "properties": { "text": { "type": "string" } },
            "required": ["text"], "additionalProperties": false,
        });
        let schema = jsonschema::draft202012::new(&schema).context("the schema")?;
        let check = || {
            let value: serde_json::Value = serde_json::from_str(&arguments)?;
            anyhow::ensure!(schema.is_valid(&value), "the arguments fit");
            Ok(())
        };
        report.part("part.schema_1_kib.us", repeat(self.slice, check)?);

        let tool: ToolRef = "echo.echo".parse().ok().context("a name")?;
        let facts = || anyhow::Ok(enter()?.permit(tool.clone(), bundle.digest())?.facts().clone());
        report.part("part.permit.us", repeat(self.slice, || facts().map(drop))? - report.ours("part.token.us"));
        let mut batches = Vec::new();
        let began = Instant::now();
        while began.elapsed() < self.slice {
            let all = (0..BATCH).map(|_| facts()).collect::<anyhow::Result<Vec<_>>>()?;
            let began = Instant::now();
            for facts in &all {
                let entry = self.executor.ledger().begin_call(facts).await?;
                let _receipt = entry.close(Default::default()).await?;
            }
            batches.push(by_call(began.elapsed()));
        }
        report.part("part.ledger_of_a_call.us", median(batches));
        report.part("part.instance.us", report.ours("a.instance.t1.us"));
        Ok(())
    }

    /// Whole calls by the executor, without HTTP.
    async fn wholes(&self, report: &mut Report) -> anyhow::Result<()> {
        let echo = self.calls("echo.echo", &instance::arguments()).await?;
        report.part("part.executor_call_echo.us", echo);
        let get = self.calls("http-get.get", r#"{"path":"/anything/bench"}"#).await?;
        report.part("part.executor_call_http_get.us", get);
        Ok(())
    }

    async fn calls(&self, tool: &str, arguments: &str) -> anyhow::Result<f64> {
        let tool: ToolRef = tool.parse().ok().context("a name")?;
        let mut batches = Vec::new();
        let began = Instant::now();
        while began.elapsed() < self.slice * 3 {
            let mut all = Vec::new();
            for _ in 0..BATCH {
                let context = self.executor.authenticate_token(&self.token).ok().context("the token is valid")?;
                let request = CallRequest {
                    tool: tool.clone(),
                    arguments: arguments.to_owned(),
                    package: None,
                    attempt: 1,
                    timeout_ms: None,
                    idempotency_key: None,
                };
                all.push((context, request));
            }
            let executor = Arc::clone(&self.executor);
            // As a request is served: in a task of the runtime's, not on the thread that blocks on it.
            let batch = tokio::spawn(async move {
                let began = Instant::now();
                for (context, request) in all {
                    executor.call(context, request).await?;
                }
                anyhow::Ok(began.elapsed())
            });
            batches.push(by_call(batch.await??));
        }
        Ok(median(batches))
    }
}

/// Calls between two looks at the clock.
const BATCH: u32 = 64;

fn by_call(batch: Duration) -> f64 {
    batch.as_secs_f64() * 1e6 / f64::from(BATCH)
}

/// Microseconds of one turn, the median of batches.
pub(crate) fn repeat(slice: Duration, mut turn: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut batches = Vec::new();
    let began = Instant::now();
    while began.elapsed() < slice {
        let began = Instant::now();
        for _ in 0..BATCH {
            turn()?;
        }
        batches.push(by_call(began.elapsed()));
    }
    Ok(median(batches))
}

/// What is left between wholes and their pieces.
fn rests(report: &mut Report) {
    let ours = |name: &str| report.ours(name);
    let echo = ours("part.executor_call_echo.us");
    let pieces = ours("part.permit.us")
        + ours("part.ledger_of_a_call.us")
        + ours("part.instance.us")
        // The arguments and the result, each held against its schema.
        + 2.0 * ours("part.schema_1_kib.us");
    let rest = echo - pieces;
    let dispatch = ours("part.executor_call_http_get.us") - echo;
    let http = ours("b.process.c1.cpu_us") - echo - ours("part.token.us") - ours("part.strict_json_1_kib.us");
    report.part("part.rest_of_the_executor_echo.us", rest);
    report.part("part.dispatch_and_its_answer.us", dispatch);
    report.part("part.http_and_rest_of_the_server_cpu.us", http);
}
