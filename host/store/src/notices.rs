//! Where tenants and the operator want their notices, one place each, and the notices that wait to be taken there.

use std::sync::Arc;

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::NoticeRecord;
use keybearer_gate::NoticeTarget;
use rusqlite::Transaction;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;
use crate::image::Damage;
use crate::image::Image;
use crate::store::to_json;
use crate::store::to_sql;

/// Of one addressee: what a receiver that is away for a day misses of a busy tenant. What comes on top is dropped by
/// whoever wanted to tell it.
const WAITING_MAX: i64 = 256;

/// The name of the operator's row.
const TARGET: &str = "notify";

impl Store {
    /// Sets where notices go, in the place of what was set before; or nowhere, and then nothing waits any more.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the tenant is gone.
    pub fn set_notice_target(&self, to: &Addressee, target: Option<NoticeTarget>) -> Result<(), StoreError> {
        let target = target.map(Arc::new);
        let record = target.as_ref().map(|target| to_json(&**target));
        self.commit(
            |transaction| {
                if let Some(tenant) = to.tenant() {
                    self.image().tenant(tenant).ok_or(StoreError::NotFound)?;
                }
                match (to, &record) {
                    (Addressee::Tenant(tenant), Some(record)) => transaction.execute(
                        "INSERT OR REPLACE INTO notices (tenant, record) VALUES (?1, ?2)",
                        params![tenant.as_str(), record],
                    ),
                    (Addressee::Tenant(tenant), None) => {
                        transaction.execute("DELETE FROM notices WHERE tenant = ?1", [tenant.as_str()])
                    }
                    (Addressee::Operator, Some(record)) => transaction.execute(
                        "INSERT OR REPLACE INTO operator (name, record) VALUES (?1, ?2)",
                        params![TARGET, record],
                    ),
                    (Addressee::Operator, None) => {
                        transaction.execute("DELETE FROM operator WHERE name = ?1", [TARGET])
                    }
                }?;
                if record.is_none() {
                    transaction.execute("DELETE FROM outbox WHERE tenant = ?1", [column(to)])?;
                }
                Ok(())
            },
            |image, ()| match to {
                Addressee::Operator => image.operators_notices = target,
                Addressee::Tenant(tenant) => {
                    if let Some(tenant) = image.tenant_mut(tenant) {
                        tenant.notices = target;
                    }
                }
            },
        )
    }

    /// Where notices go.
    #[must_use]
    pub fn notice_target(&self, to: &Addressee) -> Option<Arc<NoticeTarget>> {
        match to {
            Addressee::Operator => self.image().operators_notices.clone(),
            Addressee::Tenant(tenant) => self.image().tenant(tenant)?.notices.clone(),
        }
    }

    /// Keeps a notice until it is forgotten. Says whether it is new.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if nobody wants it; [`StoreError::Conflict`] if too many wait.
    pub fn put_notice(&self, notice: &NoticeRecord) -> Result<bool, StoreError> {
        self.commit(
            |transaction| {
                self.notice_target(&notice.to).ok_or(StoreError::NotFound)?;
                check_room(transaction, &notice.to)?;
                let incident = notice.incident.as_ref().map(keybearer_contract::IncidentId::as_str);
                let put = transaction.execute(
                    "INSERT OR IGNORE INTO outbox (tenant, id, created, incident, body) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![column(&notice.to), notice.id, to_sql(notice.created.0)?, incident, notice.body],
                )?;
                Ok(put == 1)
            },
            |_, is_new| is_new,
        )
    }

    /// Forgets a notice: it was taken, or is given up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn forget_notice(&self, to: &Addressee, id: &str) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                transaction.execute("DELETE FROM outbox WHERE tenant = ?1 AND id = ?2", params![column(to), id])?;
                Ok(())
            },
            |_, ()| (),
        )
    }

    /// What waits, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], also for a row that is none.
    pub fn waiting_notices(&self) -> Result<Vec<NoticeRecord>, StoreError> {
        let rows = self.query(|connection| {
            let sql = "SELECT tenant, id, created, incident, body FROM outbox ORDER BY created, id";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let (tenant, id, created): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
                let (incident, body): (Option<String>, Vec<u8>) = (row.get(3)?, row.get(4)?);
                Ok((tenant, id, created, incident, body))
            })?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        })?;
        let record = |(tenant, id, created, incident, body): (String, _, i64, Option<String>, _)| {
            let to = match &*tenant {
                "" => Addressee::Operator,
                tenant => Addressee::Tenant(tenant.parse().map_err(|_| StoreUnavailable)?),
            };
            let incident = incident.map(|incident| incident.parse()).transpose().map_err(|_| StoreUnavailable)?;
            Ok(NoticeRecord { to, id, created: UnixMillis(created.unsigned_abs()), incident, body })
        };
        rows.into_iter().map(record).collect()
    }
}

/// How a row names whose it is: no tenant has an empty id.
fn column(to: &Addressee) -> &str {
    to.tenant().map_or("", TenantId::as_str)
}

fn check_room(transaction: &Transaction<'_>, to: &Addressee) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM outbox WHERE tenant = ?1";
    let count: i64 = transaction.query_row(sql, [column(to)], |row| row.get(0))?;
    if count >= WAITING_MAX { Err(StoreError::Conflict("too many notices wait to be taken")) } else { Ok(()) }
}

/// Reads where notices go; the tenants are there already.
pub(crate) fn load(image: &mut Image, connection: &rusqlite::Connection) -> Result<(), Damage> {
    crate::image::each(connection, "SELECT record, tenant FROM notices", |row| {
        let target: NoticeTarget = crate::image::record(row, "notices")?;
        let tenant = row.get::<_, String>(1)?.parse().ok();
        let tenant = tenant.and_then(|tenant| image.tenant_mut(&tenant));
        tenant.ok_or_else(|| crate::image::stray("notices"))?.notices = Some(Arc::new(target));
        Ok(())
    })?;
    crate::image::each(connection, "SELECT record FROM operator WHERE name = 'notify'", |row| {
        image.operators_notices = Some(Arc::new(crate::image::record(row, "operator")?));
        Ok(())
    })
}
