//! `keybearer serve`: opens everything in order, says when it is ready, and stops in order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use keybearer_executor::Executor;
use keybearer_executor::ExecutorConfig;
use keybearer_executor::RowCeilings;
use keybearer_executor::RunBounds;
use keybearer_executor::RunLimits;
use keybearer_executor::Signers;
use keybearer_executor::WorkloadApi;
use keybearer_gate::OperatorHash;
use serde_json::json;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::Side;
use crate::api::auth::Failures;
use crate::api::auth::Verifiers;
use crate::api::auth::find_tenant;
use crate::config::Config;
use crate::config::Listener;
use crate::config::file::Durability;
use crate::files;
use crate::listen::Bound;
use crate::metrics::Metrics;
use crate::telemetry;
use crate::tls;
use crate::tls::ClientCertificate;

/// The file in the server's folder that says where it listens now.
pub(crate) const SERVING_FILE: &str = "serving.json";

/// Serves until it is told to stop.
pub(crate) fn run(config: Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(config, ready_file))
}

async fn serve(config: Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let _telemetry = telemetry::start(&config.telemetry)?;
    for name in &config.dangerous {
        tracing::warn!(setting = name, "a dangerous setting is in force");
    }
    let operator = operator_hash(&config.operator_token_file)?;
    let public = bind(Side::Public, &config.public, ClientCertificate::Optional).await?;
    let admin = bind(Side::Admin, &config.admin, ClientCertificate::Required).await?;
    let (public_address, admin_address) = (public.address()?, admin.address()?);
    let executor = Executor::open(executor_config(&config, [public_address, admin_address])?).await?;
    let verifiers = Verifiers::new(&config.jwt, &config.spiffe, &executor.store().tenants())?;
    let app = Arc::new(App {
        executor: Arc::clone(&executor),
        operator,
        verifiers,
        failures: Failures::new(config.limits.failed_authentications_per_minute),
        limits: config.limits.clone(),
        metrics: Metrics::new(),
    });

    let watching = attach_workload(&config, &executor);
    let upkeep = tokio::spawn(Arc::clone(&executor).upkeep());
    let (stop_public, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let mut stops = Stops::new()?;
    let serving = tokio::spawn(public.serve(Arc::clone(&app), stop_public.clone()));
    let administering = tokio::spawn(admin.serve(Arc::clone(&app), stop_admin.clone()));
    announce(&config, [public_address, admin_address], ready_file)?;

    stops.first(&app.verifiers).await;
    tracing::info!(grace_ms = config.grace.as_millis(), "stopping: running calls are waited for");
    stop_public.cancel();
    // Readiness is false from here on, and the operator can watch the calls end.
    tokio::select! {
        () = executor.shutdown(config.grace) => {}
        () = stops.first(&app.verifiers) => tracing::warn!("told to stop twice: not waiting for running calls"),
    }
    upkeep.abort();
    if let Some(watching) = watching {
        watching.abort();
    }
    stop_admin.cancel();
    let closing = async { tokio::join!(serving, administering) };
    if tokio::time::timeout(CLOSING_MAX, closing).await.is_err() {
        tracing::warn!("connections were still open and are cut");
    }
    let _ = std::fs::remove_file(config.folder.join(SERVING_FILE));
    tracing::info!("stopped");
    Ok(())
}

/// How long answers that are being written may still take, when every call has ended.
const CLOSING_MAX: Duration = Duration::from_secs(3);

/// SIGTERM and SIGINT. SIGHUP has the issuers' keys read again; tools that rotate logs send it too, so it is no
/// reason to stop (threats A10).
struct Stops {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Stops {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for either of those that stop.
    async fn first(&mut self, verifiers: &Verifiers) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => verifiers.read_keys_again(),
            }
        }
    }
}

async fn bind(side: Side, listener: &Listener, client: ClientCertificate) -> anyhow::Result<Bound> {
    let acceptor = listener.tls.as_ref().map(|tls| tls::acceptor(tls, client)).transpose()?;
    Bound::new(side, listener.address, acceptor).await
}

/// Watches the Workload API, if the operator named one, for the tenants that there are now.
fn attach_workload(config: &Config, executor: &Arc<Executor>) -> Option<tokio::task::AbortHandle> {
    let api = config.workload_api.as_ref()?;
    let known = executor.store().tenants();
    let tenants = api
        .tenants
        .iter()
        .map(|(id, keys)| (id.clone(), keys.iter().filter_map(|key| find_tenant(&known, key)).collect()));
    executor.attach_workload(WorkloadApi::new(api.socket.clone(), tenants.collect()))
}

/// Reads the operator's token and keeps its hash.
fn operator_hash(path: &Path) -> anyhow::Result<OperatorHash> {
    let token = files::read_operator_token(path)?;
    Ok(OperatorHash::of(&token))
}

fn executor_config(config: &Config, own: [SocketAddr; 2]) -> anyhow::Result<ExecutorConfig> {
    let mut egress = config.egress.clone();
    egress.own_listeners = own.to_vec();
    let compile_child = if config.sandbox.compile_in_child {
        let own = std::env::current_exe().context("the path of this executable cannot be found")?;
        Some((own, vec![crate::cli::COMPILE_CHILD.to_owned()]))
    } else {
        None
    };
    let (tenant, runs) = (&config.limits.tenant, &config.limits.runs);
    Ok(ExecutorConfig {
        folder: config.folder.clone(),
        anchor: config.anchor.clone(),
        durability: match config.durability {
            Durability::Process => keybearer_ledger::Durability::Process,
            Durability::Power => keybearer_ledger::Durability::Power,
        },
        ceilings: config.limits.call,
        egress,
        instances: config.sandbox.instances,
        compile_child,
        concurrent_calls: config.limits.concurrent_calls,
        tenant_defaults: (tenant.calls_per_second, tenant.concurrent_calls),
        runs: RunLimits {
            bounds: RunBounds { open: runs.open, sub_runs: runs.sub_runs },
            depth: runs.depth,
            life: Duration::from_millis(runs.life_ms),
            life_max: Duration::from_millis(runs.life_max_ms),
            remembered: Duration::from_millis(runs.remembered_ms),
        },
        rows: RowCeilings {
            credentials: config.limits.rows.credentials,
            grants: config.limits.rows.grants,
            tokens: config.limits.rows.tokens,
            packages: config.limits.rows.packages,
        },
        signers: Signers {
            trusted: config.packages.trusted_signers.clone(),
            revoked: config.packages.revoked_signers.clone(),
        },
        refuse_shared_values: config.refuse_shared_values,
        overlap_s_max: config.overlap_s_max,
        dangerous: config.dangerous.clone(),
    })
}

/// Says where it listens: on stdout for people, in the folder for the command line, and in a file for
/// whoever waits.
fn announce(config: &Config, [public, admin]: [SocketAddr; 2], ready_file: Option<&Path>) -> anyhow::Result<()> {
    let url =
        |listener: &Listener, address| format!("{}://{address}", if listener.tls.is_some() { "https" } else { "http" });
    let (public_url, admin_url) = (url(&config.public, public), url(&config.admin, admin));
    let ready = json!({
        "public": public.to_string(),
        "admin": admin.to_string(),
        "public_url": public_url,
        "admin_url": admin_url,
        "pid": std::process::id(),
    });
    let text = format!("{ready}\n");
    files::replace(&config.folder.join(SERVING_FILE), text.as_bytes())?;
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; that is no reason not to serve.
    let _ = writeln!(out, "keybearer is ready: tenants at {public_url}, the operator at {admin_url}");
    let _ = out.flush();
    if let Some(path) = ready_file {
        files::replace(path, text.as_bytes())?;
    }
    Ok(())
}
