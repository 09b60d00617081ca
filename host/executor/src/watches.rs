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
    /// Ids of events, and when they may be forgotten.
    events: HashMap<String, Instant>,
}

/// How an event's id was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    New,
    /// It was taken before: once is enough.
    Known,
    /// More events than can be remembered came within ten minutes.
    TooMany,
}

impl Watches {
    /// Something signed came of this hook.
    pub(crate) fn hear(&self, hook: &HookRecord, event: &str) -> Event {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let heard = heard.entry(hook.id.clone()).or_default();
        // What is said again by whoever overheard it is no sign that the sender is there.
        if heard.events.contains_key(event) {
            return Event::Known;
        }
        if heard.events.len() >= REMEMBERED_MAX {
            heard.events.retain(|_, until| now < *until);
            if heard.events.len() >= REMEMBERED_MAX {
                return Event::TooMany;
            }
        }
        heard.lively = Some((heard.live_since(hook).unwrap_or(now), now));
        heard.events.insert(event.to_owned(), now + 2 * TOLERANCE);
        Event::New
    }

    /// An event could not be acted on: it may come again.
    pub(crate) fn forget(&self, hook: &HookId, event: &str) {
        if let Some(heard) = self.heard.lock().get_mut(hook) {
            heard.events.remove(event);
        }
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

    #[test]
    fn r03_an_event_is_taken_once_and_a_flood_is_bounded() {
        let (watches, hook) = (Watches::default(), promising(1));
        assert_eq!(watches.hear(&hook, "a"), Event::New);
        assert_eq!(watches.hear(&hook, "a"), Event::Known);
        assert_eq!(watches.hear(&promising(1), "a"), Event::New, "another hook's is another event");
        watches.forget(&hook.id, "a");
        assert_eq!(watches.hear(&hook, "a"), Event::New);
        let taken = (0..2 * REMEMBERED_MAX).filter(|n| watches.hear(&hook, &n.to_string()) == Event::New).count();
        assert_eq!(taken, REMEMBERED_MAX - 1);
        assert_eq!(watches.hear(&hook, "b"), Event::TooMany);
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
        watches.hear(&hook, "ping");
        assert_eq!(watches.is_live(&hook), Some(true));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(watches.hear(&hook, "ping"), Event::Known);
        assert_eq!(watches.is_live(&hook), Some(false));
        watches.hear(&hook, "another");
        assert_eq!(watches.is_live(&hook), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a14_a_silence_is_seen_also_when_it_is_over() {
        // If it failed, what was asked for before a hook fell silent and came after it would be used on for its full time.
        let (watches, hook) = (Watches::default(), promising(5));
        watches.hear(&hook, "1");
        let since = watches.live_since(&hook);
        assert!(since.is_some());
        tokio::time::advance(Duration::from_secs(4)).await;
        watches.hear(&hook, "2");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(watches.live_since(&hook), since, "without a pause");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(watches.live_since(&hook), None);
        watches.hear(&hook, "3");
        assert!(watches.live_since(&hook) > since);
        assert_eq!(both(since, None), None, "one that is silent is enough");
    }

    #[test]
    fn o5_what_was_heard_of_a_hook_goes_with_it() {
        let (watches, kept, removed) = (Watches::default(), promising(1), promising(1));
        watches.hear(&kept, "a");
        watches.hear(&removed, "a");
        watches.keep_only(&[Arc::new(kept)]);
        assert_eq!(watches.heard.lock().len(), 1);
    }
}
