//! Revocation, of anything, in one order: the store has it first, so that nothing new begins; then what runs is
//! stopped and waited for until no credential byte of it can be sent any more; then caches and kept connections
//! go; then the act is recorded; then it is acknowledged, with how much was found of each. What restores is
//! recorded before the store has it, so that the ledger never shows a use that looks forbidden.

use std::collections::HashSet;
use std::sync::Arc;

use keybearer_contract::AgentName;
use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::PackageName;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_gate::Grant;
use keybearer_gate::OperatorContext;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_gate::TokenDirectory as _;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_store::Named;
use tokio::time::Instant;

use crate::Executor;
use crate::Revoked;
use crate::act;
use crate::holders::Held;
use crate::holders::Told;
use crate::mint;
use crate::runs::Ended;
use crate::runs::Ending;

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
        self.take_grant_of(context.tenant(), id, context.principal()).await
    }

    /// Takes a grant away, whoever asks.
    pub(crate) async fn take_grant_of(
        &self,
        tenant: &TenantId,
        id: &GrantId,
        by: &PrincipalLabel,
    ) -> Result<Revoked, Problem> {
        let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        let grant = crate::blocking(move || store.remove_grant(&owner, &subject)).await?;
        self.grant_ended(&grant, by, String::new()).await
    }

    /// What follows once a grant is not in the store any more, whether it was taken or another is in its place.
    pub(crate) async fn grant_ended(
        &self,
        grant: &Grant,
        by: &PrincipalLabel,
        note: String,
    ) -> Result<Revoked, Problem> {
        let (tenant, id) = (&grant.tenant, &grant.id);
        let mut revoked = self.stopped("grant", id.as_str(), self.holders.stop_requests(id)).await;
        if let Some(credential) = &grant.credential {
            revoked.connections_closed = self.egress.close_connections(tenant, credential);
        }
        let act = act::within(tenant, by.clone(), ActKind::GrantTaken, id.as_str());
        self.record_revoked(Act { note, ..act }).await?;
        Ok(revoked)
    }

    /// Revokes a token: calls by it are stopped, runs that were opened with it end, and the next request with it is
    /// refused.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub async fn revoke_token(&self, context: &TenantContext, id: &TokenId) -> Result<Revoked, Problem> {
        context.require(Scope::Tokens)?;
        self.revoke_token_of(context.tenant(), id, context.principal()).await
    }

    /// Revokes a token, whoever asks.
    pub(crate) async fn revoke_token_of(
        &self,
        tenant: &TenantId,
        id: &TokenId,
        by: &PrincipalLabel,
    ) -> Result<Revoked, Problem> {
        let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        crate::blocking(move || store.revoke_token(&owner, &subject, UnixMillis::now())).await?;
        let revoked = self.stop_principals(tenant, "token", id.as_str(), &[label_of(id)]).await;
        self.record_revoked(act::within(tenant, by.clone(), ActKind::TokenRevoked, id.as_str())).await?;
        self.end_runs_of(revoked, tenant, by, &[label_of(id)]).await
    }

    /// Revokes a principal by its label: a JWT's `jwt:ISSUER#SUBJECT` or a SPIFFE id is refused from now on, and
    /// every token that was issued under this label is revoked. Calls by any of them are stopped, their runs end.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for a label that none can have.
    pub async fn revoke_principal(&self, context: &TenantContext, label: &str) -> Result<Revoked, Problem> {
        context.require(Scope::Tokens)?;
        self.revoke_principal_of(context.tenant(), label, context.principal()).await
    }

    /// Revokes a principal, whoever asks.
    pub(crate) async fn revoke_principal_of(
        &self,
        tenant: &TenantId,
        label: &str,
        by: &PrincipalLabel,
    ) -> Result<Revoked, Problem> {
        let named = named_principal(tenant, label)?;
        let now = UnixMillis::now();
        let (store, listed) = (Arc::clone(&self.store), named.clone());
        crate::blocking(move || store.revoke_name(&listed, now)).await?;
        let issued = self.store.tokens(tenant);
        let issued: Vec<_> = issued.iter().filter(|token| token.label == label && token.revoked.is_none()).collect();
        for token in &issued {
            let (store, owner, subject) = (Arc::clone(&self.store), tenant.clone(), token.id.clone());
            crate::blocking(move || store.revoke_token(&owner, &subject, now)).await?;
        }
        let labels: Vec<String> = issued.iter().map(|token| label_of(&token.id)).chain([label.to_owned()]).collect();
        let revoked = self.stop_principals(tenant, "principal", label, &labels).await;
        for token in &issued {
            self.record_revoked(act::within(tenant, by.clone(), ActKind::TokenRevoked, token.id.as_str())).await?;
        }
        self.record_revoked(act::within(tenant, by.clone(), ActKind::PrincipalRevoked, label)).await?;
        self.end_runs_of(revoked, tenant, by, &labels).await
    }

    /// Lets a principal in again that was revoked by its label. Tokens that were revoked with it stay so.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it is not revoked.
    pub async fn restore_principal(&self, context: &TenantContext, label: &str) -> Result<(), Problem> {
        context.require(Scope::Tokens)?;
        let named = named_principal(context.tenant(), label)?;
        self.restore(named, act::of_tenant(context, ActKind::PrincipalRestored, label)).await
    }

    /// Revokes what agents of a name are: their open runs end, with those within them, and none is opened under this
    /// name until it is restored.
    ///
    /// # Errors
    /// [`Code::Conflict`] for more names than are kept.
    pub async fn revoke_agent(&self, context: &TenantContext, agent: &AgentName) -> Result<Revoked, Problem> {
        context.require(Scope::Runs)?;
        let tenant = context.tenant();
        let (store, named) = (Arc::clone(&self.store), Named::Agent(tenant.clone(), agent.clone()));
        crate::blocking(move || store.revoke_name(&named, UnixMillis::now())).await?;
        let open = self.store.open_runs();
        let of_tenant = || open.iter().filter(|run| run.tenant == *tenant);
        let own: HashSet<&RunId> = of_tenant().filter(|run| run.agent == *agent).map(|run| &run.id).collect();
        let is_own = |run: &&Arc<RunRecord>| own.contains(&run.id) || run.parents.iter().any(|id| own.contains(id));
        let meant: HashSet<&RunId> = of_tenant().filter(is_own).map(|run| &run.id).collect();
        let told = self.holders.stop_calls(|held| held.facts.tenant == *tenant && meant.contains(&held.facts.run));
        let revoked = self.stopped("agent", agent.as_str(), told).await;
        self.record_revoked(act::of_tenant(context, ActKind::AgentRevoked, agent.as_str())).await?;
        self.end_runs(revoked, tenant, context.principal(), |run| run.agent == *agent).await
    }

    /// Lets agents of this name open runs again.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it is not revoked.
    pub async fn restore_agent(&self, context: &TenantContext, agent: &AgentName) -> Result<(), Problem> {
        context.require(Scope::Runs)?;
        let named = Named::Agent(context.tenant().clone(), agent.clone());
        self.restore(named, act::of_tenant(context, ActKind::AgentRestored, agent.as_str())).await
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
        let credentials = self.store.credentials(id);
        let ended = credentials.iter().map(|one| self.strongbox.end_minted(id, &one.id, one.epoch + 1));
        revoked.minted_revoked = self.give_back(ended.flatten().collect(), mint::issuers_until()).await;
        let by = operator.principal();
        self.record_revoked(act::within(id, by.clone(), ActKind::TenantSuspended, id.as_str())).await?;
        self.end_runs(revoked, id, &by, |_| true).await
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
        self.give_back(self.strongbox.end_minted(tenant, id, epoch), mint::issuers_until()).await
    }

    /// Whether a call that was just entered may run: nothing that it needs was revoked since it was asked for.
    ///
    /// # Errors
    /// [`Code::Revoked`]: nothing was done.
    pub(crate) fn check_not_revoked(&self, facts: &Facts) -> Result<(), Problem> {
        let tenant = self.store.tenant(&facts.tenant);
        let is_package_open = self
            .store
            .package(&facts.package)
            .is_some_and(|record| record.is_open_to(&facts.tenant) && self.catalogue.is_trusted(&record.signer));
        let holds = tenant.is_some_and(|tenant| tenant.state == TenantState::Active)
            && self.is_principal_good(&facts.tenant, facts.principal.as_str())
            && is_package_open
            && !self.store.is_tool_revoked(&facts.tool)
            && !self.store.is_quarantined(&facts.tenant, &facts.tool);
        if holds { Ok(()) } else { Err(Problem::new(Code::Revoked, "what it needs was revoked: nothing was done")) }
    }

    /// Whether neither the token that a principal is known by nor the principal itself was revoked.
    pub(crate) fn is_principal_good(&self, tenant: &TenantId, label: &str) -> bool {
        let by_token = label.strip_prefix(TOKEN_LABEL).and_then(|id| id.parse().ok());
        let is_token_good =
            by_token.is_none_or(|id: TokenId| self.store.token(&id).is_some_and(|token| token.revoked.is_none()));
        is_token_good && !self.store.is_principal_revoked(tenant, label)
    }

    async fn stop_principals(&self, tenant: &TenantId, what: &str, id: &str, labels: &[String]) -> Revoked {
        let is_meant = |held: &Held| {
            held.facts.tenant == *tenant && labels.iter().any(|label| held.facts.principal.as_str() == label)
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
        self.store.tenants().iter().map(|tenant| self.close_of_package_for(&tenant.id, package)).sum()
    }

    /// Closes the kept connections of every credential that a tenant granted to a package.
    pub(crate) fn close_of_package_for(&self, tenant: &TenantId, package: &PackageName) -> u64 {
        let grants = self.store.grants_of_package(tenant, package);
        let credentials = grants.iter().filter_map(|grant| grant.credential.as_ref());
        credentials.map(|id| self.egress.close_connections(tenant, id)).sum()
    }

    /// Ends the runs that these principals opened, with those within them, and counts what came of it.
    async fn end_runs_of(
        &self,
        revoked: Revoked,
        tenant: &TenantId,
        by: &PrincipalLabel,
        labels: &[String],
    ) -> Result<Revoked, Problem> {
        let is_of = |run: &RunRecord| labels.iter().any(|label| run.principal.as_str() == label);
        self.end_runs(revoked, tenant, by, is_of).await
    }

    async fn end_runs(
        &self,
        mut revoked: Revoked,
        tenant: &TenantId,
        by: &PrincipalLabel,
        is_meant: impl Fn(&RunRecord) -> bool,
    ) -> Result<Revoked, Problem> {
        let (mut fault, until) = (None, mint::issuers_until());
        for run in self.store.open_runs().iter().filter(|run| run.tenant == *tenant && is_meant(run)) {
            match self.end_one(tenant, &run.id, by, until).await {
                // Their calls go by the principal that was stopped, and were counted with it.
                Ok(over) => {
                    revoked.runs_ended += over.runs;
                    revoked.minted_revoked += over.minted;
                }
                // The others end all the same.
                Err(problem) => drop(fault.get_or_insert(problem)),
            }
        }
        fault.map_or(Ok(revoked), Err)
    }

    /// Ends a run because what it stood on was taken.
    pub(crate) async fn end_one(
        &self,
        tenant: &TenantId,
        id: &RunId,
        by: &PrincipalLabel,
        until: Instant,
    ) -> Result<Ended, Problem> {
        match self.terminate_run(tenant, id, Ending { how: RunEnd::Revoked, by, until }).await {
            // With the run that it was within, a moment ago.
            Err(problem) if problem.code == Code::NotFound => Ok(Ended::default()),
            over => over,
        }
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

/// How records name the principal of a token.
pub(crate) fn label_of(token: &TokenId) -> String {
    format!("{TOKEN_LABEL}{token}")
}

/// A principal of a tenant, if any can have this label.
///
/// # Errors
/// [`Code::MalformedRequest`].
pub(crate) fn named_principal(tenant: &TenantId, label: &str) -> Result<Named, Problem> {
    if label.trim().is_empty() || label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        return Err(Problem::new(Code::MalformedRequest, "a principal's label is 1 to 800 bytes of plain text"));
    }
    Ok(Named::Principal(tenant.clone(), label.to_owned()))
}

/// What a caller is told whose call was stopped by a revocation.
pub(crate) fn call_revoked() -> Problem {
    Problem::new(Code::Revoked, "what it needs was revoked: find out whether it acted")
}
