//! Administrative acts, as they are recorded: after the store took them, before they are acknowledged.

use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_gate::OperatorContext;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;

use crate::Executor;

impl Executor {
    /// Records an act as durably as an intent.
    ///
    /// # Errors
    /// [`keybearer_contract::Code::LedgerUnavailable`]: the act must not be acknowledged.
    pub(crate) async fn record(&self, act: Act) -> Result<(), Problem> {
        self.ledger.act(act).await.map(drop).map_err(crate::ledger_problem)
    }
}

impl Executor {
    /// Records that a principal named a tenant that is not its own (threats T01).
    ///
    /// # Errors
    /// [`keybearer_contract::Code::LedgerUnavailable`].
    pub async fn record_mismatch(
        &self,
        tenant: &TenantId,
        principal: PrincipalLabel,
        route: &str,
    ) -> Result<(), Problem> {
        let act = within(tenant, principal, ActKind::AccessRefused, route);
        self.record(Act { note: "named another tenant".to_owned(), ..act }).await
    }
}

/// An act of the host's own.
pub(crate) fn of_host(what: ActKind, subject: &str) -> Act {
    act(None, PrincipalLabel::host(), what, subject)
}

/// An act of the operator's.
pub(crate) fn of_operator(operator: &OperatorContext, what: ActKind, subject: &str) -> Act {
    act(None, operator.principal(), what, subject)
}

/// An act of the operator's, by whoever carries it on.
pub(crate) fn by(principal: PrincipalLabel, what: ActKind, subject: &str) -> Act {
    act(None, principal, what, subject)
}

/// An act within a tenant.
pub(crate) fn of_tenant(context: &TenantContext, what: ActKind, subject: &str) -> Act {
    act(Some(context.tenant().clone()), context.principal().clone(), what, subject)
}

/// An act within a tenant, by a principal of another place.
pub(crate) fn within(tenant: &TenantId, principal: PrincipalLabel, what: ActKind, subject: &str) -> Act {
    act(Some(tenant.clone()), principal, what, subject)
}

fn act(tenant: Option<TenantId>, principal: PrincipalLabel, what: ActKind, subject: &str) -> Act {
    Act {
        tenant,
        principal,
        what,
        subject: subject.to_owned(),
        version: None,
        epoch: None,
        commit: None,
        note: String::new(),
    }
}
