//! What no server answered, as `--json` tells it: with a code to go by, as of a problem, and a sentence. The codes stand
//! in docs/codes.md.

use std::fmt;

use serde_json::Value;
use serde_json::json;

use crate::cli::client::Refused;

/// Why a command failed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The command line is wrong.
    Usage,
    /// There is nothing of this name.
    NotFound,
    /// A file cannot be read, or is not what it is to be.
    FileUnreadable,
    /// A file exists, or cannot be made.
    FileUnwritable,
    /// The configuration is not there, or is refused.
    ConfigurationRefused,
    /// The server does not answer.
    ServerUnreachable,
    /// Anything else.
    Failed,
}

/// A failure of which the cause is known. Reads as the error that it was.
#[derive(Debug)]
struct Failure {
    cause: Cause,
    detail: String,
}

impl Cause {
    fn code(self) -> &'static str {
        match self {
            Self::Usage => "cli_usage",
            Self::NotFound => "not_found",
            Self::FileUnreadable => "file_unreadable",
            Self::FileUnwritable => "file_unwritable",
            Self::ConfigurationRefused => "configuration_refused",
            Self::ServerUnreachable => "server_unreachable",
            Self::Failed => "cli_failed",
        }
    }

    /// An error with this cause; a cause that is known already stays, and so does a server's refusal.
    pub(crate) fn of(self, error: anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<Failure>().is_some() || error.downcast_ref::<Refused>().is_some() {
            return error;
        }
        Failure { cause: self, detail: format!("{error:#}") }.into()
    }

    /// An error with this cause and this sentence.
    pub(crate) fn says(self, detail: impl Into<String>) -> anyhow::Error {
        Failure { cause: self, detail: detail.into() }.into()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for Failure {}

/// A failure as JSON: the server's problem as it came, or an object of the same two members.
pub(crate) fn in_json(error: &anyhow::Error) -> Value {
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return json!(refused.0);
    }
    let cause = error.downcast_ref::<Failure>().map_or(Cause::Failed, |failure| failure.cause);
    json!({ "code": cause.code(), "detail": format!("{error:#}") })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_survives_what_is_said_around_it() {
        let failed = || -> anyhow::Result<()> { Err(Cause::NotFound.says("there is no `x`")) };
        let around = Cause::Failed.of(failed().context("while looking").expect_err("it failed"));
        assert_eq!(in_json(&around), json!({ "code": "not_found", "detail": "while looking: there is no `x`" }));
        assert_eq!(in_json(&anyhow!("x").context("y")), json!({ "code": "cli_failed", "detail": "y: x" }));
    }

    #[test]
    fn every_code_of_the_command_line_is_documented() {
        let paper = include_str!("../../../../docs/codes.md");
        let (_, paper) = paper.split_once("## Of the command line").expect("it has a chapter");
        let documented: Vec<&str> =
            paper.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let causes = [
            Cause::Usage,
            Cause::NotFound,
            Cause::FileUnreadable,
            Cause::FileUnwritable,
            Cause::ConfigurationRefused,
            Cause::ServerUnreachable,
            Cause::Failed,
        ];
        assert_eq!(documented, causes.map(Cause::code));
    }
}
