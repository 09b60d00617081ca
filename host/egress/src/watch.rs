//! The use guard on the wire. An IO that stands between hyper and TLS sees the plain bytes of a request
//! and lets the guard go at the moment when the last byte of the head, where every credential is,
//! is with the kernel; or when the connection is closed, whichever comes first (P3). Not for reading
//! what passes: it counts, and looks for the end of the head.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

use hyper::rt::Read;
use hyper::rt::ReadBufCursor;
use hyper::rt::Write;
use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use parking_lot::Mutex;

/// What must be held while credential bytes are on their way, and can ask for them to be stopped.
/// Dropping it releases it.
pub(crate) trait Hold: Send + Sync + 'static {
    /// Waits until the bytes must not leave any more.
    fn cancelled(&self) -> impl Future<Output = ()> + Send;
}

/// A guard that is being waited on. It comes back out when it is cancelled, so that it is released after the
/// connection is closed and not before.
type Held = Pin<Box<dyn Future<Output = Box<dyn Send>> + Send>>;

fn hold<G: Hold>(guard: G) -> Held {
    Box::pin(async move {
        guard.cancelled().await;
        Box::new(guard) as Box<dyn Send>
    })
}

/// Is told when bytes of a request that carries a credential may have gone to the kernel: what revocation is measured
/// with. Nothing that is sent is shown to it.
pub trait WireObserver: std::fmt::Debug + Send + Sync + 'static {
    /// Bytes of a head that carries this may have been handed to the kernel until now.
    fn handed_over(&self, carried: &Carried, at: Instant);
}

/// What a request carries, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Carried {
    /// Whose.
    pub tenant: TenantId,
    /// Which credential.
    pub credential: CredentialId,
    /// Which version of it, as the intent names it.
    pub version: Option<u32>,
}

/// An observer, and what the next request carries.
pub(crate) struct Observed {
    pub(crate) observer: Arc<dyn WireObserver>,
    pub(crate) carried: Carried,
}

/// The sender's end of a watched connection.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// Of the current request; none where nobody measures.
    observed: Option<Observed>,
    /// Plain bytes of the current request that TLS or the kernel took.
    written: u64,
    /// How much of CRLF CRLF the last bytes were.
    matched: usize,
    head: Head,
    /// A request has begun whose answer has not been read to its end.
    busy: bool,
    closed: bool,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Head {
    /// Its end has not been written.
    #[default]
    Open,
    /// It was written, and may stand in a buffer of TLS.
    Written,
    /// It is with the kernel.
    Gone,
}

/// RFC 9112 §2.1: an empty line ends the head. No field value holds one: gate refuses control characters.
const END_OF_HEAD: &[u8; 4] = b"\r\n\r\n";

impl State {
    fn wrote(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        if self.head != Head::Open {
            return;
        }
        for byte in bytes {
            self.matched = match byte {
                _ if *byte == END_OF_HEAD[self.matched] => self.matched + 1,
                b'\r' => 1,
                _ => 0,
            };
            if self.matched == END_OF_HEAD.len() {
                self.head = Head::Written;
                return;
            }
        }
    }

    /// Tells that something may have gone to the kernel just now, until the whole head has.
    fn observe(&self) {
        if let Some(Observed { observer, carried }) = &self.observed {
            observer.handed_over(carried, Instant::now());
        }
    }

    fn flushed(&mut self) -> Option<Held> {
        if self.head == Head::Written {
            self.head = Head::Gone;
            self.observed = None;
        }
        if self.head == Head::Gone { self.held.take() } else { None }
    }
}

impl Watch {
    /// Begins a request on an idle connection.
    ///
    /// # Errors
    /// The guard, if the connection is closed.
    pub(crate) fn begin<G: Hold>(&self, guard: Option<G>) -> Result<(), Option<G>> {
        let mut state = self.0.lock();
        if state.closed {
            return Err(guard);
        }
        let observed = state.observed.take();
        *state = State { held: guard.map(hold), observed, busy: true, ..State::default() };
        Ok(())
    }

    /// Says who is to be told of the next request's bytes.
    pub(crate) fn observe_next(&self, observed: Observed) {
        self.0.lock().observed = Some(observed);
    }

    /// Ends a request whose answer was read. False if its guard has not been let go, because the answer
    /// came before the request was written: then the connection is not to be used again.
    pub(crate) fn finish(&self) -> bool {
        let mut state = self.0.lock();
        state.busy = state.held.is_some();
        !state.busy
    }

    /// Whether a request has begun whose answer has not been read to its end.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.lock().busy
    }

    /// Whether a byte of the current request has left hyper.
    pub(crate) fn wrote_something(&self) -> bool {
        self.0.lock().written > 0
    }

    /// Ready when the guard calls the current request off. It comes out, to be dropped after the connection.
    pub(crate) fn poll_stop(&self, context: &mut Context<'_>) -> Poll<Box<dyn Send>> {
        let mut state = self.0.lock();
        let Some(held) = state.held.as_mut() else {
            return Poll::Pending;
        };
        let guard = std::task::ready!(held.as_mut().poll(context));
        state.held = None;
        Poll::Ready(guard)
    }
}

/// The connection's end: an IO that is watched.
pub(crate) struct Watched<T> {
    inner: T,
    /// Whether anybody measures; asked before the lock is taken for it.
    is_observed: bool,
    /// Below `inner`, because fields are dropped in this order: the socket is closed, then the guard released.
    end: End,
}

struct End(Watch);

impl<T> Watched<T> {
    pub(crate) fn new(inner: T) -> (Self, Watch) {
        let watch = Watch(Arc::default());
        (Self { inner, is_observed: false, end: End(watch.clone()) }, watch)
    }

    /// With somebody who may be told of what is sent.
    pub(crate) fn observed(self, is_observed: bool) -> Self {
        Self { is_observed, ..self }
    }

    /// Whatever a write or flush came to: TLS may have handed over a part of what it held.
    fn observe(&self) {
        if self.is_observed {
            self.state().lock().observe();
        }
    }

    fn state(&self) -> &Mutex<State> {
        &self.end.0.0
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.closed = true;
        let held = state.held.take();
        drop(state);
        drop(held);
    }
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Watched<T> {
    fn poll_flush_inner(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.observe();
        std::task::ready!(flushed)?;
        // Dropped outside the lock: its drop may wake whoever waits for it.
        let held = self.state().lock().flushed();
        drop(held);
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.observe();
        let taken = std::task::ready!(taken)?;
        let mut state = self.state().lock();
        state.wrote(&bytes[..taken]);
        let head_waits = state.head == Head::Written && state.held.is_some();
        drop(state);
        if head_waits {
            // Hyper flushes after the whole body; a revocation should not wait for an upload. Pending is
            // no error: the next write or flush tries again.
            if let Poll::Ready(Err(error)) = self.poll_flush_inner(context) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_inner(context)
    }

    /// Says goodbye if there is room for it and does not wait: a peer that reads nothing must not keep the
    /// connection open.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_shutdown(context) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }

    // Not vectored: hyper then hands over the head and the body as one piece, and TLS makes one record of it.
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
