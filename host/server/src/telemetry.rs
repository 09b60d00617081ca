//! Log lines on stderr, and spans to a collector where one is configured. What other crates say below
//! WARN is never written: some of them log headers (threats X14). That is decided here, not by a
//! variable of the environment.

use std::io;
use std::io::Write;

use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::file::LogFormat;
use crate::config::file::LogLevel;
use crate::config::file::Telemetry;

mod otlp;

/// Flushes what is left when it is dropped.
pub(crate) struct Guard(Option<opentelemetry_sdk::trace::SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = &self.0 {
            // A collector that is away must not hold a stop up; what it misses is lost (threats A16).
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Starts logging, and exporting where it is configured. Once a process; on a Tokio runtime.
///
/// # Errors
/// If the exporter cannot be built.
pub(crate) fn start(telemetry: &Telemetry) -> anyhow::Result<Guard> {
    let level = level(telemetry.level);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Escaping(io::stderr()));
    let lines = match telemetry.format {
        LogFormat::Human => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = telemetry.otlp_endpoint.as_deref().map(otlp::provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        use opentelemetry::trace::TracerProvider as _;
        // Spans of ours only, whatever the log's level is.
        let ours = Targets::new().with_target(OURS, Level::DEBUG).with_default(LevelFilter::OFF);
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_tracer(provider.tracer("keybearer"))
            .with_filter(ours)
    });
    tracing_subscriber::registry().with(lines.with_filter(targets(level))).with(spans).try_init()?;
    Ok(Guard(provider))
}

/// The beginning of our own targets.
const OURS: &str = "keybearer";

/// Ours at the configured level, all others at WARN at the most.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_target(OURS, level).with_default(level.min(LevelFilter::WARN))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Writes one line a call; control characters within it are written as escapes, so that a logged text
/// can neither begin a line of its own nor speak to a terminal.
struct Escaping<W>(W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (line, end) = match bytes.split_last() {
            Some((b'\n', line)) => (line, &b"\n"[..]),
            _ => (bytes, &b""[..]),
        };
        if !line.iter().any(u8::is_ascii_control) {
            self.0.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut clean = Vec::with_capacity(line.len() + 16);
        for byte in line {
            if byte.is_ascii_control() && *byte != b'\t' {
                clean.extend_from_slice(byte.escape_ascii().to_string().as_bytes());
            } else {
                clean.push(*byte);
            }
        }
        clean.extend_from_slice(end);
        self.0.write_all(&clean)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x14_other_crates_are_capped_at_warn_whatever_the_level() {
        let targets = targets(LevelFilter::TRACE);
        for other in ["hyper::proto::h1", "h2::codec", "rustls::client", "hickory_proto", "wasmtime"] {
            assert!(!targets.would_enable(other, &Level::INFO), "{other}");
            assert!(targets.would_enable(other, &Level::WARN), "{other}");
        }
        for ours in ["keybearer", "keybearer_executor::call"] {
            assert!(targets.would_enable(ours, &Level::TRACE), "{ours}");
        }
    }

    #[test]
    fn a_logged_text_cannot_begin_a_line_of_its_own() {
        let mut out = Vec::new();
        Escaping(&mut out).write_all(b"a\nfake line \x1b[31m\r end\n").expect("writes");
        assert_eq!(out, b"a\\nfake line \\x1b[31m\\r end\n");
    }
}
