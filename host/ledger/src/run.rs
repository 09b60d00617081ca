//! Records of runs: opened, checkpointed, resumed, ended. Each names the runs that it was opened within, so that
//! an auditor goes from a call's record by its `run` to this one and up the whole chain.

use keybearer_contract::AgentName;
use keybearer_contract::GrantId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use serde::Deserialize;
use serde::Serialize;

use crate::Ledger;
use crate::LedgerUnavailable;
use crate::record::encode;
use crate::standing::Effect;

/// What is known of a run, for records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Whose it is.
    pub tenant: TenantId,
    /// Who did what the record says.
    pub principal: PrincipalLabel,
    /// The run.
    pub run: RunId,
    /// The runs that it was opened within, the first of the chain first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<RunId>,
    /// What the agent is called.
    pub agent: AgentName,
    /// The grants that were sealed.
    pub grants: Vec<GrantId>,
    /// When it ends by itself.
    pub deadline: UnixMillis,
    /// How often it had been resumed.
    pub generation: u64,
}

impl RunFacts {
    /// What is known of a run, and who acts on it.
    #[must_use]
    pub fn of(run: &RunRecord, principal: PrincipalLabel) -> Self {
        Self {
            tenant: run.tenant.clone(),
            principal,
            run: run.id.clone(),
            parents: run.parents.clone(),
            agent: run.agent.clone(),
            grants: run.sealed.iter().map(|sealed| sealed.grant.clone()).collect(),
            deadline: run.deadline,
            generation: run.generation,
        }
    }
}

/// How a run ended, and what it took with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// Why.
    pub how: RunEnd,
    /// Calls that still ran and were cut off.
    pub cancelled: u64,
}

/// What happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// It was opened.
    Opened,
    /// A checkpoint of it was written.
    Checkpointed,
    /// It was resumed from a checkpoint.
    Resumed,
    /// It ended.
    Ended(RunOutcome),
}

impl Ledger {
    /// Records what happened to a run, as durably as an act: before it is acknowledged.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: it must not be acknowledged.
    pub async fn run(&self, facts: &RunFacts, event: RunEvent) -> Result<(), LedgerUnavailable> {
        let text = encode::extend(Vec::new(), facts);
        let (kind, text) = match event {
            RunEvent::Opened => ("run_opened", text),
            RunEvent::Checkpointed => ("run_checkpointed", text),
            RunEvent::Resumed => ("run_resumed", text),
            RunEvent::Ended(outcome) => ("run_ended", encode::extend(text, &outcome)),
        };
        let seq = self.append(kind, &text, Effect::Nothing)?;
        self.durable(seq).await
    }
}
