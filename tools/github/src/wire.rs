//! GitHub's requests and answers, as far as the tools use them (API version 2022-11-28). Not what
//! callers see.

use serde::Deserialize;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct NewIssue {
    pub(crate) title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) assignees: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Issue {
    pub(crate) number: u64,
    pub(crate) html_url: String,
    pub(crate) state: String,
}

#[derive(Deserialize)]
pub(crate) struct CodePage {
    pub(crate) total_count: u64,
    pub(crate) incomplete_results: bool,
    pub(crate) items: Vec<CodeItem>,
}

#[derive(Deserialize)]
pub(crate) struct CodeItem {
    pub(crate) path: String,
    pub(crate) html_url: String,
    pub(crate) repository: Repository,
}

#[derive(Deserialize)]
pub(crate) struct Repository {
    pub(crate) full_name: String,
}

#[derive(Deserialize)]
pub(crate) struct Failure {
    pub(crate) message: String,
}
