//! Tenants, as the operator keeps them: made, suspended, made active again, their data keys wrapped
//! anew when the master key is rotated.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::NoticeTarget;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantRecord;
use keybearer_gate::TenantState;
use keybearer_ledger::ActKind;
use zeroize::Zeroizing;

use crate::Executor;
use crate::NewTenant;
use crate::NewToken;
use crate::TenantView;
use crate::TokenView;
use crate::act;

impl Executor {
    /// Makes a tenant, with an id that nobody had and a data key of its own.
    ///
    /// # Errors
    /// [`Code::Conflict`] if the name is taken.
    pub async fn create_tenant(&self, operator: &OperatorContext, new: NewTenant) -> Result<TenantView, Problem> {
        let (rate, concurrency) = self.tenant_defaults;
        let record = TenantRecord {
            id: TenantId::random(),
            name: new.name,
            state: TenantState::Active,
            created: UnixMillis::now(),
            limits: new.limits.unwrap_or(self.ceilings),
            calls_per_second: new.calls_per_second.unwrap_or(rate).max(1),
            concurrent_calls: new.concurrent_calls.unwrap_or(concurrency).max(1),
        };
        let data_key = self.strongbox.new_data_key(&record.id);
        let (store, stored) = (Arc::clone(&self.store), record.clone());
        crate::blocking(move || store.create_tenant(stored, data_key)).await?;
        self.record(act::within(&record.id, operator.principal(), ActKind::TenantCreated, record.id.as_str())).await?;
        Ok(view(&record))
    }

    /// Every tenant.
    #[must_use]
    pub fn tenants(&self, _operator: &OperatorContext) -> Vec<TenantView> {
        self.store.tenants().iter().map(|record| view(record)).collect()
    }

    /// Makes a suspended tenant active again.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn activate_tenant(&self, operator: &OperatorContext, id: &TenantId) -> Result<TenantView, Problem> {
        self.store.tenant(id).ok_or_else(Problem::not_found)?;
        self.check_no_incident_of(id)?;
        // Before its calls may run: the ledger never shows one that looks forbidden.
        self.record(act::within(id, operator.principal(), ActKind::TenantResumed, id.as_str())).await?;
        let (store, subject) = (Arc::clone(&self.store), id.clone());
        crate::blocking(move || store.set_tenant_state(&subject, TenantState::Active)).await?;
        self.store.tenant(id).map(|record| view(&record)).ok_or_else(Problem::not_found)
    }

    /// Issues a token for a tenant: the first one, from which the tenant issues its own.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn issue_tenant_token(
        &self,
        operator: &OperatorContext,
        tenant: &TenantId,
        new: NewToken,
    ) -> Result<(TokenView, Zeroizing<String>), Problem> {
        self.store.tenant(tenant).ok_or_else(Problem::not_found)?;
        self.issue(tenant, operator.principal(), new).await
    }

    /// Rotates the master key in place: a new one beside the old, every tenant's data key wrapped anew in one
    /// transaction, then the old one dropped. Cut off anywhere, it is carried on at the next start.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] or [`Code::Internal`]; the old key still holds then.
    pub async fn rotate_master_key(&self, operator: &OperatorContext) -> Result<(), Problem> {
        let internal = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "the master key could not be rotated");
            Problem::new(Code::Internal, "the old key still holds: look at the log, mend it, and try again")
        };
        // Nobody says meanwhile where the operator wants his notices: that secret is put back below.
        let _turn = self.rows.turn().await;
        self.strongbox.begin_master_rotation().map_err(|error| internal(&error))?;
        let mut wrapped = Vec::new();
        for (tenant, old) in self.store.data_keys() {
            let new = self.strongbox.rewrap(&tenant, &old).map_err(|error| internal(&error))?;
            wrapped.push((tenant, new));
        }
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.replace_data_keys(wrapped)).await?;
        if let Some(target) = self.store.notice_target(&Addressee::Operator) {
            let sealed = self.strongbox.rewrap_notice(&target.id, &target.sealed).map_err(|error| internal(&error))?;
            let (store, target) = (Arc::clone(&self.store), NoticeTarget { sealed, ..NoticeTarget::clone(&target) });
            crate::blocking(move || store.set_notice_target(&Addressee::Operator, Some(target))).await?;
        }
        let (stored, target) = (self.store.data_keys(), self.store.notice_target(&Addressee::Operator));
        let stored = stored.iter().map(|(_, sealed)| sealed).chain(target.iter().map(|target| &target.sealed));
        let finished = self.strongbox.finish_master_rotation(stored);
        finished.map_err(|error| internal(&error))?;
        self.record(act::of_operator(operator, ActKind::MasterKeyRotated, "master key")).await
    }
}

fn view(record: &TenantRecord) -> TenantView {
    TenantView {
        id: record.id.clone(),
        name: record.name.clone(),
        state: record.state,
        created: record.created,
        limits: record.limits,
        calls_per_second: record.calls_per_second,
        concurrent_calls: record.concurrent_calls,
    }
}
