//! The one that does no harm: what another tenant calls while the others rage (oracle O4).

use keybearer_guest::prelude::*;

// Shown by: limits::g01_a_guest_that_never_ends_is_stopped_and_slows_nobody
/// Does nothing, at once.
#[tool(read_only)]
pub(crate) fn calm() -> Result<&'static str, ToolError> {
    Ok("calm")
}
