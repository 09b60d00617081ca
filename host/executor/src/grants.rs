//! Grants: given, compared with new versions, approved, taken. A grant pins the surface that was
//! approved, and a version that asks for more has no grant until the difference is approved.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::PackageName;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::Slot;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Approved;
use keybearer_gate::AwsRole;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialKind;
use keybearer_gate::Grant;
use keybearer_gate::Scope;
use keybearer_gate::SessionOf;
use keybearer_gate::Standing;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_store::PackageRecord;

use crate::Executor;
use crate::GrantDifferences;
use crate::GrantView;
use crate::NewGrant;
use crate::catalogue;
use crate::rows::one_more;

fn refuse(detail: impl Into<String>) -> Problem {
    Problem::new(Code::MalformedRequest, detail)
}

impl Executor {
    /// Gives a grant. One for the same package and slot ends as if it were taken: requests under it are cut off.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a package, slot or credential that is not there; [`Code::MalformedRequest`] for what does
    /// not fit together; [`Code::Conflict`] for a credential that was revoked or has expired; [`Code::TooMany`].
    pub async fn give_grant(&self, context: &TenantContext, new: NewGrant) -> Result<GrantView, Problem> {
        context.require(Scope::Grants)?;
        let record = self.visible_version(context, &new.package, new.digest)?;
        self.check_grant(context, &new, &record)?;
        self.check_standing(context, &new)?;
        let approved = Approved::of(&record.manifest, record.digest, &record.signer, &record.tools, new.slot.as_ref());
        let grant = Grant {
            id: GrantId::random(),
            tenant: context.tenant().clone(),
            package: new.package,
            slot: new.slot,
            credential: new.credential,
            base_url: new.base_url,
            actions: new.actions,
            approved: Arc::new(approved),
            created: UnixMillis::now(),
        };
        let turn = self.rows.turn().await;
        let others = self.store.grants(context.tenant());
        let others = others.iter().filter(|other| other.package != grant.package || other.slot != grant.slot);
        one_more("grants", others.count(), self.rows.ceilings.grants, "take one away that is not needed")?;
        let (store, stored) = (Arc::clone(&self.store), grant.clone());
        let replaced = crate::blocking(move || store.put_grant(stored)).await?;
        drop(turn);
        if let Some(replaced) = &replaced {
            self.grant_ended(replaced, context.principal(), format!("{} is in its place", grant.id)).await?;
        }
        self.grant_act(context, ActKind::GrantGiven, &grant.id, what_it_is_of(&grant)).await?;
        Ok(GrantView { replaces: replaced.map(|replaced| replaced.id), ..self.grant_view(context, &grant) })
    }

    /// What can never be used, or not any more, fills no slot. What waits for its account may be granted beforehand.
    fn check_standing(&self, context: &TenantContext, new: &NewGrant) -> Result<(), Problem> {
        let credential = new.credential.as_ref().and_then(|id| self.store.credential(context.tenant(), id));
        let hint = match credential.map(|credential| credential.standing(UnixMillis::now())) {
            Some(Standing::Revoked) => "the credential was revoked for good: store a new one, under another name",
            Some(Standing::Expired) => {
                "the credential has expired: give it a later end with `keybearer credential change`"
            }
            _ => return Ok(()),
        };
        Err(Problem::new(Code::Conflict, hint))
    }

    /// The tenant's grants.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn grants(&self, context: &TenantContext) -> Result<Vec<GrantView>, Problem> {
        context.require(Scope::Grants)?;
        Ok(self.store.grants(context.tenant()).iter().map(|grant| self.grant_view(context, grant)).collect())
    }

    /// What the newest version asks beyond what was approved.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn grant_differences(&self, context: &TenantContext, id: &GrantId) -> Result<GrantDifferences, Problem> {
        context.require(Scope::Grants)?;
        let grant = self.find_grant(context, id)?;
        let record = self.visible_version(context, &grant.package, None)?;
        let differences = grant.approved.differences(&catalogue::surface(&grant, &record));
        Ok(GrantDifferences { id: grant.id, digest: record.digest, differences })
    }

    /// Approves a version, named by its digest, so that what is approved is what was looked at.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a grant or version that is not there; [`Code::MalformedRequest`] if the grant no longer fits
    /// the version's slot.
    pub async fn approve_grant(
        &self,
        context: &TenantContext,
        id: &GrantId,
        digest: Digest,
    ) -> Result<GrantView, Problem> {
        context.require(Scope::Grants)?;
        let mut grant = self.find_grant(context, id)?;
        let record = self.visible_version(context, &grant.package, Some(digest))?;
        let again = NewGrant {
            package: grant.package.clone(),
            slot: grant.slot.clone(),
            credential: grant.credential.clone(),
            base_url: grant.base_url.clone(),
            actions: grant.actions.clone(),
            digest: Some(digest),
        };
        self.check_grant(context, &again, &record)?;
        grant.approved = Arc::new(catalogue::surface(&grant, &record));
        let (store, stored) = (Arc::clone(&self.store), grant.clone());
        crate::blocking(move || store.approve_grant(&stored.tenant, &stored.id, Arc::clone(&stored.approved))).await?;
        self.grant_act(context, ActKind::GrantApproved, id, digest.to_string()).await?;
        Ok(self.grant_view(context, &grant))
    }

    fn check_grant(&self, context: &TenantContext, new: &NewGrant, record: &PackageRecord) -> Result<(), Problem> {
        if let Some(actions) = &new.actions {
            let unknown = actions.iter().find(|action| !record.tools.iter().any(|tool| tool.name == **action));
            if let Some(action) = unknown {
                return Err(refuse(format!("`{action}` is no tool of this package")));
            }
        }
        let Some(slot_name) = &new.slot else {
            return match (&new.credential, &new.base_url) {
                (None, None) => Ok(()),
                _ => Err(refuse("name the slot that the credential or the base URL is for")),
            };
        };
        let slot = record.manifest.slot(slot_name).ok_or_else(|| refuse("this package declares no such slot"))?;
        let id = new.credential.as_ref().ok_or_else(|| refuse("name the credential that fills the slot"))?;
        let credential = self.store.credential(context.tenant(), id).ok_or_else(Problem::not_found)?;
        if !credential.kind.fits(&slot.placement) {
            return Err(refuse(
                "the credential is of another kind than the slot places: look at the slot's `placement`",
            ));
        }
        check_base_url(new, slot)?;
        let CredentialKind::AwsRole(recipe) = &credential.kind else { return Ok(()) };
        check_session(recipe, new, slot, context.tenant(), record)
    }

    fn visible_version(
        &self,
        context: &TenantContext,
        package: &PackageName,
        digest: Option<Digest>,
    ) -> Result<Arc<PackageRecord>, Problem> {
        let mut versions = self.catalogue.visible(context.tenant(), package).into_iter();
        versions
            .find(|record| digest.is_none_or(|digest| digest == record.digest))
            .filter(|record| context.may_see(&record.name))
            .ok_or_else(Problem::not_found)
    }

    fn find_grant(&self, context: &TenantContext, id: &GrantId) -> Result<Grant, Problem> {
        self.store.grant(context.tenant(), id).ok_or_else(Problem::not_found)
    }

    fn grant_view(&self, context: &TenantContext, grant: &Grant) -> GrantView {
        let newest = self.catalogue.visible(context.tenant(), &grant.package).into_iter().next();
        GrantView {
            id: grant.id.clone(),
            package: grant.package.clone(),
            slot: grant.slot.clone(),
            credential: grant.credential.clone(),
            base_url: grant.base_url.clone(),
            actions: grant.actions.clone(),
            signs: grant.approved.slot.as_ref().and_then(|slot| slot.placement.signs()),
            approved: grant.approved.package,
            covers_newest: newest.is_some_and(|record| catalogue::covers(grant, &record)),
            created: grant.created,
            replaces: None,
        }
    }

    async fn grant_act(
        &self,
        context: &TenantContext,
        kind: ActKind,
        id: &GrantId,
        note: String,
    ) -> Result<(), Problem> {
        self.record(Act { note, ..crate::act::of_tenant(context, kind, id.as_str()) }).await
    }
}

/// For records: what a grant lets be used, and where.
fn what_it_is_of(grant: &Grant) -> String {
    match (&grant.slot, &grant.credential) {
        (Some(slot), Some(credential)) => format!("{credential} for slot `{slot}` of `{}`", grant.package),
        _ => format!("`{}`", grant.package),
    }
}

/// A session that could not be narrowed would be found out at the first call.
fn check_session(
    recipe: &AwsRole,
    new: &NewGrant,
    slot: &Slot,
    tenant: &TenantId,
    record: &PackageRecord,
) -> Result<(), Problem> {
    let run = RunId::random();
    let tools = record.tools.iter().map(|tool| &tool.name);
    for tool in tools.filter(|tool| new.actions.as_ref().is_none_or(|actions| actions.contains(tool))) {
        let tool = ToolRef { package: new.package.clone(), tool: tool.clone() };
        let of = SessionOf { slot, base_url: new.base_url.as_ref(), tenant, tool: &tool, run: Some(&run) };
        recipe.session_policy(of).map_err(|why| refuse(why.to_string()))?;
    }
    Ok(())
}

fn check_base_url(new: &NewGrant, slot: &Slot) -> Result<(), Problem> {
    let open =
        |binding: &&keybearer_contract::Binding| matches!(binding.host, keybearer_contract::HostRule::FromGrant { .. });
    let mut left_open = slot.bindings.iter().filter(open).peekable();
    match (&new.base_url, left_open.peek().is_some()) {
        (None, false) => Ok(()),
        (None, true) => Err(refuse("the slot leaves its host to the grant: name `base_url`")),
        (Some(_), false) => Err(refuse("the slot names its host itself: leave `base_url` out")),
        (Some(base), true) if left_open.any(|binding| base.fits(binding)) => Ok(()),
        (Some(_), true) => Err(refuse("`base_url` does not fit the slot's host pattern and port")),
    }
}
