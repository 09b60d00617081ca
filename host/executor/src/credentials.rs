//! The life of a credential: stored, rotated, revoked, its old versions destroyed. Every act raises the
//! epoch before it is acknowledged, and is acknowledged only when no request carries the old value any
//! more (P3).

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::OperatorContext;
use keybearer_gate::Overlap;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::Undo;
use tokio::time::Instant;

use crate::CredentialView;
use crate::EpochRaised;
use crate::Executor;
use crate::NewCredential;
use crate::RegistrationView;
use crate::Retiring;
use crate::Revoked;
use crate::SharedValue;
use crate::VersionView;
use crate::mint;
use crate::onboarding;
use crate::registration;
use crate::rows::one_more;

/// A credential whose revocation is in the store and in force, and not recorded yet.
pub(crate) struct CutOff {
    /// What it was before.
    pub(crate) before: CredentialState,
    record: Arc<CredentialRecord>,
    revoked: Revoked,
    minted: Vec<Undo>,
    stored: Option<Undo>,
}

impl CutOff {
    /// Whether an issuer is to be asked to take something back.
    pub(crate) fn is_owed(&self) -> bool {
        let is_managed = self.record.registration.as_ref().is_some_and(|known| known.management.is_some());
        !self.minted.is_empty() || self.stored.is_some() || is_managed
    }
}

impl Executor {
    /// Stores a new credential with its first version.
    ///
    /// # Errors
    /// [`Code::CredentialRefused`] for a value that is too short or not fit for its place; [`Code::Conflict`] for a
    /// name that is taken; [`Code::TooMany`].
    pub async fn store_credential(
        self: &Arc<Self>,
        context: &TenantContext,
        new: NewCredential,
        value: SecretInput,
    ) -> Result<CredentialView, Problem> {
        context.require(Scope::Credentials)?;
        onboarding::check_texts(&new)?;
        new.kind.check().map_err(|refused| Problem::new(Code::MalformedRequest, refused.to_string()))?;
        let (tenant, id) = (context.tenant().clone(), CredentialId::random());
        let now = UnixMillis::now();
        let (terms, expires) = onboarding::terms_of(&new, now)?;
        let version = self.seal(&tenant, &id, 1, &new.kind, value)?;
        let record = CredentialRecord {
            id: id.clone(),
            tenant,
            name: new.name,
            kind: new.kind,
            owner: new.owner,
            justification: new.justification,
            expires: Some(expires),
            state: CredentialState::Active,
            epoch: 1,
            created: now,
            versions: vec![version],
            overlaps: Vec::new(),
            renewal: None,
            registration: None,
            consent: None,
            terms,
        };
        let turn = self.rows.turn().await;
        if let Some(known) = self.store.credential_by_name(context.tenant(), &record.name) {
            return Err(name_taken(&known));
        }
        let has = self.store.credentials(context.tenant()).len();
        one_more("credentials", has, self.rows.ceilings.credentials, "rotate one that is there instead")?;
        let (store, stored) = (Arc::clone(&self.store), record.clone());
        crate::blocking(move || store.insert_credential(stored)).await?;
        drop(turn);
        self.record_act(context, ActKind::CredentialStored, &id, (Some(1), 1)).await?;
        self.listen_to(&record);
        Ok(view(&record))
    }

    /// The tenant's credentials.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn credentials(&self, context: &TenantContext) -> Result<Vec<CredentialView>, Problem> {
        context.require(Scope::Credentials)?;
        Ok(self.store.credentials(context.tenant()).iter().map(|record| view(record)).collect())
    }

    /// One credential of the tenant.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub fn credential(&self, context: &TenantContext, id: &CredentialId) -> Result<CredentialView, Problem> {
        context.require(Scope::Credentials)?;
        self.find(context.tenant(), id).map(|record| view(&record))
    }

    /// Stores a new value and makes it the current one. Returns when no request carries the old one any more;
    /// requests in flight are not cut off.
    ///
    /// # Errors
    /// As for storing; [`Code::Conflict`] if the credential was revoked; [`Code::MalformedRequest`] for a longer
    /// overlap than the operator allows.
    pub async fn rotate_credential(
        &self,
        context: &TenantContext,
        id: &CredentialId,
        value: SecretInput,
        retiring: Retiring,
    ) -> Result<EpochRaised, Problem> {
        context.require(Scope::Credentials)?;
        let record = self.find_active(context.tenant(), id)?;
        if record.kind.check().is_err() {
            return Err(Problem::new(Code::Conflict, "its client is not registered yet: register it first"));
        }
        let overlap = self.overlap(&record, retiring)?;
        let version = self.seal(context.tenant(), id, next_version(&record), &record.kind, value)?;
        self.put_version(context, &record, version, overlap, ActKind::CredentialRotated).await
    }

    /// From a new version that is sealed to the acknowledgement that no request carries the old one any more.
    pub(crate) async fn put_version(
        &self,
        context: &TenantContext,
        record: &CredentialRecord,
        version: VersionRecord,
        overlap: Option<Overlap>,
        kind: ActKind,
    ) -> Result<EpochRaised, Problem> {
        self.put_version_by(context.principal(), record, version, overlap, kind).await
    }

    /// As [`Self::put_version`], by a principal that needs no context: the host itself.
    pub(crate) async fn put_version_by(
        &self,
        principal: &PrincipalLabel,
        record: &CredentialRecord,
        version: VersionRecord,
        overlap: Option<Overlap>,
        kind: ActKind,
    ) -> Result<EpochRaised, Problem> {
        let (number, epoch, id) = (version.version, record.epoch + 1, record.id.clone());
        let (store, tenant, subject) = (Arc::clone(&self.store), record.tenant.clone(), id.clone());
        crate::blocking(move || store.add_version_beside(&tenant, &subject, version, epoch, overlap)).await?;
        self.overlap_added.notify_one();
        self.strongbox.barrier_rotate(&record.tenant, &id, epoch).await;
        self.undo_minted(&record.tenant, &id, epoch).await;
        let act = crate::act::within(&record.tenant, principal.clone(), kind, id.as_str());
        let (version, commit) = (Some(number), Some(self.store.commits()));
        self.record(Act { version, epoch: Some(epoch), commit, ..act }).await?;
        let overlap_until = overlap.map(|overlap| overlap.until);
        Ok(EpochRaised { id, version: Some(number), epoch, overlap_until })
    }

    /// Revokes a credential for good: requests that carry it are cut off, and none carries it afterwards.
    ///
    /// # Errors
    /// [`Code::NotFound`]; to revoke what is revoked is no error.
    pub async fn revoke_credential(&self, context: &TenantContext, id: &CredentialId) -> Result<Revoked, Problem> {
        context.require(Scope::Credentials)?;
        self.revoke_credential_of(context.tenant(), id, context.principal()).await
    }

    /// Revokes a credential for good, whoever asks.
    pub(crate) async fn revoke_credential_of(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        by: &PrincipalLabel,
    ) -> Result<Revoked, Problem> {
        let cut = self.cut_off_credential(tenant, id, by).await?;
        self.take_back(cut, by, mint::issuers_until()).await
    }

    /// The part of a revocation that waits for nobody outside: no request carries the credential any more, and none
    /// will.
    pub(crate) async fn cut_off_credential(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        by: &PrincipalLabel,
    ) -> Result<CutOff, Problem> {
        let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        let (before, record) = crate::blocking(move || store.revoke_credential(&owner, &subject)).await?;
        let revoked = self.cut_credential(tenant, id, record.epoch).await;
        let minted = self.strongbox.end_minted(tenant, id, record.epoch);
        let stored = self.stored_to_give_back(&before, by);
        Ok(CutOff { before: before.state, record, revoked, minted, stored })
    }

    /// The rest of it: what the credential's issuers gave is given back and its client deregistered, as far as they
    /// answer until then, and the revocation is recorded with what became of that.
    pub(crate) async fn take_back(&self, cut: CutOff, by: &PrincipalLabel, until: Instant) -> Result<Revoked, Problem> {
        let CutOff { record, revoked, minted, stored, .. } = cut;
        let minted_revoked =
            self.give_back(minted, until).await + self.give_back(stored.into_iter().collect(), until).await;
        let note = registration::told(self.deregister(&record, by, until).await);
        let act = crate::act::within(&record.tenant, by.clone(), ActKind::CredentialRevoked, record.id.as_str());
        self.record_revoked(Act { epoch: Some(record.epoch), note, ..act }).await?;
        Ok(Revoked { minted_revoked, ..revoked })
    }

    /// Destroys the bytes of a version that is no longer current. From then on it is no longer scrubbed from
    /// answers either.
    ///
    /// # Errors
    /// [`Code::Conflict`] for the current version.
    pub async fn destroy_version(
        &self,
        context: &TenantContext,
        id: &CredentialId,
        version: u32,
    ) -> Result<CredentialView, Problem> {
        context.require(Scope::Credentials)?;
        let record = self.find(context.tenant(), id)?;
        let found = record.versions.iter().find(|known| known.version == version).ok_or_else(Problem::not_found)?;
        if found.state == VersionState::Current {
            return Err(Problem::new(Code::Conflict, "it is the current version: rotate or revoke it first"));
        }
        let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        crate::blocking(move || store.destroy_version(&tenant, &subject, version)).await?;
        self.record_act(context, ActKind::VersionDestroyed, id, (Some(version), record.epoch)).await?;
        self.find(context.tenant(), id).map(|record| view(&record))
    }

    /// Values that are stored more than once, for the operator alone: a tenant must not learn what others hold.
    #[must_use]
    pub fn shared_values(&self, _operator: &OperatorContext) -> Vec<SharedValue> {
        self.store.shared_fingerprints().into_iter().map(|places| SharedValue { places }).collect()
    }

    pub(crate) fn find(&self, tenant: &TenantId, id: &CredentialId) -> Result<Arc<CredentialRecord>, Problem> {
        self.store.credential(tenant, id).ok_or_else(Problem::not_found)
    }

    pub(crate) fn find_active(&self, tenant: &TenantId, id: &CredentialId) -> Result<Arc<CredentialRecord>, Problem> {
        let record = self.find(tenant, id)?;
        if record.state == CredentialState::Revoked {
            return Err(Problem::new(
                Code::Conflict,
                "it was revoked for good: store a new credential, under another name",
            ));
        }
        Ok(record)
    }

    fn seal(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        version: u32,
        kind: &keybearer_gate::CredentialKind,
        value: SecretInput,
    ) -> Result<VersionRecord, Problem> {
        let accepted = self
            .strongbox
            .accept(tenant, id, version, kind, value)
            .map_err(|refused| Problem::new(Code::CredentialRefused, refused.to_string()))?;
        let elsewhere = self.store.same_fingerprint(&accepted.fingerprint);
        if elsewhere.iter().any(|(other, _)| other != tenant) {
            tracing::warn!(credential = %id, "the same value is stored under another tenant");
            if self.refuse_shared_values {
                // The reason is the operator's to know; the tenant learns only that this value will not do.
                return Err(Problem::new(Code::CredentialRefused, "have a new value issued: this one is not accepted"));
            }
        }
        Ok(VersionRecord {
            version,
            sealed: accepted.sealed,
            fingerprint: accepted.fingerprint,
            created: UnixMillis::now(),
            state: VersionState::Current,
        })
    }

    async fn record_act(
        &self,
        context: &TenantContext,
        kind: ActKind,
        id: &CredentialId,
        version_and_epoch: (Option<u32>, u64),
    ) -> Result<(), Problem> {
        let (version, epoch) = version_and_epoch;
        let act = crate::act::of_tenant(context, kind, id.as_str());
        self.record(Act { version, epoch: Some(epoch), commit: Some(self.store.commits()), ..act }).await
    }
}

/// The number of a credential's next version.
pub(crate) fn next_version(record: &CredentialRecord) -> u32 {
    record.versions.iter().map(|version| version.version).max().unwrap_or(0) + 1
}

/// A name belongs to one credential for good: records go on to name what was revoked by it.
pub(crate) fn name_taken(by: &CredentialRecord) -> Problem {
    Problem::new(
        Code::Conflict,
        match by.state {
            CredentialState::Revoked => "a credential of this name was revoked, and keeps it: choose another name",
            _ => "a credential of this name exists",
        },
    )
}

/// What is shown of a credential.
pub(crate) fn view(record: &CredentialRecord) -> CredentialView {
    CredentialView {
        rotation: record.terms.rotation,
        rotation_due: record.rotation_due(),
        binding: record.terms.binding.clone(),
        id: record.id.clone(),
        name: record.name.clone(),
        kind: record.kind.clone(),
        owner: record.owner.clone(),
        justification: record.justification.clone(),
        expires: record.expires,
        state: record.standing(UnixMillis::now()),
        epoch: record.epoch,
        created: record.created,
        registration: record.registration.as_ref().map(|known| RegistrationView {
            place: known.registration_url.place(),
            at: known.at,
            managed: known.management.is_some(),
        }),
        versions: record
            .versions
            .iter()
            .map(|version| VersionView {
                version: version.version,
                created: version.created,
                state: version.state,
                overlap_until: record.overlap_of(version.version, UnixMillis(0)).map(|overlap| overlap.until),
            })
            .collect(),
    }
}
