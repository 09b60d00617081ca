//! What is known of the sources of values: the highest version of each that its source gave. A replica that lags behind
//! would give an older one, also to a process that has just been started (threats A04). A source that was begun anew counts
//! from one again: then an administrator has it forgotten.

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_gate::CredentialDirectory as _;
use rusqlite::OptionalExtension as _;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::to_sql;

impl Store {
    /// Takes note of a version that a credential's source gave, before its value is used. It only grows; one that is
    /// known costs no commit.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a higher one was given before; [`StoreError::NotFound`] if the credential is not its
    /// tenant's.
    pub fn note_source_version(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        version: u64,
    ) -> Result<(), StoreError> {
        if self.source_version(tenant, credential)? == Some(version) {
            return Ok(());
        }
        let version = to_sql(version)?;
        let sql = "SELECT version FROM source_versions WHERE tenant = ?1 AND credential = ?2";
        let key = params![tenant.as_str(), credential.as_str()];
        self.commit(
            |transaction| {
                self.credential(tenant, credential).ok_or(StoreError::NotFound)?;
                let known: Option<i64> = transaction.query_row(sql, key, |row| row.get(0)).optional()?;
                if known.is_some_and(|known| version < known) {
                    return Err(StoreError::Conflict("its source gave a newer version before"));
                }
                transaction.execute(
                    "INSERT INTO source_versions (tenant, credential, version) VALUES (?1, ?2, ?3)
                     ON CONFLICT (tenant, credential) DO UPDATE SET version = excluded.version",
                    params![tenant.as_str(), credential.as_str(), version],
                )?;
                Ok(())
            },
            |_, ()| (),
        )
    }

    /// The highest version that a credential's source gave, if it gave one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn source_version(&self, tenant: &TenantId, credential: &CredentialId) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT version FROM source_versions WHERE tenant = ?1 AND credential = ?2";
        let key = params![tenant.as_str(), credential.as_str()];
        let known: Option<i64> =
            self.query(|connection| Ok(connection.query_row(sql, key, |row| row.get(0)).optional()?))?;
        Ok(known.map(i64::unsigned_abs))
    }

    /// Forgets it: whatever its source gives next is taken.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the credential is not its tenant's.
    pub fn forget_source_version(&self, tenant: &TenantId, credential: &CredentialId) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                self.credential(tenant, credential).ok_or(StoreError::NotFound)?;
                let sql = "DELETE FROM source_versions WHERE tenant = ?1 AND credential = ?2";
                transaction.execute(sql, params![tenant.as_str(), credential.as_str()])?;
                Ok(())
            },
            |_, ()| (),
        )
    }
}
