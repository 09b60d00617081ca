//! Minting: a credential's source is asked once at a time, however many calls wait for it; and not for a
//! moment after that has failed, so that a source that is down is not stormed (threats A03).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::CredentialId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Facts;
use keybearer_gate::Refusal;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::KeepRefused;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Yield;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::Transport;
use crate::aws;
use crate::oauth;
use crate::spiffe;
use crate::vault;
use crate::way::Way;

/// Why there is no value. No text of the source's is in it but a status and a known code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintFault {
    /// The request must not be made: the recipe is broken, or the source's address is not public.
    #[error("the request to the source is refused: {0}")]
    NotCleared(Refusal),
    /// The source will not give it: the recipe or its secret is wrong, not the moment.
    #[error("{0}")]
    Refused(AnswerRefused),
    /// The source cannot be reached, fails, talks nonsense, or too many wait for it.
    #[error("the source is unavailable")]
    Unavailable,
    /// The source tells more than is listened to.
    #[error("the source tells more than is listened to")]
    TellsTooMuch,
    /// The source did not answer in time.
    #[error("the source did not answer in time")]
    TimedOut,
    /// What the source gave is of no use.
    #[error("{0}")]
    Unusable(KeepRefused),
    /// The credential was rotated or revoked meanwhile: select again.
    #[error("the credential changed while its source was asked")]
    Stale,
    /// The source takes the stored value no more: it must be authorized again.
    #[error("the source takes the stored value no more")]
    Lapsed,
    /// A failure of the host's own: its ledger, its store.
    #[error("the request to the source could not be recorded")]
    Host,
}

/// What is wanted, and for whom.
#[derive(Clone, Copy)]
pub struct Wanted<'call> {
    /// Whose call needs it.
    pub facts: &'call Facts,
    /// The recipe, as the store has it now.
    pub record: &'call CredentialRecord,
    /// The version and epoch that it is to be fetched or minted with.
    pub selected: &'call Selected,
    /// Whether a change at the source would be told. If not, what may change unseen is used for a short time only.
    pub watched: bool,
    /// When the call gives up.
    pub deadline: Instant,
    /// Until when what is minted is wanted: the end of its run, or of its call.
    pub until: Instant,
}

/// For how long a fetched value is used at most, in seconds, while its source may have changed unseen.
pub const UNWATCHED_S: u64 = 30;
/// A renewal goes on for so long, also if nobody waits for it any more.
const RENEWAL_MAX: Duration = Duration::from_secs(30);

/// For how long a failure is the answer to everyone who asks.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// Calls that wait for one value. More are turned away at once: when the source is slow they would all
/// time out together.
const WAITING_MAX: usize = 256;

/// Failures that are remembered; each is of no interest after [`FAILURE_HOLDS`].
const REMEMBERED_MAX: usize = 1024;

/// The fetches of one node.
#[derive(Default)]
pub struct Mints {
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    credential: CredentialId,
    epoch: u64,
    run: Option<RunId>,
    tool: Option<ToolRef>,
    policy: Option<Arc<str>>,
}

#[derive(Default)]
struct Flight {
    /// Held by whoever asks the source. If he goes away, the next in line asks.
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

    /// Sees to it that the strongbox has a fresh value for what was selected: at once if it has one,
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
        if strongbox.is_over(selected) {
            return Err(MintFault::Stale);
        }
        // An answer that nobody waits for any more would be the only copy of what is stored next.
        let asked_until = if selected.kind().renews_itself() { Instant::now() + RENEWAL_MAX } else { deadline };
        let wanted = Wanted { deadline: asked_until, ..wanted };
        let minted = ask(wanted, strongbox, transport).await;
        match &minted {
            // His own time was up; that says nothing about the source.
            Err(MintFault::TimedOut) if Instant::now() >= asked_until => {}
            // It was renewed: select again.
            Err(MintFault::Stale) if selected.kind().renews_itself() => self.land(selected),
            // No source was asked, and an SVID that comes is used at once.
            Err(MintFault::NotCleared(Refusal::NoSvid { .. })) => {}
            Err(fault) => {
                let (tenant, credential) = (selected.tenant(), selected.credential());
                tracing::warn!(%tenant, %credential, %fault, "the source gave nothing");
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

    /// Who waits has the flight in hand already, and finds the value; who comes later finds it, too.
    fn land(&self, selected: &Selected) {
        self.flights.lock().remove(&key(selected));
    }
}

fn key(selected: &Selected) -> Key {
    let (tenant, credential) = (selected.tenant().clone(), selected.credential().clone());
    // A value that renews itself raises the epoch while its source is asked; still it is asked once at a time.
    let epoch = if selected.kind().renews_itself() { 0 } else { selected.epoch() };
    let (run, tool, policy) = (selected.run().cloned(), selected.tool().cloned(), selected.policy().cloned());
    Key { tenant, credential, epoch, run, tool, policy }
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
    let Wanted { facts, record, selected, .. } = wanted;
    let mut way = Way::new(wanted, strongbox, transport);
    let yielded = match &record.kind {
        CredentialKind::OauthClientCredentials(client) => oauth::client_credentials(client, &mut way).await?,
        CredentialKind::AwsRole(recipe) => aws::role(recipe, &mut way).await?,
        CredentialKind::AwsSecret(recipe) => aws::secret(recipe, &mut way).await?,
        CredentialKind::VaultKv(recipe) => vault::read(recipe, &mut way).await?,
        CredentialKind::VaultDatabase(recipe) => vault::account(recipe, &mut way).await?,
        CredentialKind::OauthRefreshToken(client) => oauth::refresh(client, &mut way).await?,
        CredentialKind::OauthTokenExchange(exchange) => oauth::exchange(exchange, &mut way).await?,
        CredentialKind::OauthJwtBearer(assertion) => oauth::jwt_bearer(assertion, &mut way).await?,
        CredentialKind::SpiffeX509(recipe) => spiffe::x509(recipe, &mut way)?,
        CredentialKind::SpiffeJwt(recipe) => spiffe::jwt(recipe, &mut way).await?,
        // What is stored is what goes out: a strongbox that says it is not ready is not ours.
        CredentialKind::Bearer
        | CredentialKind::Basic
        | CredentialKind::Header
        | CredentialKind::Query
        | CredentialKind::AwsKeys
        | CredentialKind::HmacKey
        | CredentialKind::JwtKey(_) => return Err(MintFault::Stale),
    };
    let mut yielded = yielded;
    if record.kind.changes_unseen() && !wanted.watched {
        yielded.use_max_s = Some(yielded.use_max_s.unwrap_or(u64::MAX).min(UNWATCHED_S));
    }
    let renewed = way.renewed();
    let is_renewed = renewed.as_ref().is_some_and(|renewed| renewed.epoch() != selected.epoch());
    let selected = renewed.as_ref().unwrap_or(selected);
    let to_undo = strongbox.undo_of(selected, way.vessel(), &yielded, facts);
    let noted = note(&yielded, selected, facts, transport).await;
    let kept = noted.and_then(|()| {
        let kept = strongbox.keep(selected, way.vessel(), yielded, facts, UnixMillis::now());
        kept.map(drop).map_err(|refused| match refused {
            KeepRefused::Stale => MintFault::Stale,
            refused => MintFault::Unusable(refused),
        })
    });
    if kept.is_err()
        && let Some(undo) = to_undo
        && let Err(fault) = crate::undo(&undo, strongbox, transport).await
    {
        tracing::warn!(%fault, "what was minted in vain was not given back: it ends by itself");
    }
    if is_renewed { kept.and(Err(MintFault::Stale)) } else { kept }
}

/// What must be written down before the value is used.
async fn note(
    yielded: &Yield,
    selected: &Selected,
    facts: &Facts,
    transport: &impl Transport,
) -> Result<(), MintFault> {
    // First, for what is not used is given back as well after a crash.
    if let Some(reference) = &yielded.orphan {
        transport.note(facts, selected, reference, yielded.life_s.unwrap_or(ORPHAN_LIFE_S)).await?;
    }
    match yielded.source_version {
        Some(version) => transport.note_version(selected, version).await,
        None => Ok(()),
    }
}

/// For what its issuer names no life of.
const ORPHAN_LIFE_S: u64 = 24 * 3_600;

/// Gives back what an earlier process minted and left behind.
///
/// # Errors
/// [`MintFault`]: its issuer still takes it.
pub async fn reap(
    wanted: Wanted<'_>,
    reference: &str,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Result<(), MintFault> {
    let mut way = Way::new(wanted, strongbox, transport);
    match &wanted.record.kind {
        CredentialKind::VaultDatabase(recipe) => vault::reap(&recipe.server, reference, &mut way).await,
        // No other recipe leaves a reference.
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "mint_tests.rs"]
mod tests;
