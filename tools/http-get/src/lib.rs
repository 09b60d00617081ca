//! The worked example of a credentialed GET. The host is the manifest's, the path is an argument, and
//! the bearer token is nowhere in here: the host puts it on the request on the way out.

use std::collections::BTreeMap;

use keybearer_guest::prelude::*;

/// The arguments of `get`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The path, without a query and not percent-encoded, such as `/anything/a b`.
    pub path: String,
    /// The query's names and values, not percent-encoded.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
}

/// The result of `get`.
#[derive(Serialize, JsonSchema)]
pub struct Out {
    /// The HTTP status. One of 400 or above is a result here, not an error.
    pub status: u16,
    /// The answer's `content-type`, if it has one.
    pub content_type: Option<String>,
    /// The body as text; bytes that are not UTF-8 are replaced.
    pub body: String,
}

/// Gets a path of the site that this package is bound to, with the tenant's bearer token, and gives
/// back status, content type and body. Redirects are given back and not followed.
#[tool(read_only)]
pub fn get(args: Args) -> Result<Out, ToolError> {
    let path = args.path.strip_prefix('/').unwrap_or(&args.path);
    let mut request = http::get("https://httpbin.org").path(path.split('/'));
    for (name, value) in &args.query {
        request = request.query(name, value);
    }
    let answer = request.send()?;
    Ok(Out {
        status: answer.status(),
        content_type: answer.header("content-type").map(str::to_owned),
        body: String::from_utf8_lossy(answer.body()).into_owned(),
    })
}

keybearer_guest::export!(get);

#[cfg(test)]
mod tests;
