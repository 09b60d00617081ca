//! Succession: what is stored is replaced by what its source gives instead: a secret out of a wrapping
//! token, or one that the source made when it was asked to.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::VersionRecord;
use keybearer_gate::VersionState;
use keybearer_ledger::ActKind;
use keybearer_sources::MintFault;
use keybearer_sources::Successor;
use keybearer_sources::Wanted;
use keybearer_strongbox::Selected;
use tokio::time::Instant;

use crate::EpochRaised;
use crate::Executor;
use crate::RotatedAtSource;
use crate::credentials::next_version;
use crate::mint::Way;

/// A few requests to one source, each of which it answers in well under a second.
const SUCCESSION_MAX: Duration = Duration::from_secs(20);

/// What a request to a source that no call asked for is recorded with.
const TOOL: &str = "keybearer.succession";

impl Executor {
    /// Unwraps the wrapping token that is stored in place of a secret: the secret is the next version, and the token's
    /// bytes are destroyed.
    ///
    /// # Errors
    /// [`Code::CredentialRefused`] with a sentence that says so, if the token was used before or has ended;
    /// [`Code::Conflict`] for a kind that knows no wrapping; [`Code::UpstreamFailed`] if the source cannot be asked.
    pub async fn unwrap_credential(&self, context: &TenantContext, id: &CredentialId) -> Result<EpochRaised, Problem> {
        context.require(Scope::Credentials)?;
        let (record, selected, facts) = self.to_succeed(context.tenant(), id, context.principal())?;
        let wanted = wanted(&facts, &record, &selected);
        let successor = keybearer_sources::unwrap(wanted, &self.strongbox, &Way(self)).await.ok_or_else(|| {
            Problem::new(Code::Conflict, "only the secret of an AppRole can be stored as a wrapping token")
        })?;
        let successor = successor.map_err(|fault| match fault {
            MintFault::Refused(_) => Problem::new(Code::CredentialRefused, USED),
            fault => unavailable(&fault),
        })?;
        let raised = self.succeed(context.principal(), &record, &selected, &successor).await?;
        self.destroy_version(context, id, selected.version()).await?;
        Ok(raised)
    }

    /// Has the source make a new secret, stores it, and has the source destroy the one before.
    ///
    /// # Errors
    /// [`Code::Conflict`] for a kind whose source is not asked for one; [`Code::CredentialRefused`] if the source
    /// refuses; [`Code::UpstreamFailed`] if it cannot be asked.
    pub async fn rotate_at_source(
        &self,
        context: &TenantContext,
        id: &CredentialId,
    ) -> Result<RotatedAtSource, Problem> {
        context.require(Scope::Credentials)?;
        let rotated = self.rotate_at_source_by(context.tenant(), id, context.principal()).await?;
        rotated.ok_or_else(|| {
            Problem::new(Code::Conflict, "its source makes no new value for it: rotate it with a value of your own")
        })
    }

    /// As [`Self::rotate_at_source`], whoever asks; none for a kind whose source is not asked for a value.
    pub(crate) async fn rotate_at_source_by(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        by: &PrincipalLabel,
    ) -> Result<Option<RotatedAtSource>, Problem> {
        let (record, selected, facts) = self.to_succeed(tenant, id, by)?;
        let wanted_now = wanted(&facts, &record, &selected);
        let Some(successor) = keybearer_sources::renew(wanted_now, &self.strongbox, &Way(self)).await else {
            return Ok(None);
        };
        let successor = successor.map_err(|fault| match fault {
            MintFault::Refused(refused) => Problem::new(Code::CredentialRefused, refused.to_string()),
            fault => unavailable(&fault),
        })?;
        let raised = self.succeed(by, &record, &selected, &successor).await?;
        let (record, selected, facts) = self.to_succeed(tenant, id, by)?;
        let retired = match &successor.retires {
            None => Ok(()),
            Some(old) => {
                let wanted = wanted(&facts, &record, &selected);
                keybearer_sources::retire(wanted, old, &self.strongbox, &Way(self)).await
            }
        };
        if let Err(fault) = &retired {
            tracing::warn!(tenant = %record.tenant, credential = %id, %fault, "the source still takes the value before");
        }
        let EpochRaised { id, version, epoch, .. } = raised;
        Ok(Some(RotatedAtSource { id, version, epoch, previous_destroyed: retired.is_ok() }))
    }

    fn to_succeed(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        by: &PrincipalLabel,
    ) -> Result<(Arc<CredentialRecord>, Selected, Facts), Problem> {
        let record = self.find_active(tenant, id)?;
        let selected = self.strongbox.select(tenant, id, UnixMillis::now());
        let selected = selected.map_err(|_| Problem::new(Code::Conflict, "it has no version that is in force"))?;
        let facts = Facts {
            tenant: tenant.clone(),
            principal: by.clone(),
            run: RunId::random(),
            call: CallId::random(),
            tool: TOOL.parse().expect("a package and a tool"),
            package: Digest::of_package(b"", b""),
        };
        Ok((record, selected, facts))
    }

    async fn succeed(
        &self,
        by: &PrincipalLabel,
        record: &CredentialRecord,
        selected: &Selected,
        successor: &Successor,
    ) -> Result<EpochRaised, Problem> {
        let number = next_version(record);
        let accepted = self
            .strongbox
            .seal_with_password(selected, &successor.vessel, successor.password, number)
            .map_err(|refused| Problem::new(Code::CredentialRefused, refused.to_string()))?;
        let version = VersionRecord {
            version: number,
            sealed: accepted.sealed,
            fingerprint: accepted.fingerprint,
            created: UnixMillis::now(),
            state: VersionState::Current,
        };
        self.put_version_by(by, record, version, None, ActKind::CredentialRotated).await
    }
}

const USED: &str = "the wrapping token is not good: it was used before, or has ended, or wraps something else. If you did \
                    not use it, somebody else has the secret: have it destroyed at its source, and another one made";

fn wanted<'call>(facts: &'call Facts, record: &'call CredentialRecord, selected: &'call Selected) -> Wanted<'call> {
    let deadline = Instant::now() + SUCCESSION_MAX;
    Wanted { facts, record, selected, watched: false, deadline, until: deadline }
}

fn unavailable(fault: &MintFault) -> Problem {
    Problem::new(Code::UpstreamFailed, fault.to_string())
}
