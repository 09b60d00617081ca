//! Why a component is not accepted: one sentence for its publisher.

use crate::text::one_line;

/// The longest reason: names in it are of the publisher's making.
const REASON_BYTES_MAX: usize = 512;

/// A component is not accepted; nothing of it has run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the component is refused: {reason}")]
pub struct ComponentRefused {
    /// One escaped sentence: what is wrong and, where there is one, the limit that holds.
    pub reason: String,
}

impl ComponentRefused {
    pub(crate) fn new(reason: impl AsRef<str>) -> Self {
        Self { reason: one_line(reason.as_ref(), REASON_BYTES_MAX) }
    }

    pub(crate) fn of(error: &wasmtime::Error) -> Self {
        let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
        Self::new(chain.join(": "))
    }
}

/// A tool cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadFailed {
    /// Its component is at fault.
    #[error(transparent)]
    Refused(#[from] ComponentRefused),
    /// The host is at fault; says what, for the operator.
    #[error("the component cannot be compiled here: {0}")]
    Host(String),
}
