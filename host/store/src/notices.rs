//! Where tenants want their notices: one place a tenant.

use std::sync::Arc;

use keybearer_contract::TenantId;
use keybearer_gate::NoticeRecord;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

impl Store {
    /// Sets where a tenant wants its notices, in the place of what was set before.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone.
    pub fn put_notice(&self, record: NoticeRecord) -> Result<(), StoreError> {
        let record = Arc::new(record);
        self.commit(
            |transaction| {
                self.image().tenant(&record.tenant).ok_or(StoreError::NotFound)?;
                transaction.execute(
                    "INSERT OR REPLACE INTO notices (tenant, record) VALUES (?1, ?2)",
                    params![record.tenant.as_str(), to_json(&*record)],
                )?;
                Ok(())
            },
            |image, ()| {
                if let Some(tenant) = image.tenant_mut(&record.tenant) {
                    tenant.notice = Some(Arc::clone(&record));
                }
            },
        )
    }

    /// From now on the tenant gets no notices, if it got any.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn remove_notice(&self, tenant: &TenantId) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                transaction.execute("DELETE FROM notices WHERE tenant = ?1", [tenant.as_str()])?;
                Ok(())
            },
            |image, ()| {
                if let Some(tenant) = image.tenant_mut(tenant) {
                    tenant.notice = None;
                }
            },
        )
    }

    /// Where the tenant wants its notices.
    #[must_use]
    pub fn notice(&self, tenant: &TenantId) -> Option<Arc<NoticeRecord>> {
        self.image().tenant(tenant)?.notice.clone()
    }
}
