//! The endpoint's requests and answers, as far as the tool uses them. Not what callers see.

use serde::Deserialize;
use serde::Serialize;

use crate::Message;

#[derive(Serialize)]
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Completion {
    pub(crate) model: String,
    pub(crate) choices: Vec<Choice>,
    pub(crate) usage: Option<Usage>,
}

#[derive(Deserialize)]
pub(crate) struct Choice {
    pub(crate) message: Answer,
    pub(crate) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) content: Option<String>,
    pub(crate) refusal: Option<String>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    pub(crate) completion_tokens: u64,
}

#[derive(Deserialize)]
pub(crate) struct Failure {
    pub(crate) error: FailureBody,
}

#[derive(Deserialize)]
pub(crate) struct FailureBody {
    pub(crate) message: String,
}
