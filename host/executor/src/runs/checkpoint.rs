//! Checkpoints of runs, and going on from one. The document holds references only; what it says is believed for
//! its MAC, and only if the store's own record of the run says the same.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::UnixMillis;
use keybearer_gate::RunCheckpoint;
use keybearer_gate::RunRecord;
use keybearer_gate::Scope;
use keybearer_gate::SignedCheckpoint;
use keybearer_gate::TenantContext;
use keybearer_gate::ToolScope;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_ledger::RunEvent;
use keybearer_ledger::RunFacts;
use zeroize::Zeroizing;

use crate::Executor;
use crate::RunView;
use crate::act;

/// What the key of checkpoints' MACs is derived for.
const MAC_CONTEXT: &str = "keybearer 2026-11 tenant key: run checkpoints";

impl Executor {
    /// Writes a checkpoint of an open run. The run goes on.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's; [`Code::Conflict`] if it has ended.
    pub async fn checkpoint_run(&self, context: &TenantContext, id: &RunId) -> Result<SignedCheckpoint, Problem> {
        let run = self.find_run(context, id)?;
        let now = UnixMillis::now();
        if !run.is_open(now) || !self.live.is_live(id) {
            return Err(Problem::new(Code::Conflict, "the run has ended"));
        }
        let checkpoint = RunCheckpoint::of(&run, now);
        let mac = self.checkpoint_mac(&checkpoint).ok_or_else(|| {
            Problem::new(Code::Internal, "the tenant's data key does not open: no checkpoint can be signed")
        })?;
        self.run_act(&RunFacts::of(&run, context.principal().clone()), RunEvent::Checkpointed).await?;
        Ok(SignedCheckpoint::new(checkpoint, mac))
    }

    /// Goes on with a run from its checkpoint: everything is looked at and fetched anew, and the run gets another
    /// token. The earlier one is good for nothing from then on.
    ///
    /// # Errors
    /// [`Code::CheckpointRefused`] for a checkpoint that is another tenant's, was changed, is of a run that ended or
    /// was resumed since, or of one that may call more than who resumes it; [`Code::CredentialUnusable`] as a call.
    pub async fn resume_run(
        &self,
        context: &TenantContext,
        signed: &SignedCheckpoint,
    ) -> Result<(RunView, Zeroizing<String>), Problem> {
        context.require(Scope::Runs)?;
        let _running = self.running()?;
        let Some(run) = self.resumable(context, signed) else {
            return Err(self.refuse_checkpoint(context).await);
        };
        let _place = self.quotas.admit(context.record()).await?;
        self.fetch_for(&run).await?;
        let token = keybearer_gate::issue_run_token(&run.id);
        let (store, run, hash) = (Arc::clone(&self.store), Arc::clone(&run), token.hash);
        let resumed = crate::blocking(move || store.resume_run(&run.tenant, &run.id, run.generation, hash)).await;
        let run = match resumed {
            Ok(run) => run,
            // Ended, or resumed by somebody else in this moment.
            Err(problem) if matches!(problem.code, Code::Conflict | Code::NotFound) => {
                return Err(self.refuse_checkpoint(context).await);
            }
            Err(problem) => return Err(problem),
        };
        self.run_act(&RunFacts::of(&run, context.principal().clone()), RunEvent::Resumed).await?;
        Ok((self.run_view(&run), token.text))
    }

    /// Refuses a document that is no checkpoint of this tenant's open runs, and records it: one answer for all.
    ///
    /// # Errors
    /// None; it is the problem that is answered, or that it could not be recorded.
    pub async fn refuse_checkpoint(&self, context: &TenantContext) -> Problem {
        let act = act::of_tenant(context, ActKind::AccessRefused, "resume_run");
        let recorded = self.record(Act { note: "the checkpoint was refused".to_owned(), ..act }).await;
        recorded.err().unwrap_or_else(|| {
            Problem::new(
                Code::CheckpointRefused,
                "open a new run; a checkpoint goes on once, and while its run is open",
            )
        })
    }

    /// The run that a checkpoint is of, if it may be resumed by it.
    fn resumable(&self, context: &TenantContext, signed: &SignedCheckpoint) -> Option<Arc<RunRecord>> {
        let checkpoint = &signed.checkpoint;
        // The MAC is by the key of the context's tenant, whatever the document says; the names are compared besides.
        let mac = self.strongbox.mac_for_tenant(context.tenant(), MAC_CONTEXT, &checkpoint.canonical()).ok()?;
        if checkpoint.tenant != *context.tenant() || !signed.has_mac(mac) {
            return None;
        }
        let run = self.store.run(context.tenant(), &checkpoint.run)?;
        let goes_on = run.is_open(UnixMillis::now()) && self.live.is_live(&run.id);
        (goes_on && checkpoint.is_of(&run) && may_hold(context, &run)).then_some(run)
    }

    fn checkpoint_mac(&self, checkpoint: &RunCheckpoint) -> Option<[u8; 32]> {
        self.strongbox.mac_for_tenant(&checkpoint.tenant, MAC_CONTEXT, &checkpoint.canonical()).ok()
    }
}

/// Whether who resumes a run may call all that the run may: he gets its token.
fn may_hold(context: &TenantContext, run: &RunRecord) -> bool {
    let Some(packages) = context.packages() else { return true };
    let may = |scope: &ToolScope| packages.contains(scope.package());
    run.tools.as_ref().is_some_and(|tools| tools.iter().all(may))
}
