//! The way of a call, on one page. Each step takes what the one before it made; the answer cannot be
//! made without the ledger's receipt.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::Logged;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::Facts;
use keybearer_gate::Grant;
use keybearer_gate::Permit;
use keybearer_gate::Refusal;
use keybearer_gate::Refused;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantRecord;
use keybearer_ledger::CallOutcome;
use keybearer_ledger::Receipt;
use keybearer_sandbox::CallSetup;
use keybearer_sandbox::Ended;
use keybearer_sandbox::Stop;
use keybearer_store::IdempotentCall;
use keybearer_strongbox::MadeInCall;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::CallRequest;
use crate::Executor;
use crate::LogView;
use crate::catalogue::Resolved;
use crate::dispatch::CallOutlet;
use crate::dispatch::Shared;
use crate::idempotency::Once;
use crate::runs::Within;

/// What a caller gets: a result that is in the ledger.
pub struct Answer {
    call: CallId,
    run: RunId,
    tool: ToolRef,
    package: Digest,
    result: String,
    logs: Vec<LogView>,
    replayed: bool,
}

impl Executor {
    /// Runs one call of one tool for the tenant of this context.
    ///
    /// # Errors
    /// A [`Problem`]: of the caller (unknown, not granted, arguments, limits), of the tool, of the upstream, or ours.
    pub async fn call(self: &Arc<Self>, context: TenantContext, request: CallRequest) -> Result<Answer, Problem> {
        let _running = self.running()?;
        // Before anything is looked up: a token that may not call learns nothing of tools and grants (P10).
        context.require(Scope::Call)?;
        let within = self.live.enter(context.run())?;
        let tenant = Arc::clone(context.record());
        let resolved = self.catalogue.resolve(&context, &request)?;
        resolved.package.schemas.check_arguments(&request.tool.tool, &request.arguments)?;
        let _place = within.unless_over(self.quotas.admit(&tenant)).await?;
        let permit = context.permit(request.tool.clone(), resolved.package.record.digest)?;
        self.check_credentials(permit.facts(), &resolved).await?;
        match self.once(permit.facts(), &request).await? {
            Once::Replay(answer) => Ok(answer),
            Once::Run(None) => self.run(permit, &resolved, request, within, &tenant.limits).await,
            Once::Run(Some(key)) => Box::pin(self.run_once(key, permit, resolved, request, within, tenant)).await,
        }
    }

    /// Runs under an idempotency key, in a task of its own: a caller that hangs up does not leave the key
    /// without an end.
    async fn run_once(
        self: &Arc<Self>,
        key: IdempotentCall,
        permit: Permit,
        resolved: Resolved,
        request: CallRequest,
        within: Within,
        tenant: Arc<TenantRecord>,
    ) -> Result<Answer, Problem> {
        let executor = Arc::clone(self);
        let running = tokio::spawn(async move {
            let outcome = executor.run(permit, &resolved, request, within, &tenant.limits).await;
            executor.finish(key, &tenant.id, &outcome).await?;
            outcome
        });
        running.await.map_err(|_| Problem::new(Code::Internal, "try again; if it stays, tell the operator"))?
    }

    /// From permit to answer.
    async fn run(
        self: &Arc<Self>,
        permit: Permit,
        resolved: &Resolved,
        request: CallRequest,
        within: Within,
        tenant: &Limits,
    ) -> Result<Answer, Problem> {
        let facts = permit.facts().clone();
        let limits = self.ceilings.min(*tenant).min(resolved.package.record.manifest.limits);
        let started = Instant::now();
        let deadline = within.bounded(deadline(&limits, &request));
        let tool = self.catalogue.tool(&resolved.package).await?;
        // Entered before it is looked at again: a revocation finds the call, or the call finds the revocation.
        let record = &resolved.package.record;
        let holding = self.holders.enter(facts.clone(), record.signer.clone(), within.child());
        self.check_not_revoked(&facts)?;
        let entry = self.ledger.begin_call(&facts).await.map_err(crate::ledger_problem)?;
        let shared = Arc::new(Shared {
            executor: Arc::clone(self),
            facts: facts.clone(),
            package: Arc::clone(&resolved.package),
            sealed: resolved.grants.iter().map(|grant| grant.id.clone()).collect(),
            deadline,
            within,
            held: holding.held(),
            response_bytes: limits.response_bytes,
            credentials: resolved.grants.iter().filter_map(|grant| grant.credential.clone()).collect(),
            requests: AtomicU32::new(0),
            made: MadeInCall::default(),
        });
        let setup = CallSetup { limits, deadline, attempt: request.attempt, base_urls: base_urls(resolved) };
        let outlet = CallOutlet::new(Arc::clone(&shared));
        let instance = self.sandbox.instance(permit, &tool, outlet, setup);
        let span = tracing::debug_span!(
            "call", tenant = %facts.tenant, run = %facts.run, call = %facts.call, tool = %facts.tool,
            package = %facts.package, attempt = request.attempt
        );
        let ended = tokio::select! {
            biased;
            // Only what is stopped before it began: a result that is there is not thrown away.
            () = std::future::ready(()), if shared.held.is_stopped() => None,
            ended = instance.invoke(request.arguments).instrument(span) => Some(scrub(ended, &shared)),
            () = shared.held.stopped() => None,
        };
        let (outcome, logs) = match ended {
            // It was counted among those that were stopped, however it took that.
            ended if shared.held.was_revoked() => {
                (Err(crate::revocation::call_revoked()), ended.map(|clean| clean.logs).unwrap_or_default())
            }
            None => (Err(shared.within.cut_off()), Vec::new()),
            // The guest may hear of it first, by its request that was cut off: the reason is the same.
            Some(Clean { outcome: Err(_), logs }) if shared.held.is_stopped() => (Err(shared.within.cut_off()), logs),
            Some(Clean { outcome: Err(stop), logs }) => (Err(stop_problem(stop)), logs),
            Some(Clean { outcome: Ok(result), logs }) => {
                let checked = resolved.package.schemas.check_result(&request.tool.tool, &result);
                (checked.map(|()| result), logs)
            }
        };
        let record = match &outcome {
            Ok(result) => CallOutcome { result_bytes: result.len() as u64, ..CallOutcome::default() },
            Err(problem) => CallOutcome {
                problem: Some(problem.code),
                limit: problem.limit.as_ref().map(|(name, _)| name.to_string()),
                ..CallOutcome::default()
            },
        };
        let record = CallOutcome {
            wall_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            requests: shared.requests.load(Ordering::Relaxed),
            ..record
        };
        self.counters.call_ended(outcome.as_ref().err().map(|problem| problem.code));
        let receipt = entry.close(record).await.map_err(crate::ledger_problem)?;
        answer(facts, outcome, logs, &receipt)
    }

    /// A granted credential without a usable version is found out before the tool runs, so that no
    /// half-done work is left behind. The call is recorded with its reason, for `explain`.
    async fn check_credentials(&self, facts: &Facts, resolved: &Resolved) -> Result<(), Problem> {
        let concerned =
            |grant: &&Grant| grant.actions.as_ref().is_none_or(|actions| actions.contains(&facts.tool.tool));
        for grant in resolved.grants.iter().filter(concerned) {
            if let Err(refusal) = self.usable(grant) {
                let mut problem = unusable(grant, &refusal);
                problem.call = Some(Box::new(facts.call.clone()));
                let entry = self.ledger.begin_call(facts).await.map_err(crate::ledger_problem)?;
                self.ledger.refuse(facts, &Refused::call(refusal)).await.map_err(crate::ledger_problem)?;
                let outcome = CallOutcome { problem: Some(problem.code), ..CallOutcome::default() };
                self.counters.call_ended(outcome.problem);
                let _recorded: Receipt = entry.close(outcome).await.map_err(crate::ledger_problem)?;
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Whether the credential of a grant has a usable version.
    ///
    /// # Errors
    /// [`Code::CredentialUnusable`], which names package and slot, how the credential stands and what helps.
    pub(crate) fn check_credential(&self, grant: &Grant) -> Result<(), Problem> {
        self.usable(grant).map_err(|refusal| unusable(grant, &refusal))
    }

    fn usable(&self, grant: &Grant) -> Result<(), Refusal> {
        let (Some(credential), Some(slot)) = (&grant.credential, &grant.slot) else { return Ok(()) };
        let now = UnixMillis::now();
        self.strongbox.select(&grant.tenant, credential, now).map(drop).map_err(|_| {
            let record = self.store.credential(&grant.tenant, credential);
            Refusal::unusable(record.map(|record| record.standing(now)), slot.clone())
        })
    }
}

/// The credential itself is not named: who may only call knows slots, and `grant list` leads on from there (P10).
fn unusable(grant: &Grant, refusal: &Refusal) -> Problem {
    Problem::new(Code::CredentialUnusable, format!("package `{}`: {refusal}", grant.package))
}

/// The one way to an answer: a result, or a problem that names its call, what the tool logged with either,
/// and a receipt for either.
fn answer(
    facts: Facts,
    outcome: Result<String, Problem>,
    logs: Vec<LogView>,
    _recorded: &Receipt,
) -> Result<Answer, Problem> {
    match outcome {
        Ok(result) => Ok(Answer {
            call: facts.call,
            run: facts.run,
            tool: facts.tool,
            package: facts.package,
            result,
            logs,
            replayed: false,
        }),
        Err(mut problem) => {
            problem.call = Some(Box::new(facts.call));
            problem.logs = logs.into_iter().map(|line| Logged { level: line.level, message: line.message }).collect();
            Err(problem)
        }
    }
}

fn deadline(limits: &Limits, request: &CallRequest) -> Instant {
    let wall_ms = request.timeout_ms.unwrap_or(u64::MAX).min(limits.wall_ms);
    Instant::now() + Duration::from_millis(wall_ms)
}

fn base_urls(resolved: &Resolved) -> Vec<(keybearer_contract::SlotName, String)> {
    let named = resolved.grants.iter();
    named.filter_map(|grant| Some((grant.slot.clone()?, grant.base_url.as_ref()?.to_string()))).collect()
}

/// An ended call with nothing in it that a guest could have smuggled out of an answer.
struct Clean {
    outcome: Result<String, Stop>,
    logs: Vec<LogView>,
}

fn scrub(ended: Ended, shared: &Shared) -> Clean {
    let set = shared.scrub_set();
    let scrubbed = |mut text: String| {
        keybearer_strongbox::scrub_text(&set, &mut text);
        shared.made.scrub_text(&mut text);
        text
    };
    let outcome = match ended.outcome {
        Ok(mut result) => {
            shared.made.scrub_result(&set, &mut result);
            Ok(result)
        }
        Err(Stop::InvalidArguments(text)) => Err(Stop::InvalidArguments(scrubbed(text))),
        Err(Stop::Upstream(text)) => Err(Stop::Upstream(scrubbed(text))),
        Err(Stop::Failed(text)) => Err(Stop::Failed(scrubbed(text))),
        Err(Stop::Trap { kind, message }) => Err(Stop::Trap { kind, message: scrubbed(message) }),
        Err(other) => Err(other),
    };
    let mut logs: Vec<LogView> = ended
        .logs
        .into_iter()
        .map(|line| LogView { level: line.level.as_str().to_owned(), message: scrubbed(line.message) })
        .collect();
    if ended.dropped_logs > 0 {
        let message = format!("{} more lines were dropped: the limit `log_bytes` was reached", ended.dropped_logs);
        logs.push(LogView { level: "warn".to_owned(), message });
    }
    Clean { outcome, logs }
}

fn stop_problem(stop: Stop) -> Problem {
    match stop {
        Stop::UnknownTool => Problem::new(Code::ToolFailed, "the tool does not know itself: tell its author"),
        Stop::InvalidArguments(text) => Problem::new(Code::InvalidArguments, text),
        Stop::Upstream(text) => Problem::new(Code::UpstreamFailed, text),
        Stop::Denied => {
            Problem::new(Code::Denied, "the tenant's administrator finds the reason with `keybearer explain`")
        }
        Stop::Failed(text) => Problem::new(Code::ToolFailed, text),
        Stop::Trap { kind, message } => {
            Problem::new(Code::ToolTrapped, format!("tell the tool's author: {}: {message}", kind.as_str()))
        }
        Stop::Limit { name, value } => {
            let detail = format!("`{name}` is {value}: ask for less in one call, or have the limit raised");
            Problem::new(Code::ToolLimit, detail).at_limit(name, value)
        }
        Stop::Timeout => Problem::new(Code::Timeout, "ask for less in one call, or allow it more time"),
        Stop::Overloaded => Problem::new(Code::Overloaded, "try again in a moment"),
        Stop::Internal => Problem::new(Code::Internal, "try again; if it stays, tell the operator"),
    }
}

impl Answer {
    /// The call's id, as it stands in the ledger.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// The run that it belonged to.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// What was called.
    #[must_use]
    pub fn tool(&self) -> &ToolRef {
        &self.tool
    }

    /// The package that ran.
    #[must_use]
    pub fn package(&self) -> Digest {
        self.package
    }

    /// The result: JSON text, checked and scrubbed.
    #[must_use]
    pub fn result(&self) -> &str {
        &self.result
    }

    /// What the tool logged.
    #[must_use]
    pub fn logs(&self) -> &[LogView] {
        &self.logs
    }

    /// Whether this is the kept answer of an earlier call with the same idempotency key.
    #[must_use]
    pub fn replayed(&self) -> bool {
        self.replayed
    }

    /// An answer as it was kept, sealed, for its idempotency key.
    pub(crate) fn kept(kept: crate::idempotency::Kept) -> Self {
        Self {
            call: kept.call,
            run: kept.run,
            tool: kept.tool,
            package: kept.package,
            result: kept.result,
            logs: kept.logs,
            replayed: true,
        }
    }
}
