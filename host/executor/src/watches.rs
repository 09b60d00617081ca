//! Watches: whether a tenant's hooks are heard of as often as they promised. While one that promised a
//! heartbeat is silent, its sources may have changed unseen, and what was fetched from them is used for a
//! short time only.
//!
//! What was heard lives in memory: after a start nothing was heard yet, and the short time applies.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_gate::HookRecord;
use keybearer_sources::UNWATCHED_S;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Executor;

/// How old or how far ahead an event's time may be. Standard Webhooks recommends five minutes.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(300);

/// Events of one hook that are remembered, so that none is taken twice while its time is still good.
const REMEMBERED_MAX: usize = 4096;

/// Events of one hook that are acted on at once. Whoever gives up waiting for one does not stop it.
const UNDER_WAY_MAX: usize = 32;

/// What was heard of every hook.
#[derive(Default)]
pub(crate) struct Watches {
    heard: Mutex<HashMap<HookId, Heard>>,
    /// The tenants whose sources were watched when we last looked, and since when.
    watched: Mutex<HashMap<TenantId, Instant>>,
}

#[derive(Default)]
struct Heard {
    /// First and last time, without a silence longer than was promised between them.
    lively: Option<(Instant, Instant)>,
    /// By their ids.
    events: HashMap<String, Known>,
    under_way: usize,
}

/// An event that came.
struct Known {
    /// When it may be forgotten.
    until: Instant,
    fate: Fate,
}

/// What came of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Taken,
    Refused,
}

/// How an event's id was found.
pub(crate) enum Event<'watches> {
    New(Turn<'watches>),
    /// It was acted on before: once is enough.
    Taken,
    /// It was not understood before: nor is it now.
    Refused,
    /// It is being acted on: nobody knows yet what comes of it.
    UnderWay,
    /// More events came than can be remembered for ten minutes, or acted on at once.
    TooMany,
}

/// An event that is being acted on. If this ends before it was taken or refused, whatever the reason, it may come again.
pub(crate) struct Turn<'watches> {
    watches: &'watches Watches,
    hook: &'watches HookRecord,
    event: &'watches str,
    came: Instant,
    fate: Fate,
}

impl Turn<'_> {
    /// It was acted on: a sign of life, as of when it came.
    pub(crate) fn taken(mut self) {
        self.fate = Fate::Taken;
    }

    /// It is not understood, which is no sign of life: whoever watches our sources would know what to say.
    pub(crate) fn refused(mut self) {
        self.fate = Fate::Refused;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut heard = self.watches.heard.lock();
        // The hook may be gone, and what was heard of it.
        let Some(heard) = heard.get_mut(&self.hook.id) else { return };
        heard.under_way = heard.under_way.saturating_sub(1);
        match self.fate {
            Fate::UnderWay => drop(heard.events.remove(self.event)),
            fate => {
                heard.events.entry(self.event.to_owned()).and_modify(|event| event.fate = fate);
            }
        }
        if self.fate == Fate::Taken {
            let last = heard.lively.map_or(self.came, |(_, last)| last.max(self.came));
            heard.lively = Some((heard.live_since(self.hook).unwrap_or(last), last));
        }
    }
}

impl Watches {
    /// Something signed came of this hook.
    pub(crate) fn hear<'watches>(&'watches self, hook: &'watches HookRecord, event: &'watches str) -> Event<'watches> {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let heard = heard.entry(hook.id.clone()).or_default();
        // What is said again by whoever overheard it is no sign that the sender is there.
        match heard.events.get(event).map(|known| known.fate) {
            Some(Fate::UnderWay) => return Event::UnderWay,
            Some(Fate::Taken) => return Event::Taken,
            Some(Fate::Refused) => return Event::Refused,
            None => {}
        }
        if heard.events.len() >= REMEMBERED_MAX {
            heard.events.retain(|_, event| event.fate == Fate::UnderWay || now < event.until);
        }
        if heard.events.len() >= REMEMBERED_MAX || heard.under_way >= UNDER_WAY_MAX {
            return Event::TooMany;
        }
        heard.under_way += 1;
        heard.events.insert(event.to_owned(), Known { until: now + 2 * TOLERANCE, fate: Fate::UnderWay });
        Event::New(Turn { watches: self, hook, event, came: now, fate: Fate::UnderWay })
    }

    /// A hook was removed, or its tenant with it: what was heard of it takes no more room.
    fn keep_only(&self, hooks: &[Arc<HookRecord>]) {
        let known: HashSet<_> = hooks.iter().map(|hook| &hook.id).collect();
        self.heard.lock().retain(|hook, _| known.contains(hook));
    }

    /// Whether the hook is heard of as it promised; none if it promised nothing.
    pub(crate) fn is_live(&self, hook: &HookRecord) -> Option<bool> {
        (hook.heartbeat_s > 0).then(|| self.live_since(hook).is_some())
    }

    /// Since when, without a pause, the hook is heard of as it promised; none if it is not, or promised nothing.
    fn live_since(&self, hook: &HookRecord) -> Option<Instant> {
        self.heard.lock().get(&hook.id).and_then(|heard| heard.live_since(hook))
    }
}

impl Heard {
    fn live_since(&self, hook: &HookRecord) -> Option<Instant> {
        let (first, last) = self.lively?;
        (last.elapsed() <= Duration::from_secs(hook.heartbeat_s.into())).then_some(first)
    }
}

impl Executor {
    /// Since when, without a pause, a change of this tenant's sources would be told: it has hooks that promised so, and
    /// none is silent. None if it would not.
    pub(crate) fn watched_since(&self, tenant: &TenantId) -> Option<Instant> {
        let hooks = self.store.hooks(tenant);
        let promised = hooks.iter().filter(|hook| hook.heartbeat_s > 0);
        promised.map(|hook| self.watches.live_since(hook)).reduce(both).flatten()
    }

    /// How many hooks promised to be heard of, and how many of them are silent.
    #[must_use]
    pub fn hooks_live_and_silent(&self) -> (u64, u64) {
        let hooks = self.store.all_hooks();
        let live = hooks.iter().filter_map(|hook| self.watches.is_live(hook));
        live.fold((0, 0), |(live, silent), is| if is { (live + 1, silent) } else { (live, silent + 1) })
    }

    /// Looks whether a hook fell silent: what was fetched from its sources ages at once. To be called every second.
    pub(crate) fn look_at_watches(&self) {
        let hooks = self.store.all_hooks();
        self.watches.keep_only(&hooks);
        let mut now: HashMap<TenantId, Option<Instant>> = HashMap::new();
        for hook in hooks.iter().filter(|hook| hook.heartbeat_s > 0) {
            let since = self.watches.live_since(hook);
            now.entry(hook.tenant.clone()).and_modify(|all| *all = both(*all, since)).or_insert(since);
        }
        let now: HashMap<_, _> = now.into_iter().filter_map(|(tenant, since)| Some((tenant, since?))).collect();
        let before = std::mem::replace(&mut *self.watches.watched.lock(), now.clone());
        for (tenant, since) in before {
            // One that is heard of again may have been silent since we looked.
            if now.get(&tenant).is_none_or(|now| *now > since) {
                tracing::warn!(%tenant, "a hook fell silent: what is fetched is used for {UNWATCHED_S} s at most");
                let recipes = self.store.credentials(&tenant);
                for record in recipes.iter().filter(|record| record.kind.changes_unseen() && !record.kind.listens()) {
                    self.strongbox.age(&tenant, &record.id, Duration::from_secs(UNWATCHED_S));
                }
            }
        }
    }
}

/// Since when both are heard.
fn both(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    Some(one?.max(other?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hears an event and acts on it, if it is new: whether it was.
    fn take(watches: &Watches, hook: &HookRecord, event: &str) -> bool {
        match watches.hear(hook, event) {
            Event::New(turn) => turn.taken(),
            _ => return false,
        }
        true
    }

    #[test]
    fn r03_an_event_is_taken_once_and_a_flood_is_bounded() {
        let (watches, hook) = (Watches::default(), promising(1));
        let first = watches.hear(&hook, "a");
        assert!(matches!(first, Event::New(_)) && matches!(watches.hear(&hook, "a"), Event::UnderWay));
        drop(first);
        assert!(take(&watches, &hook, "a"), "what was not acted on may come again");
        assert!(matches!(watches.hear(&hook, "a"), Event::Taken));
        assert!(take(&watches, &promising(1), "a"), "another hook's is another event");
        let names: Vec<_> = (0..2 * REMEMBERED_MAX).map(|n| n.to_string()).collect();
        let acting: Vec<_> = names.iter().map(|name| watches.hear(&hook, name)).collect();
        assert_eq!(acting.iter().filter(|event| matches!(event, Event::New(_))).count(), UNDER_WAY_MAX);
        drop(acting);
        assert_eq!(names.iter().filter(|name| take(&watches, &hook, name)).count(), REMEMBERED_MAX - 1);
        assert!(matches!(watches.hear(&hook, "b"), Event::TooMany));
    }

    fn promising(heartbeat_s: u32) -> HookRecord {
        HookRecord {
            id: HookId::random(),
            tenant: TenantId::random(),
            label: "test".to_owned(),
            heartbeat_s,
            created: keybearer_contract::UnixMillis(1),
            sealed: keybearer_gate::Sealed(Arc::from([])),
            onboarding: keybearer_gate::Onboarding::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a14_an_event_that_is_said_again_is_no_sign_of_life() {
        let (watches, hook) = (Watches::default(), promising(1));
        assert!(take(&watches, &hook, "ping"));
        assert_eq!(watches.is_live(&hook), Some(true));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!take(&watches, &hook, "ping"));
        assert_eq!(watches.is_live(&hook), Some(false));
        assert!(take(&watches, &hook, "another"));
        assert_eq!(watches.is_live(&hook), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a14_an_event_that_was_not_acted_on_is_no_sign_of_life() {
        // If it failed, whoever repeats one that fails each time could hold off the true sender unnoticed.
        let (watches, hook) = (Watches::default(), promising(5));
        let turn = watches.hear(&hook, "refused");
        assert!(matches!(turn, Event::New(_)));
        if let Event::New(turn) = turn {
            turn.refused();
        }
        for _ in 0..2 {
            assert!(matches!(watches.hear(&hook, "refused"), Event::Refused));
            drop(watches.hear(&hook, "failed"));
            assert_eq!(watches.is_live(&hook), Some(false));
        }
        let slow = watches.hear(&hook, "slow");
        tokio::time::advance(Duration::from_secs(6)).await;
        if let Event::New(turn) = slow {
            turn.taken();
        }
        assert_eq!(watches.is_live(&hook), Some(false), "it tells of when it came, not of when it was acted on");
        assert!(take(&watches, &hook, "quick"));
        assert_eq!(watches.is_live(&hook), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a14_a_silence_is_seen_also_when_it_is_over() {
        // If it failed, what was asked for before a hook fell silent and came after it would be used on for its full time.
        let (watches, hook) = (Watches::default(), promising(5));
        assert!(take(&watches, &hook, "1"));
        let since = watches.live_since(&hook);
        assert!(since.is_some());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(take(&watches, &hook, "2"));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(watches.live_since(&hook), since, "without a pause");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(watches.live_since(&hook), None);
        assert!(take(&watches, &hook, "3"));
        assert!(watches.live_since(&hook) > since);
        assert_eq!(both(since, None), None, "one that is silent is enough");
    }

    #[test]
    fn o5_what_was_heard_of_a_hook_goes_with_it() {
        let (watches, kept, removed) = (Watches::default(), promising(1), promising(1));
        assert!(take(&watches, &kept, "a"));
        assert!(take(&watches, &removed, "a"));
        watches.keep_only(&[Arc::new(kept)]);
        assert_eq!(watches.heard.lock().len(), 1);
    }
}
