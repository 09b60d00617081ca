//! Who holds what, right now: the calls that run and the requests that they have under way. A revocation looks
//! here for whom it has to stop, and waits here until nothing of it can be sent any more.
//!
//! The argument is that of the use guards: a call is entered here before it is looked at again whether it may
//! run, and a request before it is looked at again whether its grant stands. A revocation is in the store
//! before it looks here. So it either finds them, or they find it.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use keybearer_contract::CallId;
use keybearer_contract::GrantId;
use keybearer_contract::IdHasher;
use keybearer_contract::IdMap;
use keybearer_gate::Facts;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Locks, so that calls rarely wait for one another; each is held for some tens of nanoseconds, or for a walk of
/// its part of the running calls, whose number the quotas bound.
const SHARDS: usize = 16;

/// The running calls.
pub(crate) struct Holders {
    shards: [Mutex<IdMap<CallId, Arc<Held>>>; SHARDS],
    hasher: IdHasher,
    /// Told when the last credential byte of a request has left, or never will.
    released: Arc<Notify>,
}

/// A running call, as a revocation sees it.
pub(crate) struct Held {
    pub(crate) facts: Facts,
    pub(crate) signer: String,
    stop: CancellationToken,
    was_revoked: AtomicBool,
    requests: Mutex<Vec<Arc<Request>>>,
    released: Arc<Notify>,
}

/// A request under way.
struct Request {
    grant: Option<GrantId>,
    stop: CancellationToken,
    bytes: Weak<Rider>,
}

/// A call's place among the running ones, until it is dropped.
pub(crate) struct HeldCall {
    holders: Arc<Holders>,
    held: Arc<Held>,
}

/// A request's place in its call, until it is dropped.
pub(crate) struct HeldRequest {
    held: Arc<Held>,
    request: Arc<Request>,
}

/// Goes with a request's credential: while it lives, a byte of it may be sent.
pub(crate) struct Rider(Arc<Notify>);

/// What was told to stop.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) calls: u64,
    pub(crate) requests: u64,
    bytes: Vec<Weak<Rider>>,
}

impl Holders {
    pub(crate) fn new() -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self { shards, hasher: IdHasher::default(), released: Arc::default() })
    }

    /// Enters a call. `stop` ends it and everything that it has under way.
    pub(crate) fn enter(self: &Arc<Self>, facts: Facts, signer: String, stop: CancellationToken) -> HeldCall {
        let (was_revoked, requests) = (AtomicBool::new(false), Mutex::default());
        let held = Held { facts, signer, stop, was_revoked, requests, released: Arc::clone(&self.released) };
        let held = Arc::new(held);
        self.shard(&held.facts.call).lock().insert(held.facts.call.clone(), Arc::clone(&held));
        HeldCall { holders: Arc::clone(self), held }
    }

    /// A running call.
    pub(crate) fn find(&self, call: &CallId) -> Option<Arc<Held>> {
        self.shard(call).lock().get(call).cloned()
    }

    /// Tells the calls that are meant to stop, with all that they have under way.
    pub(crate) fn stop_calls(&self, is_meant: impl Fn(&Held) -> bool) -> Told {
        let mut told = Told::default();
        for shard in &self.shards {
            for held in shard.lock().values().filter(|held| is_meant(held)) {
                held.was_revoked.store(true, Ordering::Relaxed);
                told.calls += u64::from(!held.stop.is_cancelled());
                // Told under the lock, so that those who leave because of it are still counted; a request that is
                // entered later finds that it is stopped.
                let requests = held.requests.lock();
                held.stop.cancel();
                told.add(requests.iter());
            }
        }
        told
    }

    /// Tells the requests that go by a grant to stop; their calls go on without it.
    pub(crate) fn stop_requests(&self, grant: &GrantId) -> Told {
        let mut told = Told::default();
        for shard in &self.shards {
            for held in shard.lock().values() {
                let requests = held.requests.lock();
                let meant = || requests.iter().filter(|request| request.grant.as_ref() == Some(grant));
                meant().for_each(|request| request.stop.cancel());
                told.add(meant());
            }
        }
        told
    }

    /// Waits until no credential byte of what was told can be sent any more.
    pub(crate) async fn gone(&self, told: &Told) {
        loop {
            // Registered before the look, so that a release between look and wait is not missed.
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if told.bytes.iter().all(|bytes| bytes.strong_count() == 0) {
                return;
            }
            released.await;
        }
    }

    fn shard(&self, call: &CallId) -> &Mutex<IdMap<CallId, Arc<Held>>> {
        let hash = self.hasher.hash_one(call);
        &self.shards[usize::try_from(hash % SHARDS as u64).expect("a shard's number is small")]
    }
}

impl Told {
    fn add<'held>(&mut self, requests: impl Iterator<Item = &'held Arc<Request>>) {
        for request in requests {
            self.requests += 1;
            self.bytes.push(Weak::clone(&request.bytes));
        }
    }
}

impl HeldCall {
    /// What requests of this call are entered in.
    pub(crate) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }
}

impl Drop for HeldCall {
    fn drop(&mut self) {
        self.holders.shard(&self.held.facts.call).lock().remove(&self.held.facts.call);
    }
}

impl Held {
    /// Ready when the call is to end: because of a revocation, of its run or of the server.
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Whether it is.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether a revocation is why.
    pub(crate) fn was_revoked(&self) -> bool {
        self.was_revoked.load(Ordering::Relaxed)
    }

    /// Enters a request, before it is looked at again whether it may be sent. The rider goes with its credential.
    pub(crate) fn begin(self: &Arc<Self>, grant: Option<GrantId>) -> (HeldRequest, Arc<Rider>) {
        let rider = Arc::new(Rider(Arc::clone(&self.released)));
        let request = Arc::new(Request { grant, stop: self.stop.child_token(), bytes: Arc::downgrade(&rider) });
        self.requests.lock().push(Arc::clone(&request));
        (HeldRequest { held: Arc::clone(self), request }, rider)
    }
}

impl HeldRequest {
    /// Ready when the request is to be cut off.
    pub(crate) async fn stopped(&self) {
        self.request.stop.cancelled().await;
    }

    /// Whether its call is stopped as a whole, too.
    pub(crate) fn ends_with_its_call(&self) -> bool {
        self.held.is_stopped()
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.held.requests.lock().retain(|other| !Arc::ptr_eq(other, &self.request));
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        // The strong count is 0 by now: who was registered before sees it.
        self.0.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use keybearer_contract::Digest;
    use keybearer_contract::RunId;
    use keybearer_contract::TenantId;

    use super::*;

    fn facts(tenant: &TenantId) -> Facts {
        Facts {
            tenant: tenant.clone(),
            principal: keybearer_gate::PrincipalLabel::operator(),
            run: RunId::random(),
            call: CallId::random(),
            tool: "a.b".parse().expect("name"),
            package: Digest::of_package(b"c", b"m"),
        }
    }

    #[tokio::test]
    async fn r05_a_stop_is_waited_for_until_the_credentials_bytes_are_gone_and_only_where_it_is_meant() {
        // If this failed, a revocation would be acknowledged while a request of the stopped call is being written.
        let holders = Holders::new();
        let (mine, other) = (TenantId::random(), TenantId::random());
        let call = holders.enter(facts(&mine), "s".to_owned(), CancellationToken::new());
        let foreign = holders.enter(facts(&other), "s".to_owned(), CancellationToken::new());
        let (request, rider) = call.held().begin(Some(GrantId::random()));
        let told = holders.stop_calls(|held| held.facts.tenant == mine);
        assert_eq!((told.calls, told.requests), (1, 1));
        request.stopped().await;
        assert!(request.ends_with_its_call() && call.held().was_revoked() && !foreign.held().is_stopped());
        drop(request);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, holders.gone(&told)).await.is_err());
        let waiting = tokio::spawn({
            let holders = Arc::clone(&holders);
            async move { holders.gone(&told).await }
        });
        tokio::task::yield_now().await;
        drop(rider);
        waiting.await.expect("is told");
        let (late, _rider) = call.held().begin(None);
        late.stopped().await;
    }

    #[tokio::test]
    async fn r05_a_grants_requests_are_stopped_and_its_calls_go_on() {
        let holders = Holders::new();
        let call = holders.enter(facts(&TenantId::random()), "s".to_owned(), CancellationToken::new());
        let (taken, kept) = (GrantId::random(), GrantId::random());
        let (first, _first) = call.held().begin(Some(taken.clone()));
        let (second, _second) = call.held().begin(Some(kept));
        assert_eq!(holders.stop_requests(&taken).requests, 1);
        first.stopped().await;
        assert!(!first.ends_with_its_call() && !second.request.stop.is_cancelled());
        drop((first, second));
        assert!(call.held().requests.lock().is_empty());
        drop(call);
        assert!(holders.shards.iter().all(|shard| shard.lock().is_empty()), "nothing is left behind");
    }
}
