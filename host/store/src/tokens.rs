//! API tokens: hashes, never the tokens themselves.

use std::sync::Arc;

use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use keybearer_gate::TokenRecord;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_json;

impl Store {
    /// Stores a new token.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone.
    pub fn insert_token(&self, record: TokenRecord) -> Result<Arc<TokenRecord>, StoreError> {
        let record = Arc::new(record);
        self.commit(
            |transaction| {
                self.image().tenant(&record.tenant).ok_or(StoreError::NotFound)?;
                transaction.execute(
                    "INSERT INTO tokens (tenant, id, record) VALUES (?1, ?2, ?3)",
                    params![record.tenant.as_str(), record.id.as_str(), to_json(&*record)],
                )?;
                Ok(())
            },
            |image, ()| {
                image.tokens.insert(record.id.clone(), Arc::clone(&record));
            },
        )?;
        Ok(record)
    }

    /// Revokes a token of this tenant. One that is revoked keeps its time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], for another tenant's as well.
    pub fn revoke_token(
        &self,
        tenant: &TenantId,
        id: &TokenId,
        at: UnixMillis,
    ) -> Result<Arc<TokenRecord>, StoreError> {
        self.commit(
            |transaction| {
                let current = self.image().tokens.get(id).filter(|token| token.tenant == *tenant).cloned();
                let mut record = TokenRecord::clone(&*current.ok_or(StoreError::NotFound)?);
                record.revoked.get_or_insert(at);
                transaction.execute(
                    "UPDATE tokens SET record = ?3 WHERE tenant = ?1 AND id = ?2",
                    params![tenant.as_str(), id.as_str(), to_json(&record)],
                )?;
                Ok(Arc::new(record))
            },
            |image, record| {
                image.tokens.insert(id.clone(), Arc::clone(&record));
                record
            },
        )
    }

    /// Forgets this tenant's tokens that are revoked or expired: how many there were.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn forget_dead_tokens(&self, tenant: &TenantId, now: UnixMillis) -> Result<usize, StoreError> {
        let is_dead =
            |token: &TokenRecord| token.tenant == *tenant && (token.revoked.is_some() || token.expires <= now);
        self.commit(
            |transaction| {
                let dead: Vec<_> =
                    self.image().tokens.values().filter(|token| is_dead(token)).map(|token| token.id.clone()).collect();
                let mut statement = transaction.prepare("DELETE FROM tokens WHERE tenant = ?1 AND id = ?2")?;
                for id in &dead {
                    statement.execute(params![tenant.as_str(), id.as_str()])?;
                }
                drop(statement);
                Ok(dead)
            },
            |image, dead| {
                for id in &dead {
                    image.tokens.remove(id);
                }
                dead.len()
            },
        )
    }

    /// Every token of this tenant, oldest first, revoked and expired ones too.
    #[must_use]
    pub fn tokens(&self, tenant: &TenantId) -> Vec<Arc<TokenRecord>> {
        let mut records: Vec<_> =
            self.image().tokens.values().filter(|token| token.tenant == *tenant).cloned().collect();
        records.sort_unstable_by(|a, b| (a.issued, &a.id).cmp(&(b.issued, &b.id)));
        records
    }
}
