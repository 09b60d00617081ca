//! When things were used last, as text that the executor writes and reads. Not in the image: the executor has its
//! own, and nothing on the way of a call asks here.

use keybearer_contract::TenantId;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;

/// The uses of one thing of a tenant's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseRow {
    /// Whose it is.
    pub tenant: TenantId,
    /// What was used.
    pub subject: String,
    /// What is known of it.
    pub record: String,
}

impl Store {
    /// Puts these in the place of what was known. Those of a tenant that is gone are left out.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn put_uses(&self, rows: &[UseRow]) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                let sql = "INSERT OR REPLACE INTO uses (tenant, subject, record) VALUES (?1, ?2, ?3)";
                let mut statement = transaction.prepare(sql)?;
                for row in rows {
                    if self.image().tenant(&row.tenant).is_some() {
                        statement.execute(params![row.tenant.as_str(), row.subject, row.record])?;
                    }
                }
                Ok(())
            },
            |_, ()| (),
        )
    }

    /// Everything that is known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn uses(&self) -> Result<Vec<UseRow>, StoreError> {
        let rows = self.query(|connection| {
            let mut statement = connection.prepare("SELECT tenant, subject, record FROM uses")?;
            let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        let parsed = rows.into_iter().map(|(tenant, subject, record)| {
            let tenant = tenant.parse().map_err(|_| StoreUnavailable)?;
            Ok(UseRow { tenant, subject, record })
        });
        parsed.collect()
    }
}
