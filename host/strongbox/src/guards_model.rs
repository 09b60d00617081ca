//! A model of directory, use guards and revocation in which shuttle decides at every lock who goes on: the very
//! code of `guards`, over a lock of shuttle's, in thousands of schedules. What must hold in all of them: after a
//! revocation was acknowledged, no use of an earlier epoch begins or is under way. That the model would notice is
//! shown by leaving out, one at a time, what it rests on.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use shuttle::sync::atomic::AtomicU64;
use shuttle::sync::atomic::Ordering;
use shuttle::thread;

use guards::GuardKey;
use guards::Guards;

/// What the guards stand on here.
mod sync {
    /// parking_lot's interface over shuttle's lock.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> shuttle::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a model that failed is not gone on with")
        }
    }
}

#[path = "guards.rs"]
#[expect(dead_code, unreachable_pub, reason = "the same code as the crate's own, of which the model uses a part")]
#[expect(clippy::duplicate_mod, reason = "once over a real lock, and once over a lock of shuttle's")]
mod guards;

const SCHEDULES: usize = 5_000;
const DISPATCHES: usize = 3;

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The look at the least epoch when the guard is taken.
    TheCheckUnderTheGuard,
    /// The guard, once the record was looked at again.
    TheGuardWhileItIsUsed,
    /// The wait for older guards before the acknowledgement.
    TheWait,
}

struct Model {
    guards: Arc<Guards>,
    key: GuardKey,
    /// The credential's epoch, as store and cache have it.
    directory: sync::Mutex<u64>,
    /// The epoch up to which acts were acknowledged.
    acknowledged: AtomicU64,
    /// Bytes that were sent of an epoch after the act that ended it was acknowledged. Counted, and told when every
    /// thread has ended: a panic would unwind through a guard, whose lock is no longer scheduled then.
    sent_after: AtomicU64,
}

/// A guard of this epoch is never refused and never waited for.
const NO_EPOCH: u64 = u64::MAX;

impl Model {
    /// Selected, leased, used: as `lease` does it.
    fn dispatch(&self, without: Without) {
        let selected = *self.directory.lock();
        let epoch = if without == Without::TheCheckUnderTheGuard { NO_EPOCH } else { selected };
        let Ok(guard) = self.guards.take(self.key.clone(), epoch) else { return };
        if *self.directory.lock() != selected {
            return;
        }
        let guard = (without != Without::TheGuardWhileItIsUsed).then_some(guard);
        self.send(selected);
        drop(guard);
    }

    /// Some bytes, one after the other.
    fn send(&self, epoch: u64) {
        for _ in 0..2 {
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            self.sent_after.fetch_add(u64::from(acknowledged > epoch), Ordering::SeqCst);
            thread::yield_now();
        }
    }

    /// In the store, then the barrier, then the acknowledgement: as `revoke` and `rotate` do it.
    fn act(&self, without: Without, epoch: u64) {
        *self.directory.lock() = epoch;
        let barrier = self.guards.end_before(&self.key, epoch, epoch.is_multiple_of(2));
        if without == Without::TheWait {
            let mut barrier = std::pin::pin!(barrier);
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = barrier.as_mut().poll(&mut context);
        } else {
            shuttle::future::block_on(barrier);
        }
        self.acknowledged.store(epoch, Ordering::SeqCst);
    }
}

fn model(without: Without) {
    let model = Arc::new(Model {
        guards: Guards::new(),
        key: GuardKey { tenant: TenantId::random(), credential: CredentialId::random() },
        directory: sync::Mutex::default(),
        acknowledged: AtomicU64::new(0),
        sent_after: AtomicU64::new(0),
    });
    let dispatches: Vec<_> = (0..DISPATCHES)
        .map(|_| {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.dispatch(without);
                model.dispatch(without);
            })
        })
        .collect();
    model.act(without, 1);
    model.act(without, 2);
    dispatches.into_iter().for_each(|dispatch| dispatch.join().expect("ends"));
    assert_eq!(model.sent_after.load(Ordering::SeqCst), 0, "bytes of an epoch after its end was acknowledged");
}

#[test]
fn r05_in_every_schedule_no_use_begins_or_is_under_way_after_the_acknowledgement() {
    // If this failed, there would be an order of steps in which a revoked credential is sent.
    shuttle::check_random(|| model(Without::Nothing), SCHEDULES);
    shuttle::check_pct(|| model(Without::Nothing), SCHEDULES, 3);
}

#[test]
fn r15_the_model_notices_each_check_that_is_left_out() {
    for without in [Without::TheCheckUnderTheGuard, Without::TheGuardWhileItIsUsed, Without::TheWait] {
        let modelled = AssertUnwindSafe(|| shuttle::check_random(move || model(without), SCHEDULES));
        assert!(std::panic::catch_unwind(modelled).is_err(), "nobody noticed {without:?}");
    }
}
