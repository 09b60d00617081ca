//! The guard against an IO in memory whose every step the test decides.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::sync::Notify;

use super::*;

/// Takes as many bytes a write as its script says, and flushes when it may.
#[derive(Default)]
struct Kernel {
    takes: VecDeque<usize>,
    may_flush: bool,
    taken: Vec<u8>,
}

impl Write for Kernel {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(takes) = self.takes.pop_front() else {
            return Poll::Pending;
        };
        let taken = takes.min(bytes.len());
        self.taken.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.may_flush { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[derive(Default, Clone)]
struct Guard(Arc<GuardState>);

#[derive(Default)]
struct GuardState {
    released: Mutex<bool>,
    cancel: Notify,
}

struct Held(Arc<GuardState>);

impl Guard {
    fn held(&self) -> Option<Held> {
        Some(Held(self.0.clone()))
    }

    fn is_released(&self) -> bool {
        *self.0.released.lock()
    }
}

impl Hold for Held {
    async fn cancelled(&self) {
        self.0.cancel.notified().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.0.released.lock() = true;
    }
}

fn kernel(takes: &[usize], may_flush: bool) -> Kernel {
    Kernel { takes: takes.iter().copied().collect(), may_flush, taken: Vec::new() }
}

fn write(io: &mut Watched<Kernel>, bytes: &[u8]) -> Poll<usize> {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(io).poll_write(&mut context, bytes).map(|written| written.expect("the kernel does not fail"))
}

fn flush(io: &mut Watched<Kernel>) -> Poll<()> {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(io).poll_flush(&mut context).map(|flushed| flushed.expect("the kernel does not fail"))
}

fn begun(kernel: Kernel) -> (Watched<Kernel>, Watch, Guard) {
    let (io, watch) = Watched::new(kernel);
    let guard = Guard::default();
    assert!(watch.begin(guard.held()).is_ok());
    (io, watch, guard)
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: x\r\n\r\nbody";
const HEAD: usize = REQUEST.len() - 4;

#[test]
fn the_guard_is_held_until_the_end_of_the_head_is_flushed() {
    for cut in 1..REQUEST.len() {
        let (mut io, watch, guard) = begun(kernel(&[usize::MAX, usize::MAX], false));
        assert_eq!(write(&mut io, &REQUEST[..cut]), Poll::Ready(cut));
        io.inner.may_flush = true;
        assert_eq!(flush(&mut io), Poll::Ready(()));
        // Flushed, but only what was written: the rest of the head is still to come.
        assert_eq!(guard.is_released(), cut >= HEAD, "cut at {cut}");
        io.inner.may_flush = false;
        assert!(write(&mut io, &REQUEST[cut..]).is_ready());
        assert_eq!(guard.is_released(), cut >= HEAD, "written is not flushed; cut at {cut}");
        io.inner.may_flush = true;
        assert_eq!(flush(&mut io), Poll::Ready(()));
        assert!(guard.is_released(), "cut at {cut}");
        assert!(watch.wrote_something());
    }
}

#[test]
fn a_write_that_the_kernel_took_at_once_releases_without_waiting_for_the_body() {
    let (mut io, _watch, guard) = begun(kernel(&[HEAD], true));
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(HEAD));
    assert!(guard.is_released());
}

#[test]
fn bytes_that_the_kernel_did_not_take_do_not_count() {
    let (mut io, watch, guard) = begun(kernel(&[HEAD - 1], true));
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(HEAD - 1));
    assert_eq!(flush(&mut io), Poll::Ready(()));
    assert!(!guard.is_released());
    assert_eq!(write(&mut io, &REQUEST[HEAD - 1..]), Poll::Pending);
    assert!(!guard.is_released());
    assert!(watch.wrote_something());
}

#[test]
fn the_guard_goes_with_the_connection() {
    let (mut io, watch, guard) = begun(kernel(&[3], true));
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(3));
    assert!(!guard.is_released());
    drop(io);
    assert!(guard.is_released());
    let next = Guard::default();
    assert!(watch.begin(next.held()).is_err());
}

#[test]
fn a_cancelled_guard_comes_out_and_is_released_by_whoever_closed_the_connection() {
    let (mut io, watch, guard) = begun(kernel(&[HEAD], false));
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(HEAD));
    assert!(watch.poll_stop(&mut context).is_pending());
    guard.0.cancel.notify_one();
    let Poll::Ready(held) = watch.poll_stop(&mut context) else {
        panic!("the guard was cancelled");
    };
    drop(io);
    assert!(!guard.is_released());
    drop(held);
    assert!(guard.is_released());
}

#[test]
fn a_cancellation_after_the_head_has_gone_stops_nothing() {
    let (mut io, watch, guard) = begun(kernel(&[usize::MAX], true));
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(REQUEST.len()));
    guard.0.cancel.notify_one();
    assert!(watch.poll_stop(&mut Context::from_waker(Waker::noop())).is_pending());
}

#[test]
fn the_next_request_on_the_connection_is_watched_from_its_first_byte() {
    let (mut io, watch, first) = begun(kernel(&[usize::MAX, 2, usize::MAX], true));
    assert!(write(&mut io, REQUEST).is_ready());
    assert!(first.is_released());
    let second = Guard::default();
    assert!(watch.begin(second.held()).is_ok());
    assert!(!watch.wrote_something());
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(2));
    assert!(!second.is_released());
    assert!(write(&mut io, &REQUEST[2..]).is_ready());
    assert!(second.is_released());
}

/// Remembers how often it was told.
#[derive(Debug, Default)]
struct Told(std::sync::atomic::AtomicU32);

impl WireObserver for Told {
    fn handed_over(&self, _: &Carried, _: Instant) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn r05_an_observer_is_told_of_every_write_and_flush_until_the_head_has_gone_and_of_none_after() {
    // If this failed, a measurement of revocation would miss the last use, or take a body's bytes for one.
    let told = Arc::new(Told::default());
    let count = || told.0.load(std::sync::atomic::Ordering::Relaxed);
    let (io, watch) = Watched::new(kernel(&[HEAD - 1, usize::MAX, usize::MAX], false));
    let mut io = io.observed(true);
    let carried = Carried { tenant: TenantId::random(), credential: CredentialId::random(), version: Some(1) };
    watch.observe_next(Observed { observer: Arc::clone(&told) as _, carried });
    let guard = Guard::default();
    assert!(watch.begin(guard.held()).is_ok());
    assert!(write(&mut io, REQUEST).is_ready());
    assert_eq!(count(), 1, "a part of the head");
    assert_eq!(flush(&mut io), Poll::Pending);
    assert_eq!(count(), 2, "what did not end may have handed something over");
    assert!(write(&mut io, &REQUEST[HEAD - 1..HEAD]).is_ready());
    assert!(count() >= 3 && !guard.is_released(), "written, and not flushed");
    io.inner.may_flush = true;
    assert_eq!(flush(&mut io), Poll::Ready(()));
    let last = count();
    assert!(last >= 4 && guard.is_released(), "told before the guard is let go");
    assert!(write(&mut io, b"body").is_ready());
    assert_eq!(flush(&mut io), Poll::Ready(()));
    assert_eq!(count(), last, "the body holds no credential");
    // The next request on the connection is another's to be told of.
    assert!(watch.begin(Guard::default().held()).is_ok());
    assert_eq!(write(&mut io, REQUEST), Poll::Pending);
    assert_eq!(count(), last);
}

#[test]
fn a_peer_that_reads_nothing_does_not_keep_a_closing_connection() {
    let (mut io, ..) = begun(kernel(&[], false));
    assert!(Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn a_request_whose_guard_was_not_let_go_leaves_its_connection_busy() {
    let (mut io, watch, guard) = begun(kernel(&[3], true));
    assert_eq!(write(&mut io, REQUEST), Poll::Ready(3));
    assert!(!watch.finish(), "an answer before its request was written");
    assert!(watch.is_busy() && !guard.is_released());
    drop(io);
    assert!(guard.is_released());

    let (mut io, watch, _guard) = begun(kernel(&[usize::MAX], true));
    assert!(write(&mut io, REQUEST).is_ready());
    assert!(watch.finish());
    assert!(!watch.is_busy());
}
