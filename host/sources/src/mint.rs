//! Minting: one token request at a time for a credential, whoever many calls wait for it; and none for a
//! moment after one has failed, so that an endpoint that is down is not stormed (threats A03).

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Facts;
use keybearer_gate::Refusal;
use keybearer_strongbox::Raw;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::TokenRefused;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio::time::timeout_at;

/// Why there is no token. No text of the endpoint's is in it but a status and a code of the standard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintFault {
    /// The token request must not be made: the recipe is broken, or the endpoint's address is not public.
    #[error("the token request is refused: {0}")]
    NotCleared(Refusal),
    /// The endpoint will not give one: the client is wrong, not the moment.
    #[error("{0}")]
    Refused(TokenRefused),
    /// The endpoint cannot be reached, fails, talks nonsense, or too many wait for it.
    #[error("the token endpoint is unavailable")]
    Unavailable,
    /// The endpoint did not answer in time.
    #[error("the token endpoint did not answer in time")]
    TimedOut,
    /// The credential was rotated or revoked meanwhile: select again.
    #[error("the credential changed while a token was being minted")]
    Stale,
    /// A failure of the host's own: its ledger, its store.
    #[error("the token request could not be recorded")]
    Host,
}

/// Which token is wanted, and for whom.
#[derive(Clone, Copy)]
pub struct Wanted<'call> {
    /// Whose call needs it.
    pub facts: &'call Facts,
    /// The recipe, as the store has it now.
    pub record: &'call CredentialRecord,
    /// The version and epoch that the token is to be minted with.
    pub selected: &'call Selected,
    /// When the call gives up.
    pub deadline: Instant,
}

/// The way of one token request: vetted address, intent, lease of the client's secret, dispatch.
pub trait Transport: Send + Sync {
    /// Sends it and gives the answer, unread.
    fn exchange(
        &self,
        request: Cleared,
        selected: &Selected,
        deadline: Instant,
    ) -> impl Future<Output = Result<Raw, MintFault>> + Send;
}

/// A token endpoint answers in well under a second; a call has thirty. Beyond this it is down.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// For how long a failure is the answer to everyone who asks.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// Calls that wait for one token. More are turned away at once: when the endpoint is slow they would all
/// time out together.
const WAITING_MAX: usize = 256;

/// Failures that are remembered; each is of no interest after [`FAILURE_HOLDS`].
const REMEMBERED_MAX: usize = 1024;

/// The token requests of one node.
#[derive(Default)]
pub struct Mints {
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    credential: CredentialId,
    epoch: u64,
}

#[derive(Default)]
struct Flight {
    /// Held by whoever asks the endpoint. If he goes away, the next in line asks.
    turn: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    failed: Mutex<Option<(Instant, MintFault)>>,
}

impl Mints {
    /// None in flight.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sees to it that the strongbox has a fresh token for what was selected: at once if it has one,
    /// with the answer to a request that is under way, or by a request of its own.
    ///
    /// # Errors
    /// [`MintFault`]; the same for all who waited, for a second.
    pub async fn mint(
        &self,
        wanted: Wanted<'_>,
        strongbox: &Strongbox,
        transport: &impl Transport,
    ) -> Result<(), MintFault> {
        let Wanted { record, selected, deadline, .. } = wanted;
        if strongbox.is_ready(selected, UnixMillis::now()) {
            return Ok(());
        }
        let is_same = record.id == *selected.credential() && record.tenant == *selected.tenant();
        if !is_same || record.epoch != selected.epoch() {
            return Err(MintFault::Stale);
        }
        let flight = self.flight(selected);
        let _waiting = flight.wait()?;
        let _turn = timeout_at(deadline, flight.turn.lock()).await.map_err(|_| MintFault::TimedOut)?;
        if strongbox.is_ready(selected, UnixMillis::now()) {
            return Ok(());
        }
        if let Some(fault) = flight.recent_failure() {
            return Err(fault);
        }
        let minted = ask(wanted, strongbox, transport).await;
        match &minted {
            // His own time was up; that says nothing about the endpoint.
            Err(MintFault::TimedOut) if Instant::now() >= deadline => {}
            Err(fault) => {
                let (tenant, credential) = (selected.tenant(), selected.credential());
                tracing::warn!(%tenant, %credential, %fault, "no token was minted");
                *flight.failed.lock() = Some((Instant::now(), fault.clone()));
            }
            Ok(()) => self.land(selected),
        }
        minted
    }

    fn flight(&self, selected: &Selected) -> Arc<Flight> {
        let mut flights = self.flights.lock();
        if flights.len() >= REMEMBERED_MAX {
            // Kept: what somebody waits for, and what failed just now.
            flights.retain(|_, flight| Arc::strong_count(flight) > 1 || flight.recent_failure().is_some());
        }
        Arc::clone(flights.entry(key(selected)).or_default())
    }

    /// Who waits has the flight in hand already, and finds the token; who comes later finds the token.
    fn land(&self, selected: &Selected) {
        self.flights.lock().remove(&key(selected));
    }
}

fn key(selected: &Selected) -> Key {
    Key { tenant: selected.tenant().clone(), credential: selected.credential().clone(), epoch: selected.epoch() }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Flight {
    fn wait(&self) -> Result<Waiting<'_>, MintFault> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= WAITING_MAX { Err(MintFault::Unavailable) } else { Ok(waiting) }
    }

    fn recent_failure(&self) -> Option<MintFault> {
        let failed = self.failed.lock();
        failed.as_ref().filter(|(when, _)| when.elapsed() < FAILURE_HOLDS).map(|(_, fault)| fault.clone())
    }
}

async fn ask(wanted: Wanted<'_>, strongbox: &Strongbox, transport: &impl Transport) -> Result<(), MintFault> {
    let Wanted { facts, record, selected, deadline } = wanted;
    let request = keybearer_gate::clear_mint(facts, record).map_err(MintFault::NotCleared)?;
    let deadline = deadline.min(Instant::now() + EXCHANGE_MAX);
    let exchanged = timeout_at(deadline, transport.exchange(request, selected, deadline)).await;
    let raw = exchanged.map_err(|_| MintFault::TimedOut)??;
    match strongbox.read_token_answer(raw, selected, UnixMillis::now()) {
        Ok(_) => Ok(()),
        Err(TokenRefused::Stale) => Err(MintFault::Stale),
        // 408 and 429 are of the moment; every other 4xx is of the client (RFC 6749 §5.2).
        Err(refused @ TokenRefused::Status { status: 400..=407 | 409..=428 | 430..=499, .. }) => {
            Err(MintFault::Refused(refused))
        }
        Err(refused) => {
            tracing::debug!(%refused, "the token endpoint's answer is of no use");
            Err(MintFault::Unavailable)
        }
    }
}

#[cfg(test)]
#[path = "mint_tests.rs"]
mod tests;
