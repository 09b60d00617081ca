//! One outbound request of a guest: cleared → vetted → intent recorded → lease → placed → sent →
//! scrubbed → outcome recorded. Each step takes what the one before it made, by value. The dispatch is
//! a task of its own, so that a guest which is stopped leaves no request without an outcome, and no
//! secret ever lies on a guest's stack.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::GrantId;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Method;
use keybearer_contract::SlotName;
use keybearer_contract::UnixMillis;
use keybearer_egress::SendFault;
use keybearer_egress::SendLimits;
use keybearer_egress::SendReason;
use keybearer_egress::VetFault;
use keybearer_egress::Vetted;
use keybearer_gate::Attach;
use keybearer_gate::Cleared;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialKind;
use keybearer_gate::Facts;
use keybearer_gate::Grant;
use keybearer_gate::How;
use keybearer_gate::Refusal;
use keybearer_gate::Refused;
use keybearer_gate::Rights;
use keybearer_gate::SessionOf;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Fault;
use keybearer_ledger::Intent;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Purpose;
use keybearer_sandbox::GuestFault;
use keybearer_sandbox::GuestMistake;
use keybearer_sandbox::GuestReply;
use keybearer_sandbox::Outlet;
use keybearer_sandbox::ReplyParts;
use keybearer_sandbox::SigningFault;
use keybearer_sandbox::UpstreamReason;
use keybearer_strongbox::Armed;
use keybearer_strongbox::Flight;
use keybearer_strongbox::LeaseRefused;
use keybearer_strongbox::MadeInCall;
use keybearer_strongbox::Reply;
use keybearer_strongbox::ScrubFault;
use keybearer_strongbox::ScrubLimits;
use keybearer_strongbox::ScrubSet;
use keybearer_strongbox::Selected;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::Executor;
use crate::catalogue;
use crate::catalogue::Package;
use crate::holders::Held;
use crate::holders::Rider;
use crate::mint::Times;
use crate::runs::Within;
use crate::signature::ForGuest;

/// What the dispatches of one call share.
pub(crate) struct CallOutlet(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) executor: Arc<Executor>,
    pub(crate) facts: Facts,
    pub(crate) package: Arc<Package>,
    /// The grants that held when the call began. What holds at a dispatch is these ∩ what holds now (P3).
    pub(crate) sealed: Vec<GrantId>,
    pub(crate) deadline: Instant,
    pub(crate) within: Within,
    pub(crate) held: Arc<Held>,
    pub(crate) response_bytes: u64,
    /// The credentials of those grants: looked for in answers even when a grant is taken meanwhile.
    pub(crate) credentials: Vec<CredentialId>,
    /// Requests that the guest made, refused ones too; signatures are among them.
    pub(crate) requests: AtomicU32,
    /// What was signed for the guest: looked for in all that it hears and says from then on.
    pub(crate) made: MadeInCall,
}

/// A scrubbed answer, as the sandbox takes it.
pub(crate) struct Scrubbed(Reply);

impl GuestReply for Scrubbed {
    fn into_parts(self) -> ReplyParts {
        self.0.into_parts()
    }
}

impl CallOutlet {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }
}

impl Outlet for CallOutlet {
    type Reply = Scrubbed;

    fn send(&self, request: GuestRequest) -> oneshot::Receiver<Result<Scrubbed, GuestFault>> {
        let (answer, waiting) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        // A stop waits for the outcome of every request, also of those that no guest waits for any more.
        let running = shared.executor.running.token();
        let span = tracing::debug_span!("dispatch", tenant = %shared.facts.tenant, call = %shared.facts.call);
        let dispatching = async move {
            let _running = running;
            // Boxed, for a task is moved several times before it runs, and this one is kilobytes.
            let reply = Box::pin(shared.dispatch(request)).await;
            // A guest that was stopped no longer waits; the dispatch has recorded its outcome all the same.
            drop(answer.send(reply.map(Scrubbed)));
        };
        tokio::spawn(dispatching.instrument(span));
        waiting
    }

    type Signature = ForGuest;

    fn sign(&self, asked: GuestSignature) -> oneshot::Receiver<Result<ForGuest, SigningFault>> {
        let (answer, waiting) = oneshot::channel();
        let shared = Arc::clone(&self.0);
        let running = shared.executor.running.token();
        let span = tracing::debug_span!("signature", tenant = %shared.facts.tenant, call = %shared.facts.call);
        let signing = async move {
            let _running = running;
            let signature = Box::pin(shared.sign(asked)).await;
            // As for a request: a guest that was stopped no longer waits.
            drop(answer.send(signature.map(ForGuest)));
        };
        tokio::spawn(signing.instrument(span));
        waiting
    }
}

/// Why a dispatch has no reply.
pub(crate) enum Stopped {
    Refused(Refusal),
    /// A pooled connection was closed under us before a byte was sent: worth one new dispatch.
    StaleConnection,
    Guest(GuestFault),
}

impl From<GuestFault> for Stopped {
    fn from(fault: GuestFault) -> Self {
        Self::Guest(fault)
    }
}

/// What was on a request, and when it was put there.
struct Used {
    selected: Selected,
    at: std::time::Instant,
}

pub(crate) const HOST_NOT_SENT: GuestFault = GuestFault::Host { delivery: Delivery::NotSent };

impl Shared {
    async fn dispatch(&self, request: GuestRequest) -> Result<Reply, GuestFault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let (mut connection_tries, mut selection_tries, mut tried_another) = (0, 0, false);
        loop {
            match self.attempt(request.clone()).await {
                Ok((reply, Some(used)))
                    if reply.status() == 401 && !tried_another && self.has_another(&request, &used) =>
                {
                    tried_another = true;
                }
                Ok((reply, _)) => return Ok(reply),
                Err(Stopped::Guest(fault)) => return Err(fault),
                Err(Stopped::StaleConnection) if connection_tries < STALE_TRIES_MAX => connection_tries += 1,
                Err(Stopped::StaleConnection) => return Err(upstream(UpstreamReason::Unreachable, Delivery::NotSent)),
                // Rotated between selection and use: nothing was sent, and the new version is there to be selected.
                Err(Stopped::Refused(Refusal::Stale)) if selection_tries < SELECTION_TRIES_MAX => selection_tries += 1,
                Err(Stopped::Refused(refusal)) => return Err(Box::pin(self.refuse(refusal, &request)).await),
            }
        }
    }

    /// The upstream does not take the value (threats R02): whether another one is there, or may be fetched. Only for a
    /// request that may be sent twice (RFC 9110 §9.2.2).
    fn has_another(&self, request: &GuestRequest, used: &Used) -> bool {
        if matches!(request.method, Method::Post | Method::Patch) {
            return false;
        }
        let (selected, strongbox) = (&used.selected, &self.executor.strongbox);
        if selected.kind().is_recipe() {
            return strongbox.is_over(selected) || strongbox.spoil(selected, used.at);
        }
        let now = strongbox.select(&self.facts.tenant, selected.credential(), UnixMillis::now());
        now.is_ok_and(|now| now.version() != selected.version())
    }

    /// The way of a request, once.
    async fn attempt(&self, request: GuestRequest) -> Result<(Reply, Option<Used>), Stopped> {
        let manifest = &self.package.record.manifest;
        let rights = Rights { grants: &self.grants_now(), credentials: self.executor.store.as_ref() };
        let cleared = keybearer_gate::clear(&self.facts, manifest, rights, request)?;
        let selected = self.select(cleared.attach())?;
        let vetted = self.executor.egress.vet(cleared.destination(), self.deadline).await?;
        if let Some(selected) = selected.as_ref().filter(|selected| !self.is_ready(selected)) {
            let times = Times { deadline: self.deadline, until: self.within.until(self.deadline) };
            // Boxed, as is all that hardly ever happens: a dispatch is as large as the largest that it waits for.
            Box::pin(self.executor.mint(&self.facts, selected, times)).await?;
        }
        let details = IntentDetails {
            version: selected.as_ref().map(Selected::version),
            epoch: selected.as_ref().map(Selected::epoch),
            address: vetted.address(),
            purpose: Purpose::Guest,
            svid: selected.as_ref().and_then(|selected| self.executor.strongbox.svid_of(selected)),
            withheld: &self.made,
        };
        if self.held.is_stopped() {
            return Err(HOST_NOT_SENT.into());
        }
        let started = Instant::now();
        let (intent, entry) = self.executor.ledger.intend(&cleared, details).await.map_err(|_| HOST_NOT_SENT)?;
        let flight = selected.as_ref().map(|selected| self.executor.strongbox.fly(selected));
        let sent_bytes = cleared.body_bytes();
        self.executor.uses.note_dispatch(&cleared, &self.made, UnixMillis::now());
        let (under_way, rider) = self.held.begin(cleared.attach().and_then(|attach| attach.grant.clone()));
        let used = selected.clone().map(|selected| Used { selected, at: std::time::Instant::now() });
        let armed = match self.arm(cleared, intent, selected, rider) {
            Ok(armed) => armed,
            Err(why) => {
                let outcome = DispatchOutcome::failed(Fault::Stale, Delivery::NotSent);
                entry.close(outcome).await.map_err(|_| HOST_NOT_SENT)?;
                return Err(why);
            }
        };
        let answered = tokio::select! {
            biased;
            () = revoked(flight.as_ref()) => {
                let outcome = DispatchOutcome::failed(Fault::Revoked, Delivery::MaybeSent);
                Err((outcome, Stopped::Guest(GuestFault::Denied)))
            }
            () = under_way.stopped() => {
                let taken = !under_way.ends_with_its_call();
                let (fault, told) = match taken {
                    true => (Fault::Revoked, GuestFault::Denied),
                    false => (Fault::Stopped, GuestFault::Host { delivery: Delivery::MaybeSent }),
                };
                Err((DispatchOutcome::failed(fault, Delivery::MaybeSent), Stopped::Guest(told)))
            }
            answered = self.send(armed, vetted) => answered,
        };
        let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let delivery = answered.as_ref().map_or_else(|fault| fault.0.delivery, |_| Delivery::MaybeSent);
        let outcome = match &answered {
            Ok((reply, reflected)) => DispatchOutcome {
                sent_bytes,
                received_bytes: reply.body().len() as u64,
                reflected: *reflected,
                wall_ms,
                ..DispatchOutcome::answered(reply.status())
            },
            Err((outcome, _)) => DispatchOutcome { wall_ms, ..outcome.clone() },
        };
        // The outcome is recorded before the guest may act on the answer.
        entry.close(outcome).await.map_err(|_| GuestFault::Host { delivery })?;
        let (reply, reflected) = answered.map_err(|(_, stopped)| stopped)?;
        self.executor.counters.answered(u64::from(reflected));
        Ok((reply, used))
    }

    /// From intent to armed request. It is entered among those under way by now, so that what is revoked from here
    /// on finds it; what was revoked before is found here.
    fn arm(
        &self,
        cleared: Cleared,
        intent: Intent,
        selected: Option<Selected>,
        rider: Arc<Rider>,
    ) -> Result<Armed, Stopped> {
        if self.held.is_stopped() {
            return Err(HOST_NOT_SENT.into());
        }
        if let Some(grant) = cleared.attach().and_then(|attach| attach.grant.as_ref())
            && !self.holds_now(grant)
        {
            return Err(Refusal::Stale.into());
        }
        let Some(selected) = selected else {
            return keybearer_strongbox::plain(cleared, intent).map_err(|_| HOST_NOT_SENT.into());
        };
        let slot = cleared.attach().and_then(|attach| attach.slot.clone());
        match self.executor.strongbox.lease(selected, &intent, UnixMillis::now()) {
            Ok(lease) => {
                keybearer_strongbox::place(cleared, intent, lease.carrying(rider)).map_err(|_| HOST_NOT_SENT.into())
            }
            Err(LeaseRefused::Unusable) => match slot {
                Some(slot) => Err(Refusal::CredentialUnusable { slot }.into()),
                None => Err(Refusal::Stale.into()),
            },
            Err(_) => Err(Refusal::Stale.into()),
        }
    }

    /// From armed request to scrubbed answer.
    async fn send(&self, armed: Armed, vetted: Vetted) -> Result<(Reply, u32), (DispatchOutcome, Stopped)> {
        let limits = SendLimits { deadline: self.deadline, response_bytes: self.response_bytes };
        let raw = self.executor.egress.send(armed, vetted, limits).await.map_err(|fault| stopped_sending(&fault))?;
        let scrub_limits = ScrubLimits { decoded_bytes_max: self.response_bytes };
        let set = self.scrub_set();
        match keybearer_strongbox::scrub(raw, &set, scrub_limits) {
            Ok((mut reply, reflected)) => {
                let count = reflected.count.saturating_add(self.made.scrub_reply(&mut reply));
                Ok((reply, u32::try_from(count).unwrap_or(u32::MAX)))
            }
            Err(fault) => {
                let (recorded, told) = match fault {
                    ScrubFault::TooLarge => (Fault::AnswerTooLarge, UpstreamReason::AnswerTooLarge),
                    ScrubFault::Partial => (Fault::PartialAnswer, UpstreamReason::PartialAnswer),
                    _ => (Fault::MalformedAnswer, UpstreamReason::MalformedAnswer),
                };
                let outcome = DispatchOutcome::failed(recorded, Delivery::MaybeSent);
                Err((outcome, upstream(told, Delivery::MaybeSent).into()))
            }
        }
    }

    pub(crate) fn is_ready(&self, selected: &Selected) -> bool {
        self.executor.strongbox.is_ready(selected, UnixMillis::now())
    }

    /// What was sealed ∩ what holds now, and covers this very version.
    pub(crate) fn grants_now(&self) -> Arc<[Grant]> {
        let now = self.executor.store.grants_of_package(&self.facts.tenant, &self.facts.tool.package);
        if now.iter().all(|grant| self.is_good(grant)) {
            return now;
        }
        now.iter().filter(|grant| self.is_good(grant)).cloned().collect()
    }

    /// Whether a grant is among them.
    pub(crate) fn holds_now(&self, id: &GrantId) -> bool {
        let now = self.executor.store.grants_of_package(&self.facts.tenant, &self.facts.tool.package);
        now.iter().any(|grant| grant.id == *id && self.is_good(grant))
    }

    fn is_good(&self, grant: &Grant) -> bool {
        self.sealed.contains(&grant.id) && catalogue::covers(grant, &self.package.record)
    }

    /// The version to use; nothing is opened.
    pub(crate) fn select(&self, attach: Option<&Attach>) -> Result<Option<Selected>, Refusal> {
        let Some(Attach { slot: Some(slot), grant, credential, how: How::Slot(placement) }) = attach else {
            return Ok(None);
        };
        let selected = self
            .executor
            .strongbox
            .select(&self.facts.tenant, credential, UnixMillis::now())
            .map_err(|_| self.unusable(credential, slot.clone()))?
            .within(self.within.run())
            .of_tool(&self.facts.tool);
        if !selected.kind().fits(placement) {
            return Err(Refusal::WrongKind { slot: slot.clone() });
        }
        self.narrowed(selected, slot, grant.as_ref()).map(Some)
    }

    /// What is minted for a role is narrowed to what the slot and the recipe both allow.
    fn narrowed(&self, selected: Selected, slot: &SlotName, grant: Option<&GrantId>) -> Result<Selected, Refusal> {
        let CredentialKind::AwsRole(recipe) = selected.kind() else { return Ok(selected) };
        let declared =
            self.package.record.manifest.slot(slot).ok_or_else(|| Refusal::NoGrant { slot: slot.clone() })?;
        let now = self.grants_now();
        let grant = now.iter().find(|now| Some(&now.id) == grant).ok_or(Refusal::Stale)?;
        let of = SessionOf {
            slot: declared,
            base_url: grant.base_url.as_ref(),
            tenant: &self.facts.tenant,
            tool: &self.facts.tool,
            run: selected.run(),
        };
        match recipe.session_policy(of) {
            Ok(policy) => Ok(selected.under(policy)),
            Err(why) => Err(Refusal::SessionUnsayable { slot: slot.clone(), why: why.to_string() }),
        }
    }

    fn unusable(&self, credential: &CredentialId, slot: SlotName) -> Refusal {
        let record = self.executor.store.credential(&self.facts.tenant, credential);
        Refusal::unusable(record.map(|record| record.standing(UnixMillis::now())), slot)
    }

    /// Every undestroyed version of every credential that is granted to this tenant and tool, or was when the
    /// call began, and what was minted (threats X28). For answers to requests without a credential too: what
    /// one request left upstream, another could read there.
    pub(crate) fn scrub_set(&self) -> Arc<ScrubSet> {
        let grants = self.executor.store.grants_of_package(&self.facts.tenant, &self.facts.tool.package);
        let granted_now = grants.iter().filter_map(|grant| grant.credential.clone());
        let credentials: Vec<_> = self.credentials.iter().cloned().chain(granted_now).collect();
        if credentials.is_empty() {
            return ScrubSet::empty();
        }
        self.executor.strongbox.scrub_set(&self.facts.tenant, &credentials)
    }

    async fn refuse(&self, refusal: Refusal, request: &GuestRequest) -> GuestFault {
        self.executor.counters.refused();
        let told = match &refusal {
            Refusal::NotCanonical { .. } => GuestFault::Guest(GuestMistake::MalformedUrl),
            Refusal::MalformedHeader { .. } => GuestFault::Guest(GuestMistake::MalformedHeader),
            _ => GuestFault::Denied,
        };
        let refused = Refused::request(refusal, request, &self.made);
        let recorded = self.executor.ledger.refuse(&self.facts, &refused).await;
        recorded.map_or(HOST_NOT_SENT, |()| told)
    }
}

/// New dispatches after a pooled connection turned out closed: one for each that may idle with a peer
/// that closes early.
const STALE_TRIES_MAX: u32 = 4;

/// New dispatches after the selected version was rotated out: one for each rotation within the few
/// milliseconds from selection to use.
pub(crate) const SELECTION_TRIES_MAX: u32 = 4;

/// Ready when the credential that the request carries is revoked; its connection is closed then.
async fn revoked(flight: Option<&Flight>) {
    match flight {
        Some(flight) => flight.cancelled().await,
        None => std::future::pending().await,
    }
}

pub(crate) fn upstream(reason: UpstreamReason, delivery: Delivery) -> GuestFault {
    GuestFault::Upstream { reason, delivery }
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<VetFault> for Stopped {
    fn from(fault: VetFault) -> Self {
        match fault {
            VetFault::Refused(refusal) => Self::Refused(refusal),
            VetFault::TimedOut => upstream(UpstreamReason::Timeout, Delivery::NotSent).into(),
            _ => upstream(UpstreamReason::Unresolvable, Delivery::NotSent).into(),
        }
    }
}

fn stopped_sending(fault: &SendFault) -> (DispatchOutcome, Stopped) {
    let told = |reason| Stopped::Guest(upstream(reason, fault.delivery));
    let stopped = match fault.reason {
        SendReason::StaleConnection => Stopped::StaleConnection,
        SendReason::Unreachable => told(UpstreamReason::Unreachable),
        SendReason::Untrusted => told(UpstreamReason::Untrusted),
        SendReason::Timeout => told(UpstreamReason::Timeout),
        SendReason::AnswerTooLarge => told(UpstreamReason::AnswerTooLarge),
        SendReason::MalformedAnswer => told(UpstreamReason::MalformedAnswer),
        // Revoked while it was on its way: the guest hears what it hears of every refusal.
        SendReason::Cancelled => Stopped::Guest(GuestFault::Denied),
        _ => Stopped::Guest(GuestFault::Host { delivery: fault.delivery }),
    };
    (DispatchOutcome::failed(recorded(fault.reason), fault.delivery), stopped)
}

/// A failure to send, as the ledger names it.
pub(crate) fn recorded(reason: SendReason) -> Fault {
    match reason {
        SendReason::StaleConnection | SendReason::Unreachable => Fault::Unreachable,
        SendReason::Untrusted => Fault::Untrusted,
        SendReason::Timeout => Fault::Timeout,
        SendReason::AnswerTooLarge => Fault::AnswerTooLarge,
        SendReason::MalformedAnswer => Fault::MalformedAnswer,
        SendReason::Cancelled => Fault::Revoked,
        _ => Fault::Host,
    }
}
