//! Several things in one task that wake one another, as the two sides of a connection do. While they are being
//! polled, such a wake-up is a round more of the same poll: the task's own waker would have the runtime put the
//! task behind all others and call in another thread for it. Not a way to keep a thread: that is bounded.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;
use std::time::Duration;
use std::time::Instant;

use futures_util::task::AtomicWaker;

/// What is polled for longer than this gives its thread back when it is woken by itself: a guest that spins
/// yields by waking itself.
const ROUNDS_MAX: Duration = Duration::from_millis(1);

/// Polls a future again at once where it woke itself.
pub async fn at_once<F: Future>(future: F) -> F::Output {
    let turn = Arc::new(Turn::default());
    let waker = Waker::from(Arc::clone(&turn));
    let mut future = pin!(future);
    poll_fn(|outer| {
        turn.begin(outer);
        let began = Instant::now();
        loop {
            if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                turn.end();
                return Poll::Ready(done);
            }
            if turn.rests() {
                return Poll::Pending;
            }
            if began.elapsed() > ROUNDS_MAX {
                turn.end();
                outer.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    })
    .await
}

/// The waker of everything in the task.
#[derive(Default)]
pub(crate) struct Turn {
    state: AtomicU8,
    task: AtomicWaker,
}

const RESTING: u8 = 0;
const POLLING: u8 = 1;
const AGAIN: u8 = 2;

impl Turn {
    /// Begins a poll; whoever wakes from now on is seen by [`Self::rests`].
    pub(crate) fn begin(&self, outer: &Context<'_>) {
        self.task.register(outer.waker());
        self.state.store(POLLING, Ordering::Release);
    }

    /// Whether nobody was woken in this round. If somebody was, the next round begins.
    pub(crate) fn rests(&self) -> bool {
        let rests = self.state.compare_exchange(POLLING, RESTING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !rests {
            self.state.store(POLLING, Ordering::Release);
        }
        rests
    }

    /// Forgets the task: what rests wakes nobody, and keeps no task's memory.
    pub(crate) fn end(&self) {
        self.state.store(RESTING, Ordering::Release);
        drop(self.task.take());
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.state.compare_exchange(POLLING, AGAIN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(AGAIN) => {}
            Err(_) => self.task.wake(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_wake_up_within_a_poll_is_a_round_more_and_one_outside_of_it_wakes_the_task() {
        let task = Arc::new(Task::default());
        let outer = Waker::from(Arc::clone(&task));
        let turn = Arc::new(Turn::default());
        turn.begin(&Context::from_waker(&outer));
        turn.wake_by_ref();
        turn.wake_by_ref();
        assert!(!turn.rests());
        assert!(turn.rests());
        assert_eq!(task.0.load(Ordering::Relaxed), 0);
        turn.wake_by_ref();
        assert_eq!(task.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_connection_that_rests_keeps_no_task() {
        let task = Arc::new(Task::default());
        let outer = Waker::from(Arc::clone(&task));
        let turn = Arc::new(Turn::default());
        turn.begin(&Context::from_waker(&outer));
        turn.end();
        drop(outer);
        turn.wake_by_ref();
        assert_eq!((task.0.load(Ordering::Relaxed), Arc::strong_count(&task)), (0, 1));
    }

    #[test]
    fn what_wakes_itself_is_polled_again_at_once_until_it_has_had_its_time() {
        let task = Arc::new(Task::default());
        let outer = Waker::from(Arc::clone(&task));
        let mut polls = 0;
        let mut brief = pin!(at_once(poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        })));
        assert_eq!(brief.as_mut().poll(&mut Context::from_waker(&outer)), Poll::Ready(3));
        assert_eq!(task.0.load(Ordering::Relaxed), 0);

        let mut spinning = pin!(at_once(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        })));
        assert!(spinning.as_mut().poll(&mut Context::from_waker(&outer)).is_pending());
        assert_eq!(task.0.load(Ordering::Relaxed), 1, "it gives the thread back, and asks for it again");
    }
}
