//! Opening a run: never wider than who opens it. Every credential that it seals is looked at, so that an agent
//! does not find out halfway that one has expired.

use std::sync::Arc;

use keybearer_contract::AgentName;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_gate::Grant;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::RunState;
use keybearer_gate::Scope;
use keybearer_gate::SealedGrant;
use keybearer_gate::TenantContext;
use keybearer_gate::ToolScope;
use keybearer_ledger::RunEvent;
use keybearer_ledger::RunFacts;
use zeroize::Zeroizing;

use crate::Executor;
use crate::NewRun;
use crate::RunView;
use crate::mint::Times;
use crate::renewal::facts_of_act;
use crate::runs::Ending;

/// The most tools that are named for one run; more are a package's.
const TOOLS_MAX: usize = 256;

/// How long the sources may take; as long as one of their answers may.
const PREFETCH_MAX: std::time::Duration = std::time::Duration::from_secs(10);

impl Executor {
    /// Opens a run; with a run's token, one within that run. The text is its token, given this once.
    ///
    /// # Errors
    /// [`Code::Revoked`] for an agent that is; [`Code::Forbidden`] for tools that the opener may not call; [`Code::CredentialUnusable`] as a call;
    /// [`Code::RateLimited`] or [`Code::Conflict`] at the limits of runs.
    pub async fn open_run(
        &self,
        context: &TenantContext,
        new: NewRun,
    ) -> Result<(RunView, Zeroizing<String>), Problem> {
        context.require(Scope::Call)?;
        let _running = self.running()?;
        self.check_agent(context.tenant(), &new.agent)?;
        let tools = tools_within(context, new.tools)?;
        let parents: Vec<RunId> =
            context.run().map(|run| run.parents.iter().chain([&run.id]).cloned().collect()).unwrap_or_default();
        if parents.len() > self.run_limits.depth {
            let hint = "have the work done in the run that is open: sub-runs are nested too deep";
            return Err(Problem::new(Code::Forbidden, hint).at_limit("runs.depth", self.run_limits.depth as u64));
        }
        self.check_room(context)?;
        // A run costs what a call costs, as far as rates go.
        let _place = self.quotas.admit(context.record()).await?;
        let id = RunId::random();
        let token = keybearer_gate::issue_run_token(&id);
        let created = UnixMillis::now();
        let record = RunRecord {
            id,
            tenant: context.tenant().clone(),
            parents,
            principal: context.principal().clone(),
            agent: new.agent,
            sealed: self.grants_to_seal(context, tools.as_deref()),
            tools,
            created,
            deadline: self.run_deadline(context, created, new.life_ms)?,
            state: RunState::Open,
            generation: 0,
            token_hash: token.hash,
        };
        self.fetch_for(&record).await?;
        self.begin_run(&record, context.principal()).await?;
        Ok((self.run_view(&record), token.text))
    }

    /// Refuses a run that was stored while its agent or its opener was revoked.
    fn check_opener(&self, record: &RunRecord) -> Result<(), Problem> {
        self.check_agent(&record.tenant, &record.agent)?;
        if self.is_principal_good(&record.tenant, record.principal.as_str()) {
            return Ok(());
        }
        Err(Problem::new(Code::Revoked, "who opened it was revoked: nothing was done"))
    }

    /// Refuses an agent whose name is revoked.
    fn check_agent(&self, tenant: &TenantId, agent: &AgentName) -> Result<(), Problem> {
        if self.store.is_agent_revoked(tenant, agent) {
            return Err(Problem::new(Code::Revoked, "agents of this name were revoked: nothing was done"));
        }
        Ok(())
    }

    /// Says which limit is reached. The store has the last word, where it sees runs that begin at once.
    fn check_room(&self, context: &TenantContext) -> Result<(), Problem> {
        let bounds = self.run_limits.bounds;
        let runs = self.store.runs(context.tenant());
        let open = || runs.iter().filter(|run| run.state == RunState::Open);
        let (name, limit) = match context.run().map(|run| run.parents.first().unwrap_or(&run.id)) {
            Some(root) if open().filter(|run| run.is_within(root)).count() >= bounds.sub_runs => {
                ("runs.sub_runs", bounds.sub_runs)
            }
            _ if open().count() >= bounds.open => ("runs.open", bounds.open),
            _ => return Ok(()),
        };
        Err(Problem::new(Code::RateLimited, "too many runs are open: end those that are done")
            .at_limit(name, limit as u64))
    }

    async fn begin_run(&self, record: &RunRecord, by: &PrincipalLabel) -> Result<(), Problem> {
        // Before it is stored: who ends the run that it is within finds it in either place.
        self.live.begin(record);
        let (store, bounds, stored) = (Arc::clone(&self.store), self.run_limits.bounds, record.clone());
        if let Err(problem) = crate::blocking(move || store.insert_run(stored, bounds)).await {
            self.live.remove(&record.id);
            return Err(problem);
        }
        // Stored before it is looked at again: a revocation finds the run, or the run finds it.
        let recorded = match self.check_opener(record) {
            Ok(()) => self.run_act(&RunFacts::of(record, by.clone()), RunEvent::Opened).await,
            refused => refused,
        };
        if recorded.is_err() {
            // Nobody has its token. Should this fail as well, it ends by itself.
            drop(self.terminate_run(&record.tenant, &record.id, Ending::now(RunEnd::Aborted, by)).await);
        }
        recorded
    }

    /// Looks at every credential that is sealed and still granted, and fetches anew what is kept elsewhere.
    ///
    /// # Errors
    /// [`Code::CredentialUnusable`], as a call would be told.
    pub(super) async fn fetch_for(&self, run: &RunRecord) -> Result<(), Problem> {
        let grants = self.store.grants(&run.tenant);
        let grants: Vec<_> = grants.into_iter().filter(|grant| run.seals(&grant.id)).collect();
        for grant in grants.iter().filter(|grant| concerns(run, grant)) {
            self.check_credential(grant)?;
        }
        let concerned: Vec<_> = grants.into_iter().filter(|grant| concerns(run, grant)).collect();
        self.prefetch(run, &concerned).await
    }

    /// Fetches what is kept elsewhere for a run that begins or goes on: a run does not begin with what nobody can
    /// read. What is minted is minted at a dispatch that is allowed, and not before.
    ///
    /// # Errors
    /// [`Code::CredentialUnusable`] if a source does not give what is granted, in ten seconds at most.
    pub(super) async fn prefetch(&self, run: &RunRecord, grants: &[Grant]) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + PREFETCH_MAX;
        let facts = Facts { run: run.id.clone(), ..facts_of_act(&run.tenant, &run.principal) };
        let mut credentials: Vec<_> = grants.iter().filter_map(|grant| grant.credential.as_ref()).collect();
        credentials.sort_unstable();
        credentials.dedup();
        let fetched = credentials.into_iter().map(|id| async {
            let selected = self.strongbox.select(&run.tenant, id, UnixMillis::now()).map_err(|_| ())?;
            if !selected.kind().changes_unseen() {
                return Ok(());
            }
            let (selected, times) = (selected.within(Some(run.id.clone())), Times::of(deadline));
            self.mint_now(&facts, &selected, times).await.map_err(|_| ())
        });
        futures_util::future::try_join_all(fetched).await.map(drop).map_err(|()| {
            Problem::new(
                Code::CredentialUnusable,
                "a source did not give what is granted: try again, or see the ledger",
            )
        })
    }

    /// The grants that hold now, of what the run may call; in a sub-run those of its parent that still do.
    fn grants_to_seal(&self, context: &TenantContext, tools: Option<&[ToolScope]>) -> Vec<SealedGrant> {
        let named = |grant: &Grant| tools.is_none_or(|tools| tools.iter().any(|tool| *tool.package() == grant.package));
        let grants = self.store.grants(context.tenant());
        let grants = grants.into_iter().filter(|grant| context.may_see(&grant.package) && named(grant));
        match context.run() {
            None => grants.map(|grant| SealedGrant { grant: grant.id, approved: grant.approved.package }).collect(),
            // As the parent has it: what was approved since is not the parent's either.
            Some(run) => {
                grants.filter_map(|grant| run.sealed.iter().find(|sealed| sealed.grant == grant.id).cloned()).collect()
            }
        }
    }

    fn run_deadline(
        &self,
        context: &TenantContext,
        created: UnixMillis,
        life_ms: Option<u64>,
    ) -> Result<UnixMillis, Problem> {
        let ms = |life: std::time::Duration| u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let life = life_ms.unwrap_or(ms(self.run_limits.life)).min(ms(self.run_limits.life_max));
        if life == 0 {
            return Err(Problem::new(Code::MalformedRequest, "`life_ms` begins at 1"));
        }
        let deadline = UnixMillis(created.0.saturating_add(life));
        Ok(context.expires().map_or(deadline, |expires| expires.min(deadline)))
    }
}

/// What was asked for, if the opener may call all of it; what he may call, if nothing was.
fn tools_within(context: &TenantContext, asked: Option<Vec<ToolScope>>) -> Result<Option<Vec<ToolScope>>, Problem> {
    let own = match (context.run(), context.packages()) {
        (Some(run), _) => run.tools.clone(),
        (None, packages) => packages.map(|names| names.iter().cloned().map(ToolScope::Package).collect()),
    };
    let Some(mut asked) = asked else { return Ok(own) };
    if asked.is_empty() || asked.len() > TOOLS_MAX {
        let hint = format!("`tools` names 1 to {TOOLS_MAX} packages or tools; leave it out for all of them");
        return Err(Problem::new(Code::MalformedRequest, hint));
    }
    let is_own = |asked: &ToolScope| own.as_ref().is_none_or(|own| own.iter().any(|scope| scope.covers(asked)));
    if !asked.iter().all(is_own) {
        return Err(Problem::new(Code::Forbidden, "a run cannot call more than who opens it"));
    }
    asked.sort_unstable();
    asked.dedup();
    Ok(Some(asked))
}

/// Whether a grant is for anything that the run may call.
fn concerns(run: &RunRecord, grant: &Grant) -> bool {
    let Some(actions) = &grant.actions else { return true };
    actions.iter().any(|tool| run.allows(&ToolRef { package: grant.package.clone(), tool: tool.clone() }))
}
