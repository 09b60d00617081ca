//! One signature of a guest's: cleared → intent recorded → lease → signed → outcome recorded → handed over. The way of
//! a dispatch (see `dispatch.rs`) without the wire: nothing leaves, and what was made is a secret of the call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use keybearer_contract::Delivery;
use keybearer_contract::GuestSignature;
use keybearer_contract::UnixMillis;
use keybearer_gate::ClearedSignature;
use keybearer_gate::Refusal;
use keybearer_gate::Refused;
use keybearer_gate::Rights;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Fault;
use keybearer_ledger::Intent;
use keybearer_ledger::SignatureDetails;
use keybearer_sandbox::GuestFault;
use keybearer_sandbox::SigningFault;
use keybearer_strongbox::LeaseRefused;
use keybearer_strongbox::Made;
use keybearer_strongbox::PlaceRefused;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Signature;

use crate::dispatch::SELECTION_TRIES_MAX;
use crate::dispatch::Shared;
use crate::dispatch::Stopped;
use crate::holders::Rider;
use crate::mint::Times;

/// What was signed, as the sandbox takes it.
pub(crate) struct ForGuest(pub(crate) Signature);

impl keybearer_sandbox::GuestSignature for ForGuest {
    fn into_bytes(self) -> Vec<u8> {
        self.0.into_guest()
    }
}

/// Why nothing was signed.
enum Unsigned {
    Refused(Refusal),
    Fault(SigningFault),
}

impl From<Refusal> for Unsigned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<SigningFault> for Unsigned {
    fn from(fault: SigningFault) -> Self {
        Self::Fault(fault)
    }
}

impl Shared {
    pub(crate) async fn sign(&self, asked: GuestSignature) -> Result<Signature, SigningFault> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut selection_tries = 0;
        loop {
            match self.attempt_signature(asked.clone()).await {
                Ok(signature) => {
                    self.executor.counters.signed();
                    return Ok(signature);
                }
                // Rotated between selection and use: nothing was signed, and the new version is there to be selected.
                Err(Unsigned::Refused(Refusal::Stale)) if selection_tries < SELECTION_TRIES_MAX => selection_tries += 1,
                Err(Unsigned::Refused(refusal)) => return Err(self.refuse_signature(refusal, &asked).await),
                Err(Unsigned::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// The way of a signature, once.
    async fn attempt_signature(&self, asked: GuestSignature) -> Result<Signature, Unsigned> {
        let manifest = &self.package.record.manifest;
        let rights = Rights { grants: &self.grants_now(), credentials: self.executor.store.as_ref() };
        let cleared = keybearer_gate::clear_signature(&self.facts, manifest, rights, asked, UnixMillis::now())?;
        let selected = self.select(Some(cleared.attach()))?.ok_or(SigningFault::Host)?;
        if !self.is_ready(&selected) {
            let times = Times { deadline: self.deadline, until: self.within.until(self.deadline) };
            self.executor.mint(&self.facts, &selected, times).await.map_err(unminted)?;
        }
        if self.held.is_stopped() {
            return Err(SigningFault::Host.into());
        }
        let digest_key = self.executor.strongbox.digest_key(&self.facts.tenant).map_err(|_| SigningFault::Host)?;
        let (version, epoch) = (selected.version(), selected.epoch());
        let details = SignatureDetails { version, epoch, digest_key: &digest_key, withheld: &self.made };
        let intended = self.executor.ledger.intend_signature(&cleared, details).await;
        let (intent, entry) = intended.map_err(|_| SigningFault::Host)?;
        // Counted in and entered before it is looked at again whether it may be: a revocation finds it, or it finds
        // the revocation.
        let _flight = self.executor.strongbox.fly(&selected);
        self.executor.uses.note_signature(&cleared, &self.made, UnixMillis::now());
        let (_under_way, rider) = self.held.begin(cleared.attach().grant.clone());
        let made = self.make(cleared, intent, selected, rider);
        let outcome = match &made {
            Ok(_) => DispatchOutcome::signed(),
            Err(_) => DispatchOutcome::failed(Fault::Stale, Delivery::NotSent),
        };
        // The outcome is recorded before the guest may use what was made.
        entry.close(outcome).await.map_err(|_| SigningFault::Host)?;
        let made = made?;
        self.made.note(&made);
        Ok(made.hand_over())
    }

    /// From intent to what is handed over. What is revoked from here on waits until it was.
    fn make(
        &self,
        cleared: ClearedSignature,
        intent: Intent,
        selected: Selected,
        rider: Arc<Rider>,
    ) -> Result<Made, Unsigned> {
        if self.held.is_stopped() {
            return Err(SigningFault::Host.into());
        }
        if !cleared.attach().grant.as_ref().is_some_and(|grant| self.holds_now(grant)) {
            return Err(Refusal::Stale.into());
        }
        let slot = cleared.attach().slot.clone().ok_or(SigningFault::Host)?;
        let now = UnixMillis::now();
        let lease = match self.executor.strongbox.lease(selected, &intent, now) {
            Ok(lease) => lease.carrying(rider),
            Err(LeaseRefused::Unusable) => return Err(Refusal::CredentialUnusable { slot }.into()),
            Err(_) => return Err(Refusal::Stale.into()),
        };
        match keybearer_strongbox::sign(cleared, intent, lease, now) {
            Ok(made) if made.is_cancelled() => Err(Refusal::Stale.into()),
            Ok(made) => Ok(made),
            Err(PlaceRefused::SessionToken) => Err(Refusal::SessionToken { slot }.into()),
            Err(_) => Err(SigningFault::Host.into()),
        }
    }

    async fn refuse_signature(&self, refusal: Refusal, asked: &GuestSignature) -> SigningFault {
        self.executor.counters.refused();
        let told = match &refusal {
            Refusal::NotCanonical { .. } => SigningFault::MalformedUrl,
            Refusal::MalformedClaim { .. } => SigningFault::MalformedClaim,
            Refusal::MessageTooLarge { .. } => SigningFault::MessageTooLarge,
            Refusal::ExpiresOutOfRange { .. } => SigningFault::ExpiresOutOfRange,
            _ => SigningFault::Denied,
        };
        let refused = Refused::signature(refusal, asked, &self.made);
        let recorded = self.executor.ledger.refuse(&self.facts, &refused).await;
        recorded.map_or(SigningFault::Host, |()| told)
    }
}

/// The key could not be had from its source.
fn unminted(stopped: Stopped) -> Unsigned {
    match stopped {
        Stopped::Refused(refusal) => Unsigned::Refused(refusal),
        Stopped::Guest(GuestFault::Denied) => Unsigned::Fault(SigningFault::Denied),
        Stopped::StaleConnection | Stopped::Guest(_) => Unsigned::Fault(SigningFault::Host),
    }
}
