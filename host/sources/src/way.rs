//! The way to a source, as its code sees it: it asks, and hears facts. Secrets that are answered go to
//! the vessel, which the code names and cannot open.

use std::future::Future;
use std::time::Duration;

use keybearer_contract::RunId;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::Facts;
use keybearer_gate::Ingredient;
use keybearer_gate::SpiffeId;
use keybearer_gate::clear_exchange;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Raw;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Told;
use keybearer_strongbox::Undo;
use keybearer_strongbox::Vessel;
use keybearer_strongbox::scrub_text;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::MintFault;
use crate::Wanted;
use crate::WorkloadApi;
use crate::spiffe::no_svid;
use crate::tidings::Listen;

/// The way of one request to a source: vetted address, intent, lease, dispatch.
pub trait Transport: Keeper {
    /// Sends it, with what is stored and what the vessel holds, and gives the answer, unread.
    fn exchange(
        &self,
        request: Cleared,
        selected: &Selected,
        vessel: &Vessel,
        deadline: Instant,
    ) -> impl Future<Output = Result<Raw, MintFault>> + Send;

    /// The host's Workload API, if the operator named one.
    fn workload(&self) -> Option<&WorkloadApi> {
        None
    }

    /// Writes down, before it is used, by which reference what was minted can be given back after a crash, and for
    /// how long that is of interest. One that cannot write does not mint such things.
    fn note(
        &self,
        _facts: &Facts,
        _selected: &Selected,
        _reference: &str,
        _life_s: u64,
    ) -> impl Future<Output = Result<(), MintFault>> + Send {
        std::future::ready(Err(MintFault::Host))
    }

    /// Takes note, before its value is used, of a version that a source gave. One that cannot take note uses no such value.
    ///
    /// # Errors
    /// [`MintFault::Unusable`] if a higher one was given before, also to an earlier process.
    fn note_version(&self, _selected: &Selected, _version: u64) -> impl Future<Output = Result<(), MintFault>> + Send {
        std::future::ready(Err(MintFault::Host))
    }

    /// Sends what gives a minted value back, with what the vessel of its fetch holds and nothing that is stored.
    fn give_back(
        &self,
        request: Cleared,
        undo: &Undo,
        deadline: Instant,
    ) -> impl Future<Output = Result<Raw, MintFault>> + Send;
}

/// A source answers in well under a second; a call has thirty. Beyond this it is down.
pub(crate) const EXCHANGE_MAX: Duration = Duration::from_secs(10);

/// Where what a source gives instead of what is stored is put down.
pub trait Keeper: Send + Sync {
    /// Notes that the stored value is about to be replaced, before its source is asked.
    fn begin_renewal(&self, _selected: &Selected) -> impl Future<Output = Result<(), MintFault>> + Send {
        async { Err(MintFault::Host) }
    }

    /// Stores what is made of these parts as the next version: what is selected from now on. Of no parts: what is
    /// stored stays.
    fn renew(
        &self,
        _selected: &Selected,
        _vessel: &Vessel,
        _parts: &[Ingredient],
    ) -> impl Future<Output = Result<Selected, MintFault>> + Send {
        async { Err(MintFault::Host) }
    }

    /// The source takes the stored value no more: it is not used again.
    fn lapse(&self, _selected: &Selected) -> impl Future<Output = Result<(), MintFault>> + Send {
        async { Err(MintFault::Host) }
    }
}

/// What the code of a source works with.
pub(crate) struct Way<'mint, T> {
    wanted: Wanted<'mint>,
    strongbox: &'mint Strongbox,
    transport: &'mint T,
    vessel: Vessel,
    renewed: Option<Selected>,
}

impl<'mint, T: Transport> Way<'mint, T> {
    pub(crate) fn new(wanted: Wanted<'mint>, strongbox: &'mint Strongbox, transport: &'mint T) -> Self {
        let vessel = strongbox.vessel(wanted.selected);
        Self { wanted, strongbox, transport, vessel, renewed: None }
    }

    /// One with what is known already.
    pub(crate) fn with(
        wanted: Wanted<'mint>,
        strongbox: &'mint Strongbox,
        transport: &'mint T,
        vessel: Vessel,
    ) -> Self {
        Self { wanted, strongbox, transport, vessel, renewed: None }
    }

    /// Sends one request and reads its answer.
    pub(crate) async fn ask(&mut self, exchange: Exchange) -> Result<Told, MintFault> {
        let Wanted { facts, record, selected, deadline, .. } = self.wanted;
        let shape = exchange.answer.clone();
        let request = clear_exchange(facts, record, exchange).map_err(MintFault::NotCleared)?;
        let deadline = deadline.min(Instant::now() + EXCHANGE_MAX);
        let exchanged = self.transport.exchange(request, selected, &self.vessel, deadline);
        let raw = timeout_at(deadline, exchanged).await.map_err(|_| MintFault::TimedOut)??;
        Ok(self.strongbox.read_answer(raw, &shape, selected, &mut self.vessel)?)
    }

    /// A text of the source's without what is stored in the credential, or was minted with it: it may be shown. If one
    /// of these cannot be looked for, nothing is left of the text.
    pub(crate) fn scrubbed(&self, text: &str) -> String {
        let selected = self.wanted.selected;
        let set = self.strongbox.scrub_set(selected.tenant(), std::slice::from_ref(selected.credential()));
        let mut text = text.to_owned();
        scrub_text(&set, &mut text);
        text
    }

    /// Sends one request that opens a connection on which the source tells things.
    pub(crate) async fn listen(&mut self, exchange: Exchange) -> Result<T::Messages, MintFault>
    where
        T: Listen,
    {
        let Wanted { facts, record, selected, deadline, .. } = self.wanted;
        let request = clear_exchange(facts, record, exchange).map_err(MintFault::NotCleared)?;
        let deadline = deadline.min(Instant::now() + EXCHANGE_MAX);
        let listening = self.transport.listen(request, selected, &self.vessel, deadline);
        timeout_at(deadline, listening).await.map_err(|_| MintFault::TimedOut)?
    }

    /// For whose call it is.
    pub(crate) fn facts(&self) -> &Facts {
        self.wanted.facts
    }

    /// What was selected to be minted.
    pub(crate) fn selected(&self) -> &Selected {
        self.wanted.selected
    }

    /// For how many seconds, begun ones too, what is minted is wanted.
    pub(crate) fn wanted_s(&self) -> u64 {
        self.wanted.until.saturating_duration_since(Instant::now()).as_secs() + 1
    }

    /// The run that what is minted is confined to.
    pub(crate) fn run(&self) -> Option<&RunId> {
        self.wanted.selected.run()
    }

    /// The secret of that name may be used by later fetches of the same credential, for so long; `logout` is
    /// sent when they no longer may, and then `orphan` is forgotten, if the login was noted.
    pub(crate) fn stay_logged_in(
        &mut self,
        name: &str,
        life: Duration,
        logout: Option<Exchange>,
        orphan: Option<String>,
    ) {
        self.vessel.lasts(name, life);
        let Wanted { facts, selected, .. } = self.wanted;
        self.strongbox.keep_login(selected, &self.vessel, logout.map(|logout| (logout, orphan)), facts);
    }

    /// Writes down by which reference a login can be ended after a crash, before anything is made with it.
    pub(crate) async fn note(&self, reference: &str, life_s: u64) -> Result<(), MintFault> {
        let Wanted { facts, selected, .. } = self.wanted;
        self.transport.note(facts, selected, reference, life_s).await
    }

    /// What the recipe is, as the store has it now.
    pub(crate) fn kind(&self) -> &CredentialKind {
        &self.wanted.record.kind
    }

    /// Notes that what is stored is about to be replaced.
    pub(crate) async fn begin_renewal(&mut self) -> Result<(), MintFault> {
        self.transport.begin_renewal(self.wanted.selected).await
    }

    /// Stores what is made of these parts as the credential's next version, before anything else is done.
    pub(crate) async fn renew(&mut self, parts: &[Ingredient]) -> Result<(), MintFault> {
        let renewed = self.transport.renew(self.wanted.selected, &self.vessel, parts).await?;
        self.renewed = Some(renewed);
        Ok(())
    }

    /// What is stored is of no use any more.
    pub(crate) async fn lapse(&mut self) -> Result<(), MintFault> {
        self.transport.lapse(self.wanted.selected).await
    }

    /// What was stored instead, if anything was.
    pub(crate) fn renewed(&self) -> Option<Selected> {
        self.renewed.clone()
    }

    /// What the answers left, at the end.
    pub(crate) fn into_vessel(self) -> Vessel {
        self.vessel
    }

    /// The Workload API, if this tenant may use that id.
    pub(crate) fn workload_of(&self, id: &SpiffeId) -> Result<&'mint WorkloadApi, MintFault> {
        let api = self.transport.workload().filter(|api| api.is_for(self.wanted.selected.tenant(), id));
        api.ok_or_else(|| no_svid(id))
    }

    /// When a request to a source is given up.
    pub(crate) fn deadline(&self) -> Instant {
        self.wanted.deadline.min(Instant::now() + EXCHANGE_MAX)
    }

    /// For what the strongbox itself puts into the vessel.
    pub(crate) fn strongbox_and_vessel(&mut self) -> (&'mint Strongbox, &mut Vessel) {
        (self.strongbox, &mut self.vessel)
    }

    /// What the answers left so far.
    pub(crate) fn vessel(&mut self) -> &mut Vessel {
        &mut self.vessel
    }
}

/// Gives a minted value back to its issuer.
///
/// # Errors
/// [`MintFault`]: the issuer may still take it until it ends by itself.
pub async fn undo(undo: &Undo, strongbox: &Strongbox, transport: &impl Transport) -> Result<(), MintFault> {
    let record = strongbox.record_of(undo).ok_or(MintFault::Stale)?;
    let shape = undo.exchange.answer.clone();
    let request = clear_exchange(&undo.facts, &record, undo.exchange.clone()).map_err(MintFault::NotCleared)?;
    let deadline = Instant::now() + UNDO_MAX;
    let raw = timeout_at(deadline, transport.give_back(request, undo, deadline)).await;
    let raw = raw.map_err(|_| MintFault::TimedOut)??;
    strongbox.read_answer(raw, &shape, &undo.selected, &mut Vessel::default())?;
    Ok(())
}

/// A revocation waits for this; whoever revokes does not want to wait for an issuer that is down.
const UNDO_MAX: Duration = Duration::from_secs(3);

impl From<AnswerRefused> for MintFault {
    fn from(refused: AnswerRefused) -> Self {
        match refused {
            // 408 and 429 are of the moment; every other 4xx is of the client (RFC 6749 §5.2).
            AnswerRefused::Status { status: 400..=407 | 409..=428 | 430..=499, .. } => Self::Refused(refused),
            _ => {
                tracing::debug!(%refused, "the source's answer is of no use");
                Self::Unavailable
            }
        }
    }
}
