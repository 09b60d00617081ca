//! Measures how long a call was really running: the time during which its future was being polled.
//! Waiting for an upstream, for the pool or for a turn on the runtime is not in it; what the host does
//! on the guest's behalf within a poll is (threats G02), so that cheap imports are no way around it.
//!
//! Not the kernel's clock of the thread, which costs a system call at each end: a thread that was
//! preempted goes on counting here.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

/// What one call has used of a processor. Written by the task that polls the call and read by the same
/// thread from within the poll; the atomics are there for the moves between threads, not for races.
pub(crate) struct Meter {
    origin: Instant,
    /// Nanoseconds in finished polls.
    spent: AtomicU64,
    /// When the poll that is going on began, in nanoseconds since the origin.
    began: AtomicU64,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), spent: AtomicU64::new(0), began: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What is spent, seen from within a poll.
    pub(crate) fn spent_within(&self) -> Duration {
        let going_on = self.now().saturating_sub(self.began.load(Ordering::Relaxed));
        Duration::from_nanos(self.spent.load(Ordering::Relaxed).saturating_add(going_on))
    }

    /// What is spent, seen from outside of any poll.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent.load(Ordering::Relaxed))
    }

    /// Polls, and counts the time that it took.
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = self.now();
        self.began.store(began, Ordering::Relaxed);
        let polled = future.poll(context);
        self.spent.fetch_add(self.now().saturating_sub(began), Ordering::Relaxed);
        polled
    }
}
