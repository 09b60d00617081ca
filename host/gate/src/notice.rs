//! Notices: who is told that something needs attention, where, and what waits to be told. Not for telling anybody: the
//! executor does that.

use keybearer_contract::HookId;
use keybearer_contract::IncidentId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Sealed;
use crate::Target;

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// Whoever runs this server.
    Operator,
    /// A tenant, of what is its own.
    Tenant(TenantId),
}

impl Addressee {
    /// The tenant; none for the operator.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Operator => None,
            Self::Tenant(tenant) => Some(tenant),
        }
    }
}

/// Where an addressee wants its notices.
#[derive(Clone, Serialize, Deserialize)]
pub struct NoticeTarget {
    /// What the secret is sealed for: another secret has another id.
    pub id: HookId,
    /// Where, by HTTPS.
    pub url: Target,
    /// When it was set.
    pub created: UnixMillis,
    /// The secret that signs, sealed.
    pub sealed: Sealed,
}

/// A notice that waits to be taken.
#[derive(Clone)]
pub struct NoticeRecord {
    /// Whom it tells.
    pub to: Addressee,
    /// Its `webhook-id`: the same for every try, and never the same for two notices.
    pub id: String,
    /// When it was put here.
    pub created: UnixMillis,
    /// The incident that it tells of.
    pub incident: Option<IncidentId>,
    /// The body, byte for byte; a tenant's is sealed for it. What the operator is told stands in the open in the
    /// record of the incident as well.
    pub body: Vec<u8>,
}
