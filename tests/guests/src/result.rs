//! G18: gives back more than was agreed. (JSON that is nested too deeply cannot be made here: the SDK
//! itself would not survive it.)

use keybearer_guest::prelude::*;

/// How much.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Bytes.
    bytes: usize,
}

// Shown by: text::g18_a_result_that_is_too_large_or_too_deep_is_refused
/// Gives back a long text.
#[tool(read_only)]
pub(crate) fn big_result(args: Args) -> Result<String, ToolError> {
    Ok("x".repeat(args.bytes))
}
