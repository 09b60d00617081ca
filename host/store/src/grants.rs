//! Grants: one a tenant, package and slot. That a grant names a credential of its own tenant is a
//! foreign key, so a grant across tenants cannot be stored, whatever asks for it (P2).

use std::sync::Arc;

use keybearer_contract::GrantId;
use keybearer_contract::PackageName;
use keybearer_contract::TenantId;
use keybearer_gate::Approved;
use keybearer_gate::Grant;
use rusqlite::Transaction;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

impl Store {
    /// Stores a grant; gives the one for the same package and slot, if there was one: it is replaced.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone or has no such credential.
    pub fn put_grant(&self, grant: Grant) -> Result<Option<Grant>, StoreError> {
        self.commit(
            |transaction| {
                let image = self.image();
                let tenant = image.tenant(&grant.tenant).ok_or(StoreError::NotFound)?;
                if grant.credential.as_ref().is_some_and(|id| !tenant.credentials.contains_key(id)) {
                    return Err(StoreError::NotFound);
                }
                write(transaction, &grant)?;
                let mut known = tenant.grants.get(&grant.package).into_iter().flat_map(|grants| grants.iter());
                Ok(known.find(|known| known.slot == grant.slot).cloned())
            },
            |image, replaced| {
                if let Some(tenant) = image.tenant_mut(&grant.tenant) {
                    tenant.put_grant(grant.clone());
                }
                replaced
            },
        )
    }

    /// Puts another approved surface in the place of the one that a grant has.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well.
    pub fn approve_grant(&self, tenant: &TenantId, id: &GrantId, approved: Arc<Approved>) -> Result<Grant, StoreError> {
        self.commit(
            |transaction| {
                let grant = Grant { approved, ..self.grant(tenant, id).ok_or(StoreError::NotFound)? };
                write(transaction, &grant)?;
                Ok(grant)
            },
            |image, grant| {
                if let Some(tenant) = image.tenant_mut(tenant) {
                    tenant.put_grant(grant.clone());
                }
                grant
            },
        )
    }

    /// Takes a grant away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well.
    pub fn remove_grant(&self, tenant: &TenantId, id: &GrantId) -> Result<Grant, StoreError> {
        self.commit(
            |transaction| {
                let grant = self.grant(tenant, id).ok_or(StoreError::NotFound)?;
                transaction.execute(
                    "DELETE FROM grants WHERE tenant = ?1 AND id = ?2",
                    params![tenant.as_str(), id.as_str()],
                )?;
                Ok(grant)
            },
            |image, grant| {
                if let Some(tenant) = image.tenant_mut(tenant) {
                    tenant.remove_grant(&grant);
                }
                grant
            },
        )
    }

    /// This grant of this tenant.
    #[must_use]
    pub fn grant(&self, tenant: &TenantId, id: &GrantId) -> Option<Grant> {
        let image = self.image();
        let mut grants = image.tenant(tenant)?.grants.values().flat_map(|grants| grants.iter());
        grants.find(|grant| grant.id == *id).cloned()
    }

    /// Every grant of this tenant, by package and slot.
    #[must_use]
    pub fn grants(&self, tenant: &TenantId) -> Vec<Grant> {
        let mut grants: Vec<Grant> = match self.image().tenant(tenant) {
            Some(tenant) => tenant.grants.values().flat_map(|grants| grants.iter()).cloned().collect(),
            None => Vec::new(),
        };
        grants.sort_unstable_by(|a, b| (&a.package, &a.slot).cmp(&(&b.package, &b.slot)));
        grants
    }

    /// This tenant's grants of one package, from memory; empty where there is none.
    #[must_use]
    pub fn grants_of_package(&self, tenant: &TenantId, package: &PackageName) -> Arc<[Grant]> {
        let image = self.image();
        image.tenant(tenant).and_then(|tenant| tenant.grants.get(package).cloned()).unwrap_or_default()
    }
}

fn write(transaction: &Transaction<'_>, grant: &Grant) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO grants (tenant, package, slot, id, credential, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (tenant, package, slot)
         DO UPDATE SET id = excluded.id, credential = excluded.credential, record = excluded.record",
        params![
            grant.tenant.as_str(),
            grant.package.as_str(),
            grant.slot.as_ref().map_or("", |slot| slot.as_str()),
            grant.id.as_str(),
            grant.credential.as_ref().map(|id| id.as_str()),
            to_json(grant)
        ],
    )?;
    Ok(())
}
