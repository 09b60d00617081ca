//! Use guards (P3). A dispatch holds a guard from its last check of the epoch until the last byte of the
//! credential is with the kernel or its connection is closed. A rotation or revocation raises the
//! epoch in the store first and then comes here: from that moment no guard of an older epoch can be
//! taken, whatever a stale directory says, and it waits until none is left.
//!
//! The one argument that all rests on: taking a guard and raising the least epoch happen under the
//! same lock. A guard is either taken before, and then it is waited for, or after, and then refused.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::IdHasher;
use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use tokio::sync::Notify;
use tokio::sync::watch;

use super::sync::Mutex;

/// Locks, so that tenants rarely wait for one another; each is held for some tens of nanoseconds.
pub(crate) const SHARDS: usize = 16;

/// Whose guards. A struct and not a concatenation: no spelling of one key is another's (threats T04).
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct GuardKey {
    pub(crate) tenant: TenantId,
    pub(crate) credential: CredentialId,
}

/// The guards of all credentials.
pub(crate) struct Guards {
    shards: [Mutex<IdMap<GuardKey, Entry>>; SHARDS],
    hasher: IdHasher,
}

/// What is known of one credential. Without guards, and if it was never rotated or revoked while this
/// process runs, it need not be kept.
struct Entry {
    /// No guard of an epoch below this can be taken.
    epoch_min: u64,
    /// The guards that are alive.
    alive: Counts,
    /// The requests that are on their way or wait for their answer.
    flights: Counts,
    /// Guards of an epoch below this are to let go.
    cancel_below: watch::Sender<u64>,
    /// Told when the last guard of an epoch is gone.
    released: Arc<Notify>,
}

/// How many there are of each epoch: nearly always of one. Without those of which there are none.
#[derive(Default)]
struct Counts(Vec<(u64, u64)>);

impl Counts {
    fn add(&mut self, epoch: u64) {
        match self.0.iter_mut().find(|(other, _)| *other == epoch) {
            Some((_, count)) => *count += 1,
            None => self.0.push((epoch, 1)),
        }
    }

    /// Takes one away; whether it was the last of its epoch.
    fn take(&mut self, epoch: u64) -> bool {
        let Some(index) = self.0.iter().position(|(other, _)| *other == epoch) else { return false };
        self.0[index].1 -= 1;
        let is_last = self.0[index].1 == 0;
        if is_last {
            self.0.swap_remove(index);
        }
        is_last
    }

    fn below(&self, epoch: u64) -> u64 {
        self.0.iter().filter(|(other, _)| *other < epoch).map(|(_, count)| count).sum()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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
    /// Dropped after the guard is released.
    _rider: Option<Box<dyn Send + Sync>>,
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
        Arc::new(Self { shards: std::array::from_fn(|_| Mutex::default()), hasher: IdHasher::default() })
    }

    /// Takes a guard, unless the epoch is over.
    pub(crate) fn take(self: &Arc<Self>, key: GuardKey, epoch: u64) -> Result<UseGuard, EpochOver> {
        let mut shard = self.shard(&key).lock();
        let entry = shard.entry(key.clone()).or_insert_with(Entry::new);
        if epoch < entry.epoch_min {
            return Err(EpochOver);
        }
        entry.alive.add(epoch);
        let cancel_below = entry.cancel_below.subscribe();
        drop(shard);
        Ok(UseGuard { guards: Arc::clone(self), key, epoch, cancel_below, _rider: None })
    }

    /// Counts a request in.
    pub(crate) fn fly(self: &Arc<Self>, key: GuardKey, epoch: u64) -> Flight {
        let mut shard = self.shard(&key).lock();
        let entry = shard.entry(key.clone()).or_insert_with(Entry::new);
        entry.flights.add(epoch);
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
            let left = self.shard(key).lock().get(key).map_or(0, |entry| entry.alive.below(epoch));
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
        (entry.alive.below(epoch).max(entry.flights.below(epoch)), Arc::clone(&entry.released))
    }

    fn release(&self, key: &GuardKey, epoch: u64) {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.get_mut(key) else { return };
        if entry.alive.take(epoch) {
            entry.released.notify_waiters();
        }
        tidy(&mut shard, key);
    }

    fn land(&self, key: &GuardKey, epoch: u64) {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.get_mut(key) else { return };
        entry.flights.take(epoch);
        tidy(&mut shard, key);
    }

    fn shard(&self, key: &GuardKey) -> &Mutex<IdMap<GuardKey, Entry>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("a shard's number is small")]
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Idle entries of a shard that are kept: the next call of a credential that is in use finds its own.
pub(crate) const KEPT: usize = 256;

/// Drops an entry that is idle, where there are many.
fn tidy(shard: &mut IdMap<GuardKey, Entry>, key: &GuardKey) {
    if shard.len() > KEPT && shard.get(key).is_some_and(Entry::is_idle) {
        shard.remove(key);
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            epoch_min: 0,
            alive: Counts::default(),
            flights: Counts::default(),
            cancel_below: watch::Sender::new(0),
            released: Arc::new(Notify::new()),
        }
    }

    fn is_idle(&self) -> bool {
        self.alive.is_empty() && self.flights.is_empty() && self.epoch_min == 0
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

    /// Has something dropped when the guard is: when no byte of the credential will be sent any more.
    pub(crate) fn carry(&mut self, rider: Box<dyn Send + Sync>) {
        self._rider = Some(rider);
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
