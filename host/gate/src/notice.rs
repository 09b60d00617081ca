//! Notices: where a tenant is told that something needs its attention, and the host's own request there. It
//! carries no credential of anybody's; its signature says that it is ours.

use keybearer_contract::HookId;
use keybearer_contract::Method;
use keybearer_contract::Scheme;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Cleared;
use crate::ClearedParts;
use crate::Facts;
use crate::Refusal;
use crate::Sealed;
use crate::Target;

/// Where a tenant wants its notices.
#[derive(Clone, Serialize, Deserialize)]
pub struct NoticeRecord {
    /// Whose it is.
    pub tenant: TenantId,
    /// What the secret is sealed for.
    pub id: HookId,
    /// Where notices go, by HTTPS.
    pub url: Target,
    /// When it was set.
    pub created: UnixMillis,
    /// The secret that signs, sealed.
    pub sealed: Sealed,
}

/// A notice on its way.
pub struct Notice {
    /// Header fields, lower-case.
    pub headers: Vec<(&'static str, String)>,
    /// The body: JSON.
    pub body: Vec<u8>,
}

/// Clears a notice for where its tenant wants it.
///
/// # Errors
/// [`Refusal::NoBinding`] if it would go out without TLS, or for another tenant.
pub fn clear_notice(facts: &Facts, record: &NoticeRecord, notice: Notice) -> Result<Cleared, Refusal> {
    if record.tenant != facts.tenant || record.url.destination().scheme() != Scheme::Https {
        return Err(Refusal::NoBinding { method: Method::Post.as_str().to_owned(), place: record.url.place() });
    }
    let (destination, path, query) = record.url.clone().into_parts();
    let fields = [("content-type", "application/json".to_owned())].into_iter().chain(notice.headers);
    let headers = fields.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
    let parts = ClearedParts { destination, method: Method::Post, path, query, headers, body: Some(notice.body) };
    Ok(Cleared::without_credential(facts.clone(), parts))
}
