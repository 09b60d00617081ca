//! Orphans: what was minted and could not be given back, by this process or by one before it that was
//! killed. They are given back as soon as their issuer can be asked, until they end by themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::OrphanRecord;
use keybearer_sources::MintFault;
use keybearer_sources::Wanted;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Undo;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Executor;
use crate::mint::Way;

/// What waits to be given back.
#[derive(Default)]
pub(crate) struct Orphans {
    waiting: parking_lot::Mutex<Vec<OrphanRecord>>,
    added: Notify,
}

/// An issuer that could not be asked is asked again after this, doubled each time up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(1);

/// Most leases live for longer; one that does not ends by itself.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A login and a revocation: an issuer answers both in well under a second.
const REAP_MAX: Duration = Duration::from_secs(20);

/// Issuers that are asked at once: one that hangs holds the others up no longer than this allows.
const AT_ONCE: usize = 16;

/// More than can be noted; beyond this they end by themselves.
const WAITING_MAX: usize = 100_000;

impl Executor {
    /// Writes down what is about to be used, so that it can be given back whatever becomes of this process.
    pub(crate) async fn note_orphan(
        &self,
        facts: &keybearer_gate::Facts,
        selected: &Selected,
        reference: &str,
        life_s: u64,
    ) -> Result<(), MintFault> {
        let now = UnixMillis::now();
        let orphan = OrphanRecord {
            facts: facts.clone(),
            credential: selected.credential().clone(),
            reference: reference.to_owned(),
            ends: UnixMillis(now.0.saturating_add(life_s.saturating_mul(1_000))),
        };
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.note_orphan(&orphan, now)).await.map_err(|_| MintFault::Host)
    }

    /// What was to be given back was: nothing is left of it at its issuer. Or it was not, and waits for another try.
    pub(crate) async fn settle_orphan(&self, undo: &Undo, is_given_back: bool) {
        let Some(reference) = undo.orphan.clone() else { return };
        let (tenant, credential) = (undo.selected.tenant().clone(), undo.selected.credential().clone());
        if is_given_back {
            self.forget_orphan(tenant, credential, reference).await;
            return;
        }
        let orphans = self.store.orphans(UnixMillis::now()).unwrap_or_default();
        let own = orphans.into_iter().filter(|orphan| orphan.credential == credential && orphan.reference == reference);
        self.orphans.add(own);
    }

    async fn forget_orphan(
        &self,
        tenant: keybearer_contract::TenantId,
        credential: keybearer_contract::CredentialId,
        reference: String,
    ) {
        let store = Arc::clone(&self.store);
        let forgotten = crate::blocking(move || store.forget_orphan(&tenant, &credential, &reference)).await;
        if forgotten.is_err() {
            tracing::warn!("what was given back is still noted: it is given back once more after the next start");
        }
    }

    /// Gives back what an earlier process left, and from now on what this one could not give back at once.
    pub(crate) fn reap_orphans(self: &Arc<Self>) {
        let left = self.store.orphans(UnixMillis::now()).unwrap_or_else(|error| {
            tracing::error!(%error, "what an earlier process left at issuers is not known: it ends by itself");
            Vec::new()
        });
        if !left.is_empty() {
            tracing::warn!(count = left.len(), "an earlier process left minted values behind: they are given back");
        }
        self.orphans.add(left.into_iter());
        let (executor, orphans) = (Arc::downgrade(self), Arc::clone(&self.orphans));
        tokio::spawn(async move {
            let mut pause = PAUSE;
            loop {
                if orphans.waiting.lock().is_empty() {
                    orphans.added.notified().await;
                }
                let Some(executor) = executor.upgrade() else { return };
                if executor.stopping.load(Ordering::Acquire) {
                    return;
                }
                let waiting = std::mem::take(&mut *orphans.waiting.lock());
                let before = waiting.len();
                let left = executor.reap(waiting).await;
                drop(executor);
                pause = if left.len() < before { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
                if !left.is_empty() {
                    tokio::time::sleep(pause).await;
                    orphans.add(left.into_iter());
                }
            }
        });
    }

    /// Tries each once; returns those that are left.
    async fn reap(&self, waiting: Vec<OrphanRecord>) -> Vec<OrphanRecord> {
        use futures_util::StreamExt as _;
        let tried = futures_util::stream::iter(waiting).map(|orphan| self.reap_or_leave(orphan));
        tried.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn reap_or_leave(&self, orphan: OrphanRecord) -> Option<OrphanRecord> {
        let OrphanRecord { facts, credential, reference, ends } = &orphan;
        let (tenant, is_over) = (&facts.tenant, *ends <= UnixMillis::now());
        match if is_over { Ok(()) } else { self.reap_one(&orphan).await } {
            Ok(()) => {
                tracing::info!(%tenant, %credential, is_over, "a minted value that was left behind is gone");
                self.forget_orphan(tenant.clone(), credential.clone(), reference.clone()).await;
                None
            }
            // Revoked meanwhile: there is nothing left to ask its issuer with.
            Err(fault @ (MintFault::Stale | MintFault::NotCleared(_))) => {
                tracing::warn!(%tenant, %credential, %fault, "a minted value cannot be given back: it ends by itself");
                None
            }
            Err(fault) => {
                tracing::warn!(%tenant, %credential, %fault, "a minted value is not given back yet");
                Some(orphan)
            }
        }
    }

    async fn reap_one(&self, orphan: &OrphanRecord) -> Result<(), MintFault> {
        let OrphanRecord { facts, credential, reference, .. } = orphan;
        let record = self.store.credential(&facts.tenant, credential).ok_or(MintFault::Stale)?;
        let selected = self.strongbox.select(&facts.tenant, credential, UnixMillis::now());
        let selected = selected.map_err(|_| MintFault::Stale)?;
        let deadline = Instant::now() + REAP_MAX;
        let wanted = Wanted { facts, record: &record, selected: &selected, watched: false, deadline, until: deadline };
        keybearer_sources::reap(wanted, reference, &self.strongbox, &Way(self)).await
    }
}

impl Orphans {
    fn add(&self, orphans: impl Iterator<Item = OrphanRecord>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(orphans);
        waiting.truncate(WAITING_MAX);
        if !waiting.is_empty() {
            self.added.notify_one();
        }
    }
}
