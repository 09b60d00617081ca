//! What is open, and the proof of what is written: entries close once or say that they were abandoned;
//! an [`Intent`] and a [`Receipt`] are made here and nowhere else. Knows nothing of files.

use std::net::SocketAddr;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::DispatchId;
use keybearer_contract::GrantId;
use keybearer_contract::SlotName;
use keybearer_gate::Attach;
use keybearer_gate::Cleared;
use keybearer_gate::ClearedSignature;
use keybearer_gate::Facts;
use keybearer_gate::Refused;
use keybearer_gate::Withheld;

use crate::Act;
use crate::ActKind;
use crate::CallOutcome;
use crate::DispatchFacts;
use crate::DispatchOutcome;
use crate::Fault;
use crate::Ledger;
use crate::LedgerUnavailable;
use crate::Purpose;
use crate::record;
use crate::record::encode;
use crate::standing::Effect;

/// Proof that the intent of one dispatch is in the ledger (P6). Made by this room only, not `Clone`:
/// it is spent on arming exactly one request.
#[must_use]
pub struct Intent {
    call: CallId,
    dispatch: DispatchId,
    credential: Option<CredentialId>,
    version: Option<u32>,
    epoch: Option<u64>,
    svid: Option<String>,
    is_signature: bool,
}

impl Intent {
    /// Whether it is of a signature: then it sends no request, and the other way round.
    #[must_use]
    pub fn is_signature(&self) -> bool {
        self.is_signature
    }

    /// Which call it belongs to.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// Which dispatch.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchId {
        &self.dispatch
    }

    /// The credential that the record names.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialId> {
        self.credential.as_ref()
    }

    /// The version that the record names.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// The epoch that the record names.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// The serial number of the X.509-SVID that the record names.
    #[must_use]
    pub fn svid(&self) -> Option<&str> {
        self.svid.as_deref()
    }
}

/// Proof that a call's end is in the ledger: without one there is no answer. Not `Clone`.
#[must_use]
pub struct Receipt {
    call: CallId,
    seq: u64,
}

impl Receipt {
    /// Which call.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// The number of the record.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Proof that an administrative act is in the ledger. Another type than [`Receipt`], so that it cannot
/// let a call's answer out.
#[derive(Debug)]
pub struct ActReceipt {
    seq: u64,
}

impl ActReceipt {
    /// The number of the record.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// What is known of a dispatch beside what was cleared.
pub struct IntentDetails<'call> {
    /// The version that will go out; none where nothing is attached.
    pub version: Option<u32>,
    /// The credential's epoch at selection.
    pub epoch: Option<u64>,
    /// The vetted address.
    pub address: SocketAddr,
    /// On whose behalf.
    pub purpose: Purpose,
    /// The serial number of the X.509-SVID that the connection proves, where it proves one.
    pub svid: Option<String>,
    /// What the record must not say.
    pub withheld: &'call dyn Withheld,
}

/// What is known of a signature beside what was cleared.
pub struct SignatureDetails<'call> {
    /// The version that will sign.
    pub version: u32,
    /// The credential's epoch at selection.
    pub epoch: u64,
    /// The key of the tenant's under which the digest of what is signed is made.
    pub digest_key: &'call [u8; 32],
    /// What the record must not say.
    pub withheld: &'call dyn Withheld,
}

impl Ledger {
    /// Records that a call was admitted. Waits neither for the disk nor for the kernel: nothing has come of it yet,
    /// and what does come of it is written behind it. A call that a crash cut off before is not listed as open.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the call does not begin.
    #[expect(clippy::unused_async, reason = "callers await every append; which of them wait is decided here")]
    pub async fn begin_call(&self, facts: &Facts) -> Result<CallEntry, LedgerUnavailable> {
        let text: Arc<[u8]> = encode::facts(facts).into();
        self.append_later("call_begun", &text, Effect::BeginCall(&facts.call, &text))?;
        Ok(CallEntry { ledger: self.clone(), call: facts.call.clone(), text, open: true })
    }

    /// Records that a request is about to leave. When this returns, the record survives what the
    /// durability promises: before that no byte may leave (P6).
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the dispatch does not happen.
    pub async fn intend(
        &self,
        cleared: &Cleared,
        details: IntentDetails<'_>,
    ) -> Result<(Intent, DispatchEntry), LedgerUnavailable> {
        self.intend_dispatch(dispatch_facts(cleared, details)).await
    }

    /// Records that something is about to be signed, as durably as [`Self::intend`] does: before that no key is opened.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: nothing is signed.
    pub async fn intend_signature(
        &self,
        cleared: &ClearedSignature,
        details: SignatureDetails<'_>,
    ) -> Result<(Intent, DispatchEntry), LedgerUnavailable> {
        let named = Named::by(Some(cleared.attach()));
        let facts = DispatchFacts {
            facts: cleared.facts().clone(),
            dispatch: DispatchId::random(),
            purpose: Purpose::Sign,
            method: cleared.method(),
            place: cleared.place(details.withheld),
            address: None,
            signed: Some(cleared.signed(details.digest_key)),
            credential: named.credential,
            slot: named.slot,
            grant: named.grant,
            version: Some(details.version),
            epoch: Some(details.epoch),
            svid: None,
        };
        self.intend_dispatch(facts).await
    }

    async fn intend_dispatch(&self, dispatch: DispatchFacts) -> Result<(Intent, DispatchEntry), LedgerUnavailable> {
        let text: Arc<[u8]> = encode::dispatch(&dispatch).into();
        let seq = self.append("dispatch_intended", &text, Effect::Intend(&dispatch, &text))?;
        // Made before the wait: if the wait is cancelled, dropping it records that, too.
        let entry = DispatchEntry { ledger: self.clone(), dispatch: dispatch.dispatch.clone(), text, open: true };
        if let Err(unavailable) = self.durable(seq).await {
            // The failure that matters is told below; this one is kept and written when writing works.
            let _ = entry.finish(&DispatchOutcome::failed(Fault::LedgerUnavailable, Delivery::NotSent));
            return Err(unavailable);
        }
        let intent = Intent {
            call: dispatch.facts.call,
            dispatch: dispatch.dispatch,
            credential: dispatch.credential,
            version: dispatch.version,
            epoch: dispatch.epoch,
            svid: dispatch.svid,
            is_signature: dispatch.purpose == Purpose::Sign,
        };
        Ok((intent, entry))
    }

    /// Records that a guest's request or signature was refused. Does not wait for the disk: nothing follows from it.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the refusal holds all the same.
    #[expect(clippy::unused_async, reason = "callers await every append; which of them wait is decided here")]
    pub async fn refuse(&self, facts: &Facts, refused: &Refused) -> Result<(), LedgerUnavailable> {
        let text = encode::refusal(facts, refused);
        self.append("dispatch_refused", &text, Effect::Nothing).map(|_| ())
    }

    /// Records an administrative act, as durably as an intent. Write it after the store took the act and
    /// before it is acknowledged: a ledger that knows a higher epoch than the store is a reason to refuse
    /// the store at the next start.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the act must not be acknowledged.
    pub async fn act(&self, mut act: Act) -> Result<ActReceipt, LedgerUnavailable> {
        record::cut(&mut act.subject, SUBJECT_CHARS_MAX);
        record::cut(&mut act.note, NOTE_CHARS_MAX);
        let text = encode::extend(Vec::new(), &act);
        let raised = raised_epoch(&act);
        let raised = act.tenant.as_ref().zip(raised.as_ref()).map(|(tenant, (id, epoch))| (tenant, id, *epoch));
        let effect = Effect::Act { raised, commit: act.commit.unwrap_or(0) };
        let seq = self.append("act", &text, effect)?;
        self.durable(seq).await?;
        Ok(ActReceipt { seq })
    }
}

const SUBJECT_CHARS_MAX: usize = 300;
const NOTE_CHARS_MAX: usize = 500;
const LIMIT_CHARS_MAX: usize = 64;

/// The epoch that an act on a credential made, if it made one.
pub(crate) fn raised_epoch(act: &Act) -> Option<(CredentialId, u64)> {
    let of_credential = matches!(
        act.what,
        ActKind::CredentialStored
            | ActKind::CredentialRotated
            | ActKind::CredentialRolledBack
            | ActKind::CredentialRevoked
            | ActKind::CredentialInvalidated
            | ActKind::VersionDestroyed
    );
    act.tenant.as_ref().filter(|_| of_credential)?;
    Some((act.subject.parse().ok()?, act.epoch?))
}

fn dispatch_facts(cleared: &Cleared, details: IntentDetails<'_>) -> DispatchFacts {
    let named = Named::by(cleared.attach());
    DispatchFacts {
        facts: cleared.facts().clone(),
        dispatch: DispatchId::random(),
        purpose: details.purpose,
        method: Some(cleared.method()),
        place: format!("{}{}", cleared.destination(), cleared.path(details.withheld)),
        address: Some(details.address),
        signed: None,
        credential: named.credential,
        slot: named.slot,
        grant: named.grant,
        version: details.version,
        epoch: details.epoch,
        svid: details.svid,
    }
}

/// What a record names of what is attached.
#[derive(Default)]
struct Named {
    credential: Option<CredentialId>,
    slot: Option<SlotName>,
    grant: Option<GrantId>,
}

impl Named {
    fn by(attach: Option<&Attach>) -> Self {
        let named = |attach: &Attach| Self {
            credential: Some(attach.credential.clone()),
            slot: attach.slot.clone(),
            grant: attach.grant.clone(),
        };
        attach.map(named).unwrap_or_default()
    }
}

/// A call that has begun. Dropped without [`CallEntry::close`], it records that it was abandoned.
#[must_use]
pub struct CallEntry {
    ledger: Ledger,
    call: CallId,
    /// The call's fields, as they stand in its first record.
    text: Arc<[u8]>,
    open: bool,
}

impl CallEntry {
    /// Which call.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.call
    }

    /// Records how the call ended.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the answer must not leave. The record is kept and written when writing works.
    pub async fn close(mut self, mut outcome: CallOutcome) -> Result<Receipt, LedgerUnavailable> {
        if let Some(limit) = &mut outcome.limit {
            record::cut(limit, LIMIT_CHARS_MAX);
        }
        self.open = false;
        let text = encode::extend_shared(&self.text, &outcome);
        let seq = self.ledger.append("call_closed", &text, Effect::EndCall(&self.call))?;
        self.ledger.durable(seq).await?;
        Ok(Receipt { call: self.call.clone(), seq })
    }
}

impl Drop for CallEntry {
    fn drop(&mut self) {
        if self.open {
            // A failure is kept by the ledger and written when writing works.
            let _ = self.ledger.append("call_abandoned", &self.text, Effect::EndCall(&self.call));
        }
    }
}

/// A dispatch that was intended. Dropped without [`DispatchEntry::close`], it records that it was
/// abandoned: the upstream may have acted.
#[must_use]
pub struct DispatchEntry {
    ledger: Ledger,
    dispatch: DispatchId,
    text: Arc<[u8]>,
    open: bool,
}

impl DispatchEntry {
    /// Which dispatch.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchId {
        &self.dispatch
    }

    /// Records how the dispatch ended. Waits neither for the disk nor for the kernel: what the guest does next, and
    /// the call's own end, are written behind it. After a crash before that its outcome is unknown.
    ///
    /// # Errors
    /// [`LedgerUnavailable`]: the record is kept and written when writing works.
    #[expect(clippy::unused_async, reason = "callers await every append; which of them wait is decided here")]
    pub async fn close(self, outcome: DispatchOutcome) -> Result<(), LedgerUnavailable> {
        self.finish(&outcome)
    }

    fn finish(mut self, outcome: &DispatchOutcome) -> Result<(), LedgerUnavailable> {
        self.open = false;
        let text = encode::extend_shared(&self.text, outcome);
        self.ledger.append_later("dispatch_closed", &text, Effect::EndDispatch(&self.dispatch))
    }
}

impl Drop for DispatchEntry {
    fn drop(&mut self) {
        if self.open {
            // As for a call.
            let _ = self.ledger.append("dispatch_abandoned", &self.text, Effect::EndDispatch(&self.dispatch));
        }
    }
}
