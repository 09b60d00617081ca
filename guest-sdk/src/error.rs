//! Why a tool has no result: what `?` turns every failure into. Not for the transport's own
//! failures, which are `http::Error` and say more.

use std::fmt;

use crate::http;
use crate::signing;

/// Why a tool has no result. The texts reach the caller and its model: name what is wrong and what to
/// do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolError {
    /// The package has no such tool. The SDK says this, a tool does not.
    UnknownTool,
    /// The arguments do not fit; says which and why.
    InvalidArguments(String),
    /// The upstream refused or failed, as the tool understands it.
    Upstream(String),
    /// The host refused a request. A tool cannot know why; the tenant's administrator can.
    Denied,
    /// The tool itself failed.
    Failed(String),
}

impl ToolError {
    /// The arguments do not fit.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::InvalidArguments(why.into())
    }

    /// The upstream refused or failed.
    pub fn upstream(why: impl Into<String>) -> Self {
        Self::Upstream(why.into())
    }

    /// The tool itself failed.
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTool => formatter.write_str("the package has no such tool"),
            Self::Denied => formatter.write_str("the host refused a request"),
            Self::InvalidArguments(why) | Self::Upstream(why) | Self::Failed(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for ToolError {}

impl From<http::Error> for ToolError {
    fn from(error: http::Error) -> Self {
        match error {
            http::Error::Denied => Self::Denied,
            http::Error::Segment(_) => Self::InvalidArguments(error.to_string()),
            http::Error::Guest(_) | http::Error::Host(_) | http::Error::Body(_) => Self::Failed(error.to_string()),
            http::Error::Upstream(..) | http::Error::Status(_) | http::Error::Answer(_) => {
                Self::Upstream(error.to_string())
            }
        }
    }
}

impl From<signing::Error> for ToolError {
    fn from(error: signing::Error) -> Self {
        match error {
            signing::Error::Denied => Self::Denied,
            signing::Error::Guest(_) | signing::Error::Host => Self::Failed(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
