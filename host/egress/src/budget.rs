//! How much a peer may say on a connection that stays open. Whoever says more is not heard: read on and on, one that never
//! pauses would keep a thread busy, outside of every quota. Not for answers to requests, which have a size of their own.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;

/// In which what is said is counted.
const SPAN: Duration = Duration::from_secs(60);

/// In a minute: a hundred a second are more writes than a store of secrets sees, and a few milliseconds of reading.
const MESSAGES_MAX: u32 = 6_000;

/// In a minute, whatever it is made of: an event is less than a kilobyte.
const BYTES_MAX: usize = 4 << 20;

/// A connection with what its peer may still say on it.
pub(crate) struct Budgeted<Io> {
    io: Io,
    until: Instant,
    messages: u32,
    bytes: usize,
    is_spent: bool,
}

impl<Io> Budgeted<Io> {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, until: Instant::now() + SPAN, messages: 0, bytes: 0, is_spent: false }
    }

    /// Counts what was said: whether it is heard.
    pub(crate) fn spend(&mut self, messages: u32, bytes: usize) -> bool {
        let now = Instant::now();
        if now >= self.until {
            (self.until, self.messages, self.bytes) = (now + SPAN, 0, 0);
        }
        self.messages = self.messages.saturating_add(messages);
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_spent |= self.messages > MESSAGES_MAX || self.bytes > BYTES_MAX;
        !self.is_spent
    }

    /// Whether the peer said more than is heard: it stays so.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Budgeted<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        let is_heard = self.spend(0, read);
        Poll::Ready(if is_heard { Ok(()) } else { Err(io::Error::other("the peer says too much")) })
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Budgeted<Io> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_said_in_a_minute_is_bounded_in_number_and_bytes() {
        let mut said = Budgeted::new(tokio::io::empty());
        assert!((0..MESSAGES_MAX).all(|_| said.spend(1, 0)));
        tokio::time::advance(SPAN).await;
        assert!((0..MESSAGES_MAX).all(|_| said.spend(1, 0)), "another minute, as much again");
        assert!(!said.spend(1, 0) && said.is_spent());
        tokio::time::advance(SPAN).await;
        assert!(!said.spend(0, 0), "whoever said too much is not heard again");

        // Bytes count also where they make no message.
        let mut endless = Budgeted::new(tokio::io::repeat(0));
        let mut read = 0;
        let mut buffer = [0; 4096];
        while let Ok(more) = endless.read(&mut buffer).await {
            read += more;
        }
        assert!(endless.is_spent() && read <= BYTES_MAX, "{read}");
    }
}
