//! One turn with a model behind an OpenAI-compatible chat endpoint. The key that it needs is nowhere
//! in here. Not for streams: an answer is whole.

mod wire;

use keybearer_guest::prelude::*;

/// Who says a message.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// Whoever asks.
    User,
    /// The model, earlier.
    Assistant,
}

/// One message.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: String,
}

/// The arguments of `chat`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Args {
    /// The model's name, such as `gpt-4o-mini`.
    #[schemars(length(min = 1))]
    pub model: String,
    /// The conversation so far, oldest first.
    #[schemars(length(min = 1))]
    pub messages: Vec<Message>,
    /// The longest answer, in tokens.
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u32>,
    /// How freely the model chooses, 0 to 2.
    #[schemars(range(min = 0.0, max = 2.0))]
    pub temperature: Option<f64>,
}

/// The result of `chat`.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Out {
    /// What the model says.
    pub content: String,
    /// Why it stopped: `stop`, `length`, `content_filter`.
    pub finish_reason: Option<String>,
    /// The model that answered, as the endpoint names it.
    pub model: String,
    /// Tokens that were read.
    pub prompt_tokens: u64,
    /// Tokens that were written.
    pub completion_tokens: u64,
}

/// Asks a language model for the next message of a conversation. Costs the tenant tokens.
#[tool]
pub fn chat(args: Args) -> Result<Out, ToolError> {
    if args.messages.is_empty() {
        return Err(ToolError::invalid("`messages` is empty: there is nothing to answer"));
    }
    let request = wire::Request {
        model: args.model,
        messages: args.messages,
        max_completion_tokens: args.max_tokens,
        temperature: args.temperature,
    };
    let answer = http::post("https://api.openai.com/v1/chat/completions").json(&request).send()?;
    let status = answer.status();
    if !answer.is_success() {
        return Err(ToolError::Upstream(match answer.json::<wire::Failure>() {
            Ok(wire::Failure { error }) => format!("the model's endpoint answered {status}: {}", error.message),
            Err(_) => format!("the model's endpoint answered {status}"),
        }));
    }
    let completion: wire::Completion = answer.json()?;
    let choice = completion.choices.into_iter().next();
    let choice = choice.ok_or_else(|| ToolError::upstream("the model's endpoint answered without a choice"))?;
    let content = choice.message.content.or(choice.message.refusal);
    let usage = completion.usage.unwrap_or_default();
    Ok(Out {
        content: content.unwrap_or_default(),
        finish_reason: choice.finish_reason,
        model: completion.model,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
    })
}

keybearer_guest::export!(chat);

#[cfg(test)]
mod tests;
