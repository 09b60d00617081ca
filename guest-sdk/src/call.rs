//! What a tool may know of its own call. Nothing here tells who the tenant is.

use crate::ToolError;

/// The call, as the platform knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The call's id, as it stands in the ledger.
    pub call_id: String,
    /// Milliseconds left until the call is stopped.
    pub remaining_ms: u64,
    /// 1 for the first attempt; the platform counts its own retries.
    pub attempt: u32,
}

/// The running call.
#[must_use]
pub fn current() -> Context {
    crate::host::current()
}

/// The base URL that the grant fixed for a slot whose host differs by tenant, without a `/` at its
/// end; none where the manifest names the host itself or where there is no grant.
#[must_use]
pub fn base_url(slot: &str) -> Option<String> {
    let mut url = crate::host::base_url(slot)?;
    url.truncate(url.trim_end_matches('/').len());
    Some(url)
}

/// The base URL that the grant fixed for a slot.
///
/// # Errors
/// [`ToolError::Denied`] where there is none: without a grant there is nothing to ask.
pub fn require_base_url(slot: &str) -> Result<String, ToolError> {
    base_url(slot).ok_or(ToolError::Denied)
}
