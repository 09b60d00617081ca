//! A tenant's own incidents: about its credentials, grants, runs, API tokens and principals, and about a tool as far as
//! the tenant's grants go. Never about a package or another tenant: those are the operator's, who sees these, too.
//! Whoever opens one may carry out the mild act that it goes beyond, and may read the tenant's part of the ledger.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::GrantId;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentSubject;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use tokio::sync::OwnedMutexGuard;

use super::CloseIncident;
use super::ExposureReport;
use super::IncidentView;
use super::NewOwnIncident;
use super::Opener;
use super::views;
use crate::Executor;
use crate::revocation::named_principal;
use crate::turns::Turn;
use crate::turns::Turns;

impl Executor {
    /// Opens an incident about something of the tenant's own, as [`Self::open_incident`] does.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope of what is revoked; [`Code::NotFound`] for what is not there or another
    /// tenant's; [`Code::Conflict`] if 64 are open; else as [`Self::open_incident`].
    pub async fn open_own_incident(
        self: &Arc<Self>,
        context: &TenantContext,
        new: NewOwnIncident,
    ) -> Result<IncidentView, Problem> {
        may_look(context)?;
        let note = new.note.clone();
        let subject = self.own_subject(context, new)?;
        let opened = self.open_about(subject, note, context.principal().clone(), Opener::Tenant).await?;
        Ok(views::own_view(&opened))
    }

    /// The incidents about what is the tenant's, whoever opened them, newest first.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn own_incidents(&self, context: &TenantContext) -> Result<Vec<IncidentView>, Problem> {
        may_look(context)?;
        let incidents = self.store.incidents();
        let own = incidents.iter().filter(|incident| incident.subject.tenant() == Some(context.tenant()));
        Ok(own.map(|incident| views::own_view(incident)).collect())
    }

    /// One incident about what is the tenant's.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or not about it.
    pub fn own_incident(&self, context: &TenantContext, id: &IncidentId) -> Result<IncidentView, Problem> {
        may_look(context)?;
        self.find_own_incident(context, id).map(|incident| views::own_view(&incident))
    }

    /// What the ledger says of its exposure, as of now; nothing of any other tenant's.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::RateLimited`] while another one is put together for the tenant.
    pub async fn own_incident_report(
        &self,
        context: &TenantContext,
        id: &IncidentId,
    ) -> Result<ExposureReport, Problem> {
        may_look(context)?;
        let incident = self.find_own_incident(context, id)?;
        let walk = self.walks.enter(context.tenant()).await?;
        let report = self.report_of(&incident, views::own_view(&incident), Some(walk)).await?;
        // How much everybody does together is not a tenant's to know.
        Ok(ExposureReport { records: report.records_of_it, ..report })
    }

    /// Closes one that the tenant opened, as [`Self::close_incident`] does.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Forbidden`] as for opening it; [`Code::Conflict`] for the operator's; else as
    /// [`Self::close_incident`].
    pub async fn close_own_incident(
        self: &Arc<Self>,
        context: &TenantContext,
        id: &IncidentId,
        close: CloseIncident,
    ) -> Result<IncidentView, Problem> {
        may_look(context)?;
        self.find_own_incident(context, id)?;
        let may_close = |incident: &IncidentRecord| {
            context.require(scope_of(&incident.subject))?;
            match incident.own {
                true => Ok(()),
                false => Err(Problem::new(Code::Conflict, "the operator opened it: it is his to close")),
            }
        };
        let closed = self.close_by(id, close, context.principal().clone(), may_close).await?;
        Ok(views::own_view(&closed))
    }

    fn find_own_incident(&self, context: &TenantContext, id: &IncidentId) -> Result<Arc<IncidentRecord>, Problem> {
        let incident = self.store.incident(id);
        incident.filter(|known| known.subject.tenant() == Some(context.tenant())).ok_or_else(Problem::not_found)
    }

    /// What an incident is about, if it is the tenant's. The scope is asked for first: who lacks it learns nothing.
    fn own_subject(&self, context: &TenantContext, new: NewOwnIncident) -> Result<IncidentSubject, Problem> {
        let tenant = context.tenant().clone();
        let subject = match (new.credential, new.grant, new.run, new.token, new.principal, new.tool) {
            (Some(credential), None, None, None, None, None) => IncidentSubject::Credential { tenant, credential },
            (None, Some(grant), None, None, None, None) => {
                context.require(Scope::Grants)?;
                return self.own_grant(tenant, grant);
            }
            (None, None, Some(run), None, None, None) => IncidentSubject::Run { tenant, run },
            (None, None, None, Some(token), None, None) => IncidentSubject::Token { tenant, token },
            (None, None, None, None, Some(principal), None) => IncidentSubject::Principal { tenant, principal },
            (None, None, None, None, None, Some(tool)) => IncidentSubject::OwnTool { tenant, tool },
            _ => {
                let hint = "name one of `credential`, `grant`, `run`, `token`, `principal` and `tool`";
                return Err(Problem::new(Code::MalformedRequest, hint));
            }
        };
        context.require(scope_of(&subject))?;
        let is_there = match &subject {
            IncidentSubject::Credential { tenant, credential } => self.store.credential(tenant, credential).is_some(),
            IncidentSubject::Run { tenant, run } => self.store.run(tenant, run).is_some(),
            IncidentSubject::Token { tenant, token } => {
                self.store.tokens(tenant).iter().any(|known| known.id == *token)
            }
            // Whoever others vouch for need not have called yet.
            IncidentSubject::Principal { tenant, principal } => named_principal(tenant, principal).map(|_| true)?,
            IncidentSubject::OwnTool { tenant, tool } => self.is_granted_tool(tenant, tool),
            _ => false,
        };
        if is_there { Ok(subject) } else { Err(Problem::not_found()) }
    }

    /// A grant, also one that an incident of its own has taken.
    fn own_grant(&self, tenant: TenantId, id: GrantId) -> Result<IncidentSubject, Problem> {
        if let Some(grant) = self.store.grants(&tenant).into_iter().find(|grant| grant.id == id) {
            return Ok(IncidentSubject::Grant { tenant, grant: id, package: grant.package });
        }
        let incidents = self.store.incidents();
        let known = incidents.iter().filter(|incident| incident.is_open()).map(|incident| &incident.subject);
        let is_it = |subject: &&IncidentSubject| matches!(subject, IncidentSubject::Grant { tenant: owner, grant, .. } if *owner == tenant && *grant == id);
        known.into_iter().find(is_it).cloned().ok_or_else(Problem::not_found)
    }

    fn is_granted_tool(&self, tenant: &TenantId, tool: &ToolRef) -> bool {
        let versions = self.catalogue.visible(tenant, &tool.package);
        let is_known = versions.iter().any(|record| record.tools.iter().any(|known| known.name == tool.tool));
        is_known && !self.store.grants_of_package(tenant, &tool.package).is_empty()
    }
}

/// Whoever sees incidents sees what every tool of the tenant did.
fn may_look(context: &TenantContext) -> Result<(), Problem> {
    context.require(Scope::Audit)?;
    if context.sees_every_package() {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "ask for a token that is not confined to packages"))
}

/// The scope of the mild form of what is done.
fn scope_of(subject: &IncidentSubject) -> Scope {
    match subject {
        IncidentSubject::Credential { .. } => Scope::Credentials,
        IncidentSubject::Grant { .. } | IncidentSubject::OwnTool { .. } => Scope::Grants,
        IncidentSubject::Run { .. } => Scope::Runs,
        IncidentSubject::Token { .. } | IncidentSubject::Principal { .. } => Scope::Tokens,
        // The operator's, which no tenant opens or closes.
        IncidentSubject::Tenant { .. } | IncidentSubject::Package { .. } | IncidentSubject::Tool { .. } => Scope::Audit,
    }
}

/// Reports that tenants have put together, for which the whole ledger is read, everybody's records with it: one at a
/// time, in the order in which they were asked for, and for each tenant one that goes on or waits. So tenants keep one
/// reader busy, however many ask.
pub(crate) struct Walks {
    asked: Arc<Turns>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One of them, until it is dropped.
pub(crate) struct Walk {
    _asked: Turn,
    _turn: OwnedMutexGuard<()>,
}

impl Default for Walks {
    fn default() -> Self {
        Self { asked: Turns::new(1), turn: Arc::default() }
    }
}

impl Walks {
    /// Waits for the tenant's turn.
    ///
    /// # Errors
    /// [`Code::RateLimited`] while there is one for this tenant.
    pub(crate) async fn enter(&self, tenant: &TenantId) -> Result<Walk, Problem> {
        let asked = self.asked.take(tenant, "a report is put together for the tenant: wait for it")?;
        Ok(Walk { _asked: asked, _turn: Arc::clone(&self.turn).lock_owned().await })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn r11_p9_tenants_have_the_ledger_read_one_after_the_other_and_each_once_at_a_time() {
        // If it failed, some tenants that ask for reports in a loop would keep the machine reading for nobody else.
        let (walks, mine, other) = (Walks::default(), TenantId::random(), TenantId::random());
        let first = walks.enter(&mine).await.expect("the first");
        assert_eq!(walks.enter(&mine).await.err().map(|problem| problem.code), Some(Code::RateLimited));
        let mut second = std::pin::pin!(walks.enter(&other));
        let wait = Duration::from_secs(60);
        assert!(tokio::time::timeout(wait, &mut second).await.is_err(), "it waits for its turn");
        assert_eq!(walks.enter(&other).await.err().map(|problem| problem.code), Some(Code::RateLimited));
        drop(first);
        // Whoever had his turn is behind whoever waits.
        let mut again = std::pin::pin!(walks.enter(&mine));
        assert!(tokio::time::timeout(wait, &mut again).await.is_err());
        let second = second.await.expect("the second");
        drop(second);
        assert!(again.await.is_ok());
    }
}
