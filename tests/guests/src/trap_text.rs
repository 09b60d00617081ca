//! G19: breaks off with a text of its choice, and a text that was echoed to it.

use keybearer_guest::prelude::*;

use crate::wire;

/// What to say at the end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The text.
    text: String,
    /// So many times.
    times: usize,
    /// What to ask first; the answer is part of the text.
    #[serde(default)]
    ask: Option<wire::Said>,
    /// Whether the text is logged as well.
    #[serde(default)]
    log: bool,
}

impl Args {
    fn say(self) -> Result<String, ToolError> {
        let mut text = self.text.repeat(self.times);
        if let Some(said) = self.ask {
            let heard = wire::send(said)?;
            text.insert_str(0, &String::from_utf8_lossy(&wire::everything(&heard)));
        }
        if self.log {
            log::write(log::Level::Warn, &text);
        }
        Ok(text)
    }
}

// Shown by: text::g19_what_a_guest_says_at_its_end_is_one_short_line
/// Panics with a text.
#[tool(read_only)]
pub(crate) fn trap_text(args: Args) -> Result<String, ToolError> {
    let text = args.say()?;
    panic!("{text}")
}

// Shown by: text::g19_what_a_guest_says_at_its_end_is_one_short_line
/// Fails with a text.
#[tool(read_only)]
pub(crate) fn failed_text(args: Args) -> Result<String, ToolError> {
    Err(ToolError::failed(args.say()?))
}
