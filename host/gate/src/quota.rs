//! Quotas: how fast and how many at once (P9). A tenant's calls are counted together, whatever token or
//! address they came by. A place goes to the waiting tenant that holds the fewest, so one that floods
//! waits behind itself and nobody waits behind it.
//!
//! Not for the limits of one call: those are the sandbox's.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::Code;
use keybearer_contract::IdMap;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::TenantRecord;

/// What holds for all tenants together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Calls at the same time, of all tenants together; as many as there are instances.
    pub places: usize,
    /// Calls of one tenant that may wait for a place.
    pub queue_per_tenant: usize,
    /// How long one may wait.
    pub wait: Duration,
}

impl Default for QuotaLimits {
    fn default() -> Self {
        Self { places: 256, queue_per_tenant: 256, wait: Duration::from_secs(5) }
    }
}

/// The places of this node and who stands in line for them.
pub struct Quotas {
    limits: QuotaLimits,
    floor: Arc<Mutex<Floor>>,
}

/// Leave to run one call now. Dropped, it goes to who has waited.
#[must_use]
pub struct Place {
    floor: Arc<Mutex<Floor>>,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.floor.lock().release(&self.tenant);
    }
}

impl Quotas {
    /// Quotas with every place free.
    #[must_use]
    pub fn new(limits: QuotaLimits) -> Self {
        let floor = Floor {
            free: limits.places,
            tenants: IdMap::default(),
            line: BTreeSet::new(),
            next_turn: 0,
            sweep_at: SWEEP_AT_LEAST,
        };
        Self { limits, floor: Arc::new(Mutex::new(floor)) }
    }

    /// Waits for a place for one call of this tenant, in line and no longer than the limits say. May be
    /// dropped while it waits.
    ///
    /// # Errors
    /// [`Code::RateLimited`] if the tenant is beyond its rate, its line is full, or it waited in vain for its
    /// own calls; [`Code::Overloaded`] if it waited in vain for others'.
    pub async fn admit(&self, tenant: &TenantRecord) -> Result<Place, Problem> {
        let mut waiting = match self.enter(tenant, Instant::now())? {
            Entered::Placed(place) => return Ok(place),
            Entered::Waiting(waiting) => waiting,
        };
        // Whether it was told in time or not: the floor knows, and is asked under its lock.
        let _ = tokio::time::timeout(self.limits.wait, &mut waiting.told).await;
        waiting.end()
    }

    /// How many calls hold a place and how many wait for one; for metrics.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let floor = self.floor.lock();
        let waiting = floor.tenants.values().map(|seat| seat.queue.len()).sum();
        (self.limits.places - floor.free, waiting)
    }

    fn enter(&self, tenant: &TenantRecord, now: Instant) -> Result<Entered, Problem> {
        let mut floor = self.floor.lock();
        floor.make_seat(tenant, now);
        let Floor { free, tenants, next_turn, .. } = &mut *floor;
        let seat = tenants.get_mut(&tenant.id).expect("its seat was just made");
        seat.limit = tenant.concurrent_calls;
        let next = seat.at_rate(tenant.calls_per_second, now).map_err(|wait| rate_limited(tenant, wait))?;
        if seat.limit == 0 {
            return Err(too_many_at_once(seat.limit));
        }
        // While a place is free nobody stands in line for it, so nobody is overtaken here.
        if *free > 0 && seat.running < seat.limit && seat.queue.is_empty() {
            seat.next = next;
            seat.running += 1;
            *free -= 1;
            return Ok(Entered::Placed(Place { floor: Arc::clone(&self.floor), tenant: tenant.id.clone() }));
        }
        if seat.queue.len() >= self.limits.queue_per_tenant {
            return Err(line_full(self.limits.queue_per_tenant));
        }
        seat.next = next;
        let (tell, told) = oneshot::channel();
        let number = *next_turn;
        *next_turn += 1;
        seat.queue.push_back(Waiter { number, tell });
        floor.line_up(&tenant.id);
        floor.hand_out();
        let floor = Arc::clone(&self.floor);
        Ok(Entered::Waiting(Waiting { floor, tenant: tenant.id.clone(), number, told, ended: false }))
    }
}

enum Entered {
    Placed(Place),
    Waiting(Waiting),
}

/// One call in line. Dropped, it leaves the line, or gives back the place that it was just given.
struct Waiting {
    floor: Arc<Mutex<Floor>>,
    tenant: TenantId,
    number: u64,
    told: oneshot::Receiver<()>,
    ended: bool,
}

impl Waiting {
    /// The place, if it was given by now.
    fn end(mut self) -> Result<Place, Problem> {
        self.ended = true;
        let problem = self.floor.lock().leave(&self.tenant, self.number);
        match problem {
            Some(problem) => Err(problem),
            None => Ok(Place { floor: Arc::clone(&self.floor), tenant: self.tenant.clone() }),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut floor = self.floor.lock();
        if floor.leave(&self.tenant, self.number).is_none() {
            floor.release(&self.tenant);
        }
    }
}

/// Fewer seats than this are kept without asking whether they are empty.
const SWEEP_AT_LEAST: usize = 1024;

struct Floor {
    free: usize,
    tenants: IdMap<TenantId, Seat>,
    /// The tenants that wait and may have one more place: by how many they hold, then by turn.
    line: BTreeSet<(u32, u64, TenantId)>,
    next_turn: u64,
    sweep_at: usize,
}

/// One tenant's share.
struct Seat {
    running: u32,
    limit: u32,
    queue: VecDeque<Waiter>,
    /// Where the tenant stands in the line.
    turn: Option<(u32, u64)>,
    /// The theoretical arrival time of the next call (GCRA: ITU-T I.371).
    next: Instant,
}

struct Waiter {
    number: u64,
    tell: oneshot::Sender<()>,
}

impl Floor {
    /// Makes a seat for a tenant that has none. Seats of tenants that have none of their calls here and are
    /// within their rate are as good as new, and go when there are many.
    fn make_seat(&mut self, tenant: &TenantRecord, now: Instant) {
        if self.tenants.contains_key(&tenant.id) {
            return;
        }
        if self.tenants.len() >= self.sweep_at {
            self.tenants.retain(|_, seat| seat.running > 0 || !seat.queue.is_empty() || seat.next > now);
            self.sweep_at = SWEEP_AT_LEAST.max(self.tenants.len() * 2);
        }
        let seat = Seat { running: 0, limit: 0, queue: VecDeque::new(), turn: None, next: now };
        self.tenants.insert(tenant.id.clone(), seat);
    }

    /// Puts a tenant where it belongs in the line: one that waits and may have one more place.
    fn line_up(&mut self, tenant: &TenantId) {
        let Some(seat) = self.tenants.get_mut(tenant) else { return };
        let belongs = !seat.queue.is_empty() && seat.running < seat.limit;
        match seat.turn {
            Some((running, _)) if belongs && running == seat.running => return,
            Some((running, turn)) => {
                self.line.remove(&(running, turn, tenant.clone()));
            }
            None => {}
        }
        seat.turn = belongs.then_some((seat.running, self.next_turn));
        if let Some((running, turn)) = seat.turn {
            self.line.insert((running, turn, tenant.clone()));
            self.next_turn += 1;
        }
    }

    /// Gives the free places to those who are first in line.
    fn hand_out(&mut self) {
        while self.free > 0 {
            let Some((_, _, tenant)) = self.line.pop_first() else { return };
            let Some(seat) = self.tenants.get_mut(&tenant) else { continue };
            seat.turn = None;
            if let Some(waiter) = seat.queue.pop_front() {
                seat.running += 1;
                self.free -= 1;
                // One that is gone by now gives the place back itself, when it asks under the lock.
                let _ = waiter.tell.send(());
            }
            self.line_up(&tenant);
        }
    }

    /// Takes a place back.
    fn release(&mut self, tenant: &TenantId) {
        self.free += 1;
        if let Some(seat) = self.tenants.get_mut(tenant) {
            seat.running -= 1;
        }
        self.line_up(tenant);
        self.hand_out();
    }

    /// Takes a waiter out of the line and says why it waited in vain; none if it has a place already.
    fn leave(&mut self, tenant: &TenantId, number: u64) -> Option<Problem> {
        let seat = self.tenants.get_mut(tenant)?;
        let index = seat.queue.iter().position(|waiter| waiter.number == number)?;
        seat.queue.remove(index);
        let problem = if seat.running >= seat.limit { too_many_at_once(seat.limit) } else { overloaded() };
        self.line_up(tenant);
        Some(problem)
    }
}

impl Seat {
    /// When the next call is due if this one is let in; how long to wait if it is too early. A tenant may
    /// spend one second's calls at once.
    fn at_rate(&self, calls_per_second: u32, now: Instant) -> Result<Instant, Duration> {
        const SECOND: Duration = Duration::from_secs(1);
        let Some(apart) = SECOND.checked_div(calls_per_second) else { return Err(SECOND) };
        let next = self.next.max(now) + apart;
        match next.checked_duration_since(now + SECOND.max(apart)) {
            Some(early) if !early.is_zero() => Err(early),
            _ => Ok(next),
        }
    }
}

fn rate_limited(tenant: &TenantRecord, wait: Duration) -> Problem {
    let mut problem = Problem::new(Code::RateLimited, "call more slowly, or ask the operator for a higher rate")
        .at_limit("calls_per_second", u64::from(tenant.calls_per_second));
    problem.retry_after_s = Some(wait.as_secs() + 1);
    problem
}

fn too_many_at_once(limit: u32) -> Problem {
    let mut problem = Problem::new(Code::RateLimited, "make fewer calls at the same time")
        .at_limit("concurrent_calls", u64::from(limit));
    problem.retry_after_s = Some(1);
    problem
}

fn line_full(limit: usize) -> Problem {
    let mut problem = Problem::new(Code::RateLimited, "too many calls of the tenant are waiting: make fewer at once")
        .at_limit("waiting_calls", limit as u64);
    problem.retry_after_s = Some(1);
    problem
}

fn overloaded() -> Problem {
    let mut problem = Problem::new(Code::Overloaded, "try again later");
    problem.retry_after_s = Some(1);
    problem
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
