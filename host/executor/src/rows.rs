//! How much a tenant may have stored, and how many packages the catalogue may hold: rows cost disk, and the
//! store's image of them costs memory. Not the limits of calls: those are the gate's quotas.

use keybearer_contract::Code;
use keybearer_contract::Problem;
use tokio::sync::Mutex;
use tokio::sync::MutexGuard;

/// The operator's ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCeilings {
    /// Credentials of one tenant. Revoked ones count: their epochs are kept for good.
    pub credentials: u32,
    /// Grants of one tenant.
    pub grants: u32,
    /// Tokens of one tenant that are neither revoked nor expired.
    pub tokens: u32,
    /// Versions of packages in the catalogue, withdrawn ones too.
    pub packages: u32,
}

impl Default for RowCeilings {
    /// Some thousands: more than people look after, and some megabytes.
    fn default() -> Self {
        Self { credentials: 4096, grants: 4096, tokens: 4096, packages: 4096 }
    }
}

/// The ceilings, and whose turn it is to add a row.
pub(crate) struct Rows {
    pub(crate) ceilings: RowCeilings,
    turn: Mutex<()>,
}

impl Rows {
    pub(crate) fn new(ceilings: RowCeilings) -> Self {
        Self { ceilings, turn: Mutex::new(()) }
    }

    /// Waits for the turn to count and add: two at once could both take the last place. Acts of administration
    /// are rare, and none of them waits for a call.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

/// Refuses one more than `max`; says how many there may be and what to do.
///
/// # Errors
/// [`Code::TooMany`].
pub(crate) fn one_more(name: &str, has: usize, max: u32, what_to_do: &str) -> Result<(), Problem> {
    if has < max as usize {
        return Ok(());
    }
    let detail = format!("there may be {max}: {what_to_do}, or have `limits.rows.{name}` raised");
    Err(Problem::new(Code::TooMany, detail).at_limit(name, u64::from(max)))
}
