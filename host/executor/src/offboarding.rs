//! Offboarding: a tenant leaves. All that is its stops, what was minted for it is given back, its data key and
//! everything sealed under it are destroyed; then the data folder is searched for what might be left. What stays is
//! its id, so that it is never given again, and the ledger, which holds no values.

mod residue;

use std::collections::BTreeMap;
use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::TenantName;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::VersionState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Executor;
use crate::Revoked;
use crate::act;
use crate::mint;

pub use residue::Residue;

/// What an offboarding found and ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offboarded {
    /// Who left.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// What people called it; another tenant may be called so from now on.
    #[schema(value_type = String)]
    pub name: TenantName,
    /// What was stopped and given back.
    pub stopped: Revoked,
    /// Values whose bytes are gone.
    pub values_destroyed: u64,
    /// Rows that are gone, by table.
    pub rows_removed: BTreeMap<String, u64>,
    /// What the search of the data folder found afterwards.
    pub residue: Residue,
}

impl Executor {
    /// Ends a tenant for good. Returns when nothing of it runs, nothing sealed of it is stored, and the data folder
    /// was searched for what might be left. Cut off anywhere, it is done again from the beginning.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::StoreUnavailable`]: it is suspended then, and nothing of it runs.
    pub async fn offboard_tenant(&self, operator: &OperatorContext, id: &TenantId) -> Result<Offboarded, Problem> {
        let record = self.store.tenant(id).ok_or_else(Problem::not_found)?;
        let mut stopped = self.suspend_tenant(operator, id).await?;
        stopped.minted_revoked += self.give_back(self.strongbox.end_tenant(id), mint::issuers_until()).await;
        stopped.caches_flushed += self.strongbox.flush_tenant(id);
        let credentials = self.store.credentials(id);
        let clients = self.deregister_all(&credentials, &operator.principal()).await;
        let versions = credentials.iter().flat_map(|credential| &credential.versions);
        let values_destroyed = versions.filter(|version| version.state != VersionState::Destroyed).count() as u64;
        let (store, subject) = (Arc::clone(&self.store), id.clone());
        let needles = crate::blocking(move || store.sealed_of(&subject)).await?;
        let (store, subject) = (Arc::clone(&self.store), id.clone());
        let rows_removed = crate::blocking(move || store.remove_tenant(&subject, UnixMillis::now())).await?;
        self.uses.forget(id);
        self.notices.forget(&Addressee::Tenant(id.clone()));
        // Between the stop and the removal a connection could have been opened, and a set kept.
        stopped.connections_closed += self.egress.close_all_connections(id);
        stopped.caches_flushed += self.strongbox.flush_tenant(id);
        let residue = self.search(id, needles).await?;
        let note =
            format!("{values_destroyed} values and the data key are destroyed; left: {}{clients}", residue.left());
        let act = act::within(id, operator.principal(), ActKind::TenantOffboarded, id.as_str());
        self.record_revoked(Act { note, ..act }).await?;
        let tenant = id.clone();
        Ok(Offboarded { tenant, name: record.name.clone(), stopped, values_destroyed, rows_removed, residue })
    }

    /// Searches everything that this node keeps.
    async fn search(&self, id: &TenantId, needles: Vec<Vec<u8>>) -> Result<Residue, Problem> {
        let (store, subject, folder) = (Arc::clone(&self.store), id.clone(), self.folder.clone());
        let rows = crate::blocking(move || store.rows_of(&subject)).await?;
        let searched = tokio::task::spawn_blocking(move || residue::search(&folder, &needles));
        let searched = searched.await.map_err(|_| Problem::new(Code::Internal, "search again"))?;
        let residue = Residue { rows, ..searched };
        if residue.left() > 0 {
            tracing::error!(tenant = %id, rows, files = residue.found_in.len(), "a tenant left something behind");
        }
        Ok(residue)
    }
}
