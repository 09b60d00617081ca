//! The append-only, hash-chained record of calls, dispatches and administrative acts.

use keybearer_contract::DispatchId;

/// Proof that the intent of one dispatch is in the ledger (P6). Made by this room only, not `Clone`:
/// it is spent on arming exactly one request.
#[must_use]
pub struct Intent {
    dispatch: DispatchId,
}

impl Intent {
    /// Which dispatch.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchId {
        &self.dispatch
    }
}
