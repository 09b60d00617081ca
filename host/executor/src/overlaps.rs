//! Overlaps: for how long a tenant can go back to a version that was rotated out, the way back, and the
//! end. An overlap never lets a dispatch use the old version: a dispatch uses the current one, always.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Overlap;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;

use crate::EpochRaised;
use crate::Executor;
use crate::act;
use crate::credentials::next_version;

/// What becomes of the version that a rotation takes out of use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retiring {
    /// For how many seconds its tenant can go back to it; then its bytes are destroyed. 0: there is no way
    /// back, and the bytes stay, to be scrubbed from answers, until they are destroyed by hand.
    pub overlap_s: u64,
    /// The bytes stay after the overlap, too.
    pub pinned: bool,
}

/// The wall clock may jump: ends are looked for at least this often.
const LOOK_MAX: Duration = Duration::from_secs(30);

impl Executor {
    /// Goes back to a version that was rotated out, the last one if none is named, while its overlap lasts.
    /// Its value becomes a new version, so that numbers and epochs only grow; the one that was current is
    /// rotated out, and stays to be scrubbed from answers.
    ///
    /// # Errors
    /// [`Code::Conflict`] if no overlap holds or the credential was revoked; [`Code::NotFound`].
    pub async fn rollback_credential(
        &self,
        context: &TenantContext,
        id: &CredentialId,
        version: Option<u32>,
    ) -> Result<EpochRaised, Problem> {
        context.require(Scope::Credentials)?;
        let record = self.find_active(context.tenant(), id)?;
        let now = UnixMillis::now();
        let wanted = version.or_else(|| record.overlaps.iter().map(|overlap| overlap.version).max());
        let over = || Problem::new(Code::Conflict, "no overlap holds for it: store the value as a new version");
        let from = wanted.and_then(|version| record.overlap_of(version, now)).ok_or_else(over)?.version;
        let number = next_version(&record);
        let sealed = self.strongbox.reseal(context.tenant(), id, from, number).map_err(|error| {
            tracing::error!(%error, credential = %id, version = from, "a version that should be there does not open");
            over()
        })?;
        let version = VersionRecord {
            version: number,
            sealed: sealed.sealed,
            fingerprint: sealed.fingerprint,
            created: now,
            state: VersionState::Current,
        };
        self.put_version(context, &record, version, None, ActKind::CredentialRolledBack).await
    }

    /// The overlap that a rotation leaves.
    pub(crate) fn overlap(&self, record: &CredentialRecord, retiring: Retiring) -> Result<Option<Overlap>, Problem> {
        if retiring.overlap_s > self.overlap_s_max {
            let hint = format!("`overlap_s` is at most {}: the operator says so", self.overlap_s_max);
            return Err(Problem::new(Code::MalformedRequest, hint));
        }
        let current = record.versions.iter().rfind(|version| version.state == VersionState::Current);
        let Some(current) = current.filter(|_| retiring.overlap_s > 0) else { return Ok(None) };
        let until = UnixMillis(UnixMillis::now().0 + retiring.overlap_s * 1000);
        Ok(Some(Overlap { version: current.version, until, pinned: retiring.pinned }))
    }

    /// Ends overlaps when their time is over, for as long as the executor lives.
    pub(crate) fn watch_overlaps(self: &Arc<Self>) {
        let (executor, added) = (Arc::downgrade(self), Arc::clone(&self.overlap_added));
        tokio::spawn(async move {
            while let Some(wait) = end_of(&executor).await {
                let _ = tokio::time::timeout(wait, added.notified()).await;
            }
        });
    }

    /// Ends what is over, and says how long until the next look.
    async fn end_overlaps(&self) -> Duration {
        let now = UnixMillis::now();
        let mut wait = LOOK_MAX;
        for (tenant, credential, overlap) in self.store.overlaps() {
            if overlap.until <= now {
                if let Err(problem) = self.end_overlap(&tenant, &credential, overlap).await {
                    tracing::error!(%credential, version = overlap.version, %problem, "an overlap could not be ended");
                }
            } else {
                wait = wait.min(Duration::from_millis(overlap.until.0 - now.0));
            }
        }
        wait
    }

    async fn end_overlap(&self, tenant: &TenantId, id: &CredentialId, overlap: Overlap) -> Result<(), Problem> {
        let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        let Overlap { version, pinned, .. } = overlap;
        let record = crate::blocking(move || match pinned {
            true => store.forget_overlap(&owner, &subject, version),
            false => store.destroy_version(&owner, &subject, version),
        });
        let record = record.await?;
        if pinned {
            return Ok(());
        }
        let act = act::within(tenant, PrincipalLabel::host(), ActKind::VersionDestroyed, id.as_str());
        let note = "its overlap is over".to_owned();
        self.record(Act { version: Some(version), epoch: Some(record.epoch), note, ..act }).await
    }
}

async fn end_of(executor: &Weak<Executor>) -> Option<Duration> {
    let executor = executor.upgrade()?;
    Some(executor.end_overlaps().await)
}
