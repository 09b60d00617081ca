//! Incidents: one act that stops what is no longer trusted, wherever it runs, and keeps it stopped until somebody
//! says how it came about. The record with its quarantine is in the store before anything else, so that nothing new
//! begins while the rest is stopped, and the operator is told; then, in this order, as the ledger shows it: what it is
//! about is revoked, runs end, what is kept is flushed, the quarantine is recorded. Cut off anywhere, the next start
//! carries it on, and waits for nobody outside.

mod exposure;
mod own;
mod page;
mod report;
mod stopping;
mod views;

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::IncidentCounts;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentState;
use keybearer_gate::IncidentStep;
use keybearer_gate::IncidentSubject;
use keybearer_gate::NoticeState;
use keybearer_gate::OperatorContext;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Quarantine;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use serde_json::json;

use crate::Executor;
use crate::act;
use crate::notices::Notice;

use own::Walk;
pub(crate) use own::Walks;
pub use report::ActUse;
pub use report::CallUse;
pub use report::CredentialUse;
pub use report::DestinationUse;
pub use report::DispatchUse;
pub use report::ExposureReport;
pub use report::Scope as CredentialScope;
pub use report::VersionUse;
pub use report::WhoUse;
pub use views::CloseIncident;
pub use views::IncidentView;
pub use views::NewIncident;
pub use views::NewOwnIncident;

/// A root cause is a sentence, not a word: so many characters at the least.
const ROOT_CAUSE_CHARS_MIN: usize = 20;

/// What fits a page.
const ROOT_CAUSE_BYTES_MAX: usize = 4_000;

/// A line or two.
const NOTE_BYTES_MAX: usize = 500;

impl Executor {
    /// Opens an incident: revokes, ends runs, flushes, quarantines and tells the operator. Answers when all of it but
    /// the last is done. For what has an open incident already, that one is carried out again.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::MalformedRequest`]; [`Code::LedgerUnavailable`] and [`Code::StoreUnavailable`] if
    /// something could not be recorded: what could be stopped is stopped all the same.
    pub async fn open_incident(
        self: &Arc<Self>,
        operator: &OperatorContext,
        new: NewIncident,
    ) -> Result<IncidentView, Problem> {
        let subject = self.subject_of(&new)?;
        let opened = self.open_about(subject, new.note, operator.principal(), Opener::Operator).await?;
        Ok(views::view(&opened))
    }

    /// Opens an incident, or takes up the one that is open already, and carries it out.
    async fn open_about(
        self: &Arc<Self>,
        subject: IncidentSubject,
        note: String,
        by: PrincipalLabel,
        opener: Opener,
    ) -> Result<Arc<IncidentRecord>, Problem> {
        check_text("note", &note, NOTE_BYTES_MAX)?;
        // A stop waits for it, so that a start need not carry it on.
        let running = self.running()?;
        // One at a time: two for the same thing would each keep it in quarantine.
        let turn = self.rows.turn().await;
        let known = self.store.incidents().into_iter().find(|known| known.is_open() && known.subject == subject);
        let incident = match known {
            // What the operator opens as well is his to close.
            Some(known) if known.own && opener == Opener::Operator => {
                self.change_incident(&known.id, |record| record.own = false).await?
            }
            Some(known) => known,
            None => {
                let record = IncidentRecord {
                    id: IncidentId::random(),
                    quarantine: self.quarantine_of(&subject),
                    subject,
                    note,
                    opened: UnixMillis::now(),
                    by: by.clone(),
                    own: opener == Opener::Tenant,
                    state: IncidentState::Open,
                    reached: IncidentStep::Stored,
                    contained: None,
                    counts: IncidentCounts::default(),
                    notice: self.notice_state(),
                };
                let store = Arc::clone(&self.store);
                crate::blocking(move || store.insert_incident(record)).await?
            }
        };
        drop(turn);
        // In a task of its own: whoever hangs up does not leave it half done.
        let executor = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _running = running;
            executor.contain(&incident, &by).await
        });
        done.await.map_err(|_| Problem::new(Code::Internal, "open it again: it is carried on"))?
    }

    /// The incidents, newest first.
    #[must_use]
    pub fn incidents(&self, _operator: &OperatorContext) -> Vec<IncidentView> {
        self.store.incidents().iter().map(|incident| views::view(incident)).collect()
    }

    /// One incident.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn incident(&self, _operator: &OperatorContext, id: &IncidentId) -> Result<IncidentView, Problem> {
        self.store.incident(id).map(|incident| views::view(&incident)).ok_or_else(Problem::not_found)
    }

    /// Closes an incident: what it quarantined runs again, a tenant that it suspended is active again; what it revoked
    /// stays so.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] without a root cause; [`Code::Conflict`] if it is closed, or was cut off while it
    /// stopped things.
    pub async fn close_incident(
        self: &Arc<Self>,
        operator: &OperatorContext,
        id: &IncidentId,
        close: CloseIncident,
    ) -> Result<IncidentView, Problem> {
        let closed = self.close_by(id, close, operator.principal(), |_| Ok(())).await?;
        Ok(views::view(&closed))
    }

    /// Closes an incident, if whoever does may: that is asked of it as it stands when its turn comes.
    async fn close_by(
        self: &Arc<Self>,
        id: &IncidentId,
        close: CloseIncident,
        by: PrincipalLabel,
        may_close: impl FnOnce(&IncidentRecord) -> Result<(), Problem>,
    ) -> Result<Arc<IncidentRecord>, Problem> {
        let root_cause = close.root_cause.trim().to_owned();
        if root_cause.chars().count() < ROOT_CAUSE_CHARS_MIN {
            let why = format!("`root_cause` says in {ROOT_CAUSE_CHARS_MIN} characters or more how it came about");
            return Err(Problem::new(Code::MalformedRequest, why));
        }
        check_text("root_cause", &root_cause, ROOT_CAUSE_BYTES_MAX)?;
        let _turn = self.rows.turn().await;
        let incident = self.store.incident(id).ok_or_else(Problem::not_found)?;
        may_close(&incident)?;
        if !incident.is_open() {
            return Err(Problem::new(Code::Conflict, "it is closed already"));
        }
        if incident.contained.is_none() {
            return Err(Problem::new(Code::Conflict, "not everything is stopped yet: open it again, then close it"));
        }
        // What gives leave is recorded before the store has it: the ledger never shows a use that looks forbidden.
        let closed = self.incident_act(&incident, &by, ActKind::IncidentClosed, id.as_str());
        self.record(Act { note: root_cause.clone(), ..closed }).await?;
        if let IncidentSubject::Tenant { tenant } = &incident.subject
            && self.store.tenant(tenant).is_some()
        {
            self.record(act::within(tenant, by.clone(), ActKind::TenantResumed, tenant.as_str())).await?;
            let (store, subject) = (Arc::clone(&self.store), tenant.clone());
            crate::blocking(move || store.set_tenant_state(&subject, TenantState::Active)).await?;
        }
        let state = IncidentState::Closed { root_cause, by, at: UnixMillis::now() };
        let notice = self.notice_state();
        let closed = self.change_incident(id, move |record| (record.state, record.notice) = (state, notice)).await?;
        self.tell_of(&closed).await;
        Ok(closed)
    }

    /// Whether an open incident keeps this tenant suspended.
    pub(crate) fn check_no_incident_of(&self, tenant: &keybearer_contract::TenantId) -> Result<(), Problem> {
        let incidents = self.store.incidents();
        let holds = |incident: &&Arc<IncidentRecord>| {
            incident.is_open() && incident.subject == IncidentSubject::Tenant { tenant: tenant.clone() }
        };
        match incidents.iter().find(holds) {
            None => Ok(()),
            Some(incident) => Err(Problem::new(Code::Conflict, format!("close incident {} first", incident.id))),
        }
    }

    /// Carries on what was cut off, before any call is taken: incidents behind the last step that went well, in the
    /// order in which they were opened. And notices that were on their way.
    pub(crate) async fn take_up_incidents(self: &Arc<Self>) {
        for incident in self.store.incidents().into_iter().rev() {
            // Whoever hears of the same notice twice was told once.
            self.tell_operator(&incident).await;
            if incident.is_open() && incident.contained.is_none() {
                tracing::warn!(incident = %incident.id, "an incident was cut off: it is carried on");
                self.carry_on(incident).await;
            }
        }
    }

    fn subject_of(&self, new: &NewIncident) -> Result<IncidentSubject, Problem> {
        match (&new.credential, &new.tenant, &new.tool) {
            (Some(credential), None, None) => {
                // The operator's question alone: everybody else is asked for a tenant first.
                let tenants = self.store.tenants();
                let owner = tenants.iter().find(|tenant| self.store.credential(&tenant.id, credential).is_some());
                let tenant = owner.ok_or_else(Problem::not_found)?.id.clone();
                Ok(IncidentSubject::Credential { tenant, credential: credential.clone() })
            }
            (None, Some(tenant), None) => {
                let tenant = self.store.tenant(tenant).ok_or_else(Problem::not_found)?.id.clone();
                Ok(IncidentSubject::Tenant { tenant })
            }
            (None, None, Some(name)) => self.tool_subject(name),
            _ => Err(Problem::new(Code::MalformedRequest, "name one of `credential`, `tenant` and `tool`")),
        }
    }

    fn tool_subject(&self, name: &str) -> Result<IncidentSubject, Problem> {
        if let Ok(tool) = name.parse::<ToolRef>() {
            let versions = self.store.versions(&tool.package);
            let is_known = versions.iter().any(|record| record.tools.iter().any(|known| known.name == tool.tool));
            return if is_known { Ok(IncidentSubject::Tool { tool }) } else { Err(Problem::not_found()) };
        }
        let package: keybearer_contract::PackageName = name.parse().map_err(|_| {
            Problem::new(Code::MalformedRequest, "`tool` is `package` or `package.tool`, without a version")
        })?;
        if self.store.versions(&package).is_empty() {
            return Err(Problem::not_found());
        }
        Ok(IncidentSubject::Package { package })
    }

    /// What does not run while it is open: a tool for nobody; a tenant's for the tenant; with a credential, the tools
    /// that it was granted to, for its tenant.
    fn quarantine_of(&self, subject: &IncidentSubject) -> Vec<Quarantine> {
        match subject {
            IncidentSubject::Credential { tenant, credential } => {
                let grants = self.store.grants(tenant);
                let meant = grants.iter().filter(|grant| grant.credential.as_ref() == Some(credential));
                let mut packages: Vec<_> = meant.map(|grant| grant.package.clone()).collect();
                packages.sort_unstable();
                packages.dedup();
                let of = |package| Quarantine { tenant: Some(tenant.clone()), package: Some(package), tool: None };
                packages.into_iter().map(of).collect()
            }
            IncidentSubject::Tenant { tenant } => {
                vec![Quarantine { tenant: Some(tenant.clone()), package: None, tool: None }]
            }
            IncidentSubject::Package { package } => {
                vec![Quarantine { tenant: None, package: Some(package.clone()), tool: None }]
            }
            IncidentSubject::Grant { tenant, package, .. } => {
                vec![Quarantine { tenant: Some(tenant.clone()), package: Some(package.clone()), tool: None }]
            }
            IncidentSubject::OwnTool { tenant, tool } => {
                let (package, tool) = (Some(tool.package.clone()), Some(tool.tool.clone()));
                vec![Quarantine { tenant: Some(tenant.clone()), package, tool }]
            }
            // What they called was what others may go on calling.
            IncidentSubject::Run { .. } | IncidentSubject::Token { .. } | IncidentSubject::Principal { .. } => {
                Vec::new()
            }
            IncidentSubject::Tool { tool } => {
                vec![Quarantine { tenant: None, package: Some(tool.package.clone()), tool: Some(tool.tool.clone()) }]
            }
        }
    }

    fn incident_act(&self, incident: &IncidentRecord, by: &PrincipalLabel, kind: ActKind, subject: &str) -> Act {
        match incident.subject.tenant() {
            Some(tenant) => act::within(tenant, by.clone(), kind, subject),
            None => act::by(by.clone(), kind, subject),
        }
    }

    async fn change_incident(
        &self,
        id: &IncidentId,
        change: impl FnOnce(&mut IncidentRecord) + Send + 'static,
    ) -> Result<Arc<IncidentRecord>, Problem> {
        let (store, id) = (Arc::clone(&self.store), id.clone());
        crate::blocking(move || store.change_incident(&id, change)).await
    }

    fn notice_state(&self) -> NoticeState {
        let is_wanted = self.store.notice_target(&Addressee::Operator).is_some();
        if is_wanted { NoticeState::Pending } else { NoticeState::None }
    }

    /// Tells the operator what the incident has come to, and the tenant whose thing it is about; whoever says it twice is
    /// heard once.
    async fn tell_of(self: &Arc<Self>, incident: &IncidentRecord) {
        // Of a tenant that is stopped as a whole nobody knows who listens there.
        let is_whole = matches!(incident.subject, IncidentSubject::Tenant { .. });
        if let Some(tenant) = incident.subject.tenant().filter(|_| !is_whole) {
            let (id, kind) = notice_of(incident);
            let notice = Notice { id, kind, data: json!({ "incident": views::own_view(incident) }), incident: None };
            if let Err(untold) = self.tell(Addressee::Tenant(tenant.clone()), notice).await {
                tracing::debug!(incident = %incident.id, %untold, "its tenant is not told");
            }
        }
        self.tell_operator(incident).await;
    }

    async fn tell_operator(self: &Arc<Self>, incident: &IncidentRecord) {
        if incident.notice != NoticeState::Pending {
            return;
        }
        let (id, kind) = notice_of(incident);
        let notice = Notice {
            id: id.clone(),
            kind,
            data: json!({ "incident": views::view(incident) }),
            incident: Some(incident.id.clone()),
        };
        if self.tell(Addressee::Operator, notice).await.is_err() {
            self.note_told(&incident.id, &id, false).await;
        }
    }

    /// Notes what became of a notice, unless the incident has come to something else since.
    pub(crate) async fn note_told(&self, incident: &IncidentId, notice: &str, is_taken: bool) {
        let (at, notice) = (UnixMillis::now(), notice.to_owned());
        let told = self.change_incident(incident, move |record| {
            if notice_of(record).0 == notice {
                record.notice = if is_taken { NoticeState::Delivered { at } } else { NoticeState::Failed { at } };
            }
        });
        if let Err(problem) = told.await {
            tracing::warn!(%incident, %problem, "what became of a notice could not be stored");
        }
    }
}

/// The id and the type of the notice that tells what an incident has come to.
fn notice_of(incident: &IncidentRecord) -> (String, &'static str) {
    match incident.state {
        IncidentState::Open => (format!("{}-opened", incident.id), "incident.opened"),
        IncidentState::Closed { .. } => (format!("{}-closed", incident.id), "incident.closed"),
    }
}

/// Who opens an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opener {
    Operator,
    /// The tenant whose thing it is about.
    Tenant,
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Problem> {
    if text.len() > bytes_max || text.chars().any(|character| character.is_control() && character != '\n') {
        return Err(Problem::new(Code::MalformedRequest, format!("`{what}` is plain text, {bytes_max} bytes at most")));
    }
    Ok(())
}
