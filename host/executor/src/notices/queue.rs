//! The notices that wait, by whom they tell: what is tried next, and when. One of an addressee is tried at a time, and
//! one that is refused again and again holds the others up no longer than its own tries take. Nothing here is stored;
//! a start makes it anew from the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_gate::Addressee;
use keybearer_gate::NoticeRecord;
use parking_lot::Mutex;
use tokio::sync::AcquireError;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use super::NoticeTry;

/// Waits before the second and further tries: some twenty hours in all, so that a receiver that is mended on the next
/// day hears of the day before. A start begins them anew.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(12 * 3_600),
];

/// Tries at once, of all tenants together. Each has one, and takes 15 seconds at the most.
const AT_ONCE: usize = 64;

/// Every notice that waits.
pub(crate) struct Notices {
    queues: Mutex<HashMap<Addressee, Queue>>,
    places: Semaphore,
    delivered: AtomicU64,
    put_off: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    is_worked: bool,
    news: Arc<Notify>,
    last: Option<NoticeTry>,
}

struct Waiting {
    notice: Arc<NoticeRecord>,
    tries: usize,
    due: Instant,
}

/// What to do next for an addressee.
pub(super) enum Next {
    Try(Arc<NoticeRecord>),
    /// Until then, or until there is news.
    Wait(Instant, Arc<Notify>),
    Over,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            queues: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            delivered: AtomicU64::default(),
            put_off: AtomicU64::default(),
            failed: AtomicU64::default(),
        }
    }
}

impl Notices {
    /// Waits for a place to try in. The operator has one of his own, for he has one worker: what he is to hear of waits
    /// for no tenant's receiver.
    pub(super) async fn place(&self, to: &Addressee) -> Result<Option<SemaphorePermit<'_>>, AcquireError> {
        match to {
            Addressee::Operator => Ok(None),
            Addressee::Tenant(_) => self.places.acquire().await.map(Some),
        }
    }

    /// Adds one that is due now. Whether somebody must begin to work for its addressee.
    pub(super) fn add(&self, notice: NoticeRecord) -> bool {
        let mut queues = self.queues.lock();
        let queue = queues.entry(notice.to.clone()).or_default();
        queue.waiting.push(Waiting { notice: Arc::new(notice), tries: 0, due: Instant::now() });
        queue.news.notify_one();
        !std::mem::replace(&mut queue.is_worked, true)
    }

    /// The one that is due first. After [`Next::Over`] nobody works for this addressee.
    pub(super) fn next(&self, to: &Addressee) -> Next {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(to) else { return Next::Over };
        match queue.waiting.iter().min_by_key(|waiting| waiting.due) {
            Some(first) if first.due <= Instant::now() => Next::Try(Arc::clone(&first.notice)),
            Some(first) => Next::Wait(first.due, Arc::clone(&queue.news)),
            None => {
                queue.is_worked = false;
                if queue.last.is_none() {
                    queues.remove(to);
                }
                Next::Over
            }
        }
    }

    /// It was not taken: it is tried again later. Whether it is; after the last try it is not.
    pub(super) fn put_off(&self, notice: &NoticeRecord, why: &str) -> bool {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&notice.to) else { return false };
        let Some(waiting) = queue.waiting.iter_mut().find(|waiting| waiting.notice.id == notice.id) else {
            return false;
        };
        let Some(pause) = PAUSES.get(waiting.tries) else { return false };
        waiting.tries += 1;
        waiting.due = Instant::now() + *pause;
        queue.last = Some(NoticeTry::put_off(&notice.id, why));
        self.put_off.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// It was taken, or is given up.
    pub(super) fn settle(&self, notice: &NoticeRecord, last: NoticeTry) {
        let counter = if last.is_delivered() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(queue) = self.queues.lock().get_mut(&notice.to) {
            let before = queue.waiting.len();
            queue.waiting.retain(|waiting| waiting.notice.id != notice.id);
            // Forgotten meanwhile: it is nobody's any more.
            if queue.waiting.len() < before {
                queue.last = Some(last);
            }
        }
    }

    /// One was given up before it waited.
    pub(super) fn drop_one(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Nobody is to be told any more of what happened so far.
    pub(crate) fn forget(&self, to: &Addressee) {
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(to) else { return };
        if queue.is_worked {
            (queue.waiting, queue.last) = (Vec::new(), None);
            queue.news.notify_one();
        } else {
            queues.remove(to);
        }
    }

    /// How many wait for an addressee, and what came of the last try.
    pub(super) fn of(&self, to: &Addressee) -> (u64, Option<NoticeTry>) {
        let queues = self.queues.lock();
        queues.get(to).map_or((0, None), |queue| (queue.waiting.len() as u64, queue.last.clone()))
    }

    /// For metrics: how many wait; how many were delivered, put off and given up.
    pub(crate) fn counts(&self) -> [u64; 4] {
        let waiting = self.queues.lock().values().map(|queue| queue.waiting.len() as u64).sum();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [waiting, read(&self.delivered), read(&self.put_off), read(&self.failed)]
    }
}

#[cfg(test)]
mod tests {
    use keybearer_contract::TenantId;
    use keybearer_contract::UnixMillis;

    use super::*;

    fn notice(to: &Addressee, id: &str) -> NoticeRecord {
        NoticeRecord { to: to.clone(), id: id.to_owned(), created: UnixMillis(1), incident: None, body: Vec::new() }
    }

    fn next(notices: &Notices, to: &Addressee) -> Option<String> {
        match notices.next(to) {
            Next::Try(notice) => Some(notice.id.clone()),
            Next::Wait(..) | Next::Over => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_notice_that_is_refused_holds_no_other_up_and_is_given_up_at_last() {
        // If it failed, one notice that a receiver chokes on would keep it from hearing of anything else.
        let (notices, to) = (Notices::default(), Addressee::Tenant(TenantId::random()));
        assert!(notices.add(notice(&to, "a")), "somebody must work");
        assert!(!notices.add(notice(&to, "b")), "and one is enough");
        assert_eq!(next(&notices, &to).as_deref(), Some("a"));
        assert!(notices.put_off(&notice(&to, "a"), "it answered 500"));
        assert_eq!(next(&notices, &to).as_deref(), Some("b"));
        notices.settle(&notice(&to, "b"), NoticeTry::delivered("b"));
        let mut tries = 1;
        loop {
            let Next::Wait(due, _) = notices.next(&to) else { panic!("it waits for its next try") };
            tokio::time::sleep_until(due).await;
            assert_eq!(next(&notices, &to).as_deref(), Some("a"));
            tries += 1;
            if !notices.put_off(&notice(&to, "a"), "it answered 500") {
                break;
            }
        }
        assert_eq!(tries, 1 + PAUSES.len());
        notices.settle(&notice(&to, "a"), NoticeTry::failed("a", "it answered 500"));
        assert!(matches!(notices.next(&to), Next::Over));
        assert_eq!(notices.counts(), [0, 1, 9, 1]);
        assert!(notices.of(&to).1.is_some_and(|last| !last.is_delivered()), "what became of the last is known");
        assert!(notices.add(notice(&to, "c")), "somebody must work again");
    }

    #[tokio::test(start_paused = true)]
    async fn r11_p9_the_operator_waits_for_no_tenants_receiver() {
        // If it failed, tenants with receivers that never answer would keep the operator from hearing of an incident.
        let notices = Notices::default();
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(notices.place(&Addressee::Tenant(TenantId::random())).await.expect("a place"));
        }
        let wait = Duration::from_secs(2);
        let tenant = Addressee::Tenant(TenantId::random());
        assert!(tokio::time::timeout(wait, notices.place(&tenant)).await.is_err(), "all places are taken");
        assert!(tokio::time::timeout(wait, notices.place(&Addressee::Operator)).await.is_ok());
        drop(held);
        assert!(tokio::time::timeout(wait, notices.place(&tenant)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn o5_what_was_to_be_told_to_a_tenant_goes_with_it() {
        let (notices, gone, other) = (Notices::default(), TenantId::random(), Addressee::Operator);
        let gone = Addressee::Tenant(gone);
        notices.add(notice(&gone, "a"));
        notices.add(notice(&other, "a"));
        notices.forget(&gone);
        assert!(matches!(notices.next(&gone), Next::Over));
        assert_eq!((notices.of(&gone).0, notices.of(&other).0), (0, 1));
        assert_eq!(notices.queues.lock().len(), 1, "nothing of it is kept");
    }
}
