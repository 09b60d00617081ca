//! A spinner for what takes long, on stderr and only on a terminal.

use std::time::Duration;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;

/// Shows that something goes on until it is dropped.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        // Hides itself where stderr is no terminal.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
