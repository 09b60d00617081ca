//! Tenants. They are the operator's: everything else belongs to one of them. A removed tenant's id is
//! kept so that it is never given again, and its data key is not, so that nothing sealed under it can
//! be opened again.

use std::sync::Arc;

use keybearer_contract::Limits;
use keybearer_contract::TenantId;
use keybearer_contract::TenantName;
use keybearer_gate::Sealed;
use keybearer_gate::TenantRecord;
use keybearer_gate::TenantState;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

/// What a tenant's calls may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// Of one call.
    pub limits: Limits,
    /// Calls a second, sustained.
    pub calls_per_second: u32,
    /// Calls at the same time.
    pub concurrent_calls: u32,
}

impl Store {
    /// Stores a new tenant with its data key, wrapped by the master key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a living tenant has the name or any tenant ever had the id.
    pub fn create_tenant(&self, record: TenantRecord, data_key: Sealed) -> Result<Arc<TenantRecord>, StoreError> {
        let record = Arc::new(record);
        self.commit(
            |transaction| {
                if self.image().tenant_named(&record.name).is_some() {
                    return Err(StoreError::Conflict("a tenant of this name exists"));
                }
                transaction.execute(
                    "INSERT INTO tenants (tenant, name, data_key, record) VALUES (?1, ?2, ?3, ?4)",
                    params![record.id.as_str(), record.name.as_str(), &*data_key.0, to_json(&*record)],
                )?;
                Ok(())
            },
            |image, ()| image.put_tenant(Arc::clone(&record), data_key.clone()),
        )?;
        Ok(record)
    }

    /// Suspends a tenant or makes it active again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn set_tenant_state(&self, id: &TenantId, state: TenantState) -> Result<Arc<TenantRecord>, StoreError> {
        self.change_tenant(id, |record| record.state = state)
    }

    /// Sets what a tenant's calls may use.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn set_tenant_limits(&self, id: &TenantId, limits: TenantLimits) -> Result<Arc<TenantRecord>, StoreError> {
        self.change_tenant(id, |record| {
            record.limits = limits.limits;
            record.calls_per_second = limits.calls_per_second;
            record.concurrent_calls = limits.concurrent_calls;
        })
    }

    fn change_tenant(
        &self,
        id: &TenantId,
        change: impl FnOnce(&mut TenantRecord),
    ) -> Result<Arc<TenantRecord>, StoreError> {
        self.commit(
            |transaction| {
                let current = self.image().tenant(id).map(|tenant| Arc::clone(&tenant.record));
                let mut record = TenantRecord::clone(&*current.ok_or(StoreError::NotFound)?);
                change(&mut record);
                transaction.execute(
                    "UPDATE tenants SET record = ?2 WHERE tenant = ?1",
                    params![id.as_str(), to_json(&record)],
                )?;
                Ok(Arc::new(record))
            },
            |image, record| {
                if let Some(tenant) = image.tenant_mut(id) {
                    tenant.record = Arc::clone(&record);
                }
                record
            },
        )
    }

    /// The tenant of this name.
    #[must_use]
    pub fn tenant_by_name(&self, name: &TenantName) -> Option<Arc<TenantRecord>> {
        self.image().tenant_named(name).map(|tenant| Arc::clone(&tenant.record))
    }

    /// Every living tenant, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<TenantRecord>> {
        let mut records: Vec<_> = self.image().tenants().map(|tenant| Arc::clone(&tenant.record)).collect();
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        records
    }

    /// Every living tenant's data key, wrapped; for the rotation of the master key.
    #[must_use]
    pub fn data_keys(&self) -> Vec<(TenantId, Sealed)> {
        self.image().tenants().map(|tenant| (tenant.record.id.clone(), tenant.data_key.clone())).collect()
    }

    /// Replaces every living tenant's data key by the same key wrapped by another master key: all of
    /// them or none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the tenants are not those that live now, each once: one that was made
    /// in the meantime would be left with a key that the old master key wraps.
    pub fn replace_data_keys(&self, keys: Vec<(TenantId, Sealed)>) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                let mut given: Vec<_> = keys.iter().map(|(id, _)| id.clone()).collect();
                let mut living: Vec<_> = self.image().tenants().map(|tenant| tenant.record.id.clone()).collect();
                given.sort_unstable();
                living.sort_unstable();
                if given != living {
                    return Err(StoreError::Conflict("the tenants changed in the meantime: begin again"));
                }
                for (id, key) in &keys {
                    transaction
                        .execute("UPDATE tenants SET data_key = ?2 WHERE tenant = ?1", params![id.as_str(), &*key.0])?;
                }
                Ok(())
            },
            |image, ()| {
                for (id, key) in &keys {
                    if let Some(tenant) = image.tenant_mut(id) {
                        tenant.data_key = key.clone();
                    }
                }
            },
        )?;
        self.forget_freed();
        Ok(())
    }

    /// Empties the write-ahead log, in which earlier bytes of a destroyed row would still stand. What
    /// was asked is done by then, so a failure is only told to the log.
    pub(crate) fn forget_freed(&self) {
        let emptied = self.query(|connection| {
            Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))?)
        });
        if emptied != Ok(0) {
            tracing::warn!("the store's write-ahead log could not be emptied: destroyed values stand in it, sealed");
        }
    }
}
