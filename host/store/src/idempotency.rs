//! Idempotency records: which request a key belongs to, whether it is running, and its scrubbed
//! answer, sealed. A key whose call was cut off answers `unknown` and is never run again: what it did
//! outside cannot be known (threats T09, C01).

use std::collections::HashSet;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Sealed;
use rusqlite::OptionalExtension as _;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::StoreUnavailable;
use crate::store::to_sql;

/// How long a key is kept, in milliseconds: a day, as callers know it from elsewhere.
pub const IDEMPOTENCY_LIFE_MS: u64 = 24 * 60 * 60 * 1000;

/// How many records are removed in one transaction: an answer has up to 4 MiB, and every other write waits for it.
pub const PURGED_AT_ONCE: usize = 64;

/// A tenant's key, as a hash: what callers send may be long and telling.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Whose.
    pub tenant: TenantId,
    /// Hash of the key as sent.
    pub hash: [u8; 32],
}

/// The keys that are running in this process.
pub(crate) type Running = HashSet<IdempotencyKey>;

/// What stands under a key.
pub enum Begun {
    /// Nothing stood: run the call, and tell the place how it ended.
    New(IdempotentCall),
    /// The same request is running now.
    InFlight(CallId),
    /// The same request was answered: the answer, as it was sealed.
    Done(CallId, Sealed),
    /// The key belongs to another request.
    Mismatch,
    /// The same request was cut off; it may or may not have acted.
    Unknown(CallId),
}

/// A call that runs under a key. Dropped without an end, it leaves the key as `unknown`.
#[must_use]
pub struct IdempotentCall {
    store: Arc<Store>,
    key: IdempotencyKey,
    ended: bool,
}

impl IdempotentCall {
    /// Stores the answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the key is then `unknown`.
    pub fn finish(mut self, answer: &Sealed) -> Result<(), StoreError> {
        self.write("UPDATE idempotency SET answer = ?3 WHERE tenant = ?1 AND key = ?2", Some(answer))
    }

    /// Frees the key, for a call that ended before it could have any effect.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the key is then `unknown`.
    pub fn forget(mut self) -> Result<(), StoreError> {
        self.write("DELETE FROM idempotency WHERE tenant = ?1 AND key = ?2 AND ?3 IS NULL", None)
    }

    fn write(&mut self, sql: &str, answer: Option<&Sealed>) -> Result<(), StoreError> {
        self.store.commit(
            |transaction| {
                let answer = answer.map(|sealed| &*sealed.0);
                transaction.execute(sql, params![self.key.tenant.as_str(), self.key.hash, answer])?;
                Ok(())
            },
            // While the writer is held: nobody can have begun with the key again.
            |_, ()| self.store.running.lock().remove(&self.key),
        )?;
        self.ended = true;
        Ok(())
    }
}

impl Drop for IdempotentCall {
    fn drop(&mut self) {
        if !self.ended {
            self.store.running.lock().remove(&self.key);
        }
    }
}

struct Row {
    request: [u8; 32],
    call: CallId,
    created: u64,
    answer: Option<Vec<u8>>,
}

impl Store {
    /// Looks at a key, and takes it if it is free or has ended its life.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the call must not run; [`StoreError::NotFound`] if the tenant is gone.
    pub fn begin(
        self: &Arc<Self>,
        key: IdempotencyKey,
        request: &[u8; 32],
        call: &CallId,
        now: UnixMillis,
    ) -> Result<Begun, StoreError> {
        // Asked outside of a transaction first: an answer that is there costs no write.
        if let Some(row) = self.query(|connection| read(connection, &key))?
            && self.is_held(&key, &row, now)
        {
            return Ok(self.stands(&key, row, request));
        }
        self.commit(
            |transaction| {
                self.image().tenant(&key.tenant).ok_or(StoreError::NotFound)?;
                if let Some(row) = read(transaction, &key)?
                    && self.is_held(&key, &row, now)
                {
                    return Ok(self.stands(&key, row, request));
                }
                transaction.execute(
                    "INSERT OR REPLACE INTO idempotency (tenant, key, request, call, created) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![key.tenant.as_str(), key.hash, request, call.as_str(), to_sql(now.0)?],
                )?;
                self.running.lock().insert(key.clone());
                // Made before the commit: if that fails, its drop frees the key.
                Ok(Begun::New(IdempotentCall { store: Arc::clone(self), key: key.clone(), ended: false }))
            },
            |_, begun| begun,
        )
    }

    fn is_held(&self, key: &IdempotencyKey, row: &Row, now: UnixMillis) -> bool {
        row.created.saturating_add(IDEMPOTENCY_LIFE_MS) > now.0 || self.running.lock().contains(key)
    }

    fn stands(&self, key: &IdempotencyKey, row: Row, request: &[u8; 32]) -> Begun {
        if row.request != *request {
            return Begun::Mismatch;
        }
        match row.answer {
            Some(answer) => Begun::Done(row.call, Sealed(answer.into())),
            None if self.running.lock().contains(key) => Begun::InFlight(row.call),
            None => Begun::Unknown(row.call),
        }
    }

    /// Removes records that have ended their life, at most [`PURGED_AT_ONCE`] of them; says how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub fn purge(&self, now: UnixMillis) -> Result<usize, StoreError> {
        let before = to_sql(now.0.saturating_sub(IDEMPOTENCY_LIFE_MS))?;
        let sql = "SELECT EXISTS (SELECT 1 FROM idempotency WHERE created <= ?1)";
        if !self.query(|connection| Ok(connection.query_row(sql, [before], |row| row.get::<_, bool>(0))?))? {
            return Ok(0);
        }
        self.commit(
            |transaction| {
                // The wall clock can jump by a day; a key that is running keeps its row all the same.
                let running: Vec<_> = self.running.lock().iter().cloned().collect();
                for key in running {
                    let sql = "UPDATE idempotency SET created = ?3 WHERE tenant = ?1 AND key = ?2";
                    transaction.execute(sql, params![key.tenant.as_str(), key.hash, to_sql(now.0)?])?;
                }
                let sql = "DELETE FROM idempotency WHERE (tenant, key) IN
                    (SELECT tenant, key FROM idempotency WHERE created <= ?1 LIMIT ?2)";
                Ok(transaction.execute(sql, params![before, to_sql(PURGED_AT_ONCE as u64)?])?)
            },
            |_, removed| removed,
        )
    }
}

fn read(connection: &rusqlite::Connection, key: &IdempotencyKey) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT request, call, created, answer FROM idempotency WHERE tenant = ?1 AND key = ?2";
    let found = connection
        .query_row(sql, params![key.tenant.as_str(), key.hash], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((request, call, created, answer)) = found else { return Ok(None) };
    let call = call.parse().map_err(|_| StoreUnavailable)?;
    Ok(Some(Row { request, call, created: created.unsigned_abs(), answer }))
}
