//! A hook: where a source outside says, signed, that something changed. Whoever signs with its secret may
//! say that a value is out of date, and nothing else.

use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Onboarding;
use crate::PrincipalLabel;
use crate::Sealed;

/// A hook of one tenant.
#[derive(Clone, Serialize, Deserialize)]
pub struct HookRecord {
    /// The id; part of the address that events are sent to.
    pub id: HookId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it.
    pub label: String,
    /// How often it must be heard of, in seconds, to be trusted to tell of every change; 0 if it is not.
    pub heartbeat_s: u32,
    /// When it was made.
    pub created: UnixMillis,
    /// The secret that signs, sealed.
    pub sealed: Sealed,
    /// Who answers for it, and why it is there.
    #[serde(default)]
    pub onboarding: Onboarding,
}

impl HookRecord {
    /// Who acts when it is heard of, for records.
    #[must_use]
    pub fn principal(&self) -> PrincipalLabel {
        PrincipalLabel::new(&format!("hook:{}", self.id))
    }
}
