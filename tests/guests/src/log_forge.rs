//! G15: logs what looks like other people's lines.

use keybearer_guest::prelude::*;

/// What to log.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The lines.
    lines: Vec<String>,
}

// Shown by: text::g15_no_log_line_forges_another
/// Logs these lines.
#[tool(read_only)]
pub(crate) fn log_forge(args: Args) -> Result<usize, ToolError> {
    for line in &args.lines {
        log::write(log::Level::Error, line);
    }
    Ok(args.lines.len())
}
