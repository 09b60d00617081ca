//! Says URLs that mean another place than they seem to.

use keybearer_guest::prelude::*;

use crate::wire;
use crate::wire::Said;

/// What to say.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The URLs, byte for byte.
    urls: Vec<String>,
}

// Shown by: outbound::n_urls_that_mean_another_place_are_refused
/// GETs each URL; what became of each.
#[tool(read_only)]
pub(crate) fn url_tricks(args: Args) -> Result<Vec<String>, ToolError> {
    args.urls.into_iter().map(|url| Ok(wire::outcome(&wire::send(Said::get(url))?))).collect()
}
