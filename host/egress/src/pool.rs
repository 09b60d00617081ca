//! Idle connections, kept apart by tenant, credential and destination with full equality: a connection that
//! carried one tenant's credential never carries another's request. Bounded for each key and in
//! all; a connection comes here only after its answer was read to the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_gate::Destination;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::PoolLimits;

/// Whose connections they are, and where they lead.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) tenant: TenantId,
    pub(crate) credential: Option<CredentialId>,
    /// The certificate that the connection proved itself with.
    pub(crate) identity: Option<CertificateDer<'static>>,
    pub(crate) destination: Destination,
}

/// What can lie idle.
pub(crate) trait Idle: Send + 'static {
    /// Whether the peer or we have closed it.
    fn is_closed(&self) -> bool;
    /// When it was opened.
    fn opened(&self) -> Instant;
}

pub(crate) struct Pool<C>(Arc<Shared<C>>);

struct Shared<C> {
    limits: PoolLimits,
    shelves: Mutex<Shelves<C>>,
}

struct Shelves<C> {
    idle: HashMap<PoolKey, Vec<Resting<C>>>,
    total: usize,
    /// Raised by [`Pool::close`]: what was in use at that time is not kept when it comes back.
    round: u64,
    is_swept: bool,
}

struct Resting<C> {
    connection: C,
    since: Instant,
}

/// The right to give one connection back; remembers when it was taken.
#[derive(Clone, Copy)]
pub(crate) struct Ticket(u64);

impl<C: Idle> Pool<C> {
    pub(crate) fn new(limits: PoolLimits) -> Self {
        let shelves = Shelves { idle: HashMap::new(), total: 0, round: 0, is_swept: false };
        Self(Arc::new(Shared { limits, shelves: Mutex::new(shelves) }))
    }

    /// The connection of this key that rested least, if there is one; and a ticket to give it, or a new
    /// one, back.
    pub(crate) fn take(&self, key: &PoolKey) -> (Option<C>, Ticket) {
        let now = Instant::now();
        let mut shelves = self.0.shelves.lock();
        let ticket = Ticket(shelves.round);
        let Shelves { idle, total, .. } = &mut *shelves;
        let mut found = None;
        if let Some(shelf) = idle.get_mut(key) {
            while let Some(resting) = shelf.pop() {
                *total -= 1;
                if is_fit(&self.0.limits, &resting, now) {
                    found = Some(resting.connection);
                    break;
                }
            }
        }
        (found, ticket)
    }

    pub(crate) fn put(&self, key: PoolKey, connection: C, ticket: Ticket) {
        let limits = self.0.limits;
        let mut shelves = self.0.shelves.lock();
        if shelves.round != ticket.0 || limits.idle_total == 0 || connection.is_closed() {
            return;
        }
        if shelves.total >= limits.idle_total {
            shelves.evict_of_the_fullest();
        }
        let Shelves { idle, total, is_swept, .. } = &mut *shelves;
        let shelf = idle.entry(key).or_default();
        if shelf.len() >= limits.idle_per_key {
            return;
        }
        shelf.push(Resting { connection, since: Instant::now() });
        *total += 1;
        if !std::mem::replace(is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// Closes the idle connections of one credential, or of all of a tenant's, and, when they come back, those
    /// in use. Gives the number of the idle ones.
    pub(crate) fn close(&self, tenant: &TenantId, credential: Option<&CredentialId>) -> u64 {
        let mut shelves = self.0.shelves.lock();
        shelves.round += 1;
        let closed = shelves
            .idle
            .extract_if(|key, _| {
                key.tenant == *tenant && (credential.is_none() || key.credential.as_ref() == credential)
            })
            .map(|(_, shelf)| shelf.len())
            .sum::<usize>();
        shelves.total -= closed;
        closed as u64
    }

    #[cfg(test)]
    pub(crate) fn idle(&self) -> usize {
        self.0.shelves.lock().total
    }
}

impl<C> Shelves<C> {
    /// The tenant with the most gives up its oldest, so that one tenant's many destinations do not push
    /// the others out. Walks the whole pool, and only when it is full.
    fn evict_of_the_fullest(&mut self) {
        let mut counts: HashMap<&TenantId, usize> = HashMap::new();
        for (key, shelf) in &self.idle {
            *counts.entry(&key.tenant).or_default() += shelf.len();
        }
        let Some(fullest) = counts.into_iter().max_by_key(|(_, count)| *count).map(|(tenant, _)| tenant.clone()) else {
            return;
        };
        let shelves = self.idle.iter_mut().filter(|(key, shelf)| key.tenant == fullest && !shelf.is_empty());
        // A shelf is a stack: its oldest lies first.
        if let Some((_, shelf)) = shelves.min_by_key(|(_, shelf)| shelf[0].since) {
            shelf.remove(0);
            self.total -= 1;
        }
    }
}

fn is_fit<C: Idle>(limits: &PoolLimits, resting: &Resting<C>, now: Instant) -> bool {
    let Resting { connection, since } = resting;
    now < *since + limits.idle_timeout && now < connection.opened() + limits.age && !connection.is_closed()
}

/// Closes what nobody asked for in time. Ends with the pool, or when there is nothing left to watch.
async fn sweep<C: Idle>(pool: Weak<Shared<C>>) {
    loop {
        let Some(idle_timeout) = pool.upgrade().map(|pool| pool.limits.idle_timeout) else {
            return;
        };
        tokio::time::sleep(idle_timeout).await;
        let Some(pool) = pool.upgrade() else {
            return;
        };
        let now = Instant::now();
        let mut shelves = pool.shelves.lock();
        let mut total = 0;
        shelves.idle.retain(|_, shelf| {
            shelf.retain(|resting| is_fit(&pool.limits, resting, now));
            total += shelf.len();
            !shelf.is_empty()
        });
        shelves.total = total;
        if total == 0 {
            shelves.is_swept = false;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keybearer_gate::Target;

    use super::*;

    struct Line {
        number: u32,
        opened: Instant,
        closed: bool,
    }

    impl Idle for Line {
        fn is_closed(&self) -> bool {
            self.closed
        }

        fn opened(&self) -> Instant {
            self.opened
        }
    }

    fn line(number: u32) -> Line {
        Line { number, opened: Instant::now(), closed: false }
    }

    fn key(tenant: &TenantId, credential: Option<&CredentialId>, url: &str) -> PoolKey {
        let destination = url.parse::<Target>().expect(url).destination().clone();
        PoolKey { tenant: tenant.clone(), credential: credential.cloned(), identity: None, destination }
    }

    fn number(pool: &Pool<Line>, key: &PoolKey) -> Option<u32> {
        pool.take(key).0.map(|line| line.number)
    }

    #[tokio::test]
    async fn a_connection_is_found_under_its_whole_key_only() {
        let pool = Pool::new(PoolLimits::default());
        let (a, b) = (TenantId::random(), TenantId::random());
        let (x, y) = (CredentialId::random(), CredentialId::random());
        let mine = key(&a, Some(&x), "https://api.example.com/");
        let (_, ticket) = pool.take(&mine);
        pool.put(mine.clone(), line(1), ticket);
        for other in [
            key(&b, Some(&x), "https://api.example.com/"),
            key(&a, Some(&y), "https://api.example.com/"),
            key(&a, None, "https://api.example.com/"),
            key(&a, Some(&x), "https://api.example.com:8443/"),
            key(&a, Some(&x), "http://api.example.com/"),
            key(&a, Some(&x), "https://api2.example.com/"),
            PoolKey { identity: Some(CertificateDer::from(vec![1])), ..mine.clone() },
        ] {
            assert_eq!(number(&pool, &other), None);
        }
        assert_eq!(number(&pool, &mine), Some(1));
        assert_eq!(number(&pool, &mine), None);
    }

    #[tokio::test]
    async fn closing_a_credential_also_keeps_out_what_was_in_use() {
        let pool = Pool::new(PoolLimits::default());
        let (tenant, credential) = (TenantId::random(), CredentialId::random());
        let mine = key(&tenant, Some(&credential), "https://api.example.com/");
        let other = key(&tenant, None, "https://api.example.com/");
        let (_, ticket) = pool.take(&mine);
        pool.put(mine.clone(), line(1), ticket);
        pool.put(other.clone(), line(2), ticket);
        let (_, in_use) = pool.take(&key(&tenant, Some(&credential), "https://b.example.com/"));
        assert_eq!(pool.close(&tenant, Some(&credential)), 1);
        assert_eq!(number(&pool, &mine), None);
        assert_eq!(number(&pool, &other), Some(2));
        pool.put(mine.clone(), line(3), in_use);
        assert_eq!(number(&pool, &mine), None);
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_closed_or_too_much_is_not_used() {
        let limits = PoolLimits { idle_per_key: 2, ..PoolLimits::default() };
        let pool = Pool::new(limits);
        let mine = key(&TenantId::random(), None, "https://api.example.com/");
        let (_, ticket) = pool.take(&mine);
        for number in 0..3 {
            pool.put(mine.clone(), line(number), ticket);
        }
        assert_eq!(pool.idle(), 2);
        assert_eq!(number(&pool, &mine), Some(1));
        tokio::time::advance(limits.idle_timeout).await;
        assert_eq!(number(&pool, &mine), None);
        let aged = Line { opened: Instant::now() - limits.age, ..line(9) };
        pool.put(mine.clone(), aged, ticket);
        pool.put(mine.clone(), Line { closed: true, ..line(9) }, ticket);
        assert_eq!(number(&pool, &mine), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_is_swept() {
        let limits = PoolLimits::default();
        let pool = Pool::new(limits);
        let mine = key(&TenantId::random(), None, "https://api.example.com/");
        let (_, ticket) = pool.take(&mine);
        pool.put(mine.clone(), line(1), ticket);
        tokio::time::sleep(limits.idle_timeout + Duration::from_secs(1)).await;
        assert_eq!(pool.idle(), 0);
        pool.put(mine.clone(), line(2), ticket);
        tokio::time::sleep(limits.idle_timeout + Duration::from_secs(1)).await;
        assert_eq!(pool.idle(), 0);
    }

    #[tokio::test]
    async fn a_full_pool_takes_from_the_tenant_that_has_the_most() {
        let pool = Pool::new(PoolLimits { idle_total: 4, ..PoolLimits::default() });
        let (greedy, modest) = (TenantId::random(), TenantId::random());
        let modests = key(&modest, None, "https://api.example.com/");
        let (_, ticket) = pool.take(&modests);
        pool.put(modests.clone(), line(0), ticket);
        for number in 1..20 {
            let place = key(&greedy, None, &format!("https://a{number}.example.com/"));
            pool.put(place, line(number), ticket);
        }
        assert_eq!(pool.idle(), 4);
        assert_eq!(number(&pool, &modests), Some(0));
    }
}
