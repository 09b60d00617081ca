//! Minting: the host's own request to a source of secrets goes the way of a guest's: cleared, vetted, its
//! intent recorded, leased, placed, sent, its outcome recorded. What the source answers goes to the
//! strongbox unread, and reaches no guest.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::Delivery;
use keybearer_contract::UnixMillis;
use keybearer_egress::Opened;
use keybearer_egress::SendFault;
use keybearer_egress::SendLimits;
use keybearer_egress::Vetted;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::Facts;
use keybearer_gate::How;
use keybearer_gate::Refusal;
use keybearer_ledger::DispatchEntry;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Fault;
use keybearer_ledger::Intent;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Purpose;
use keybearer_sandbox::UpstreamReason;
use keybearer_sources::Listen;
use keybearer_sources::MintFault;
use keybearer_sources::Transport;
use keybearer_sources::UNWATCHED_S;
use keybearer_sources::Wanted;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Armed;
use keybearer_strongbox::KeepRefused;
use keybearer_strongbox::Lease;
use keybearer_strongbox::LeaseRefused;
use keybearer_strongbox::Raw;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Undo;
use keybearer_strongbox::Vessel;
use tokio::time::Instant;

use crate::Executor;
use crate::dispatch::Stopped;
use crate::dispatch::upstream;
use crate::renewal::facts_of_act;

/// What a source may answer: a value and a few words (the strongbox reads no more than 64 KiB).
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// When a source is given up, and until when what it gives is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) deadline: Instant,
    pub(crate) until: Instant,
}

impl Times {
    /// What is asked for now and of no call's.
    pub(crate) fn of(deadline: Instant) -> Self {
        Self { deadline, until: deadline }
    }
}

impl Executor {
    /// Sees to it that a fresh value is there for what was selected.
    pub(crate) async fn mint(
        self: &Arc<Self>,
        facts: &Facts,
        selected: &Selected,
        times: Times,
    ) -> Result<(), Stopped> {
        if !selected.kind().renews_itself() {
            return self.mint_now(facts, selected, times).await;
        }
        // A task of its own: an answer that is lost because nobody waits any more is the only copy of what is
        // stored next.
        let (executor, facts, selected) = (Arc::clone(self), facts.clone(), selected.clone());
        let running = self.running.token();
        let minting = tokio::spawn(async move {
            let _running = running;
            executor.mint_now(&facts, &selected, times).await
        });
        minting.await.unwrap_or_else(|_| Err(crate::dispatch::HOST_NOT_SENT.into()))
    }

    /// The same, in the caller's own task: for what does not renew itself.
    pub(crate) async fn mint_now(&self, facts: &Facts, selected: &Selected, times: Times) -> Result<(), Stopped> {
        let record = self.store.credential(&facts.tenant, selected.credential()).ok_or(Refusal::Stale)?;
        let (began, Times { deadline, until }) = (Instant::now(), times);
        let watched = self.source_watched_since(&record).is_some();
        let wanted = Wanted { facts, record: &record, selected, watched, deadline, until };
        self.mints.mint(wanted, &self.strongbox, &Way(self)).await.map_err(|fault| match fault {
            MintFault::NotCleared(refusal) => Stopped::Refused(refusal),
            // Lapsed: the next look finds it so, and says so.
            MintFault::Stale | MintFault::Lapsed => Stopped::Refused(Refusal::Stale),
            MintFault::TimedOut => upstream(UpstreamReason::Timeout, Delivery::NotSent).into(),
            MintFault::Host => crate::dispatch::HOST_NOT_SENT.into(),
            // What the source said is in the ledger, not in the guest's ear: the guest's own request was not sent.
            _ => upstream(UpstreamReason::Unreachable, Delivery::NotSent).into(),
        })?;
        let was_heard_all_along = self.source_watched_since(&record).is_some_and(|since| since <= began);
        if record.kind.changes_unseen() && !was_heard_all_along {
            // While it was asked its source fell silent, if only for a while, and what was there aged: so does this.
            self.strongbox.age(&facts.tenant, selected.credential(), Duration::from_secs(UNWATCHED_S));
        }
        if let Some(life) = self.strongbox.minted_life(&facts.tenant, selected.credential()) {
            self.uses.note_minted(&facts.tenant, selected.credential(), life.as_secs(), UnixMillis::now());
        }
        Ok(())
    }
}

/// The way out, as the sources see it.
pub(crate) struct Way<'executor>(pub(crate) &'executor Executor);

impl Transport for Way<'_> {
    fn workload(&self) -> Option<&keybearer_sources::WorkloadApi> {
        self.0.workload.get().map(std::convert::AsRef::as_ref)
    }

    async fn note(&self, facts: &Facts, selected: &Selected, reference: &str, life_s: u64) -> Result<(), MintFault> {
        self.0.note_orphan(facts, selected, reference, life_s).await
    }

    async fn note_version(&self, selected: &Selected, version: u64) -> Result<(), MintFault> {
        let (store, tenant, id) = (Arc::clone(&self.0.store), selected.tenant().clone(), selected.credential().clone());
        let noted = crate::blocking(move || store.note_source_version(&tenant, &id, version)).await;
        noted.map_err(|problem| match problem.code {
            Code::Conflict => MintFault::Unusable(KeepRefused::Older),
            _ => MintFault::Host,
        })
    }

    async fn exchange(
        &self,
        cleared: Cleared,
        selected: &Selected,
        vessel: &Vessel,
        deadline: Instant,
    ) -> Result<Raw, MintFault> {
        // A mint is a request of the call that needs it: what stops the call stops it.
        let held = self.0.holders.find(&cleared.facts().call);
        let under_way = held.as_ref().map(|held| held.begin(None));
        let lease = |intent: &Intent| {
            if held.as_ref().is_some_and(|held| held.is_stopped()) {
                return Err(LeaseRefused::Stale);
            }
            let lease = self.0.strongbox.lease_source(selected.clone(), vessel, intent, UnixMillis::now())?;
            Ok(match &under_way {
                Some((_, rider)) => lease.carrying(std::sync::Arc::clone(rider)),
                None => lease,
            })
        };
        let svid = match cleared.attach().map(|attach| &attach.how) {
            Some(How::Exchange(carried)) => self.0.strongbox.svid_carried(carried, selected, vessel),
            _ => Ok(None),
        };
        let why = Why { purpose: Purpose::Mint, svid: svid.map_err(|_| MintFault::Stale)? };
        self.send(cleared, selected, why, deadline, lease).await
    }

    async fn give_back(&self, cleared: Cleared, undo: &Undo, deadline: Instant) -> Result<Raw, MintFault> {
        let lease = |intent: &Intent| self.0.strongbox.lease_undo(undo, intent);
        let why = Why { purpose: Purpose::GiveBack, svid: None };
        self.send(cleared, &undo.selected, why, deadline, lease).await
    }
}

/// What the record says of a request to a source beside what was cleared and selected.
struct Why {
    purpose: Purpose,
    svid: Option<String>,
}

impl Way<'_> {
    async fn send(
        &self,
        cleared: Cleared,
        selected: &Selected,
        why: Why,
        deadline: Instant,
        lease: impl FnOnce(&Intent) -> Result<Lease, LeaseRefused>,
    ) -> Result<Raw, MintFault> {
        let started = Instant::now();
        let (armed, vetted, entry) = self.prepare(cleared, selected, why, deadline, lease).await?;
        let sent_bytes = armed.body_bytes();
        let limits = SendLimits { deadline, response_bytes: ANSWER_BYTES_MAX };
        let answered = self.0.egress.send(armed, vetted, limits).await;
        let recorded = answered.as_ref().map(Raw::status).map_err(|fault| *fault);
        entry.close(outcome(recorded, sent_bytes, started)).await.map_err(|_| MintFault::Host)?;
        answered.map_err(mint_fault)
    }

    /// From a request that is cleared to one that can be sent, with its record in the ledger.
    async fn prepare(
        &self,
        cleared: Cleared,
        selected: &Selected,
        why: Why,
        deadline: Instant,
        lease: impl FnOnce(&Intent) -> Result<Lease, LeaseRefused>,
    ) -> Result<(Armed, Vetted, DispatchEntry), MintFault> {
        let executor = self.0;
        let vetted = executor.egress.vet(cleared.destination(), deadline).await.map_err(|fault| match fault {
            keybearer_egress::VetFault::Refused(refusal) => MintFault::NotCleared(refusal),
            keybearer_egress::VetFault::TimedOut => MintFault::TimedOut,
            _ => MintFault::Unavailable,
        })?;
        let details = IntentDetails {
            version: Some(selected.version()),
            epoch: Some(selected.epoch()),
            address: vetted.address(),
            purpose: why.purpose,
            svid: why.svid,
            withheld: &keybearer_gate::NothingWithheld,
        };
        let (intent, entry) = executor.ledger.intend(&cleared, details).await.map_err(|_| MintFault::Host)?;
        let lease = lease(&intent);
        let armed = lease.ok().and_then(|lease| keybearer_strongbox::place(cleared, intent, lease).ok());
        let Some(armed) = armed else {
            let outcome = DispatchOutcome::failed(Fault::Stale, Delivery::NotSent);
            entry.close(outcome).await.map_err(|_| MintFault::Host)?;
            return Err(MintFault::Stale);
        };
        Ok((armed, vetted, entry))
    }
}

impl Listen for Way<'_> {
    type Messages = Incoming;

    async fn listen(
        &self,
        cleared: Cleared,
        selected: &Selected,
        vessel: &Vessel,
        deadline: Instant,
    ) -> Result<Incoming, MintFault> {
        let lease =
            |intent: &Intent| self.0.strongbox.lease_source(selected.clone(), vessel, intent, UnixMillis::now());
        // A login's token is what proves who listens.
        let why = Why { purpose: Purpose::Listen, svid: None };
        let started = Instant::now();
        let (armed, vetted, entry) = self.prepare(cleared, selected, why, deadline, lease).await?;
        let opened = self.0.egress.open_messages(armed, &vetted, deadline).await;
        let recorded = opened.as_ref().map(Opened::status).map_err(|fault| *fault);
        entry.close(outcome(recorded, 0, started)).await.map_err(|_| MintFault::Host)?;
        match opened.map_err(mint_fault)? {
            Opened::Messages(messages) => Ok(Incoming(messages)),
            Opened::Refused(status) => Err(AnswerRefused::Status { status, code: None }.into()),
        }
    }
}

/// What a source says on a connection that stays open.
pub(crate) struct Incoming(Box<keybearer_egress::Messages>);

impl keybearer_sources::Messages for Incoming {
    async fn next(&mut self) -> Result<bytes::Bytes, MintFault> {
        self.0.next().await.map_err(|reason| match reason {
            keybearer_egress::SendReason::Timeout => MintFault::TimedOut,
            keybearer_egress::SendReason::AnswerTooLarge => MintFault::TellsTooMuch,
            _ => MintFault::Unavailable,
        })
    }
}

fn outcome(answered: Result<u16, SendFault>, sent_bytes: u64, started: Instant) -> DispatchOutcome {
    let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = match answered {
        Ok(status) => DispatchOutcome::answered(status),
        Err(fault) => DispatchOutcome::failed(crate::dispatch::recorded(fault.reason), fault.delivery),
    };
    DispatchOutcome { sent_bytes, wall_ms, ..outcome }
}

fn mint_fault(fault: SendFault) -> MintFault {
    match fault.reason {
        keybearer_egress::SendReason::Timeout => MintFault::TimedOut,
        keybearer_egress::SendReason::Cancelled => MintFault::Stale,
        _ => MintFault::Unavailable,
    }
}

/// Givings back at once: an issuer that is slow holds up a revocation no longer than one that is quick.
const AT_ONCE: usize = 16;

/// One act asks issuers no longer than this, however many there are and however slow; whoever is asked last is waited for
/// a few seconds more. What is not given back then ends by itself, or is an orphan.
const ISSUERS_MAX: Duration = Duration::from_secs(20);

/// Until when an act that begins now waits for issuers.
pub(crate) fn issuers_until() -> Instant {
    Instant::now() + ISSUERS_MAX
}

impl Executor {
    /// Gives minted values back to their issuers, and then the logins with which that is done; nobody is asked after
    /// `until`. Returns how many were taken back; the others end by themselves.
    pub(crate) async fn give_back(&self, undos: Vec<Undo>, until: Instant) -> u64 {
        let (logouts, values) = undos.into_iter().partition(Undo::is_last);
        let given = self.give_back_at_once(values, until).await;
        self.give_back_at_once(logouts, until).await;
        given
    }

    /// Does the last thing of an act that ends a credential; whether its issuer did as it was asked.
    pub(crate) async fn give_back_last(&self, undo: Undo, until: Instant) -> bool {
        self.give_back_at_once(vec![undo], until).await > 0
    }

    async fn give_back_at_once(&self, undos: Vec<Undo>, until: Instant) -> u64 {
        use futures_util::StreamExt as _;
        let given = futures_util::stream::iter(undos).map(|mut undo| async move {
            // The call that it was minted for has ended, and no longer asks for anything.
            let act = facts_of_act(&undo.facts.tenant, &undo.facts.principal);
            undo.facts = Facts { run: undo.facts.run.clone(), ..act };
            let undone = match Instant::now() < until {
                true => keybearer_sources::undo(&undo, &self.strongbox, &Way(self)).await,
                false => Err(MintFault::TimedOut),
            };
            self.settle_orphan(&undo, undone.is_ok()).await;
            match undone {
                Ok(()) => 1,
                Err(fault) => {
                    let (tenant, credential) = (undo.selected.tenant(), undo.selected.credential());
                    tracing::warn!(%tenant, %credential, %fault, "what an issuer gave was not given back");
                    0
                }
            }
        });
        given.buffer_unordered(AT_ONCE).fold(0, async |sum, one| sum + one).await
    }
}
