//! Removing a tenant: its rows in every table that there is, its data key, and its name. Its id stays, so that it
//! is never given again.

use std::collections::BTreeMap;
use std::collections::HashSet;

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::CredentialDirectory as _;
use rusqlite::Connection;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;
use crate::store::to_sql;

impl Store {
    /// Removes a tenant: everything of it but its id is gone, and overwritten. Says how many rows of each table.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn remove_tenant(&self, id: &TenantId, at: UnixMillis) -> Result<BTreeMap<String, u64>, StoreError> {
        let removed = self.commit(
            |transaction| {
                self.image().tenant(id).ok_or(StoreError::NotFound)?;
                // Rows refer to one another; what counts is that nothing refers to what is gone at the end.
                transaction.pragma_update(None, "defer_foreign_keys", "ON")?;
                let mut removed = BTreeMap::new();
                for table in tables(transaction)? {
                    let count =
                        transaction.execute(&format!("DELETE FROM {table} WHERE tenant = ?1"), [id.as_str()])?;
                    removed.insert(table, count as u64);
                }
                transaction.execute(
                    "UPDATE tenants SET removed = ?2, name = '', record = '{}', data_key = x'' WHERE tenant = ?1",
                    params![id.as_str(), to_sql(at.0)?],
                )?;
                Ok(removed)
            },
            |image, removed| {
                image.remove_tenant(id);
                removed
            },
        )?;
        self.forget_freed();
        Ok(removed)
    }

    /// Tenants that were removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn removed_tenants(&self) -> Result<HashSet<TenantId>, StoreError> {
        let ids = self.query(|connection| {
            let mut statement = connection.prepare("SELECT tenant FROM tenants WHERE removed IS NOT NULL")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        ids.into_iter().map(|id| id.parse().map_err(|_| StoreUnavailable.into())).collect()
    }

    /// How many rows name a tenant, but for the one that keeps its id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn rows_of(&self, id: &TenantId) -> Result<u64, StoreError> {
        self.query(|connection| {
            let mut rows = 0;
            for table in tables(connection)? {
                let sql = format!("SELECT count(*) FROM {table} WHERE tenant = ?1");
                rows += connection.query_row(&sql, [id.as_str()], |row| row.get::<_, i64>(0))?.unsigned_abs();
            }
            Ok(rows)
        })
    }

    /// How everything sealed begins that is stored of a tenant, its wrapped data key too: what must not be found once
    /// it left.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn sealed_of(&self, id: &TenantId) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut sealed = vec![self.data_key(id).ok_or(StoreError::NotFound)?];
        sealed.extend(self.hooks(id).iter().map(|hook| hook.sealed.clone()));
        sealed.extend(self.notice_target(&Addressee::Tenant(id.clone())).map(|target| target.sealed.clone()));
        let mut bytes: Vec<Vec<u8>> = sealed.into_iter().map(|sealed| sealed.0.to_vec()).collect();
        for sql in [
            "SELECT substr(sealed, 1, 64) FROM versions WHERE tenant = ?1 AND length(sealed) > 0",
            "SELECT substr(answer, 1, 64) FROM idempotency WHERE tenant = ?1 AND answer IS NOT NULL",
            "SELECT substr(body, 1, 64) FROM outbox WHERE tenant = ?1",
        ] {
            let more = self.query(|connection| {
                let mut statement = connection.prepare(sql)?;
                let rows = statement.query_map([id.as_str()], |row| row.get::<_, Vec<u8>>(0))?;
                Ok(rows.collect::<Result<Vec<_>, _>>()?)
            })?;
            bytes.extend(more);
        }
        Ok(bytes)
    }
}

/// Every table that holds rows of tenants: asked of the file, so that one that is added later is not forgotten.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
               WHERE m.type = 'table' AND c.name = 'tenant' AND m.name <> 'tenants' ORDER BY m.name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}
