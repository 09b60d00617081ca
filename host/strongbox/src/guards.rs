//! Use guards (P3). A dispatch holds a guard from its last check of the epoch until the last byte of the
//! credential is with the kernel or its connection is closed. A rotation or revocation raises the
//! epoch in the store first and then comes here: from that moment no guard of an older epoch can be
//! taken, whatever a stale directory says, and it waits until none is left.
//!
//! The one argument that all rests on: taking a guard and raising the least epoch happen under the
//! same lock. A guard is either taken before, and then it is waited for, or after, and then refused.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::watch;

/// Locks, so that tenants rarely wait for one another; each is held for some tens of nanoseconds.
const SHARDS: usize = 16;

/// Whose guards. A struct and not a concatenation: no spelling of one key is another's (threats T04).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct GuardKey {
    pub(crate) tenant: TenantId,
    pub(crate) credential: CredentialId,
}

/// The guards of all credentials.
pub(crate) struct Guards {
    shards: [Mutex<HashMap<GuardKey, Entry>>; SHARDS],
    hasher: RandomState,
}

/// What is known of one credential. Without guards, and if it was never rotated or revoked while this
/// process runs, it is not kept.
struct Entry {
    /// No guard of an epoch below this can be taken.
    epoch_min: u64,
    /// How many guards are alive, by epoch.
    alive: BTreeMap<u64, u64>,
    /// How many requests are on their way or wait for their answer, by epoch.
    flights: BTreeMap<u64, u64>,
    /// Guards of an epoch below this are to let go.
    cancel_below: watch::Sender<u64>,
    /// Told when the last guard of an epoch is gone.
    released: Arc<Notify>,
}

/// The guard was not given: the epoch is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochOver;

/// Leave to put one version of one credential on one request, while it lives. Dropping it says that
/// no byte of the credential will be sent any more.
pub struct UseGuard {
    guards: Arc<Guards>,
    key: GuardKey,
    epoch: u64,
    cancel_below: watch::Receiver<u64>,
}

/// A request that carries one version of one credential, from its lease until its answer was read. The guard
/// ends when the credential is with the kernel; the flight goes on, so that a revocation cuts off those who
/// still wait for an answer, too. A revocation does not wait for it: nothing of the credential is sent any more.
pub struct Flight {
    guards: Arc<Guards>,
    key: GuardKey,
    epoch: u64,
    cancel_below: watch::Receiver<u64>,
}

impl Guards {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() })
    }

    /// Takes a guard, unless the epoch is over.
    pub(crate) fn take(self: &Arc<Self>, key: GuardKey, epoch: u64) -> Result<UseGuard, EpochOver> {
        let mut shard = self.shard(&key).lock();
        let entry = shard.entry(key.clone()).or_insert_with(Entry::new);
        if epoch < entry.epoch_min {
            return Err(EpochOver);
        }
        *entry.alive.entry(epoch).or_default() += 1;
        let cancel_below = entry.cancel_below.subscribe();
        drop(shard);
        Ok(UseGuard { guards: Arc::clone(self), key, epoch, cancel_below })
    }

    /// Counts a request in.
    pub(crate) fn fly(self: &Arc<Self>, key: GuardKey, epoch: u64) -> Flight {
        let mut shard = self.shard(&key).lock();
        let entry = shard.entry(key.clone()).or_insert_with(Entry::new);
        *entry.flights.entry(epoch).or_default() += 1;
        let cancel_below = entry.cancel_below.subscribe();
        drop(shard);
        Flight { guards: Arc::clone(self), key, epoch, cancel_below }
    }

    /// Whether that epoch can still be used, as far as this process knows.
    pub(crate) fn is_over(&self, key: &GuardKey, epoch: u64) -> bool {
        self.shard(key).lock().get(key).is_some_and(|entry| epoch < entry.epoch_min)
    }

    /// Ends every epoch before `epoch`, tells their guards to let go if asked, and waits until none is
    /// left. Returns how many were told. If it is given up while waiting, the epochs stay ended.
    pub(crate) async fn end_before(&self, key: &GuardKey, epoch: u64, cancel: bool) -> u64 {
        let (older, released) = self.mark(key, epoch, cancel);
        loop {
            // Registered before the look, so that a release between look and wait is not missed.
            let mut told = std::pin::pin!(released.notified());
            told.as_mut().enable();
            let left = self.shard(key).lock().get(key).map_or(0, |entry| entry.older_than(epoch));
            if left == 0 {
                return if cancel { older } else { 0 };
            }
            told.await;
        }
    }

    fn mark(&self, key: &GuardKey, epoch: u64, cancel: bool) -> (u64, Arc<Notify>) {
        let mut shard = self.shard(key).lock();
        let entry = shard.entry(key.clone()).or_insert_with(Entry::new);
        entry.epoch_min = entry.epoch_min.max(epoch);
        if cancel {
            entry.cancel_below.send_if_modified(|below| {
                let higher = epoch > *below;
                *below = epoch.max(*below);
                higher
            });
        }
        // A request has a guard, a flight, or both.
        let flights = entry.flights.range(..epoch).map(|(_, count)| count).sum();
        (entry.older_than(epoch).max(flights), Arc::clone(&entry.released))
    }

    fn release(&self, key: &GuardKey, epoch: u64) {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.get_mut(key) else { return };
        if let Some(count) = entry.alive.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                entry.alive.remove(&epoch);
                entry.released.notify_waiters();
            }
        }
        if entry.is_idle() {
            shard.remove(key);
        }
    }

    fn land(&self, key: &GuardKey, epoch: u64) {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.get_mut(key) else { return };
        if let Some(count) = entry.flights.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                entry.flights.remove(&epoch);
            }
        }
        if entry.is_idle() {
            shard.remove(key);
        }
    }

    fn shard(&self, key: &GuardKey) -> &Mutex<HashMap<GuardKey, Entry>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("a shard's number is small")]
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            epoch_min: 0,
            alive: BTreeMap::new(),
            flights: BTreeMap::new(),
            cancel_below: watch::Sender::new(0),
            released: Arc::new(Notify::new()),
        }
    }

    fn is_idle(&self) -> bool {
        self.alive.is_empty() && self.flights.is_empty() && self.epoch_min == 0
    }

    fn older_than(&self, epoch: u64) -> u64 {
        self.alive.range(..epoch).map(|(_, count)| count).sum()
    }
}

/// Ready when an epoch is cancelled.
async fn cancelled(mut cancel_below: watch::Receiver<u64>, epoch: u64) {
    if cancel_below.wait_for(|below| epoch < *below).await.is_err() {
        // The sender lives as long as a guard or a flight does.
        std::future::pending::<()>().await;
    }
}

impl Flight {
    /// Ready as soon as the credential is revoked. Never ready otherwise; a rotation does not cancel.
    pub async fn cancelled(&self) {
        cancelled(self.cancel_below.clone(), self.epoch).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.guards.land(&self.key, self.epoch);
    }
}

impl UseGuard {
    /// Ready as soon as the credential is revoked: who holds the guard then closes the connection and
    /// drops the guard. Never ready otherwise; a rotation does not cancel.
    pub async fn cancelled(&self) {
        cancelled(self.cancel_below.clone(), self.epoch).await;
    }

    /// Whether it is cancelled already.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.epoch < *self.cancel_below.borrow()
    }

    /// The epoch that it was taken at.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        self.guards.release(&self.key, self.epoch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;

    use super::*;

    fn key() -> GuardKey {
        GuardKey { tenant: TenantId::random(), credential: CredentialId::random() }
    }

    #[tokio::test]
    async fn a_revocation_tells_requests_that_wait_for_their_answer_and_does_not_wait_for_them() {
        let guards = Guards::new();
        let key = key();
        let waiting = guards.fly(key.clone(), 1);
        let newer = guards.fly(key.clone(), 2);
        assert_eq!(guards.end_before(&key, 2, false).await, 0, "a rotation tells nobody");
        assert_eq!(guards.end_before(&key, 2, true).await, 1);
        waiting.cancelled().await;
        let told = tokio::time::timeout(std::time::Duration::ZERO, newer.cancelled()).await;
        assert!(told.is_err(), "a request of the new epoch goes on");
    }

    #[tokio::test]
    async fn a_rotation_waits_for_older_guards_without_cancelling_them() {
        let guards = Guards::new();
        let key = key();
        let guard = guards.take(key.clone(), 1).expect("given");
        let waiting = tokio::spawn({
            let (guards, key) = (Arc::clone(&guards), key.clone());
            async move { guards.end_before(&key, 2, false).await }
        });
        while !guards.is_over(&key, 1) {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished() && !guard.is_cancelled());
        assert_eq!(guards.take(key.clone(), 1).err(), Some(EpochOver));
        let newer = guards.take(key.clone(), 2).expect("given");
        drop(guard);
        assert_eq!(waiting.await.expect("ends"), 0);
        assert!(!newer.is_cancelled());
    }

    #[tokio::test]
    async fn a_revocation_cancels_older_guards_and_tells_how_many() {
        let guards = Guards::new();
        let key = key();
        let held: Vec<_> = (0..3).map(|_| guards.take(key.clone(), 1).expect("given")).collect();
        let tasks: Vec<_> =
            held.into_iter().map(|guard| tokio::spawn(async move { guard.cancelled().await })).collect();
        assert_eq!(guards.end_before(&key, 2, true).await, 3);
        for task in tasks {
            task.await.expect("was cancelled and let go");
        }
        assert_eq!(guards.end_before(&key, 2, true).await, 0);
    }

    #[tokio::test]
    async fn t04_another_credential_and_another_tenant_are_not_touched() {
        let guards = Guards::new();
        let key = key();
        let sibling = GuardKey { credential: CredentialId::random(), ..key.clone() };
        let foreign = GuardKey { tenant: TenantId::random(), ..key.clone() };
        let held: Vec<_> = [&sibling, &foreign].map(|key| guards.take(key.clone(), 1).expect("given")).into();
        assert_eq!(guards.end_before(&key, 9, true).await, 0);
        assert!(held.iter().all(|guard| !guard.is_cancelled()));
        assert!(guards.take(sibling, 1).is_ok() && guards.take(foreign, 1).is_ok());
    }

    #[tokio::test]
    async fn a_barrier_that_was_given_up_keeps_the_epochs_ended() {
        let guards = Guards::new();
        let key = key();
        let guard = guards.take(key.clone(), 1).expect("given");
        let given_up = tokio::time::timeout(std::time::Duration::ZERO, guards.end_before(&key, 2, false)).await;
        assert!(given_up.is_err());
        assert_eq!(guards.take(key.clone(), 1).err(), Some(EpochOver));
        drop(guard);
        assert_eq!(guards.end_before(&key, 1, true).await, 0, "an epoch never goes back");
        assert_eq!(guards.take(key, 1).err(), Some(EpochOver));
    }

    #[test]
    fn o5_a_credential_that_was_only_used_leaves_nothing_behind() {
        let guards = Guards::new();
        for _ in 0..100 {
            drop(guards.take(key(), 7).expect("given"));
        }
        assert_eq!(guards.entries(), 0);
    }

    /// If this fails, a request with a revoked credential can leave after the revocation was
    /// acknowledged.
    #[test]
    fn r05_no_guard_of_an_older_epoch_is_alive_after_the_barrier_returned_in_10_000_trials() {
        const TRIALS: u64 = 10_000;
        const TAKERS: usize = 3;
        let guards = Guards::new();
        let key = key();
        // The epoch up to which barriers have returned; what takers have in their hands must not be below.
        let acknowledged = AtomicU64::new(0);
        // As the directory would say it: raised before the barrier, read by takers at any time.
        let directory = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let (taken, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..TAKERS {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let epoch = directory.load(Ordering::SeqCst);
                        let Ok(guard) = guards.take(key.clone(), epoch) else {
                            refused.fetch_add(1, Ordering::Relaxed);
                            continue;
                        };
                        taken.fetch_add(1, Ordering::Relaxed);
                        std::hint::spin_loop();
                        // While it is held, no barrier of a later epoch can have returned.
                        assert!(acknowledged.load(Ordering::SeqCst) <= guard.epoch(), "a guard outlived its barrier");
                        drop(guard);
                    }
                });
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            for epoch in 1..=TRIALS {
                directory.store(epoch, Ordering::SeqCst);
                runtime.block_on(guards.end_before(&key, epoch, epoch % 2 == 0));
                acknowledged.store(epoch, Ordering::SeqCst);
                if epoch % 64 == 0 {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(taken.load(Ordering::Relaxed) > 0, "the test has met no guard at all");
        eprintln!("{} taken, {} refused", taken.into_inner(), refused.into_inner());
    }
}
