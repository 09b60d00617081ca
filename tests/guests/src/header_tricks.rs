//! Sets header fields that are not a guest's to set, or that are two fields in one.

use keybearer_guest::prelude::*;

use crate::wire;
use crate::wire::Said;

/// What to say.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Where to.
    url: String,
    /// For each request its header fields: name and value. A character of a value is one byte.
    requests: Vec<Vec<(String, String)>>,
}

// Shown by: outbound::n19_n20_headers_that_are_not_the_guests_are_refused
/// GETs the URL with each list of header fields; what became of each.
#[tool(read_only)]
pub(crate) fn header_tricks(args: Args) -> Result<Vec<String>, ToolError> {
    let url = args.url;
    let send = |headers| Ok(wire::outcome(&wire::send(Said::get(url.clone()).with_headers(headers))?));
    args.requests.into_iter().map(send).collect()
}
