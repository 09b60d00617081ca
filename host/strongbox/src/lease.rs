//! Selecting a version and leasing it. Selecting opens nothing: it names version and epoch, so that the
//! ledger can record what is about to be used. Leasing comes after the intent is recorded: it takes a
//! use guard, looks at the record again, and only then opens the value.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_ledger::Intent;

use crate::Flight;
use crate::Strongbox;
use crate::UseGuard;
use crate::guards::GuardKey;
use crate::seal::SealBroken;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Which version of which credential a dispatch is going to use. A description: nothing can be opened
/// with it, and it is looked at again when it is leased.
#[derive(Debug, Clone)]
pub struct Selected {
    tenant: TenantId,
    credential: CredentialId,
    version: u32,
    epoch: u64,
    kind: CredentialKind,
}

impl Selected {
    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Which credential.
    #[must_use]
    pub fn credential(&self) -> &CredentialId {
        &self.credential
    }

    /// Which version of it.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// At which epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> &CredentialKind {
        &self.kind
    }

    pub(crate) fn guard_key(&self) -> GuardKey {
        GuardKey { tenant: self.tenant.clone(), credential: self.credential.clone() }
    }
}

/// The credential is unknown, another tenant's, revoked, expired or blank: one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential has no usable version")]
pub struct CredentialUnusable;

/// Why a selected version is not leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseRefused {
    /// It was rotated or revoked since it was selected: select again.
    #[error("the credential changed since it was selected")]
    Stale,
    /// It has no usable version any more.
    #[error("the credential has no usable version")]
    Unusable,
    /// It is a recipe, and no fresh token has been minted with it: mint one, then lease.
    #[error("no fresh token has been minted with this credential")]
    NeedsMint,
    /// The intent in the ledger names another credential, version or epoch: a mistake of ours.
    #[error("the recorded intent is not of what was selected")]
    NotRecorded,
    /// The value does not open: the store was changed behind our back, or is of another master key.
    #[error("the credential's sealed value does not open")]
    Broken,
}

impl From<SealBroken> for LeaseRefused {
    fn from(_: SealBroken) -> Self {
        Self::Broken
    }
}

/// The right to put one version of one credential on one request, and its value. Wiped and given up
/// when it is dropped.
#[must_use]
pub struct Lease {
    pub(crate) tenant: TenantId,
    pub(crate) credential: CredentialId,
    pub(crate) version: u32,
    pub(crate) value: Leased,
    pub(crate) guard: UseGuard,
}

assert_lacks!(Lease: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// The value, by what may be done with it.
pub(crate) enum Leased {
    /// A stored value, to be placed as its kind says.
    Stored(CredentialKind, Secret),
    /// A minted token, to be placed as a bearer.
    Minted(Arc<Secret>),
    /// `client_id:client_secret`, form-encoded, to be placed on a token request and nowhere else.
    Client(Secret),
}

impl Strongbox {
    /// Names the version that a dispatch would use now. Opens nothing.
    ///
    /// # Errors
    /// [`CredentialUnusable`] if it is unknown to this tenant, revoked, expired or blank.
    pub fn select(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        now: UnixMillis,
    ) -> Result<Selected, CredentialUnusable> {
        let record = self.record(tenant, credential).ok_or(CredentialUnusable)?;
        let version = record.current(now).ok_or(CredentialUnusable)?.version;
        let selected = Selected {
            tenant: tenant.clone(),
            credential: credential.clone(),
            version,
            epoch: record.epoch,
            kind: record.kind.clone(),
        };
        if self.guards.is_over(&selected.guard_key(), selected.epoch) {
            return Err(CredentialUnusable);
        }
        Ok(selected)
    }

    /// Counts a request in that is about to carry what was selected. Held until its answer was read, so that a
    /// revocation finds it.
    #[must_use]
    pub fn fly(&self, selected: &Selected) -> Flight {
        self.guards.fly(selected.guard_key(), selected.epoch)
    }

    /// Leases what was selected: takes a use guard, checks state, epoch and version again, and opens the
    /// value; of a recipe, the token that was minted with it.
    ///
    /// # Errors
    /// [`LeaseRefused`]; no guard is held then and nothing was opened that is not wiped.
    pub fn lease(&self, selected: Selected, intent: &Intent, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        check_recorded(&selected, intent)?;
        self.lease_recorded(selected, now)
    }

    /// Leases the client id and secret of a recipe, for the request that mints a token.
    ///
    /// # Errors
    /// As [`Self::lease`]; [`LeaseRefused::Unusable`] if the credential is not a recipe.
    pub fn lease_client(&self, selected: Selected, intent: &Intent, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        check_recorded(&selected, intent)?;
        self.lease_client_recorded(selected, now)
    }

    /// [`Self::lease`] without the proof of the intent.
    pub(crate) fn lease_recorded(&self, selected: Selected, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        let (guard, record) = self.take_guard(&selected, now)?;
        let value = match &record.kind {
            CredentialKind::OauthClientCredentials(_) => Leased::Minted(
                self.minted.fresh(&selected.guard_key(), selected.epoch, now).ok_or(LeaseRefused::NeedsMint)?,
            ),
            kind => Leased::Stored(kind.clone(), self.open_version(&record, selected.version)?),
        };
        Ok(lease_of(selected, value, guard))
    }

    /// [`Self::lease_client`] without the proof of the intent.
    pub(crate) fn lease_client_recorded(&self, selected: Selected, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        let (guard, record) = self.take_guard(&selected, now)?;
        let CredentialKind::OauthClientCredentials(client) = &record.kind else {
            return Err(LeaseRefused::Unusable);
        };
        let secret = self.open_version(&record, selected.version)?;
        let value = Leased::Client(crate::place::client_pair(&client.client_id, &secret));
        Ok(lease_of(selected, value, guard))
    }

    /// The order is the point: first the guard, then the look. What changes after the look finds the
    /// guard and waits for it; what changed before is seen.
    fn take_guard(
        &self,
        selected: &Selected,
        now: UnixMillis,
    ) -> Result<(UseGuard, Arc<CredentialRecord>), LeaseRefused> {
        let guard = self.guards.take(selected.guard_key(), selected.epoch).map_err(|_| LeaseRefused::Stale)?;
        let record = self.record(&selected.tenant, &selected.credential).ok_or(LeaseRefused::Unusable)?;
        let current = record.current(now).ok_or(LeaseRefused::Unusable)?;
        if record.epoch != selected.epoch || current.version != selected.version {
            return Err(LeaseRefused::Stale);
        }
        Ok((guard, record))
    }
}

/// The ledger says which version went out at which epoch: it must be this one.
fn check_recorded(selected: &Selected, intent: &Intent) -> Result<(), LeaseRefused> {
    let is_recorded = intent.credential() == Some(&selected.credential)
        && intent.version() == Some(selected.version)
        && intent.epoch() == Some(selected.epoch);
    if is_recorded { Ok(()) } else { Err(LeaseRefused::NotRecorded) }
}

fn lease_of(selected: Selected, value: Leased, guard: UseGuard) -> Lease {
    Lease { tenant: selected.tenant, credential: selected.credential, version: selected.version, value, guard }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
