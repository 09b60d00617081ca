//! Hooks: where sources outside say that something changed.

use std::sync::Arc;

use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_gate::HookRecord;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

impl Store {
    /// Stores a hook.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the tenant has as many as it may have; [`StoreError::NotFound`] if it is gone.
    pub fn insert_hook(&self, hook: HookRecord) -> Result<(), StoreError> {
        let hook = Arc::new(hook);
        self.commit(
            |transaction| {
                let image = self.image();
                image.tenant(&hook.tenant).ok_or(StoreError::NotFound)?;
                if image.hooks.values().filter(|other| other.tenant == hook.tenant).count() >= HOOKS_MAX {
                    return Err(StoreError::Conflict("a tenant has 16 hooks at most: remove one"));
                }
                transaction.execute(
                    "INSERT INTO hooks (tenant, id, record) VALUES (?1, ?2, ?3)",
                    params![hook.tenant.as_str(), hook.id.as_str(), to_json(&*hook)],
                )?;
                Ok(())
            },
            |image, ()| {
                image.hooks.insert(hook.id.clone(), Arc::clone(&hook));
            },
        )
    }

    /// Removes a hook.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well.
    pub fn remove_hook(&self, tenant: &TenantId, id: &HookId) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                let removed = transaction.execute(
                    "DELETE FROM hooks WHERE tenant = ?1 AND id = ?2",
                    params![tenant.as_str(), id.as_str()],
                )?;
                if removed == 1 { Ok(()) } else { Err(StoreError::NotFound) }
            },
            |image, ()| {
                image.hooks.remove(id);
            },
        )
    }

    /// The hook of that id, whosever it is: who signs with its secret is who may speak there.
    #[must_use]
    pub fn hook(&self, id: &HookId) -> Option<Arc<HookRecord>> {
        self.image().hooks.get(id).cloned()
    }

    /// The hooks of a tenant, oldest first.
    #[must_use]
    pub fn hooks(&self, tenant: &TenantId) -> Vec<Arc<HookRecord>> {
        let mut hooks: Vec<_> = self.image().hooks.values().filter(|hook| hook.tenant == *tenant).cloned().collect();
        hooks.sort_unstable_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        hooks
    }

    /// Every hook.
    #[must_use]
    pub fn all_hooks(&self) -> Vec<Arc<HookRecord>> {
        self.image().hooks.values().cloned().collect()
    }
}

/// One for each source that a tenant has, several times over.
const HOOKS_MAX: usize = 16;
