//! What was minted at an issuer and must be given back there, even if this process is gone by then.

use keybearer_contract::CredentialId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Facts;

/// One thing at an issuer, by its reference there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanRecord {
    /// For whom it was minted.
    pub facts: Facts,
    /// With what.
    pub credential: CredentialId,
    /// What its issuer knows it by. No secret.
    pub reference: String,
    /// When it ends by itself.
    pub ends: UnixMillis,
}
