//! Credentials that wait: for the consent of their account, for the registration of their client. What they wait for
//! lies with them, so that it is answered once, also over a restart.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::AwaitedConsent;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Registration;
use keybearer_gate::Terms;
use keybearer_gate::VersionRecord;

use crate::Store;
use crate::StoreError;
use crate::credentials::check_versions;
use crate::credentials::insert_version;
use crate::credentials::raise_epoch;

/// A client that its issuer registered, and what of it is stored.
pub struct RegisteredClient {
    /// The recipe, with the client's id.
    pub kind: CredentialKind,
    /// Who answers for it.
    pub owner: String,
    /// Why it is here.
    pub justification: String,
    /// When it ends.
    pub expires: UnixMillis,
    /// On which terms it is held.
    pub terms: Terms,
    /// The client's secret or key.
    pub version: VersionRecord,
    /// How it can be taken back.
    pub registration: Registration,
}

impl Store {
    /// Writes down that a credential's account is being asked; what it was asked before is good no more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the credential waits for nobody, or changed since; [`StoreError::NotFound`].
    pub fn await_consent(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        consent: AwaitedConsent,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, _| {
            let waits = matches!(record.state, CredentialState::Pending | CredentialState::Reauthorise);
            if !waits || record.epoch != consent.epoch {
                return Err(StoreError::Conflict("the credential changed in the meantime: look at it again"));
            }
            record.consent = Some(consent);
            Ok(())
        })
    }

    /// Takes what an account was asked, so that it is answered once.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it was answered, or asked anew; [`StoreError::NotFound`].
    pub fn take_consent(&self, tenant: &TenantId, id: &CredentialId, name: &str) -> Result<AwaitedConsent, StoreError> {
        let mut taken = None;
        self.change_credential(tenant, id, |record, _| {
            taken = record.consent.take_if(|consent| consent.name == name);
            if taken.is_some() { Ok(()) } else { Err(StoreError::Conflict("it was answered, or asked anew")) }
        })?;
        taken.ok_or(StoreError::NotFound)
    }

    /// Stores what a client was given that is registered now: its credential waited for it, and is active.
    ///
    /// # Errors
    /// As [`Self::add_version`]; [`StoreError::Conflict`] if the credential does not wait.
    pub fn put_registered(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        epoch: u64,
        client: RegisteredClient,
    ) -> Result<Arc<CredentialRecord>, StoreError> {
        self.change_credential(tenant, id, |record, transaction| {
            if record.state != CredentialState::Pending || !record.versions.is_empty() {
                return Err(StoreError::Conflict("the credential does not wait for its client"));
            }
            raise_epoch(record, epoch)?;
            let RegisteredClient { kind, owner, justification, expires, terms, version, registration } = client;
            insert_version(transaction, record, &version)?;
            record.versions.push(version);
            (record.kind, record.state, record.terms) = (kind, CredentialState::Active, terms);
            (record.owner, record.justification, record.expires) = (owner, justification, Some(expires));
            record.registration = Some(registration);
            check_versions(&record.versions)
        })
    }

    /// A client was taken back: nothing is left to manage.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn forget_registration(&self, tenant: &TenantId, id: &CredentialId) -> Result<(), StoreError> {
        let forgotten = self.change_credential(tenant, id, |record, _| {
            record.registration.iter_mut().for_each(|known| known.management = None);
            Ok(())
        });
        forgotten.map(drop)
    }
}
