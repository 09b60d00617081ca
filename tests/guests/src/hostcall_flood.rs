//! G02: calls a cheap import for ever; the guest itself does next to nothing.

use keybearer_guest::bindings::keybearer::tool::http as raw;
use keybearer_guest::prelude::*;

/// Which import.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// `current`, `base_url`, `log` or `send_all`.
    import: String,
}

// Shown by: limits::g02_time_in_cheap_imports_is_the_guests_own
/// Calls one import for ever.
#[tool(read_only)]
pub(crate) fn hostcall_flood(args: Args) -> Result<u64, ToolError> {
    loop {
        match args.import.as_str() {
            "current" => drop(call::current()),
            "base_url" => drop(call::base_url("api")),
            "log" => log::info!(""),
            "send_all" => drop(raw::send_all(&[])),
            other => return Err(ToolError::invalid(format!("there is no {other}"))),
        }
    }
}
