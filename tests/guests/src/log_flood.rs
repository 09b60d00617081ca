//! G15: logs more than anybody wants to keep.

use keybearer_guest::prelude::*;

/// How much.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Lines.
    lines: u32,
    /// Bytes of each.
    bytes: usize,
}

// Shown by: text::g15_a_flood_of_log_lines_is_capped
/// Logs a lot.
#[tool(read_only)]
pub(crate) fn log_flood(args: Args) -> Result<u32, ToolError> {
    let line = "x".repeat(args.bytes);
    for _ in 0..args.lines {
        log::write(log::Level::Info, &line);
    }
    Ok(args.lines)
}
