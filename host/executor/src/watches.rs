//! Watches: whether a tenant's hooks are heard of as often as they promised. While one that promised a
//! heartbeat is silent, its sources may have changed unseen, and what was fetched from them is used for a
//! short time only.
//!
//! What was heard lives in memory: after a start nothing was heard yet, and the short time applies.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_gate::HookRecord;
use keybearer_sources::UNWATCHED_S;
use parking_lot::Mutex;

use crate::Executor;

/// How old or how far ahead an event's time may be. Standard Webhooks recommends five minutes.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(300);

/// Events of one hook that are remembered, so that none is taken twice while its time is still good.
const REMEMBERED_MAX: usize = 4096;

/// What was heard of every hook.
#[derive(Default)]
pub(crate) struct Watches {
    heard: Mutex<HashMap<HookId, Heard>>,
    /// The tenants whose sources were watched when we last looked.
    watched: Mutex<HashMap<TenantId, bool>>,
}

#[derive(Default)]
struct Heard {
    last: Option<Instant>,
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
    pub(crate) fn hear(&self, hook: &HookId, event: &str) -> Event {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let heard = heard.entry(hook.clone()).or_default();
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
        heard.last = Some(now);
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

    /// Whether the hook was heard of as it promised; none if it promised nothing.
    pub(crate) fn is_live(&self, hook: &HookRecord) -> Option<bool> {
        let promised = (hook.heartbeat_s > 0).then(|| Duration::from_secs(hook.heartbeat_s.into()))?;
        let last = self.heard.lock().get(&hook.id).and_then(|heard| heard.last);
        Some(last.is_some_and(|last| last.elapsed() <= promised))
    }
}

impl Executor {
    /// Whether a change of this tenant's sources would be told: it has hooks that promised so, and none is silent.
    pub(crate) fn is_watched(&self, tenant: &TenantId) -> bool {
        let live: Vec<_> = self.store.hooks(tenant).iter().filter_map(|hook| self.watches.is_live(hook)).collect();
        !live.is_empty() && live.iter().all(|live| *live)
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
        let mut now: HashMap<TenantId, bool> = HashMap::new();
        for hook in &hooks {
            let Some(is_live) = self.watches.is_live(hook) else { continue };
            now.entry(hook.tenant.clone()).and_modify(|all| *all &= is_live).or_insert(is_live);
        }
        let before = std::mem::replace(&mut *self.watches.watched.lock(), now.clone());
        for (tenant, was_watched) in before {
            if was_watched && !now.get(&tenant).copied().unwrap_or(false) {
                tracing::warn!(%tenant, "a hook fell silent: what is fetched is used for {UNWATCHED_S} s at most");
                let recipes = self.store.credentials(&tenant);
                for record in recipes.iter().filter(|record| record.kind.changes_unseen() && !record.kind.listens()) {
                    self.strongbox.age(&tenant, &record.id, Duration::from_secs(UNWATCHED_S));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r03_an_event_is_taken_once_and_a_flood_is_bounded() {
        let (watches, hook) = (Watches::default(), HookId::random());
        assert_eq!(watches.hear(&hook, "a"), Event::New);
        assert_eq!(watches.hear(&hook, "a"), Event::Known);
        assert_eq!(watches.hear(&HookId::random(), "a"), Event::New, "another hook's is another event");
        watches.forget(&hook, "a");
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

    #[test]
    fn a14_an_event_that_is_said_again_is_no_sign_of_life() {
        let (watches, hook) = (Watches::default(), promising(1));
        watches.hear(&hook.id, "ping");
        assert_eq!(watches.is_live(&hook), Some(true));
        let long_ago = Instant::now().checked_sub(Duration::from_secs(2)).expect("the machine has been up for longer");
        watches.heard.lock().get_mut(&hook.id).expect("heard").last = Some(long_ago);
        assert_eq!(watches.hear(&hook.id, "ping"), Event::Known);
        assert_eq!(watches.is_live(&hook), Some(false));
        watches.hear(&hook.id, "another");
        assert_eq!(watches.is_live(&hook), Some(true));
    }

    #[test]
    fn o5_what_was_heard_of_a_hook_goes_with_it() {
        let (watches, kept, removed) = (Watches::default(), promising(1), promising(1));
        watches.hear(&kept.id, "a");
        watches.hear(&removed.id, "a");
        watches.keep_only(&[Arc::new(kept)]);
        assert_eq!(watches.heard.lock().len(), 1);
    }
}
