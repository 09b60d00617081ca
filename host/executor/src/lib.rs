//! The order of things. The way of a call is in `call.rs`, the way of one of its requests in
//! `dispatch.rs`; the acts of tenants and of the operator each have a file. Usable as a library,
//! without HTTP: whoever holds a tenant context can submit a call.
//!
//! Only this room and the server know both the sandbox and the strongbox.

mod act;
mod audits;
pub mod bundle;
mod call;
mod canonical;
mod catalogue;
mod check;
mod consent;
mod counters;
mod credentials;
mod discovery;
mod dispatch;
mod explain;
mod grants;
mod holders;
mod hooks;
mod idempotency;
mod incidents;
mod inventory;
mod mint;
mod notices;
mod offboarding;
mod onboarding;
mod open;
mod orphans;
mod overlaps;
mod packages;
mod registration;
mod renewal;
mod revocation;
mod rotation;
mod rows;
mod runs;
mod schemas;
mod signature;
mod source_versions;
mod subscriptions;
mod succession;
mod tenants;
mod tokens;
mod turns;
mod uses;
mod views;
mod watches;
mod workload;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::Limits;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_egress::Egress;
use keybearer_gate::Principal;
use keybearer_gate::Quotas;
use keybearer_gate::TenantContext;
use keybearer_gate::Unauthenticated;
use keybearer_ledger::ActKind;
use keybearer_ledger::Ledger;
use keybearer_ledger::LedgerUnavailable;
use keybearer_sandbox::Sandbox;
use keybearer_store::Store;
use keybearer_store::StoreError;
use keybearer_strongbox::Strongbox;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

// The public interface is:
pub use audits::AuditView;
pub use call::Answer;
pub use check::CheckedPart;
pub use check::CheckedState;
pub use check::CredentialCheck;
pub use consent::AuthorizationBegun;
pub use consent::Callback;
pub use counters::Counters;
pub use hooks::HookView;
pub use hooks::Invalidated;
pub use hooks::NewHook;
pub use hooks::Received;
pub use incidents::ActUse;
pub use incidents::CallUse;
pub use incidents::CloseIncident;
pub use incidents::CredentialScope;
pub use incidents::CredentialUse;
pub use incidents::DestinationUse;
pub use incidents::DispatchUse;
pub use incidents::ExposureReport;
pub use incidents::IncidentView;
pub use incidents::NewIncident;
pub use incidents::NewOwnIncident;
pub use incidents::VersionUse;
pub use incidents::WhoUse;
pub use inventory::Configured;
pub use inventory::Finding;
pub use inventory::FindingKind;
pub use inventory::Identity;
pub use inventory::IdentityKind;
pub use keybearer_egress::Carried;
pub use keybearer_egress::EgressConfig;
pub use keybearer_egress::Pin as EgressPin;
pub use keybearer_egress::WireObserver;
pub use keybearer_egress::at_once;
pub use keybearer_ledger::Durability;
pub use keybearer_sources::WorkloadApi;
pub use keybearer_sources::WorkloadState;
pub use keybearer_store::Rollback;
pub use keybearer_store::RunBounds;
pub use notices::NewNotices;
pub use notices::NoticeTry;
pub use notices::NoticesView;
pub use offboarding::Offboarded;
pub use offboarding::Residue;
pub use onboarding::NewRotation;
pub use onboarding::NewTerms;
pub use open::ExecutorConfig;
pub use open::OpenRefused;
pub use open::Signers;
pub use open::check_master_key;
pub use overlaps::Retiring;
pub use packages::PublishOptions;
pub use packages::check_component;
pub use rows::RowCeilings;
pub use runs::NewRun;
pub use runs::RunEnded;
pub use runs::RunLimits;
pub use runs::RunView;
pub use source_versions::SourceVersionForgotten;
pub use views::CallRequest;
pub use views::CredentialView;
pub use views::EpochRaised;
pub use views::Explanation;
pub use views::GrantDifferences;
pub use views::GrantView;
pub use views::LogView;
pub use views::NewCredential;
pub use views::NewGrant;
pub use views::NewTenant;
pub use views::NewToken;
pub use views::PackageView;
pub use views::RegistrationView;
pub use views::Revoked;
pub use views::RotatedAtSource;
pub use views::SharedValue;
pub use views::TenantView;
pub use views::TokenView;
pub use views::ToolView;
pub use views::VersionView;
pub use workload::WorkloadView;

/// Everything that a call needs, put together.
pub struct Executor {
    pub(crate) store: Arc<Store>,
    pub(crate) strongbox: Arc<Strongbox>,
    pub(crate) ledger: Ledger,
    pub(crate) egress: Arc<Egress>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) catalogue: catalogue::Catalogue,
    pub(crate) quotas: Quotas,
    pub(crate) mints: keybearer_sources::Mints,
    pub(crate) watches: watches::Watches,
    pub(crate) subscriptions: subscriptions::Subscriptions,
    pub(crate) workload: std::sync::OnceLock<Arc<keybearer_sources::WorkloadApi>>,
    pub(crate) consents: consent::Consents,
    pub(crate) orphans: Arc<orphans::Orphans>,
    pub(crate) counters: counters::Counting,
    pub(crate) ceilings: Limits,
    pub(crate) signers: Signers,
    pub(crate) refuse_shared_values: bool,
    pub(crate) overlap_s_max: u64,
    /// Told when a rotation left an overlap: it may end before the others.
    pub(crate) overlap_added: Arc<tokio::sync::Notify>,
    pub(crate) tenant_defaults: (u32, u32),
    pub(crate) run_limits: RunLimits,
    pub(crate) live: runs::LiveRuns,
    pub(crate) holders: Arc<holders::Holders>,
    pub(crate) rows: rows::Rows,
    /// Everything that it keeps lives here.
    pub(crate) folder: std::path::PathBuf,
    pub(crate) notices: notices::Notices,
    /// Held while the ledger is audited: once at a time.
    pub(crate) auditing: tokio::sync::Mutex<()>,
    /// Which tenants have the whole ledger read now.
    pub(crate) walks: incidents::Walks,
    /// Whose issuers are asked now for what new credentials need.
    pub(crate) issuers: Arc<turns::Turns>,
    /// When everything was used last.
    pub(crate) uses: uses::Uses,
    running: TaskTracker,
    stopping: AtomicBool,
    /// Cancelled when a stop has waited long enough: what still runs is cut off, and recorded so.
    cut_off: CancellationToken,
}

/// What is cut off ends and is recorded within milliseconds; a disk that hangs is not waited for longer.
const CUT_OFF_MAX: Duration = Duration::from_secs(2);

impl Executor {
    /// Verifies an API token or a run's token and enters its tenant.
    ///
    /// # Errors
    /// [`Unauthenticated`], the same for every reason.
    pub fn authenticate_token(&self, presented: &str) -> Result<TenantContext, Unauthenticated> {
        if presented.starts_with(keybearer_gate::RUN_TOKEN_PREFIX) {
            let principal = keybearer_gate::authenticate_run(presented, self.store.as_ref(), UnixMillis::now())?;
            let context = self.enter(principal)?;
            // By the clock that never jumps, too (threats R07).
            let goes_on = context.run().is_some_and(|run| self.live.is_live(&run.id));
            return if goes_on { Ok(context) } else { Err(Unauthenticated) };
        }
        let principal = keybearer_gate::authenticate_token(presented, self.store.as_ref(), UnixMillis::now())?;
        self.enter(principal)
    }

    /// Enters the tenant of a principal that the gate verified.
    ///
    /// # Errors
    /// [`Unauthenticated`] if the tenant is gone, suspended or younger than the proof.
    pub fn enter(&self, principal: Principal) -> Result<TenantContext, Unauthenticated> {
        let context = principal.enter(self.store.as_ref())?;
        if self.store.is_principal_revoked(context.tenant(), context.principal().as_str()) {
            return Err(Unauthenticated);
        }
        self.uses.note_principal(context.tenant(), context.principal().as_str(), UnixMillis::now());
        Ok(context)
    }

    /// Whether calls can be taken now.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("the server is going down".to_owned());
        }
        self.ledger.healthy()
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.snapshot(self.running.len() as u64, self.notices.counts())
    }

    /// The ledger, for readers of it.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Names a listener of our own: no guest is ever connected to it.
    pub fn add_own_listener(&self, listener: std::net::SocketAddr) {
        self.egress.add_own_listener(listener);
    }

    /// The store, for resolving names of tenants in configuration.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The chores of every second and of every minute, until the executor shuts down. Those that wait for somebody
    /// outside, as a rotation does for its source, keep the others from nothing.
    pub async fn upkeep(self: Arc<Self>) {
        tokio::join!(self.every_second(), self.every_minute(), self.rotate_every_minute());
    }

    async fn every_second(&self) {
        let mut seconds = chores_every(Duration::from_secs(1));
        while !self.stopping.load(Ordering::Acquire) {
            seconds.tick().await;
            self.look_at_watches();
        }
    }

    async fn every_minute(self: &Arc<Self>) {
        // The first tick is at once: something may have become due while nothing ran.
        let mut minutes = chores_every(Duration::from_secs(60));
        while !self.stopping.load(Ordering::Acquire) {
            minutes.tick().await;
            self.strongbox.forget_ended();
            self.listen_to_all();
            self.forget_unanswered().await;
            self.keep_uses().await;
            self.purge_answers().await;
        }
    }

    async fn rotate_every_minute(self: &Arc<Self>) {
        let mut minutes = chores_every(Duration::from_secs(60));
        for round in 0.. {
            minutes.tick().await;
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            self.carry_out_rotations(round).await;
        }
    }

    /// Takes no new calls, waits for the running ones at most `grace`, cuts off what is left, and records that it
    /// stopped.
    pub async fn shutdown(&self, grace: Duration) {
        self.stopping.store(true, Ordering::Release);
        self.running.close();
        if tokio::time::timeout(grace, self.running.wait()).await.is_err() {
            tracing::warn!(calls = self.running.len(), "calls still ran when the grace was over: they are cut off");
            self.cut_off.cancel();
            if tokio::time::timeout(CUT_OFF_MAX, self.running.wait()).await.is_err() {
                tracing::error!("calls that were cut off have no outcome yet: the next start lists them");
            }
        }
        self.keep_uses().await;
        if self.record(act::of_host(ActKind::ServerStopped, "keybearer")).await.is_err() {
            tracing::error!("the stop could not be recorded");
        }
        let ledger = self.ledger.clone();
        if tokio::task::spawn_blocking(move || ledger.shutdown()).await.is_err() {
            tracing::error!("the ledger could not be closed: the next start looks at its end");
        }
    }

    /// Counts the caller among the running, or refuses because the server is going down.
    pub(crate) fn running(&self) -> Result<TaskTrackerToken, Problem> {
        let token = self.running.token();
        if self.stopping.load(Ordering::Acquire) {
            return Err(Problem::new(Code::ShuttingDown, "send the call to another node, or again in a moment"));
        }
        Ok(token)
    }
}

/// Ticks that do not pile up while a chore takes longer.
fn chores_every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Runs a store's transaction where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Problem::from),
        Err(_) => Err(Problem::new(Code::Internal, "try again; if it stays, tell the operator")),
    }
}

pub(crate) fn ledger_problem(fault: LedgerUnavailable) -> Problem {
    tracing::error!(%fault, "the ledger cannot be written");
    Problem::new(Code::LedgerUnavailable, "nothing was done; try again when the operator has made room")
}
