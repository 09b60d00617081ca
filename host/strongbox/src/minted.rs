//! What was fetched or minted with recipes, in memory only. A value is used until shortly before it ends,
//! at the epoch and within the run that it was minted for, and looked for in answers until it has ended.
//! With it is kept how it is given back to its issuer.
//!
//! Not for asking: a request to a source is cleared, armed and sent like any other one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::CredentialId;
use keybearer_contract::IdMap;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Exchange;
use keybearer_gate::Facts;
use keybearer_gate::Yields;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::Selected;
use crate::Strongbox;
use crate::Vessel;
use crate::accept;
use crate::accept::VALUE_BYTES_MIN;
use crate::guards::GuardKey;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Where the answer does not say (RFC 6749 §5.1 only recommends to): short, so that a wrong guess is
/// corrected soon.
const LIFE_S_DEFAULT: u64 = 300;

/// A value is not used longer than this, whatever its issuer says: an issuer that revokes says nothing
/// to us.
const USE_S_MAX: u64 = 3_600;

/// A value is looked for in answers no longer than this.
const SCRUB_S_MAX: u64 = 24 * 3_600;

/// A value is not used in its last seconds (or last quarter, if that is less): a request takes time, and
/// clocks differ.
const BUFFER_S: u64 = 30;

/// However often an upstream says that it does not take a value, another one is not asked for more often.
const SPOIL_EVERY: Duration = Duration::from_secs(10);

/// Values of one credential that may be leased at once: one for each run that uses it.
const HELD_MAX: usize = 256;

/// Secrets of one credential's source that are looked for in answers; what is beyond is the oldest.
const SEEN_MAX: usize = 64;

/// Logins of one credential that later fetches may use: one for each run.
const SESSIONS_MAX: usize = 64;

/// What came of asking a source.
#[derive(Debug, Default)]
pub struct Yield {
    /// The names of the secrets that make up the value, joined as its form demands (a user and a password by a colon).
    pub parts: Vec<&'static str>,
    /// For how long the issuer says that it is good, in seconds; 300 where it does not say.
    pub life_s: Option<u64>,
    /// It is not used longer than this, in seconds.
    pub use_max_s: Option<u64>,
    /// The source's own number of it: one that is lower than what was seen before is refused (threats A04).
    pub source_version: Option<u64>,
    /// How it is given back.
    pub undo: Option<Exchange>,
    /// The reference by which it can be given back after a crash.
    pub orphan: Option<String>,
}

/// What is known of a value that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minted {
    /// Until when it is used.
    pub expires: UnixMillis,
}

/// Why a value is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeepRefused {
    /// It does not fit where it goes, or is too short to be scrubbed.
    #[error("what the source gave cannot be sent, or is shorter than {VALUE_BYTES_MIN} bytes")]
    Unfit,
    /// It is older than what the source gave before.
    #[error("the source gave an older version than before")]
    Older,
    /// The credential was rotated or revoked meanwhile: the value is forgotten.
    #[error("the credential changed while a value was being fetched")]
    Stale,
    /// Too many are held.
    #[error("too many runs hold a value of this credential")]
    TooMany,
}

/// How one value is given back to its issuer. Holds what its request carries; wiped when it is dropped.
#[must_use]
pub struct Undo {
    /// For whom it was minted.
    pub facts: Facts,
    /// With what it was minted.
    pub selected: Selected,
    /// The request.
    pub exchange: Exchange,
    /// The reference under which it was noted, where it was.
    pub orphan: Option<String>,
    pub(crate) vessel: Vessel,
    /// Whether it is part of the act that ends the credential, which waits for it before it is acknowledged.
    pub(crate) in_act: bool,
    /// Whether it ends a login: after everything that needs the login.
    pub(crate) is_logout: bool,
}

impl Undo {
    /// Whether it comes after the others, which may need what it ends.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.is_logout
    }
}

assert_lacks!(Undo: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// What is held of all credentials.
#[derive(Default)]
pub(crate) struct MintedTokens(Mutex<IdMap<GuardKey, Tokens>>);

/// What is held of one credential.
#[derive(Default)]
struct Tokens {
    /// Oldest first.
    held: Vec<Token>,
    /// Secrets that are looked for in answers, oldest first.
    seen: VecDeque<Seen>,
    /// Logins, by run.
    sessions: IdMap<Option<RunId>, Session>,
    /// The highest of the source's own version numbers.
    highest: u64,
    /// When a value was last found not to be taken.
    spoilt: Option<Instant>,
    /// Raised when a secret is added: a scrub set of an earlier generation lacks one.
    generation: u64,
}

/// A login that later fetches may use.
struct Session {
    epoch: u64,
    vessel: Vessel,
    logout: Option<Box<Undo>>,
}

struct Token {
    run: Option<RunId>,
    tool: Option<ToolRef>,
    policy: Option<Arc<str>>,
    secret: Arc<Secret>,
    epoch: u64,
    minted: Instant,
    use_until: UnixMillis,
    /// The same by the clock that does not jump (threats R07).
    use_deadline: Instant,
    /// When its issuer takes it no more.
    ends: Instant,
    undo: Option<Box<Undo>>,
}

impl Token {
    /// Whether both are for the same calls.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        (self.epoch, &self.run, &self.tool, &self.policy) == (newer.epoch, &newer.run, &newer.tool, &newer.policy)
    }
}

struct Seen {
    run: Option<RunId>,
    secret: Arc<Secret>,
    until: Instant,
}

impl MintedTokens {
    /// The newest value of that run and epoch that may still be used.
    pub(crate) fn fresh(&self, selected: &Selected, now: UnixMillis) -> Option<Arc<Secret>> {
        let tokens = self.0.lock();
        let instant = Instant::now();
        let fresh = |token: &&Token| {
            token.epoch == selected.epoch()
                && token.run.as_ref() == selected.run()
                && token.tool.as_ref() == selected.tool()
                && token.policy.as_ref() == selected.policy()
                && now < token.use_until
                && instant < token.use_deadline
        };
        tokens.get(&selected.guard_key())?.held.iter().rfind(fresh).map(|token| Arc::clone(&token.secret))
    }

    /// A number that changes whenever a secret is added.
    pub(crate) fn generation(&self, key: &GuardKey) -> u64 {
        self.0.lock().get(key).map_or(0, |tokens| tokens.generation)
    }

    /// Every secret that is looked for in answers.
    pub(crate) fn all(&self, key: &GuardKey) -> Vec<Arc<Secret>> {
        let now = Instant::now();
        let tokens = self.0.lock();
        let Some(tokens) = tokens.get(key) else { return Vec::new() };
        let seen = tokens.seen.iter().filter(|seen| now < seen.until).map(|seen| &seen.secret);
        seen.chain(tokens.held.iter().map(|token| &token.secret)).map(Arc::clone).collect()
    }

    /// A secret that a source gave: looked for in answers from now on.
    pub(crate) fn see(&self, selected: &Selected, secret: &Arc<Secret>) {
        if secret.len() < VALUE_BYTES_MIN {
            return;
        }
        let life = Duration::from_secs(SCRUB_S_MAX);
        let seen = Seen { run: selected.run().cloned(), secret: Arc::clone(secret), until: Instant::now() + life };
        let mut all = self.0.lock();
        all.entry(selected.guard_key()).or_default().add_seen(seen);
    }

    /// Takes out what is chosen, and with it all that was seen within the same runs: it is neither leased
    /// nor looked for any more, and given back by what is returned.
    fn take(
        &self,
        chosen: impl Fn(&GuardKey, &Token) -> bool,
        sessions: impl Fn(&GuardKey, &Session) -> bool,
        runs: impl Fn(&GuardKey, &RunId) -> bool,
    ) -> Vec<Undo> {
        let mut undos = Vec::new();
        for (key, tokens) in self.0.lock().iter_mut() {
            let ended = |run: &Option<RunId>| run.as_ref().is_some_and(|run| runs(key, run));
            let before = tokens.seen.len();
            tokens.seen.retain(|seen| !ended(&seen.run));
            let taken: Vec<_> = tokens.held.extract_if(.., |token| chosen(key, token)).collect();
            if before != tokens.seen.len() || !taken.is_empty() {
                // A scrub set that was made before holds what is wiped here: another one is made when it is next asked for.
                tokens.generation = next_generation();
            }
            for mut token in taken {
                undos.extend(token.undo.take().map(|undo| *undo));
                if !ended(&token.run) {
                    // Its issuer may take a while to forget it.
                    let until = Instant::now() + Duration::from_secs(LIFE_S_DEFAULT);
                    tokens.add_seen(Seen { run: token.run, secret: token.secret, until });
                }
            }
            let over = |run: &Option<RunId>, session: &Session| ended(run) || sessions(key, session);
            let over = tokens.sessions.extract_if(|run, session| over(run, session));
            undos.extend(over.filter_map(|(_, session)| session.logout).map(|logout| *logout));
        }
        undos
    }
}

impl Tokens {
    fn add_seen(&mut self, seen: Seen) {
        let now = Instant::now();
        self.seen.retain(|seen| now < seen.until);
        // What is fetched again and again is mostly the same.
        let same = |known: &&mut Seen| known.run == seen.run && known.secret.expose() == seen.secret.expose();
        if let Some(known) = self.seen.iter_mut().find(same) {
            known.until = known.until.max(seen.until);
            return;
        }
        if self.seen.len() >= SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
        self.generation = next_generation();
    }
}

/// Never the same twice in a process, so that a credential that was forgotten and came back is not taken
/// for what it was.
fn next_generation() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
}

impl Strongbox {
    /// A vessel to begin a fetch with: what logins of the same credential, epoch and run left that lasts.
    pub fn vessel(&self, selected: &Selected) -> Vessel {
        let all = self.minted.0.lock();
        let session = all.get(&selected.guard_key()).and_then(|tokens| tokens.sessions.get(&selected.run().cloned()));
        let session = session.filter(|session| session.epoch == selected.epoch());
        session.map(|session| session.vessel.lasting()).unwrap_or_default()
    }

    /// Keeps of a fetch what later ones may use, whatever came of it; `logout` says how that ends, and under which
    /// reference it was noted.
    pub fn keep_login(
        &self,
        selected: &Selected,
        vessel: &Vessel,
        logout: Option<(Exchange, Option<String>)>,
        facts: &Facts,
    ) {
        let lasting = vessel.lasting();
        let mut all = self.minted.0.lock();
        let sessions = &mut all.entry(selected.guard_key()).or_default().sessions;
        let run = selected.run().cloned();
        if lasting.is_empty() || self.guards.is_over(&selected.guard_key(), selected.epoch()) {
            return;
        }
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&run) {
            return;
        }
        let logout = logout.map(|(exchange, orphan)| {
            let (facts, selected, vessel) = (facts.clone(), selected.clone(), vessel.shared());
            Box::new(Undo { facts, selected, exchange, orphan, vessel, in_act: false, is_logout: true })
        });
        sessions.insert(run, Session { epoch: selected.epoch(), vessel: lasting, logout });
    }

    /// Keeps what came of a fetch, for leases of the same epoch and run.
    ///
    /// # Errors
    /// [`KeepRefused`]; nothing is kept. [`Self::undo_of`], asked before, says how it is given back then.
    pub fn keep(
        &self,
        selected: &Selected,
        vessel: &Vessel,
        yielded: Yield,
        facts: &Facts,
        now: UnixMillis,
    ) -> Result<Minted, KeepRefused> {
        let secret = Arc::new(joined(selected.kind().yields(), &yielded.parts, vessel)?);
        if self.guards.is_over(&selected.guard_key(), selected.epoch()) {
            return Err(KeepRefused::Stale);
        }
        let life_s = yielded.life_s.unwrap_or(LIFE_S_DEFAULT);
        let use_max_s = yielded.use_max_s.unwrap_or(USE_S_MAX).min(USE_S_MAX);
        let use_s = (life_s - BUFFER_S.min(life_s / 4)).min(use_max_s);
        let instant = Instant::now();
        let token = Token {
            run: selected.run().cloned(),
            tool: selected.tool().cloned(),
            policy: selected.policy().cloned(),
            secret,
            epoch: selected.epoch(),
            minted: instant,
            use_until: UnixMillis(now.0.saturating_add(use_s * 1_000)),
            use_deadline: instant + Duration::from_secs(use_s),
            ends: instant + Duration::from_secs(life_s.min(SCRUB_S_MAX)),
            undo: undo(selected, vessel, &yielded, facts).map(Box::new),
        };
        let expires = token.use_until;
        let seen_until = instant + Duration::from_secs(life_s.clamp(LIFE_S_DEFAULT, SCRUB_S_MAX));
        let mut all = self.minted.0.lock();
        let tokens = all.entry(selected.guard_key()).or_default();
        if yielded.source_version.is_some_and(|version| version < tokens.highest) {
            return Err(KeepRefused::Older);
        }
        // Here and not by a timer: what is minted is what makes it grow.
        tokens.held.retain(|old| match old.undo {
            // What is to be given back is kept until it has ended by itself.
            Some(_) => instant < old.ends,
            None => instant < old.use_deadline && !old.is_replaced_by(&token),
        });
        if tokens.held.len() >= HELD_MAX {
            return Err(KeepRefused::TooMany);
        }
        tokens.highest = tokens.highest.max(yielded.source_version.unwrap_or(0));
        tokens.add_seen(Seen { run: token.run.clone(), secret: Arc::clone(&token.secret), until: seen_until });
        tokens.held.push(token);
        Ok(Minted { expires })
    }

    /// How what was stored is given back, by the credential's record as it was right before: part of the act that
    /// revokes it. None if it had no usable version.
    #[must_use]
    pub fn undo_stored(
        &self,
        facts: Facts,
        before: &CredentialRecord,
        exchange: Exchange,
        now: UnixMillis,
    ) -> Option<Undo> {
        let (selected, vessel) = (Selected::of(before, now)?, Vessel::default());
        Some(Undo { facts, selected, exchange, orphan: None, vessel, in_act: true, is_logout: false })
    }

    /// How what a fetch gave is given back, for one that cannot be kept.
    #[must_use]
    pub fn undo_of(&self, selected: &Selected, vessel: &Vessel, yielded: &Yield, facts: &Facts) -> Option<Undo> {
        undo(selected, vessel, yielded, facts)
    }

    /// What was minted and may still be used, in a vessel under this name: for asking its issuer about it.
    #[must_use]
    pub fn minted_vessel(&self, selected: &Selected, name: &'static str, now: UnixMillis) -> Option<Vessel> {
        let mut vessel = Vessel::default();
        vessel.put(name, self.minted.fresh(selected, now)?);
        Some(vessel)
    }

    /// Whether a lease of what was selected would find a value; true for what needs none.
    #[must_use]
    pub fn is_ready(&self, selected: &Selected, now: UnixMillis) -> bool {
        let is_newest = |secret: Arc<Secret>| self.svids.is_newest(selected.kind(), &secret);
        !selected.kind().is_recipe() || self.minted.fresh(selected, now).is_some_and(is_newest)
    }

    /// The upstream did not take the value that was used at that time: what was minted before is not leased again,
    /// and still looked for in answers. Says whether there is sense in another try: another value is there or may be
    /// asked for, which it may once in ten seconds, whatever an upstream answers (threats R02).
    pub fn spoil(&self, selected: &Selected, used: Instant) -> bool {
        let now = Instant::now();
        let mut all = self.minted.0.lock();
        let Some(tokens) = all.get_mut(&selected.guard_key()) else { return false };
        let same = |token: &&mut Token| token.epoch == selected.epoch() && token.run.as_ref() == selected.run();
        let live = |token: &&mut Token| token.minted <= used && now < token.use_deadline;
        let mut live: Vec<_> = tokens.held.iter_mut().filter(same).filter(live).collect();
        if live.is_empty() {
            return true;
        }
        if tokens.spoilt.is_some_and(|at| now.duration_since(at) < SPOIL_EVERY) {
            return false;
        }
        tokens.spoilt = Some(now);
        live.iter_mut().for_each(|token| token.use_deadline = now);
        true
    }

    /// Nothing that was fetched with this credential is used when it is older than this: its source may have changed
    /// unseen.
    pub fn age(&self, tenant: &TenantId, credential: &CredentialId, age_max: Duration) {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        if let Some(tokens) = self.minted.0.lock().get_mut(&key) {
            for token in &mut tokens.held {
                token.use_deadline = token.use_deadline.min(token.minted + age_max);
            }
        }
    }

    /// Whatever version of its own a credential's source gives next is taken.
    pub fn forget_source_version(&self, tenant: &TenantId, credential: &CredentialId) {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        if let Some(tokens) = self.minted.0.lock().get_mut(&key) {
            tokens.highest = 0;
        }
    }

    /// Wipes what has ended by itself, also of credentials that nothing is fetched with any more. To be called now
    /// and then.
    pub fn forget_ended(&self) {
        let now = Instant::now();
        for tokens in self.minted.0.lock().values_mut() {
            tokens.held.retain(|token| now < token.ends.max(token.use_deadline));
            tokens.seen.retain(|seen| now < seen.until);
        }
    }

    /// The longest life of what was minted with a credential and is still held.
    #[must_use]
    pub fn minted_life(&self, tenant: &TenantId, credential: &CredentialId) -> Option<Duration> {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        let minted = self.minted.0.lock();
        minted.get(&key)?.held.iter().map(|token| token.ends.saturating_duration_since(token.minted)).max()
    }

    /// Ends what was minted with a credential at an epoch below this one: part of the act that raised it, which
    /// gives back what is returned before it is acknowledged.
    pub fn end_minted(&self, tenant: &TenantId, credential: &CredentialId, epoch: u64) -> Vec<Undo> {
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        let (minted, logins) = (
            |of: &GuardKey, token: &Token| *of == key && token.epoch < epoch,
            |of: &GuardKey, session: &Session| *of == key && session.epoch < epoch,
        );
        in_act(self.minted.take(minted, logins, |_, _| false))
    }

    /// Ends what was minted within a run, and wipes it.
    pub fn end_run(&self, tenant: &TenantId, run: &RunId) -> Vec<Undo> {
        let is_of = |key: &GuardKey, of: &RunId| key.tenant == *tenant && of == run;
        self.minted.take(|key, token| token.run.as_ref().is_some_and(|of| is_of(key, of)), |_, _| false, is_of)
    }

    /// Ends all that was minted for a tenant, and forgets that it was: part of the act that ends the tenant.
    pub fn end_tenant(&self, tenant: &TenantId) -> Vec<Undo> {
        let is_of = |key: &GuardKey| key.tenant == *tenant;
        let undos = self.minted.take(|key, _| is_of(key), |key, _| is_of(key), |_, _| false);
        self.minted.0.lock().retain(|key, _| key.tenant != *tenant);
        in_act(undos)
    }
}

fn in_act(mut undos: Vec<Undo>) -> Vec<Undo> {
    undos.iter_mut().for_each(|undo| undo.in_act = true);
    undos
}

fn undo(selected: &Selected, vessel: &Vessel, yielded: &Yield, facts: &Facts) -> Option<Undo> {
    let exchange = yielded.undo.clone()?;
    let (facts, selected, vessel) = (facts.clone(), selected.clone(), vessel.shared());
    let orphan = yielded.orphan.clone();
    Some(Undo { facts, selected, exchange, orphan, vessel, in_act: false, is_logout: false })
}

/// The value, as it goes out, checked against where that is.
fn joined(yields: Yields, parts: &[&'static str], vessel: &Vessel) -> Result<Secret, KeepRefused> {
    let glue = match yields {
        Yields::Basic => b':',
        Yields::Bearer | Yields::Header | Yields::Query => b'\n',
        Yields::AwsKeys | Yields::HmacKey | Yields::JwtKey(_) | Yields::Identity => b'\n',
    };
    let parts: Option<Vec<_>> = parts.iter().map(|name| vessel.get(name)).collect();
    let parts = parts.ok_or(KeepRefused::Unfit)?;
    let length: usize = parts.iter().map(|part| part.len() + 1).sum();
    // Reserved whole, so that it is never moved while it grows.
    let mut value = Zeroizing::new(Vec::with_capacity(length));
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            value.push(glue);
        }
        value.extend_from_slice(part.expose());
    }
    let secret = Secret::take(std::mem::take(&mut *value));
    accept::check_yielded(yields, &secret).map_err(|_| KeepRefused::Unfit)?;
    Ok(secret)
}

#[cfg(test)]
#[path = "minted_tests.rs"]
mod tests;
