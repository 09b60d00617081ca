//! Runs: opened, shown, ended, and swept when their time is over. A run seals who, for whom, with which grants,
//! for which tools and until when; it freezes references and rights, never versions. What it is good for at a
//! dispatch is what was sealed ∩ what holds then (P3).

mod checkpoint;
mod live;
mod open;
mod views;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_ledger::RunEvent;
use keybearer_ledger::RunFacts;
use keybearer_ledger::RunOutcome;
use keybearer_store::RunBounds;
use tokio::time::Instant;

use crate::Executor;
use crate::mint;

pub(crate) use live::LiveRuns;
pub(crate) use live::Within;
pub use views::NewRun;
pub use views::RunEnded;
pub use views::RunView;

/// What runs may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunLimits {
    /// How many may be open.
    pub bounds: RunBounds,
    /// How many levels of sub-runs there may be.
    pub depth: usize,
    /// How long a run lasts if nobody says.
    pub life: Duration,
    /// How long a run lasts at the most.
    pub life_max: Duration,
    /// How long an ended run is shown.
    pub remembered: Duration,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            bounds: RunBounds { open: 1_000, sub_runs: 100 },
            depth: 5,
            life: Duration::from_secs(3_600),
            life_max: Duration::from_secs(24 * 3_600),
            remembered: Duration::from_secs(24 * 3_600),
        }
    }
}

/// What came to an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Runs, sub-runs among them.
    pub(crate) runs: u64,
    /// Calls that were cut off.
    pub(crate) calls: u64,
    /// Minted values that their issuers took back.
    pub(crate) minted: u64,
}

/// How runs are ended.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub(crate) how: RunEnd,
    pub(crate) by: &'a PrincipalLabel,
    /// Until when issuers are waited for that are to take back what was minted for them.
    pub(crate) until: Instant,
}

impl<'a> Ending<'a> {
    /// One that is an act of its own.
    pub(crate) fn now(how: RunEnd, by: &'a PrincipalLabel) -> Self {
        Self { how, by, until: mint::issuers_until() }
    }
}

/// What is cut off ends and is recorded within milliseconds; a disk that hangs is not waited for longer.
const ENDING_MAX: Duration = Duration::from_secs(10);

/// How often runs are looked through. Their tokens and calls end at the deadline itself; this is for the record.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Sweeps from one look for runs that are to be forgotten to the next.
const FORGET_EVERY: u64 = 30;

/// Ended runs of one tenant that are remembered, however recent: what memory holds is bounded.
const REMEMBERED_MAX: usize = 10_000;

impl Executor {
    /// The tenant's runs that are remembered.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn runs(&self, context: &TenantContext) -> Result<Vec<RunView>, Problem> {
        context.require(Scope::Runs)?;
        Ok(self.store.runs(context.tenant()).iter().map(|run| self.run_view(run)).collect())
    }

    /// One run of the tenant: with the scope, or with the token of the run itself or of one that it is within.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub fn run_of(&self, context: &TenantContext, id: &RunId) -> Result<RunView, Problem> {
        self.find_run(context, id).map(|run| self.run_view(&run))
    }

    /// Ends a run, and every run within it: their calls are cut off, what was minted for them is destroyed, their
    /// tokens are good for nothing. Returns when all of it is done. To end what has ended is no error.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub async fn end_run(&self, context: &TenantContext, id: &RunId, how: RunEnd) -> Result<RunEnded, Problem> {
        self.find_run(context, id)?;
        let ended = self.terminate_run(context.tenant(), id, Ending::now(how, context.principal())).await?;
        let run = self.store.run(context.tenant(), id).ok_or_else(Problem::not_found)?;
        Ok(RunEnded { run: self.run_view(&run), runs: ended.runs, cancelled: ended.calls })
    }

    /// Ends a run and every run within it, whoever asks.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::StoreUnavailable`]: the run is over in this process all the same.
    pub(crate) async fn terminate_run(
        &self,
        tenant: &TenantId,
        id: &RunId,
        Ending { how, by, until }: Ending<'_>,
    ) -> Result<Ended, Problem> {
        let known = self.store.open_with_sub_runs(tenant, id).ok_or_else(Problem::not_found)?;
        // At once, and before anything that can fail. One that has ended is told again: whoever asks twice waits for
        // what is left, too.
        let again = known.is_empty().then_some(id);
        let stopping = self.live.stop(known.iter().map(|run| &run.id).chain(again), how);
        let calls = stopping.calls();
        let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        let ended = crate::blocking(move || store.end_run(&owner, &subject, how, UnixMillis::now())).await?;
        // One may have been opened in between.
        let late = self.live.stop(ended.iter().map(|run| &run.id), how);
        if !(stopping.ended(ENDING_MAX).await && late.ended(ENDING_MAX).await) {
            tracing::error!(run = %id, "calls of a run that ended have no outcome yet");
            return Err(Problem::new(Code::Internal, "calls of the run have not ended yet"));
        }
        let mut minted = 0;
        for run in &ended {
            minted += self.run_over(tenant, &run.id, until).await;
            let cancelled = if run.id == *id { calls } else { 0 };
            let outcome = RunOutcome { how, cancelled };
            self.run_act(&RunFacts::of(run, by.clone()), RunEvent::Ended(outcome)).await?;
            self.live.remove(&run.id);
        }
        self.live.remove(id);
        Ok(Ended { runs: ended.len() as u64, calls, minted })
    }

    /// What is to be done when a run is over and none of its calls runs any more: what was minted for it is
    /// destroyed here, and revoked at its issuer. Says how much of it was.
    pub(crate) async fn run_over(&self, tenant: &TenantId, run: &RunId, until: Instant) -> u64 {
        let given_back = self.give_back(self.strongbox.end_run(tenant, run), until).await;
        tracing::debug!(%tenant, %run, given_back, "a run is over");
        given_back
    }

    /// Begins what goes on over a restart, and ends in the background what is over.
    pub(crate) fn take_up_runs(self: &Arc<Self>) {
        let mut runs = self.store.open_runs();
        // A run before those within it: theirs are bounded by its deadline.
        runs.sort_unstable_by_key(|run| run.parents.len());
        runs.iter().for_each(|run| self.live.begin(run));
        let executor = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for tick in 0_u64.. {
                ticks.tick().await;
                let Some(executor) = executor.upgrade().filter(|it| !it.stopping.load(Ordering::Acquire)) else {
                    return;
                };
                executor.sweep_runs().await;
                if tick % FORGET_EVERY == 0 {
                    executor.forget_runs().await;
                }
            }
        });
    }

    async fn sweep_runs(&self) {
        let by = PrincipalLabel::host();
        for (tenant, id) in self.live.due() {
            match self.terminate_run(&tenant, &id, Ending::now(RunEnd::Expired, &by)).await {
                Ok(_) => {}
                // Its tenant is gone, and it with him.
                Err(problem) if problem.code == Code::NotFound => self.live.remove(&id),
                Err(problem) => tracing::warn!(run = %id, %problem, "a run that is over could not be ended"),
            }
        }
    }

    async fn forget_runs(&self) {
        let (store, age) = (Arc::clone(&self.store), self.run_limits.remembered);
        let before = UnixMillis::now().0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        if let Err(problem) = crate::blocking(move || store.forget_runs(UnixMillis(before), REMEMBERED_MAX)).await {
            tracing::warn!(%problem, "runs that ended long ago could not be forgotten");
        }
    }

    fn find_run(&self, context: &TenantContext, id: &RunId) -> Result<Arc<RunRecord>, Problem> {
        let found = self.store.run(context.tenant(), id);
        if let (Some(own), Some(run)) = (context.run(), &found)
            && (run.id == own.id || run.is_within(&own.id))
        {
            return Ok(Arc::clone(run));
        }
        // Asked of every other run and of none alike, so that it tells nothing.
        context.require(Scope::Runs)?;
        found.ok_or_else(Problem::not_found)
    }

    fn run_view(&self, run: &RunRecord) -> RunView {
        RunView::of(run, self.live.running(&run.id))
    }

    async fn run_act(&self, facts: &RunFacts, event: RunEvent) -> Result<(), Problem> {
        self.ledger.run(facts, event).await.map_err(crate::ledger_problem)
    }
}
