//! Floods the upstream: one request after the other, or all at once.

use keybearer_guest::bindings::keybearer::tool::http as raw;
use keybearer_guest::prelude::*;

use crate::wire;

/// How many, and what.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The URL of each.
    url: String,
    /// How many.
    requests: usize,
    /// Bytes of each one's body; a POST, then.
    #[serde(default)]
    body_bytes: Option<usize>,
}

impl Args {
    fn request(&self) -> raw::Request {
        let method = if self.body_bytes.is_some() { raw::Method::Post } else { raw::Method::Get };
        let body = self.body_bytes.map(|bytes| vec![b'x'; bytes]);
        raw::Request { method, url: self.url.clone(), headers: Vec::new(), body }
    }
}

// Shown by: outbound::g_a_flood_of_requests_ends_at_the_limit
/// Sends one request after the other; what became of each.
#[tool]
pub(crate) fn requests_flood(args: Args) -> Result<Vec<String>, ToolError> {
    let request = args.request();
    Ok((0..args.requests).map(|_| wire::outcome(&raw::send(&request))).collect())
}

// Shown by: outbound::g_a_flood_at_once_is_bounded_in_width
/// Sends all of them at once; what became of each.
#[tool]
pub(crate) fn parallel_flood(args: Args) -> Result<Vec<String>, ToolError> {
    let requests: Vec<_> = (0..args.requests).map(|_| args.request()).collect();
    Ok(raw::send_all(&requests).iter().map(wire::outcome).collect())
}
