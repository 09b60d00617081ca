//! The open runs of this process: until when each goes on by a clock that never jumps, what tells its calls to
//! end, and how many there are. Nothing here is stored; a start makes it anew from the records.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::IdMap;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The open runs.
pub(crate) struct LiveRuns {
    runs: Mutex<IdMap<RunId, Arc<Live>>>,
    /// Of the server: what cuts off everything cuts off every run.
    cut_off: CancellationToken,
}

struct Live {
    tenant: TenantId,
    /// By the monotonic clock; the wall clock's is in the record. Whichever comes first ends the run (threats R07).
    deadline: Instant,
    wall_deadline: UnixMillis,
    over: CancellationToken,
    /// Set before its calls are told to end, where it is revoked.
    revoked: Arc<AtomicBool>,
    calls: TaskTracker,
}

/// Runs that were told to end.
#[derive(Default)]
pub(crate) struct Stopping(Vec<Arc<Live>>);

/// A call's place in its run, or outside of one. A run is over when every one of its calls has let go of this.
pub(crate) struct Within {
    over: CancellationToken,
    revoked: Arc<AtomicBool>,
    server: CancellationToken,
    run: Option<RunId>,
    deadline: Option<Instant>,
    _counted: Option<TaskTrackerToken>,
}

impl LiveRuns {
    pub(crate) fn new(cut_off: CancellationToken) -> Self {
        Self { runs: Mutex::default(), cut_off }
    }

    /// From now on the run's token is good and its calls may run.
    pub(crate) fn begin(&self, run: &RunRecord) {
        // However the wall clock was set meanwhile: no longer than the run may last in all.
        let whole = run.deadline.0.saturating_sub(run.created.0);
        let left = run.deadline.0.saturating_sub(UnixMillis::now().0).min(whole);
        let deadline = Instant::now() + Duration::from_millis(left);
        let mut runs = self.runs.lock();
        let parent = run.parents.last().and_then(|parent| runs.get(parent));
        let live = Live {
            tenant: run.tenant.clone(),
            deadline: parent.map_or(deadline, |parent| parent.deadline.min(deadline)),
            wall_deadline: run.deadline,
            over: self.cut_off.child_token(),
            revoked: Arc::default(),
            calls: TaskTracker::new(),
        };
        runs.insert(run.id.clone(), Arc::new(live));
    }

    /// Whether the run goes on.
    pub(crate) fn is_live(&self, id: &RunId) -> bool {
        self.runs.lock().get(id).is_some_and(|live| live.goes_on())
    }

    /// How many calls of the run are running.
    pub(crate) fn running(&self, id: &RunId) -> usize {
        self.runs.lock().get(id).map_or(0, |live| live.calls.len())
    }

    /// Counts a call in.
    ///
    /// # Errors
    /// [`Code::Cancelled`] if the run ended since its token was looked at, [`Code::Revoked`] if it was revoked.
    pub(crate) fn enter(&self, run: Option<&Arc<RunRecord>>) -> Result<Within, Problem> {
        let server = self.cut_off.clone();
        let Some(run) = run else {
            let revoked = Arc::default();
            return Ok(Within { over: server.clone(), revoked, server, run: None, deadline: None, _counted: None });
        };
        // Counted under the lock: a run that is told to end knows of every call that it has to wait for.
        let runs = self.runs.lock();
        let live = runs.get(&run.id).ok_or_else(|| run_is_over(false))?;
        if !live.goes_on() {
            return Err(run_is_over(live.revoked.load(Ordering::Acquire)));
        }
        Ok(Within {
            over: live.over.clone(),
            revoked: Arc::clone(&live.revoked),
            server,
            run: Some(run.id.clone()),
            deadline: Some(live.deadline),
            _counted: Some(live.calls.token()),
        })
    }

    /// Tells these runs to end, and why: none of them takes another call.
    pub(crate) fn stop<'run>(&self, ids: impl IntoIterator<Item = &'run RunId>, how: RunEnd) -> Stopping {
        let runs = self.runs.lock();
        let told: Vec<_> = ids.into_iter().filter_map(|id| runs.get(id)).map(Arc::clone).collect();
        for live in &told {
            if how == RunEnd::Revoked && !live.over.is_cancelled() {
                live.revoked.store(true, Ordering::Release);
            }
            live.over.cancel();
            live.calls.close();
        }
        Stopping(told)
    }

    /// Forgets a run that has ended.
    pub(crate) fn remove(&self, id: &RunId) {
        self.runs.lock().remove(id);
    }

    /// The runs whose deadline has passed by either clock.
    pub(crate) fn due(&self) -> Vec<(TenantId, RunId)> {
        let (now, wall) = (Instant::now(), UnixMillis::now());
        let runs = self.runs.lock();
        let due = runs.iter().filter(|(_, live)| live.deadline <= now || live.wall_deadline <= wall);
        due.map(|(id, live)| (live.tenant.clone(), id.clone())).collect()
    }
}

impl Live {
    fn goes_on(&self) -> bool {
        !self.over.is_cancelled() && Instant::now() < self.deadline
    }
}

impl Stopping {
    /// How many calls run still.
    pub(crate) fn calls(&self) -> u64 {
        self.0.iter().map(|live| live.calls.len() as u64).sum()
    }

    /// Waits until their calls have ended and are recorded; false if that takes longer than `patience`.
    pub(crate) async fn ended(&self, patience: Duration) -> bool {
        let all = async {
            for live in &self.0 {
                live.calls.wait().await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }
}

impl Within {
    /// The sooner of the two: a call, its requests and its leases last no longer than their run.
    pub(crate) fn bounded(&self, deadline: Instant) -> Instant {
        self.deadline.map_or(deadline, |run| run.min(deadline))
    }

    /// The end of the run, or of a call that is in none.
    pub(crate) fn until(&self, deadline: Instant) -> Instant {
        self.deadline.unwrap_or(deadline)
    }

    /// Ends with the run, and may end sooner.
    pub(crate) fn child(&self) -> CancellationToken {
        self.over.child_token()
    }

    /// The run that was opened for it; a call outside of one has nothing to confine what is minted to.
    pub(crate) fn run(&self) -> Option<RunId> {
        self.run.clone()
    }

    /// Ready when the run has ended or the server goes down.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// What a caller is told whose call was cut off.
    pub(crate) fn cut_off(&self) -> Problem {
        if self.is_revoked() {
            return crate::revocation::call_revoked();
        }
        let why = if self.server.is_cancelled() { "the server went down" } else { "its run ended" };
        Problem::new(Code::Cancelled, format!("{why}: find out whether it acted"))
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Waits for something, but not beyond the run.
    ///
    /// # Errors
    /// [`Code::Cancelled`]; [`Code::Revoked`].
    pub(crate) async fn unless_over<T>(&self, wait: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let is_over = || Err(run_is_over(self.is_revoked()));
        // Looked at first, and waited for last: what does not wait does not enter the list of those who do, which
        // all calls share.
        if self.over.is_cancelled() {
            return is_over();
        }
        tokio::select! {
            biased;
            done = wait => done,
            () = self.over() => is_over(),
        }
    }
}

fn run_is_over(is_revoked: bool) -> Problem {
    if is_revoked {
        return Problem::new(Code::Revoked, "its run was revoked, and nothing was done");
    }
    Problem::new(Code::Cancelled, "its run has ended, and nothing was done: open another one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybearer_gate::PrincipalLabel;
    use keybearer_gate::RunState;

    /// A run of this length that the wall clock says was opened so many milliseconds from now.
    fn opened(from_now: i64, life: u64) -> RunRecord {
        let id = RunId::random();
        let created = UnixMillis(UnixMillis::now().0.saturating_add_signed(from_now));
        RunRecord {
            token_hash: keybearer_gate::issue_run_token(&id).hash,
            id,
            tenant: TenantId::random(),
            parents: Vec::new(),
            principal: PrincipalLabel::host(),
            agent: "a".parse().expect("a name"),
            sealed: Vec::new(),
            tools: None,
            created,
            deadline: UnixMillis(created.0 + life),
            state: RunState::Open,
            generation: 0,
        }
    }

    #[tokio::test]
    async fn r07_a_run_ends_by_whichever_clock_comes_first() {
        const HOUR_MS: i64 = 3_600_000;
        let runs = LiveRuns::new(CancellationToken::new());
        // The wall clock was set back an hour since: by it, the run would have that hour and its life.
        let set_back = opened(HOUR_MS, 30);
        // It was set forward: by the other clock, the run has barely begun.
        let set_forward = opened(-HOUR_MS, 60_000);
        let fresh = opened(0, 600_000);
        for run in [&set_back, &set_forward, &fresh] {
            runs.begin(run);
        }
        assert!(runs.is_live(&set_back.id) && runs.is_live(&fresh.id));
        assert!(!set_forward.is_open(UnixMillis::now()) && !runs.is_live(&set_forward.id));
        // Time itself is what is waited for.
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(set_back.is_open(UnixMillis::now()), "the wall clock would let it go on");
        assert!(!runs.is_live(&set_back.id));
        assert!(runs.enter(Some(&Arc::new(set_back.clone()))).is_err());
        let mut due = runs.due();
        let mut expected = [&set_back, &set_forward].map(|run| (run.tenant.clone(), run.id.clone()));
        due.sort_unstable();
        expected.sort_unstable();
        assert_eq!(due, expected);
        assert!(runs.is_live(&fresh.id));
    }

    #[tokio::test]
    async fn a_run_within_another_ends_no_later_and_is_told_of_its_calls_once() {
        let runs = LiveRuns::new(CancellationToken::new());
        let parent = opened(0, 30);
        let child = RunRecord { parents: vec![parent.id.clone()], ..opened(0, 600_000) };
        runs.begin(&parent);
        runs.begin(&child);
        let within = runs.enter(Some(&Arc::new(child.clone()))).expect("it goes on");
        let far = Instant::now() + Duration::from_secs(60);
        assert!(within.bounded(far) <= Instant::now() + Duration::from_millis(30), "its parent's deadline");
        let stopping = runs.stop([&parent.id, &child.id], RunEnd::Finished);
        assert_eq!(stopping.calls(), 1);
        within.over().await;
        assert!(!stopping.ended(Duration::from_millis(10)).await, "the call has not let go yet");
        drop(within);
        assert!(stopping.ended(Duration::from_secs(10)).await);
        assert!(runs.enter(Some(&Arc::new(child))).is_err(), "and none comes after it");
    }

    #[tokio::test]
    async fn r05_a_call_of_a_run_that_was_revoked_hears_so_and_one_of_a_run_that_ended_hears_that() {
        // If this failed, an agent that was thrown out would open another run and try again.
        for (how, again, code) in [
            (RunEnd::Revoked, RunEnd::Expired, Code::Revoked),
            (RunEnd::Finished, RunEnd::Revoked, Code::Cancelled),
            (RunEnd::Aborted, RunEnd::Revoked, Code::Cancelled),
        ] {
            let runs = LiveRuns::new(CancellationToken::new());
            let run = Arc::new(opened(0, 600_000));
            runs.begin(&run);
            let within = runs.enter(Some(&run)).expect("it goes on");
            drop(runs.stop([&run.id], how));
            drop(runs.stop([&run.id], again));
            assert_eq!(within.cut_off().code, code, "what it ended by first: {how:?}");
            let waited = within.unless_over(std::future::pending::<Result<(), Problem>>()).await;
            assert_eq!(waited.err().map(|problem| problem.code), Some(code));
            assert_eq!(runs.enter(Some(&run)).err().map(|problem| problem.code), Some(code), "the next one");
        }
    }

    #[tokio::test]
    async fn what_cuts_off_the_server_cuts_off_its_runs_and_says_so() {
        let server = CancellationToken::new();
        let runs = LiveRuns::new(server.clone());
        let run = Arc::new(opened(0, 600_000));
        runs.begin(&run);
        let (inside, outside) = (runs.enter(Some(&run)).expect("goes on"), runs.enter(None).expect("goes on"));
        assert!(!inside.child().is_cancelled() && !outside.child().is_cancelled());
        server.cancel();
        for within in [inside, outside] {
            within.over().await;
            assert!(within.cut_off().detail.starts_with("the server went down"));
        }
    }
}
