//! Selecting a version and leasing it. Selecting opens nothing: it names version and epoch, so that the
//! ledger can record what is about to be used. Leasing comes after the intent is recorded: it takes a
//! use guard, looks at the record again, and only then opens the value.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_ledger::Intent;

use crate::Flight;
use crate::Strongbox;
use crate::Undo;
use crate::UseGuard;
use crate::Vessel;
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
    run: Option<RunId>,
    tool: Option<ToolRef>,
    policy: Option<Arc<str>>,
}

impl Selected {
    /// The same, within a run: what is fetched or minted is for this run alone, and ends with it. What renews
    /// itself is of no run.
    #[must_use]
    pub fn within(self, run: Option<RunId>) -> Self {
        let run = run.filter(|_| !self.kind.renews_itself());
        Self { run, ..self }
    }

    /// The same, for calls of this tool: where what is minted names the tool, no other one uses it.
    #[must_use]
    pub fn of_tool(self, tool: &ToolRef) -> Self {
        let tool = self.kind.names_the_tool().then(|| tool.clone());
        Self { tool, ..self }
    }

    /// The same, for what this policy allows: what is minted under another one is not used.
    #[must_use]
    pub fn under(self, policy: String) -> Self {
        Self { policy: Some(policy.into()), ..self }
    }

    /// What the source is told that what it mints may do.
    #[must_use]
    pub fn policy(&self) -> Option<&Arc<str>> {
        self.policy.as_ref()
    }

    /// The tool that it is confined to.
    #[must_use]
    pub fn tool(&self) -> Option<&ToolRef> {
        self.tool.as_ref()
    }

    /// The run that it is confined to.
    #[must_use]
    pub fn run(&self) -> Option<&RunId> {
        self.run.as_ref()
    }

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

    /// One that waits for its account: nothing that is stored goes out with it.
    pub(crate) fn waiting(record: &CredentialRecord) -> Self {
        let (tenant, credential, kind) = (record.tenant.clone(), record.id.clone(), record.kind.clone());
        Self { tenant, credential, version: 0, epoch: record.epoch, kind, run: None, tool: None, policy: None }
    }

    /// The version of this record that was in use then, whatever has become of it since; none if it had none.
    pub(crate) fn of(record: &CredentialRecord, now: UnixMillis) -> Option<Self> {
        Some(Self { version: record.current(now)?.version, ..Self::waiting(record) })
    }

    /// Whether it was selected as one that waits for its account.
    pub(crate) fn is_waiting(&self) -> bool {
        self.version == 0
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
    /// It is a recipe, and nothing fresh has been fetched or minted with it: do that, then lease.
    #[error("nothing fresh has been fetched with this credential")]
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
    pub(crate) epoch: u64,
    pub(crate) value: Leased,
    /// None for giving a minted value back to its issuer.
    pub(crate) guard: Option<UseGuard>,
}

assert_lacks!(Lease: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

impl Lease {
    /// Has something dropped when no byte of the credential will be sent any more: its last one is with the kernel,
    /// or its connection is closed. So others than the strongbox can wait for that, too.
    pub fn carrying(mut self, rider: impl Send + Sync + 'static) -> Self {
        if let Some(guard) = &mut self.guard {
            guard.carry(Box::new(rider));
        }
        self
    }
}

/// The value, by what may be done with it.
pub(crate) enum Leased {
    /// A stored value, to be placed as its kind says.
    Stored(CredentialKind, Secret),
    /// What was fetched or minted, to be placed as its kind says.
    Minted(CredentialKind, Arc<Secret>),
    /// For a request to a source and nowhere else: what is stored, and what its answers left so far.
    Source(Option<Secret>, Vessel),
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
        let key = GuardKey { tenant: tenant.clone(), credential: credential.clone() };
        let mut epoch_seen = None;
        loop {
            let record = self.record(tenant, credential).ok_or(CredentialUnusable)?;
            let version = record.current(now).ok_or(CredentialUnusable)?.version;
            if !self.guards.is_over(&key, record.epoch) {
                let GuardKey { tenant, credential } = key;
                let (epoch, kind) = (record.epoch, record.kind.clone());
                return Ok(Selected { tenant, credential, version, epoch, kind, run: None, tool: None, policy: None });
            }
            // It was rotated since the record was read: the next look finds the newer one. A directory that
            // gives the same again is behind, and is not waited for.
            if epoch_seen.replace(record.epoch) == Some(record.epoch) {
                return Err(CredentialUnusable);
            }
        }
    }

    /// Counts a request in that is about to carry what was selected. Held until its answer was read, so that a
    /// revocation finds it.
    #[must_use]
    pub fn fly(&self, selected: &Selected) -> Flight {
        self.guards.fly(selected.guard_key(), selected.epoch)
    }

    /// Leases what was selected: takes a use guard, checks state, epoch and version again, and opens the
    /// value; of a recipe, what was minted with it.
    ///
    /// # Errors
    /// [`LeaseRefused`]; no guard is held then and nothing was opened that is not wiped.
    pub fn lease(&self, selected: Selected, intent: &Intent, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        check_recorded(&selected, intent)?;
        let lease = self.lease_recorded(selected, now)?;
        // The record names the very identity: one that was replaced meanwhile is chosen anew.
        if let Leased::Minted(CredentialKind::SpiffeX509(recipe), secret) = &lease.value
            && (intent.svid().is_none() || self.svids.serial_of(&recipe.spiffe_id, secret).as_deref() != intent.svid())
        {
            return Err(LeaseRefused::Stale);
        }
        Ok(lease)
    }

    /// Leases what asks a source: the recipe's stored value and what the vessel holds.
    ///
    /// # Errors
    /// As [`Self::lease`]; [`LeaseRefused::Unusable`] if the credential is not a recipe.
    pub fn lease_source(
        &self,
        selected: Selected,
        vessel: &Vessel,
        intent: &Intent,
        now: UnixMillis,
    ) -> Result<Lease, LeaseRefused> {
        check_recorded(&selected, intent)?;
        self.lease_source_recorded(selected, vessel, now)
    }

    /// Leases what gives a minted value back to its issuer. There is no guard, for the credential may be at its
    /// end, which is why it is given back; what is stored is on the request only while the act that ends it is not
    /// acknowledged, or has not begun (P3).
    ///
    /// # Errors
    /// [`LeaseRefused::NotRecorded`].
    pub fn lease_undo(&self, undo: &Undo, intent: &Intent) -> Result<Lease, LeaseRefused> {
        let selected = undo.selected.clone();
        check_recorded(&selected, intent)?;
        let is_before_the_end = undo.in_act || !self.guards.is_over(&selected.guard_key(), selected.epoch);
        let record = self.record(&selected.tenant, &selected.credential).filter(|_| is_before_the_end);
        let stored = record.and_then(|record| self.open_version(&record, selected.version).ok());
        Ok(lease_of(selected, Leased::Source(stored, undo.vessel.shared()), None))
    }

    /// [`Self::lease`] without the proof of the intent.
    pub(crate) fn lease_recorded(&self, selected: Selected, now: UnixMillis) -> Result<Lease, LeaseRefused> {
        let (guard, record) = self.take_guard(&selected, now)?;
        let value = if record.kind.is_recipe() {
            let minted = self.minted.fresh(&selected, now).ok_or(LeaseRefused::NeedsMint)?;
            Leased::Minted(record.kind.clone(), minted)
        } else {
            Leased::Stored(record.kind.clone(), self.open_version(&record, selected.version)?)
        };
        Ok(lease_of(selected, value, Some(guard)))
    }

    /// [`Self::lease_source`] without the proof of the intent.
    pub(crate) fn lease_source_recorded(
        &self,
        selected: Selected,
        vessel: &Vessel,
        now: UnixMillis,
    ) -> Result<Lease, LeaseRefused> {
        if selected.is_waiting() {
            let guard = self.guards.take(selected.guard_key(), selected.epoch).map_err(|_| LeaseRefused::Stale)?;
            let record = self.record(&selected.tenant, &selected.credential).ok_or(LeaseRefused::Unusable)?;
            if record.epoch != selected.epoch || !crate::waits(record.state) {
                return Err(LeaseRefused::Stale);
            }
            return Ok(lease_of(selected, Leased::Source(None, vessel.shared()), Some(guard)));
        }
        let (guard, record) = self.take_guard(&selected, now)?;
        if !record.kind.is_recipe() {
            return Err(LeaseRefused::Unusable);
        }
        let stored = self.open_version(&record, selected.version)?;
        Ok(lease_of(selected, Leased::Source(Some(stored), vessel.shared()), Some(guard)))
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

fn lease_of(selected: Selected, value: Leased, guard: Option<UseGuard>) -> Lease {
    let Selected { tenant, credential, version, epoch, .. } = selected;
    Lease { tenant, credential, version, epoch, value, guard }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
