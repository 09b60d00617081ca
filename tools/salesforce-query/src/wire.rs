//! Salesforce's answers, as far as the tool reads them (REST API 62.0). Not what callers see.

use keybearer_guest::serde_json::Map;
use keybearer_guest::serde_json::Value;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    pub(crate) total_size: u64,
    pub(crate) done: bool,
    pub(crate) records: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failure {
    pub(crate) message: String,
    pub(crate) error_code: String,
}
