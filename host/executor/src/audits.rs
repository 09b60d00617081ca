//! The ledger's audit, for the operator by the API: what `keybearer ledger audit` says, of the ledger that is being
//! written. What is on its way counts as it stands. Not for changing anything.

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_gate::OperatorContext;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::Executor;

/// What an audit came to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditView {
    /// Whether nothing was found.
    pub clean: bool,
    /// Records that were looked at.
    pub records: u64,
    /// Dispatches with a credential among them.
    pub dispatches: u64,
    /// Acts that ended something among them.
    pub acts: u64,
    /// Uses of what was not to be used any more, in order, at most 10 000: `misuse`, the record's `seq`, the act's
    /// (`after`), the `subject` and what is known of the call.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Value>,
    /// Findings beyond that.
    pub left_out: u64,
}

impl Executor {
    /// Walks the whole ledger and finds every use of what had been ended.
    ///
    /// # Errors
    /// [`Code::LedgerUnavailable`] if it cannot be read; [`Code::Conflict`] while another audit goes on.
    pub async fn audit(&self, _operator: &OperatorContext) -> Result<AuditView, Problem> {
        let Ok(_turn) = self.auditing.try_lock() else {
            return Err(Problem::new(Code::Conflict, "an audit goes on: wait for its answer"));
        };
        let folder = self.folder.join("ledger");
        self.ledger.hand_over();
        let audited = tokio::task::spawn_blocking(move || keybearer_ledger::audit(&folder, None)).await;
        let audited = match audited {
            Ok(Ok(audited)) => audited,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger cannot be read");
                return Err(Problem::new(Code::LedgerUnavailable, "the ledger cannot be read now: try again"));
            }
            Err(_) => return Err(Problem::new(Code::Internal, "try again; if it stays, look at the log")),
        };
        let findings = audited.findings.iter().map(|finding| serde_json::to_value(finding).unwrap_or_default());
        Ok(AuditView {
            clean: audited.findings.is_empty(),
            records: audited.records,
            dispatches: audited.dispatches,
            acts: audited.acts,
            findings: findings.collect(),
            left_out: audited.left_out,
        })
    }
}
