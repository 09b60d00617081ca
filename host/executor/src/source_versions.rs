//! A source that was begun anew, or that once named a number that it never reaches again, gives nothing that is newer than
//! what it gave before: an administrator has that forgotten. Not for a replica that lags behind, which catches up by itself.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Executor;
use crate::act;

/// What is not known any more of a credential's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceVersionForgotten {
    /// The credential.
    #[schema(value_type = String)]
    pub id: CredentialId,
    /// The highest version that its source had given, or told of.
    pub version: u64,
}

impl Executor {
    /// Forgets the highest version that a credential's source gave: what it gives next is taken, whatever its version.
    /// What was fetched so far is used no more.
    ///
    /// # Errors
    /// [`Code::Conflict`] if its source gave none, or the credential is not in force; [`Code::NotFound`].
    pub async fn forget_source_version(
        &self,
        context: &TenantContext,
        id: &CredentialId,
    ) -> Result<SourceVersionForgotten, Problem> {
        context.require(Scope::Credentials)?;
        let _running = self.running()?;
        self.find_active(context.tenant(), id)?;
        let (store, of, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        let known = crate::blocking(move || store.source_version(&of, &subject)).await?;
        let version =
            known.ok_or_else(|| Problem::new(Code::Conflict, "its source gave no version that is remembered"))?;
        // First, so that what is being fetched meanwhile is not kept.
        self.invalidate(context.tenant(), id, context.principal().clone()).await?;
        let (store, of, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        crate::blocking(move || store.forget_source_version(&of, &subject)).await?;
        self.strongbox.forget_source_version(context.tenant(), id);
        let act = act::of_tenant(context, ActKind::SourceVersionForgotten, id.as_str());
        let note = format!("version {version}");
        self.record(Act { commit: Some(self.store.commits()), note, ..act }).await?;
        Ok(SourceVersionForgotten { id: id.clone(), version })
    }
}
