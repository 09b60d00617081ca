//! A call's log lines: bounded together, each one escaped line, what does not fit dropped and counted
//! (threats G15). Scrubbing is not done here: who holds the needles does it.

use crate::bindings;
use crate::text::escape_into;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For the author, while writing the tool.
    Debug,
    /// What happened.
    Info,
    /// What went wrong and was mended.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The level as a lower-case word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl From<bindings::log::Level> for LogLevel {
    fn from(level: bindings::log::Level) -> Self {
        match level {
            bindings::log::Level::Debug => Self::Debug,
            bindings::log::Level::Info => Self::Info,
            bindings::log::Level::Warn => Self::Warn,
            bindings::log::Level::Error => Self::Error,
        }
    }
}

/// One line of a guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters, by the guest's own word.
    pub level: LogLevel,
    /// One line: control characters are escaped.
    pub message: String,
}

/// What a line costs beside its text, so that empty ones are not free.
const LINE_OVERHEAD_BYTES: usize = 32;

/// The lines of one call.
pub(crate) struct LogBook {
    lines: Vec<LogLine>,
    bytes_left: usize,
    dropped: u64,
}

impl LogBook {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { lines: Vec::new(), bytes_left: usize::try_from(bytes_max).unwrap_or(usize::MAX), dropped: 0 }
    }

    /// Records a line; the last one that begins to fit is cut, those after it are counted.
    pub(crate) fn write(&mut self, level: LogLevel, text: &str) {
        let Some(room) = self.bytes_left.checked_sub(LINE_OVERHEAD_BYTES).filter(|room| *room > 0) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        let mut message = String::with_capacity(text.len().min(room));
        if escape_into(&mut message, text, room) {
            message.push('…');
            self.bytes_left = 0;
        } else {
            self.bytes_left = room - message.len();
        }
        self.lines.push(LogLine { level, message });
    }

    /// Takes the lines out, and tells how many more there were.
    pub(crate) fn take(&mut self) -> (Vec<LogLine>, u64) {
        (std::mem::take(&mut self.lines), std::mem::take(&mut self.dropped))
    }
}
