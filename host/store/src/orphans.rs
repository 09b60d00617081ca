//! Orphans: what was minted at an issuer and is to be given back there. A row is written before the minted
//! value is used, and goes when it was given back or has ended by itself; what a crash leaves is found here.

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::OrphanRecord;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::store::from_json;
use crate::store::to_json;
use crate::store::to_sql;

/// Of one tenant: as many minted values as it may hold at once, and more. Beyond that something is wrong, and
/// what is minted could not be given back.
const ORPHANS_MAX: i64 = 10_000;

impl Store {
    /// Notes one. Those of its tenant that have ended by themselves go.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone; [`StoreError::Conflict`] if it has too many.
    pub fn note_orphan(&self, orphan: &OrphanRecord, now: UnixMillis) -> Result<(), StoreError> {
        let tenant = &orphan.facts.tenant;
        self.commit(
            |transaction| {
                self.image().tenant(tenant).ok_or(StoreError::NotFound)?;
                transaction.execute(
                    "DELETE FROM orphans WHERE tenant = ?1 AND ends <= ?2",
                    params![tenant.as_str(), to_sql(now.0)?],
                )?;
                let sql = "SELECT count(*) FROM orphans WHERE tenant = ?1";
                let count: i64 = transaction.query_row(sql, [tenant.as_str()], |row| row.get(0))?;
                if count >= ORPHANS_MAX {
                    return Err(StoreError::Conflict("too many minted values wait to be given back"));
                }
                transaction.execute(
                    "INSERT OR REPLACE INTO orphans (tenant, credential, reference, ends, record)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        tenant.as_str(),
                        orphan.credential.as_str(),
                        orphan.reference,
                        to_sql(orphan.ends.0)?,
                        to_json(orphan)
                    ],
                )?;
                Ok(())
            },
            |_, ()| (),
        )
    }

    /// Forgets one, which was given back.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn forget_orphan(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        reference: &str,
    ) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                let sql = "DELETE FROM orphans WHERE tenant = ?1 AND credential = ?2 AND reference = ?3";
                transaction.execute(sql, params![tenant.as_str(), credential.as_str(), reference])?;
                Ok(())
            },
            |_, ()| (),
        )
    }

    /// Those of every tenant that have not ended by themselves.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also for a row that is none.
    pub fn orphans(&self, now: UnixMillis) -> Result<Vec<OrphanRecord>, StoreError> {
        let now = to_sql(now.0)?;
        self.query(|connection| {
            let mut statement = connection.prepare("SELECT record FROM orphans WHERE ends > ?1")?;
            let rows = statement.query_map([now], |row| row.get::<_, String>(0))?;
            rows.map(|text| from_json(&text?).map_err(|_| crate::StoreUnavailable.into())).collect()
        })
    }
}
