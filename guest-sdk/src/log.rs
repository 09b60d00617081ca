//! Lines for the tool's author. The host bounds, escapes and scrubs them; lines beyond the call's
//! limit are dropped. Not for results, and not for the caller: he does not see them.
//!
//! ```
//! # keybearer_guest::mock::Host::new().run(|| {
//! keybearer_guest::log::info!("{} charges", 3);
//! # });
//! ```

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the author, while writing the tool.
    Debug,
    /// What happened.
    Info,
    /// What went wrong and was mended.
    Warn,
    /// What went wrong.
    Error,
}

/// Records one line.
pub fn write(level: Level, message: &str) {
    crate::host::log(level, message);
}

pub use crate::__log_debug as debug;
pub use crate::__log_error as error;
pub use crate::__log_info as info;
pub use crate::__log_warn as warn;

/// Records a line for the author, while writing the tool; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_debug {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Debug, &::std::format!($($message)+)) };
}

/// Records what happened; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_info {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Info, &::std::format!($($message)+)) };
}

/// Records what went wrong and was mended; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_warn {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Warn, &::std::format!($($message)+)) };
}

/// Records what went wrong; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __log_error {
    ($($message:tt)+) => { $crate::log::write($crate::log::Level::Error, &::std::format!($($message)+)) };
}
