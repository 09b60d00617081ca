//! Asks the upstream for more than anybody can hold.

use keybearer_guest::prelude::*;

use crate::wire;
use crate::wire::Said;

/// What to ask for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The upstream knows what to answer at this URL.
    url: String,
    /// Asks so many times, or until it is refused.
    times: usize,
}

// Shown by: outbound::n27_answers_that_are_too_large_are_not_read_to_their_end
/// Asks for great answers; what became of each, and how large it was.
#[tool(read_only)]
pub(crate) fn response_bomb(args: Args) -> Result<Vec<(String, usize)>, ToolError> {
    let ask = || {
        let heard = wire::send(Said::get(args.url.clone()))?;
        Ok((wire::outcome(&heard), heard.map_or(0, |response| response.body.len())))
    };
    (0..args.times).map(|_| ask()).collect()
}
