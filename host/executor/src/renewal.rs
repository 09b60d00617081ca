//! What a source gives instead of what is stored: noted before it is asked, stored before anything that came with it is
//! used, and given up when the source takes it no more. Not for asking: that is `mint`.

use std::sync::Arc;
use std::sync::LazyLock;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Facts;
use keybearer_gate::Ingredient;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Renewal;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_sources::Keeper;
use keybearer_sources::MintFault;
use keybearer_strongbox::Accepted;
use keybearer_strongbox::KeepRefused;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Undo;
use keybearer_strongbox::Vessel;

use crate::Executor;
use crate::act;
use crate::credentials::next_version;
use crate::mint::Way;

/// A source is asked for at most 10 s: who noted a renewal longer ago than this, in ms, is not about it any more.
const ABANDONED_MS: u64 = 15_000;

/// Tells this process from the one before, and from others.
static PROCESS: LazyLock<String> = LazyLock::new(|| RunId::random().to_string());

impl Keeper for Way<'_> {
    async fn begin_renewal(&self, selected: &Selected) -> Result<(), MintFault> {
        let now = UnixMillis::now();
        let renewal = Renewal { version: selected.version(), since: now, process: PROCESS.clone() };
        let abandoned = UnixMillis(now.0.saturating_sub(ABANDONED_MS));
        let (store, tenant, id) = (Arc::clone(&self.0.store), selected.tenant().clone(), selected.credential().clone());
        match crate::blocking(move || store.begin_renewal(&tenant, &id, renewal, abandoned)).await {
            Ok(_) => Ok(()),
            Err(problem) if problem.code == Code::Conflict => {
                // Another version is there, or another process is about it.
                let record = self.record(selected)?;
                if record.epoch == selected.epoch() { Err(MintFault::Unavailable) } else { Err(MintFault::Stale) }
            }
            Err(_) => Err(MintFault::Host),
        }
    }

    async fn renew(&self, selected: &Selected, vessel: &Vessel, parts: &[Ingredient]) -> Result<Selected, MintFault> {
        let (executor, record) = (self.0, self.record(selected)?);
        if record.epoch != selected.epoch() {
            return Err(MintFault::Stale);
        }
        if parts.is_empty() {
            return self.keep_stored(selected).await;
        }
        let number = next_version(&record);
        let accepted = executor.strongbox.seal_held(selected, vessel, parts, number).map_err(|refused| {
            tracing::warn!(credential = %record.id, %refused, "what a source gave to be stored cannot be stored");
            MintFault::Unusable(KeepRefused::Unfit)
        })?;
        let version = version(number, accepted);
        let current = record.versions.iter().rfind(|of| of.version == selected.version());
        if current.is_some_and(|current| current.fingerprint == version.fingerprint) {
            return self.keep_stored(selected).await;
        }
        let epoch = record.epoch + 1;
        let (store, tenant, id) = (Arc::clone(&executor.store), record.tenant.clone(), record.id.clone());
        let stored = crate::blocking(move || store.renew(&tenant, &id, version, epoch)).await;
        stored.map_err(|problem| if problem.code == Code::Conflict { MintFault::Stale } else { MintFault::Host })?;
        executor.end_epoch(&record, epoch, ActKind::CredentialRenewed, Some(number)).await?;
        let renewed = executor.strongbox.select(&record.tenant, &record.id, UnixMillis::now());
        renewed.map_err(|_| MintFault::Stale)
    }

    async fn lapse(&self, selected: &Selected) -> Result<(), MintFault> {
        let (executor, record) = (self.0, self.record(selected)?);
        if record.epoch != selected.epoch() {
            // Another value was stored meanwhile: it was not that one which is of no use.
            return Err(MintFault::Stale);
        }
        let epoch = record.epoch + 1;
        let (store, tenant, id) = (Arc::clone(&executor.store), record.tenant.clone(), record.id.clone());
        let ended = crate::blocking(move || store.end_authorization(&tenant, &id, epoch)).await;
        ended.map_err(|problem| if problem.code == Code::Conflict { MintFault::Stale } else { MintFault::Host })?;
        tracing::warn!(tenant = %record.tenant, credential = %record.id, "its account must authorize it again");
        executor.end_epoch(&record, epoch, ActKind::CredentialLapsed, None).await
    }
}

impl Way<'_> {
    /// Nothing new was given: what is stored stays, and so does its epoch.
    async fn keep_stored(&self, selected: &Selected) -> Result<Selected, MintFault> {
        let (store, tenant, id) = (Arc::clone(&self.0.store), selected.tenant().clone(), selected.credential().clone());
        let version = selected.version();
        let ended = crate::blocking(move || store.end_renewal(&tenant, &id, version)).await;
        ended.map(|()| selected.clone()).map_err(|_| MintFault::Host)
    }

    fn record(&self, selected: &Selected) -> Result<Arc<CredentialRecord>, MintFault> {
        self.0.store.credential(selected.tenant(), selected.credential()).ok_or(MintFault::Stale)
    }
}

impl Executor {
    /// Ends what is of an earlier epoch. What was minted then is not given back: at some issuers that ends the very
    /// authorization that was just renewed (RFC 7009 §2.1).
    async fn end_epoch(
        &self,
        record: &CredentialRecord,
        epoch: u64,
        kind: ActKind,
        version: Option<u32>,
    ) -> Result<(), MintFault> {
        self.strongbox.barrier_rotate(&record.tenant, &record.id, epoch).await;
        drop(self.strongbox.end_minted(&record.tenant, &record.id, epoch));
        let act = act::within(&record.tenant, PrincipalLabel::host(), kind, record.id.as_str());
        self.record(Act { version, epoch: Some(epoch), ..act }).await.map_err(|_| MintFault::Host)
    }

    /// How the issuer is to forget what was stored, where it can: part of the act that revokes the credential, by its
    /// record as it was right before.
    pub(crate) fn stored_to_give_back(&self, before: &CredentialRecord, by: &PrincipalLabel) -> Option<Undo> {
        let (exchange, facts) = (keybearer_sources::farewell(&before.kind)?, facts_of_act(&before.tenant, by));
        self.strongbox.undo_stored(facts, before, exchange, UnixMillis::now())
    }
}

/// A request to a source that no call asked for, by who asked for the act.
pub(crate) fn facts_of_act(tenant: &TenantId, principal: &PrincipalLabel) -> Facts {
    Facts {
        tenant: tenant.clone(),
        principal: principal.clone(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "keybearer.credential".parse().expect("a package and a tool"),
        package: Digest::of_package(b"", b""),
    }
}

pub(crate) fn version(number: u32, accepted: Accepted) -> VersionRecord {
    VersionRecord {
        version: number,
        sealed: accepted.sealed,
        fingerprint: accepted.fingerprint,
        created: UnixMillis::now(),
        state: VersionState::Current,
    }
}
