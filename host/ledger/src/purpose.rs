//! On whose behalf a request leaves, as its record says. Not whether it may: that was decided before.

use serde::Deserialize;
use serde::Serialize;

/// On whose behalf a request leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The guest asked for it.
    Guest,
    /// No request: the guest asked for a signature, and what was made is in its hands.
    Sign,
    /// The host asks a source for a value.
    Mint,
    /// The host asks a source to tell of changes, on a connection that stays open.
    Listen,
    /// The host gives a minted value back to its issuer.
    GiveBack,
    /// The host asks an issuer for its metadata; no credential is on it.
    Discover,
}
