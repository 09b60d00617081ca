//! Revocation, of anything, in one order: the store has it first, so that nothing new begins; then what runs is
//! stopped and waited for until no credential byte of it can be sent any more; then caches and kept connections
//! go; then the act is recorded; then it is acknowledged, with how much was found of each. What restores is
//! recorded before the store has it, so that the ledger never shows a use that looks forbidden.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::PackageName;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_gate::OperatorContext;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_gate::TokenDirectory as _;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_store::Named;

use crate::Executor;
use crate::Revoked;
use crate::act;
use crate::holders::Held;
use crate::holders::Told;

/// The longest label of a principal, in bytes: what a record holds of one.
const LABEL_BYTES_MAX: usize = 800;

impl Executor {
    /// Takes a grant away: requests that go by it are cut off, and none goes by it afterwards. Their calls go on
    /// without it.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn take_grant(&self, context: &TenantContext, id: &GrantId) -> Result<Revoked, Problem> {
        context.require(Scope::Grants)?;
        let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        let grant = crate::blocking(move || store.remove_grant(&tenant, &subject)).await?;
        let mut revoked = self.stopped("grant", id.as_str(), self.holders.stop_requests(id)).await;
        if let Some(credential) = &grant.credential {
            revoked.connections_closed = self.egress.close_connections(context.tenant(), credential);
        }
        self.record_revoked(act::of_tenant(context, ActKind::GrantTaken, id.as_str())).await?;
        Ok(revoked)
    }

    /// Revokes a token: calls by it are stopped, runs that were opened with it end, and the next request with it is
    /// refused.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub async fn revoke_token(&self, context: &TenantContext, id: &TokenId) -> Result<Revoked, Problem> {
        context.require(Scope::Tokens)?;
        let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        crate::blocking(move || store.revoke_token(&tenant, &subject, UnixMillis::now())).await?;
        let mut revoked = self.stop_principals(context, "token", id.as_str(), &[label_of(id)]).await;
        self.record_revoked(act::of_tenant(context, ActKind::TokenRevoked, id.as_str())).await?;
        revoked.runs_ended = self.end_runs_of(context, &[label_of(id)]).await?;
        Ok(revoked)
    }

    /// Revokes a principal by its label: a JWT's `jwt:ISSUER#SUBJECT` or a SPIFFE id is refused from now on, and
    /// every token that was issued under this label is revoked. Calls by any of them are stopped, their runs end.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for a label that none can have.
    pub async fn revoke_principal(&self, context: &TenantContext, label: &str) -> Result<Revoked, Problem> {
        context.require(Scope::Tokens)?;
        let named = named_principal(context, label)?;
        let now = UnixMillis::now();
        let (store, listed) = (Arc::clone(&self.store), named.clone());
        crate::blocking(move || store.revoke_name(&listed, now)).await?;
        let issued = self.store.tokens(context.tenant());
        let issued: Vec<_> = issued.iter().filter(|token| token.label == label && token.revoked.is_none()).collect();
        for token in &issued {
            let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), token.id.clone());
            crate::blocking(move || store.revoke_token(&tenant, &subject, now)).await?;
        }
        let labels: Vec<String> = issued.iter().map(|token| label_of(&token.id)).chain([label.to_owned()]).collect();
        let mut revoked = self.stop_principals(context, "principal", label, &labels).await;
        for token in &issued {
            self.record_revoked(act::of_tenant(context, ActKind::TokenRevoked, token.id.as_str())).await?;
        }
        self.record_revoked(act::of_tenant(context, ActKind::PrincipalRevoked, label)).await?;
        revoked.runs_ended = self.end_runs_of(context, &labels).await?;
        Ok(revoked)
    }

    /// Lets a principal in again that was revoked by its label. Tokens that were revoked with it stay so.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it is not revoked.
    pub async fn restore_principal(&self, context: &TenantContext, label: &str) -> Result<(), Problem> {
        context.require(Scope::Tokens)?;
        let named = named_principal(context, label)?;
        self.restore(named, act::of_tenant(context, ActKind::PrincipalRestored, label)).await
    }

    /// Withdraws a version of a package: calls that run it are stopped, and no call runs it any more.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn withdraw(&self, operator: &OperatorContext, digest: &Digest) -> Result<Revoked, Problem> {
        let (store, subject) = (Arc::clone(&self.store), *digest);
        let record = crate::blocking(move || store.withdraw(&subject, UnixMillis::now())).await?;
        let id = digest.to_string();
        let told = self.holders.stop_calls(|held| held.facts.package == *digest);
        let revoked = self.stopped("package", &id, told).await;
        let revoked = self.forget_packages(revoked, &[(*digest, record.name.clone())]);
        self.record_revoked(act::of_operator(operator, ActKind::PackageWithdrawn, &id)).await?;
        Ok(revoked)
    }

    /// Revokes one tool, of every version of its package and for every tenant: calls that run it are stopped, and
    /// no call runs it until it is restored.
    ///
    /// # Errors
    /// [`Code::NotFound`] for a tool that no published package has.
    pub async fn revoke_tool(&self, operator: &OperatorContext, tool: &ToolRef) -> Result<Revoked, Problem> {
        let versions = self.store.versions(&tool.package);
        if !versions.iter().any(|record| record.tools.iter().any(|described| described.name == tool.tool)) {
            return Err(Problem::not_found());
        }
        let (store, named) = (Arc::clone(&self.store), Named::Tool(tool.clone()));
        crate::blocking(move || store.revoke_name(&named, UnixMillis::now())).await?;
        let id = tool.to_string();
        let revoked = self.stopped("tool", &id, self.holders.stop_calls(|held| held.facts.tool == *tool)).await;
        let revoked = Revoked { connections_closed: self.close_of_package(&tool.package), ..revoked };
        self.record_revoked(act::of_operator(operator, ActKind::ToolRevoked, &id)).await?;
        Ok(revoked)
    }

    /// Lets a revoked tool run again.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it is not revoked.
    pub async fn restore_tool(&self, operator: &OperatorContext, tool: &ToolRef) -> Result<(), Problem> {
        let act = act::of_operator(operator, ActKind::ToolRestored, &tool.to_string());
        self.restore(Named::Tool(tool.clone()), act).await
    }

    /// Revokes a signer for good: calls of its packages are stopped, none runs any more, and none is published.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for what is no public key.
    pub async fn revoke_signer(&self, operator: &OperatorContext, signer: &str) -> Result<Revoked, Problem> {
        if signer.len() != 64 || !signer.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Problem::new(
                Code::MalformedRequest,
                "a signer is 64 hex digits, as `tool keygen` prints them",
            ));
        }
        let (store, named) = (Arc::clone(&self.store), Named::Signer(signer.to_owned()));
        crate::blocking(move || store.revoke_name(&named, UnixMillis::now())).await?;
        let told = self.holders.stop_calls(|held| held.signer == signer);
        let revoked = self.stopped("signer", signer, told).await;
        let packages = self.store.packages();
        let packages = packages.iter().filter(|record| record.signer == signer);
        let packages: Vec<_> = packages.map(|record| (record.digest, record.name.clone())).collect();
        let revoked = self.forget_packages(revoked, &packages);
        self.record_revoked(act::of_operator(operator, ActKind::SignerRevoked, signer)).await?;
        Ok(revoked)
    }

    /// Suspends a tenant: its calls are stopped, its runs end, what was minted for it is given back, its connections
    /// are closed, and its principals are refused until it is made active again.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn suspend_tenant(&self, operator: &OperatorContext, id: &TenantId) -> Result<Revoked, Problem> {
        let (store, subject) = (Arc::clone(&self.store), id.clone());
        crate::blocking(move || store.set_tenant_state(&subject, TenantState::Suspended)).await?;
        let told = self.holders.stop_calls(|held| held.facts.tenant == *id);
        let mut revoked = self.stopped("tenant", id.as_str(), told).await;
        revoked.connections_closed = self.egress.close_all_connections(id);
        for credential in self.store.credentials(id) {
            revoked.minted_revoked += self.undo_minted(id, &credential.id, credential.epoch + 1).await;
        }
        let by = operator.principal();
        self.record_revoked(act::within(id, by.clone(), ActKind::TenantSuspended, id.as_str())).await?;
        revoked.runs_ended = self.end_runs(id, &by, |_| true).await?;
        Ok(revoked)
    }

    /// Cuts off what carries a credential of an epoch before this one, and waits until nothing of it can be
    /// sent any more. The store has the epoch already.
    pub(crate) async fn cut_credential(&self, tenant: &TenantId, id: &CredentialId, epoch: u64) -> Revoked {
        let dispatches_cancelled = self.strongbox.barrier_revoke(tenant, id, epoch).await;
        Revoked {
            what: "credential".to_owned(),
            id: id.to_string(),
            epoch: Some(epoch),
            dispatches_cancelled,
            connections_closed: self.egress.close_connections(tenant, id),
            ..Revoked::default()
        }
    }

    /// Forgets what was minted with a credential at an epoch before this one, has the issuers revoke it, and says
    /// how many they did: part of the act that raised the epoch, before it is acknowledged.
    pub(crate) async fn undo_minted(&self, tenant: &TenantId, id: &CredentialId, epoch: u64) -> u64 {
        self.give_back(self.strongbox.end_minted(tenant, id, epoch)).await
    }

    /// Whether a call that was just entered may run: nothing that it needs was revoked since it was asked for.
    ///
    /// # Errors
    /// [`Code::Cancelled`]: nothing was done.
    pub(crate) fn check_not_revoked(&self, facts: &Facts) -> Result<(), Problem> {
        let tenant = self.store.tenant(&facts.tenant);
        let principal = facts.principal.as_str();
        let by_token = principal.strip_prefix(TOKEN_LABEL).and_then(|id| id.parse().ok());
        let is_token_good =
            by_token.is_none_or(|id: TokenId| self.store.token(&id).is_some_and(|token| token.revoked.is_none()));
        let is_package_open = self
            .store
            .package(&facts.package)
            .is_some_and(|record| record.is_open_to(&facts.tenant) && self.catalogue.is_trusted(&record.signer));
        let holds = tenant.is_some_and(|tenant| tenant.state == TenantState::Active)
            && is_token_good
            && !self.store.is_principal_revoked(&facts.tenant, principal)
            && is_package_open
            && !self.store.is_tool_revoked(&facts.tool)
            && !self.store.is_quarantined(&facts.tenant, &facts.tool);
        if holds { Ok(()) } else { Err(Problem::new(Code::Cancelled, "what it needs was revoked: nothing was done")) }
    }

    async fn stop_principals(&self, context: &TenantContext, what: &str, id: &str, labels: &[String]) -> Revoked {
        let is_meant = |held: &Held| {
            held.facts.tenant == *context.tenant() && labels.iter().any(|label| held.facts.principal.as_str() == label)
        };
        self.stopped(what, id, self.holders.stop_calls(is_meant)).await
    }

    /// Waits for what was told to stop.
    async fn stopped(&self, what: &str, id: &str, told: Told) -> Revoked {
        self.holders.gone(&told).await;
        Revoked {
            what: what.to_owned(),
            id: id.to_owned(),
            calls_cancelled: told.calls,
            dispatches_cancelled: told.requests,
            ..Revoked::default()
        }
    }

    fn forget_packages(&self, revoked: Revoked, packages: &[(Digest, PackageName)]) -> Revoked {
        let caches_flushed = packages.iter().filter(|(digest, _)| self.catalogue.forget(digest)).count() as u64;
        let mut names: Vec<_> = packages.iter().map(|(_, name)| name).collect();
        names.sort_unstable();
        names.dedup();
        let connections_closed = names.into_iter().map(|name| self.close_of_package(name)).sum();
        Revoked { caches_flushed, connections_closed, ..revoked }
    }

    /// Closes the kept connections of every credential that is granted to a package.
    pub(crate) fn close_of_package(&self, package: &PackageName) -> u64 {
        let mut closed = 0;
        for tenant in self.store.tenants() {
            let grants = self.store.grants_of_package(&tenant.id, package);
            let credentials = grants.iter().filter_map(|grant| grant.credential.as_ref());
            closed += credentials.map(|id| self.egress.close_connections(&tenant.id, id)).sum::<u64>();
        }
        closed
    }

    async fn end_runs_of(&self, context: &TenantContext, labels: &[String]) -> Result<u64, Problem> {
        let is_of = |principal: &PrincipalLabel| labels.iter().any(|label| principal.as_str() == label);
        self.end_runs(context.tenant(), context.principal(), is_of).await
    }

    async fn end_runs(
        &self,
        tenant: &TenantId,
        by: &PrincipalLabel,
        is_of: impl Fn(&PrincipalLabel) -> bool,
    ) -> Result<u64, Problem> {
        let mut ended = 0;
        for run in self.store.open_runs() {
            if run.tenant == *tenant && is_of(&run.principal) {
                ended += match self.terminate_run(tenant, &run.id, RunEnd::Aborted, by).await {
                    Ok(over) => over.runs,
                    // With the run that it was within, a moment ago.
                    Err(problem) if problem.code == Code::NotFound => 0,
                    Err(problem) => return Err(problem),
                };
            }
        }
        Ok(ended)
    }

    async fn restore(&self, named: Named, act: Act) -> Result<(), Problem> {
        if !self.store.is_revoked(&named) {
            return Err(Problem::not_found());
        }
        self.record(act).await?;
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.restore_name(&named)).await
    }

    /// Records a revocation with the store's last commit: a store that has fewer, as out of an older backup, is
    /// refused at the next start.
    pub(crate) async fn record_revoked(&self, act: Act) -> Result<(), Problem> {
        self.record(Act { commit: Some(self.store.commits()), ..act }).await
    }
}

const TOKEN_LABEL: &str = "token:";

fn label_of(token: &TokenId) -> String {
    format!("{TOKEN_LABEL}{token}")
}

fn named_principal(context: &TenantContext, label: &str) -> Result<Named, Problem> {
    if label.trim().is_empty() || label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        return Err(Problem::new(Code::MalformedRequest, "a principal's label is 1 to 800 bytes of plain text"));
    }
    Ok(Named::Principal(context.tenant().clone(), label.to_owned()))
}

/// What a caller is told whose call was stopped by a revocation.
pub(crate) fn call_revoked() -> Problem {
    Problem::new(Code::Cancelled, "what it needs was revoked: find out whether it acted")
}
