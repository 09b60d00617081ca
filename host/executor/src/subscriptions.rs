//! Subscriptions: sources that tell by themselves that something changed are listened to, one connection a credential
//! whose recipe asks for it, for as long as the credential can be used. What is told is fetched anew, as when a hook says
//! so (`hooks`). While nobody tells, what was fetched ages as while a hook is silent (`watches`), and the connection is
//! made again, ever less often. Not for how a source is asked, or what it says: that is the sources'.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_sources::MintFault;
use keybearer_sources::Tidings;
use keybearer_sources::UNWATCHED_S;
use keybearer_sources::Wanted;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Executor;
use crate::mint::Way;
use crate::renewal::facts_of_act;

/// Who is listened to, and since when he is heard without a pause; none if he is not.
#[derive(Default)]
pub(crate) struct Subscriptions(Mutex<HashMap<Key, Option<Instant>>>);

type Key = (TenantId, CredentialId);

/// How a subscription came to its end.
#[derive(Debug)]
enum Ended {
    /// What was fetched was ended, or is to be: the next one listens on.
    Changed,
    Broken(MintFault),
    /// Nobody listens any more.
    Over,
}

/// Of one tenant: as many connections as it has hooks. What comes on top is not listened to, and so used for a short
/// time only.
const SUBSCRIPTIONS_MAX: usize = 16;

/// A login and one request.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(20);

/// A source that was asked may answer before it is ready to tell: for so long it is not relied upon.
const SETTLING: Duration = Duration::from_secs(1);

/// Between two connections: at the least, which also bounds how often a source that changes all the time makes us fetch
/// anew; doubled after each failure up to the most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether the credential, its tenant and this server are still what they were.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Subscriptions {
    /// Whether there is room for one more and it is not there yet.
    fn enter(&self, key: &Key) -> bool {
        let mut all = self.0.lock();
        if all.contains_key(key) || all.keys().filter(|other| other.0 == key.0).count() >= SUBSCRIPTIONS_MAX {
            return false;
        }
        all.insert(key.clone(), None);
        true
    }

    /// He is heard.
    fn hear(&self, key: &Key) {
        if let Some(since) = self.0.lock().get_mut(key) {
            since.get_or_insert_with(Instant::now);
        }
    }

    /// He is heard no more: whether he was.
    fn lose(&self, key: &Key) -> bool {
        self.0.lock().get_mut(key).is_some_and(|since| since.take().is_some())
    }

    fn leave(&self, key: &Key) {
        self.0.lock().remove(key);
    }

    fn live_since(&self, key: &Key) -> Option<Instant> {
        self.0.lock().get(key).copied().flatten()
    }
}

impl Executor {
    /// Since when, without a pause, a change of this credential's source would be told: by its own subscription, if its
    /// recipe asks for one, else by the tenant's hooks. None if it would not.
    pub(crate) fn source_watched_since(&self, record: &CredentialRecord) -> Option<Instant> {
        if record.kind.listens() {
            return self.subscriptions.live_since(&(record.tenant.clone(), record.id.clone()));
        }
        self.watched_since(&record.tenant)
    }

    /// How many subscriptions are heard, and how many are broken.
    #[must_use]
    pub fn subscriptions_live_and_broken(&self) -> (u64, u64) {
        let all = self.subscriptions.0.lock();
        let live = all.values().flatten().count() as u64;
        (live, all.len() as u64 - live)
    }

    /// Listens to the sources of every tenant that ask for it and are not listened to. To be called now and then.
    pub(crate) fn listen_to_all(self: &Arc<Self>) {
        for tenant in self.store.tenants() {
            for record in self.store.credentials(&tenant.id) {
                self.listen_to(&record);
            }
        }
    }

    /// Listens to this credential's source, if its recipe asks for that.
    pub(crate) fn listen_to(self: &Arc<Self>, record: &CredentialRecord) {
        let key = (record.tenant.clone(), record.id.clone());
        if self.may_listen(&key).is_some() && self.subscriptions.enter(&key) {
            tokio::spawn(go_on_listening(Arc::downgrade(self), key));
        }
    }

    /// The record, while its source is to be listened to.
    fn may_listen(&self, (tenant, id): &Key) -> Option<Arc<CredentialRecord>> {
        let is_active = self.store.tenant(tenant).is_some_and(|tenant| tenant.state == TenantState::Active);
        let record = self.store.credential(tenant, id).filter(|record| record.kind.listens())?;
        let is_over = record.expires.is_some_and(|end| end <= UnixMillis::now());
        let goes_on = is_active && record.state == CredentialState::Active && !is_over;
        (goes_on && !self.stopping.load(Ordering::Acquire)).then_some(record)
    }

    /// Listens until something changed or nothing more is told.
    async fn listen(self: &Arc<Self>, key: &Key) -> Ended {
        let Some(record) = self.may_listen(key) else { return Ended::Over };
        let selected = self.strongbox.select(&key.0, &key.1, UnixMillis::now());
        let Ok(selected) = selected else { return Ended::Broken(MintFault::Stale) };
        let facts = facts_of_act(&key.0, &PrincipalLabel::host());
        let deadline = Instant::now() + SUBSCRIBE_MAX;
        let (until, watched) = (deadline, false);
        let wanted = Wanted { facts: &facts, record: &record, selected: &selected, watched, deadline, until };
        let mut tidings = match keybearer_sources::subscribe(wanted, &self.strongbox, &Way(self)).await {
            None => return Ended::Over,
            Some(Err(fault)) => return Ended::Broken(fault),
            Some(Ok(tidings)) => tidings,
        };
        let (settled, mut looks) = (Instant::now() + SETTLING, tokio::time::interval(LOOK_EVERY));
        loop {
            tokio::select! {
                told = tidings.changed() => match told {
                    Ok(version) => {
                        // Nobody reads on: what is told from now on is missed.
                        self.stop_relying(key);
                        self.end_fetched(key, version).await;
                        return Ended::Changed;
                    }
                    Err(fault) => return Ended::Broken(fault),
                },
                _ = looks.tick() => match self.may_listen(key) {
                    None => return Ended::Over,
                    // With its epoch ended the login by which it listens.
                    Some(now) if now.epoch != record.epoch => return Ended::Changed,
                    Some(_) if Instant::now() >= settled => self.subscriptions.hear(key),
                    Some(_) => {}
                },
            }
        }
    }

    /// What was fetched is used no more, nor is what a replica still gives that lags behind this version.
    async fn end_fetched(&self, (tenant, id): &Key, version: Option<u64>) {
        if let Some(version) = version {
            let (store, of, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
            let noted = crate::blocking(move || store.note_source_version(&of, &subject, version)).await;
            // Conflict: a higher one was heard of before.
            if let Err(problem) = noted
                && problem.code != Code::Conflict
            {
                tracing::warn!(%tenant, credential = %id, %problem, "the version that a source told could not be noted");
            }
        }
        if let Err(problem) = self.invalidate(tenant, id, PrincipalLabel::host()).await {
            tracing::warn!(%tenant, credential = %id, %problem, "what a source told could not be acted on");
        }
    }

    /// From now on nobody tells, if only until the next connection: what was fetched ages, also what is fetched just
    /// now. Says whether somebody told before.
    fn stop_relying(&self, key: &Key) -> bool {
        let was_heard = self.subscriptions.lose(key);
        self.strongbox.age(&key.0, &key.1, Duration::from_secs(UNWATCHED_S));
        was_heard
    }
}

/// Listens again and again, for as long as it is wanted.
async fn go_on_listening(executor: Weak<Executor>, key: Key) {
    let mut pause = PAUSE;
    loop {
        let Some(held) = executor.upgrade() else { return };
        let ended = held.listen(&key).await;
        let was_heard = held.stop_relying(&key);
        pause = match ended {
            Ended::Over => return held.subscriptions.leave(&key),
            Ended::Changed => PAUSE,
            Ended::Broken(fault) => {
                let (tenant, credential) = &key;
                tracing::warn!(%tenant, %credential, %fault, "a source tells nothing: what is fetched is used for {UNWATCHED_S} s at most");
                match fault {
                    // What it may say in a minute it has said.
                    MintFault::TellsTooMuch => PAUSE_MAX,
                    _ if was_heard => PAUSE,
                    _ => (pause * 2).min(PAUSE_MAX),
                }
            }
        };
        drop(held);
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a14_a_source_is_relied_upon_while_it_is_heard_and_a_tenants_are_bounded() {
        let (subscriptions, tenant) = (Subscriptions::default(), TenantId::random());
        let key = (tenant.clone(), CredentialId::random());
        assert!(subscriptions.enter(&key) && !subscriptions.enter(&key), "one connection a credential");
        assert_eq!(subscriptions.live_since(&key), None, "asked is not heard");
        subscriptions.hear(&key);
        let since = subscriptions.live_since(&key);
        subscriptions.hear(&key);
        assert!(since.is_some() && subscriptions.live_since(&key) == since, "heard without a pause");
        assert!(subscriptions.lose(&key) && !subscriptions.lose(&key));
        assert_eq!(subscriptions.live_since(&key), None);
        subscriptions.hear(&key);
        assert!(subscriptions.live_since(&key) > since, "a pause is seen afterwards");
        let more =
            (0..2 * SUBSCRIPTIONS_MAX).filter(|_| subscriptions.enter(&(tenant.clone(), CredentialId::random())));
        assert_eq!(more.count(), SUBSCRIPTIONS_MAX - 1);
        assert!(subscriptions.enter(&(TenantId::random(), key.1.clone())), "another tenant's room is its own");
        subscriptions.leave(&key);
        subscriptions.hear(&key);
        assert_eq!(subscriptions.live_since(&key), None, "what is over is not heard");
    }
}
