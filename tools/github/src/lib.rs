//! Two operations of GitHub's REST API: open an issue, search code. The token that both need is
//! nowhere in here.

mod wire;

use keybearer_guest::http::Request;
use keybearer_guest::prelude::*;
use serde::de::DeserializeOwned;

/// The version of GitHub's API whose shapes `wire` knows.
const API_VERSION: &str = "2022-11-28";

/// The arguments of `create_issue`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateIssue {
    /// Who owns the repository: a user or an organisation.
    pub owner: String,
    /// The repository's name, without its owner.
    pub repo: String,
    /// The issue's title.
    pub title: String,
    /// The issue's text, in Markdown.
    pub body: Option<String>,
    /// Labels to put on it.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Users to assign it to.
    #[serde(default)]
    pub assignees: Vec<String>,
}

/// The result of `create_issue`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Issue {
    /// The issue's number within the repository.
    pub number: u64,
    /// Where a person reads it.
    pub url: String,
    /// `open` or `closed`.
    pub state: String,
}

/// Opens an issue in a GitHub repository. Everybody who can read the repository will see it.
#[tool]
pub fn create_issue(args: CreateIssue) -> Result<Issue, ToolError> {
    let issue: wire::Issue =
        send(http::post("https://api.github.com").path(["repos", &args.owner, &args.repo, "issues"]).json(
            &wire::NewIssue { title: args.title, body: args.body, labels: args.labels, assignees: args.assignees },
        ))?;
    Ok(Issue { number: issue.number, url: issue.html_url, state: issue.state })
}

/// The arguments of `search_code`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchCode {
    /// GitHub's code search syntax: words and qualifiers, such as `addClass in:file repo:jquery/jquery`.
    #[schemars(length(min = 1, max = 256))]
    pub query: String,
    /// Results a page; 30, if not given.
    #[schemars(range(min = 1, max = 100))]
    pub per_page: Option<u8>,
    /// The page, from 1.
    #[schemars(range(min = 1))]
    pub page: Option<u32>,
}

/// The result of `search_code`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Matches {
    /// How many files match in all; GitHub shows the first 1000.
    pub total: u64,
    /// Whether GitHub gave up before it had looked everywhere.
    pub incomplete: bool,
    /// The files of this page, best first.
    pub files: Vec<File>,
}

/// One file that matches.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct File {
    /// `owner/name` of the repository.
    pub repository: String,
    /// The file's path within it.
    pub path: String,
    /// Where a person reads it.
    pub url: String,
}

/// Searches the code of the GitHub repositories that the tenant's token can read.
#[tool(read_only)]
pub fn search_code(args: SearchCode) -> Result<Matches, ToolError> {
    let page: wire::CodePage = send(
        http::get("https://api.github.com/search/code")
            .query("q", args.query)
            .query_opt("per_page", args.per_page)
            .query_opt("page", args.page),
    )?;
    let file =
        |item: wire::CodeItem| File { repository: item.repository.full_name, path: item.path, url: item.html_url };
    Ok(Matches {
        total: page.total_count,
        incomplete: page.incomplete_results,
        files: page.items.into_iter().map(file).collect(),
    })
}

/// Sends a request and reads the answer, or GitHub's own word about what is wrong.
fn send<T: DeserializeOwned>(request: Request) -> Result<T, ToolError> {
    let answer = request
        .header("accept", "application/vnd.github+json")
        .header("x-github-api-version", API_VERSION)
        // GitHub refuses requests without one.
        .header("user-agent", concat!("keybearer-tool-github/", env!("CARGO_PKG_VERSION")))
        .send()?;
    if answer.is_success() {
        return Ok(answer.json()?);
    }
    let status = answer.status();
    if answer.header("x-ratelimit-remaining") == Some("0") {
        let reset = answer.header("x-ratelimit-reset").unwrap_or("an unknown time");
        return Err(ToolError::Upstream(format!("GitHub answered {status}: its rate limit is spent until {reset}")));
    }
    Err(ToolError::Upstream(match answer.json::<wire::Failure>() {
        Ok(failure) => format!("GitHub answered {status}: {}", failure.message),
        Err(_) => format!("GitHub answered {status}"),
    }))
}

keybearer_guest::export!(create_issue, search_code);

#[cfg(test)]
mod tests;
