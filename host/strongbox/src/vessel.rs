//! A vessel: the secrets that the answers of a source left, by name, while a value is being fetched or
//! minted: a login's token, an access token, a password. Whoever asks the source can see which names are
//! filled and never what is in them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Secrets by name. Wiped when the last holder lets go.
#[derive(Default)]
#[must_use]
pub struct Vessel(HashMap<&'static str, Held>);

assert_lacks!(Vessel: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

struct Held {
    secret: Arc<Secret>,
    /// None for one that is of use in this fetch only.
    until: Option<Instant>,
}

impl Vessel {
    /// Whether there is a secret of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The secret of that name may be used by later fetches of the same credential, for so long.
    pub fn lasts(&mut self, name: &str, life: Duration) {
        if let Some(held) = self.0.get_mut(name) {
            held.until = Instant::now().checked_add(life);
        }
    }

    /// For how long the secret of that name may still be used by later fetches; none for one that is of use in this
    /// fetch only, or not there.
    #[must_use]
    pub fn remains(&self, name: &str) -> Option<Duration> {
        Some(self.0.get(name)?.until?.saturating_duration_since(Instant::now()))
    }

    /// Forgets the secret of that name, as when its issuer did not take it.
    pub fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(crate) fn put(&mut self, name: &'static str, secret: Arc<Secret>) {
        self.0.insert(name, Held { secret, until: None });
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Secret>> {
        self.0.get(name).map(|held| &held.secret)
    }

    /// All of it, for the requests that need it.
    pub(crate) fn shared(&self) -> Self {
        self.only(|_| true)
    }

    /// What later fetches may use.
    pub(crate) fn lasting(&self) -> Self {
        let now = Instant::now();
        self.only(|held| held.until.is_some_and(|until| now < until))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn only(&self, wanted: impl Fn(&Held) -> bool) -> Self {
        let kept = self.0.iter().filter(|(_, held)| wanted(held));
        Self(kept.map(|(name, held)| (*name, Held { secret: Arc::clone(&held.secret), until: held.until })).collect())
    }
}
