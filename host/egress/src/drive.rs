//! Drives a connection in the task of whoever has a request on it. A task of its own for each connection would
//! cost two wake-ups a request and more of the runtime's threads; and a connection that lies idle needs nobody,
//! since its end is found out before it is used again. Not for deciding when a connection is to be used.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use crate::turn::Turn;
use crate::watch::Watch;

/// A connection's own side of the work: reads, writes, frames.
type Work = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection as a future, and the watch over it. Dropping it closes the connection: at once in the middle of
/// a request, with a goodbye where it is idle.
pub(crate) struct Driver {
    /// None once the connection is closed.
    work: Option<Work>,
    pub(crate) watch: Watch,
    turn: Arc<Turn>,
    waker: Waker,
}

/// The guard called the request off: the connection is closed, and the guard released.
pub(crate) struct CalledOff;

impl Driver {
    pub(crate) fn new(work: impl Future<Output = hyper::Result<()>> + Send + 'static, watch: Watch) -> Self {
        let turn = Arc::new(Turn::default());
        let waker = Waker::from(Arc::clone(&turn));
        Self { work: Some(Box::pin(work)), watch, turn, waker }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.work.is_none()
    }

    /// Runs the connection until the user of it is done.
    pub(crate) async fn run<T>(&mut self, user: impl Future<Output = T>) -> Result<T, CalledOff> {
        let mut user = pin!(user);
        poll_fn(|outer| {
            self.turn.begin(outer);
            loop {
                let context = &mut Context::from_waker(&self.waker);
                if let Poll::Ready(guard) = self.watch.poll_stop(context) {
                    // The order is the point: closed first, then released.
                    self.work = None;
                    drop(guard);
                    self.turn.end();
                    return Poll::Ready(Err(CalledOff));
                }
                // Its error reaches the user by way of the request.
                if self.work.as_mut().is_some_and(|work| work.as_mut().poll(context).is_ready()) {
                    self.work = None;
                }
                if let Poll::Ready(done) = user.as_mut().poll(context) {
                    self.turn.end();
                    return Poll::Ready(Ok(done));
                }
                if self.turn.rests() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(mut work) = self.work.take().filter(|_| !self.watch.is_busy()) {
            // Whoever could send a request is gone by now: this says goodbye if there is room for it (RFC 8446
            // §6.1), and does not wait.
            let _ = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::fixture::Free;
    use crate::watch::Watched;

    #[test]
    fn a_connection_says_goodbye_where_it_is_idle_and_is_cut_in_the_middle_of_a_request() {
        for is_busy in [false, true] {
            let polls = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&polls);
            let work = poll_fn(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                Poll::Pending
            });
            let (_io, watch) = Watched::new(());
            if is_busy {
                assert!(watch.begin(Some(Free)).is_ok());
            }
            drop(Driver::new(work, watch));
            assert_eq!(polls.load(Ordering::Relaxed), u32::from(!is_busy));
        }
    }

    #[tokio::test]
    async fn r05_a_request_that_is_called_off_loses_its_connection_before_its_guard_is_released() {
        /// Says when it is dropped.
        struct Told(&'static str, Arc<parking_lot::Mutex<Vec<&'static str>>>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.1.lock().push(self.0);
            }
        }
        impl crate::watch::Hold for Told {
            async fn cancelled(&self) {}
        }
        let told = Arc::default();
        let (_io, watch) = Watched::new(());
        assert!(watch.begin(Some(Told("guard", Arc::clone(&told)))).is_ok());
        let socket = Told("socket", Arc::clone(&told));
        let mut driver = Driver::new(
            async move {
                let _socket = socket;
                pending().await
            },
            watch,
        );
        assert!(driver.run(pending::<()>()).await.is_err());
        assert!(driver.is_closed());
        assert_eq!(*told.lock(), ["socket", "guard"]);
    }
}
