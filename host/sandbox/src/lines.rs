//! A guest's standard output and error as log lines, where its manifest asks for stdio. Takes everything
//! that is written and never blocks: what does not fit the call's log is dropped and counted there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::IsTerminal;
use wasmtime_wasi::cli::StdoutStream;
use wasmtime_wasi::p2::OutputStream;
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::p2::StreamResult;

use crate::log::LogBook;
use crate::log::LogLevel;

/// The longest line; what is longer becomes several.
const LINE_BYTES_MAX: usize = 4 << 10;

/// How much is taken at once.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams. Its clones share what is begun and not ended.
#[derive(Clone)]
pub(crate) struct Lines {
    log: Arc<Mutex<LogBook>>,
    level: LogLevel,
    begun: Arc<Mutex<Begun>>,
}

/// A line without its end; written out when it is dropped, as a guest may end without a newline.
struct Begun {
    log: Arc<Mutex<LogBook>>,
    level: LogLevel,
    bytes: Vec<u8>,
}

impl Begun {
    fn end(&mut self) {
        if !self.bytes.is_empty() {
            self.log.lock().write(self.level, &String::from_utf8_lossy(&self.bytes));
            self.bytes.clear();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lines {
    pub(crate) fn new(log: &Arc<Mutex<LogBook>>, level: LogLevel) -> Self {
        let begun = Begun { log: Arc::clone(log), level, bytes: Vec::new() };
        Self { log: Arc::clone(log), level, begun: Arc::new(Mutex::new(begun)) }
    }

    fn take(&self, bytes: &[u8]) {
        let mut begun = self.begun.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for chunk in text.chunks(LINE_BYTES_MAX) {
                if begun.bytes.len() + chunk.len() > LINE_BYTES_MAX {
                    begun.end();
                }
                begun.bytes.extend_from_slice(chunk);
            }
            if ended && begun.bytes.is_empty() {
                self.log.lock().write(self.level, "");
            } else if ended {
                begun.end();
            }
        }
    }
}

impl IsTerminal for Lines {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Lines {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Lines {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for Lines {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Lines {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_prints_becomes_whole_lines_and_the_last_one_needs_no_end() {
        let log = Arc::new(Mutex::new(LogBook::new(1 << 20)));
        let lines = Lines::new(&log, LogLevel::Info);
        for piece in ["a", "b\n\nc", &"x".repeat(LINE_BYTES_MAX), "\n", "last"] {
            lines.take(piece.as_bytes());
        }
        drop(lines);
        let (lines, dropped) = log.lock().take();
        let texts: Vec<&str> = lines.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(texts, ["ab", "", "c", &"x".repeat(LINE_BYTES_MAX), "last"]);
        assert_eq!(dropped, 0);
    }
}
