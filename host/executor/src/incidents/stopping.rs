//! How an incident stops things, step by step. A step that fails does not keep the next one from being taken: what
//! could be stopped is stopped, and the first fault is told.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialState;
use keybearer_gate::IncidentCounts;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentStep;
use keybearer_gate::IncidentSubject;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunRecord;
use keybearer_gate::TenantState;
use keybearer_gate::TokenRecord;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use tokio::time::Instant;

use crate::Executor;
use crate::Revoked;
use crate::act;
use crate::credentials::CutOff;
use crate::mint;
use crate::revocation::label_of;

/// What was stopped so far, and what went wrong first.
struct Tally {
    counts: IncidentCounts,
    fault: Option<Problem>,
    /// Until when issuers are waited for that are to take something back; none if nobody is.
    until: Option<Instant>,
    /// What issuers are asked for later, because nobody waits for them now.
    owed: Vec<CutOff>,
}

impl Tally {
    fn new(until: Option<Instant>) -> Self {
        Self { counts: IncidentCounts::default(), fault: None, until, owed: Vec::new() }
    }

    fn take(&mut self, done: Result<(), Problem>) {
        if let Err(problem) = done {
            self.fault.get_or_insert(problem);
        }
    }

    /// Counts what a revocation came to. What is not there any more was stopped before.
    fn revoked(&mut self, done: Result<Revoked, Problem>) {
        match done {
            Ok(revoked) => {
                self.counts.calls_cancelled += revoked.calls_cancelled;
                self.counts.dispatches_cancelled += revoked.dispatches_cancelled;
                self.counts.runs_ended += revoked.runs_ended;
                self.counts.connections_closed += revoked.connections_closed;
                self.counts.caches_flushed += revoked.caches_flushed;
                self.counts.minted_revoked += revoked.minted_revoked;
            }
            Err(problem) if problem.code == Code::NotFound => {}
            Err(problem) => self.take(Err(problem)),
        }
    }
}

/// Credentials whose issuers are asked at once.
const ISSUERS_AT_ONCE: usize = 16;

/// What is done, in order.
const STEPS: [IncidentStep; 5] = [
    IncidentStep::Opened,
    IncidentStep::Revoked,
    IncidentStep::RunsEnded,
    IncidentStep::Flushed,
    IncidentStep::Quarantined,
];

impl Executor {
    /// Carries an incident out from its beginning. Whoever does it again finds less to stop.
    ///
    /// # Errors
    /// The first fault; every step was tried.
    pub(super) async fn contain(
        self: &Arc<Self>,
        incident: &IncidentRecord,
        by: &PrincipalLabel,
    ) -> Result<Arc<IncidentRecord>, Problem> {
        let mut tally = Tally::new(Some(mint::issuers_until()));
        self.take_steps(incident, by, IncidentStep::Stored, &mut tally).await;
        self.conclude(incident, tally).await
    }

    /// Carries an incident on that was cut off, behind the last step that went well. Whoever is outside is not waited
    /// for: issuers are asked in the background to take back what they gave, and then it is done.
    pub(super) async fn carry_on(self: &Arc<Self>, incident: Arc<IncidentRecord>) {
        let mut tally = Tally::new(None);
        self.take_steps(&incident, &PrincipalLabel::host(), incident.reached, &mut tally).await;
        if tally.owed.is_empty() {
            return self.conclude_carried_on(&incident, tally).await;
        }
        // Without a place among what a stop waits for if it goes down already: the next start carries it on.
        let (executor, running) = (Arc::clone(self), self.running().ok());
        tokio::spawn(async move {
            let _running = running;
            let owed = std::mem::take(&mut tally.owed);
            executor.take_back_all(owed, &PrincipalLabel::host(), &mut tally).await;
            executor.conclude_carried_on(&incident, tally).await;
        });
    }

    async fn conclude_carried_on(self: &Arc<Self>, incident: &IncidentRecord, tally: Tally) {
        if let Err(problem) = self.conclude(incident, tally).await {
            tracing::error!(incident = %incident.id, %problem, "open the incident again");
        }
    }

    async fn take_steps(
        self: &Arc<Self>,
        incident: &IncidentRecord,
        by: &PrincipalLabel,
        done: IncidentStep,
        tally: &mut Tally,
    ) {
        for step in STEPS.into_iter().filter(|step| *step > done) {
            self.take_step(step, incident, by, tally).await;
            // A start carries on behind the last step that went well, and takes those behind it again.
            if tally.fault.is_none() && tally.owed.is_empty() {
                self.note_reached(incident, step, tally).await;
            }
            // As soon as it is stopped, and whatever stands in the way of the rest.
            if step == IncidentStep::Opened && incident.reached == IncidentStep::Stored {
                self.tell_of(incident).await;
            }
        }
    }

    async fn note_reached(&self, incident: &IncidentRecord, step: IncidentStep, tally: &mut Tally) {
        let counts = std::mem::take(&mut tally.counts);
        let reached = self.change_incident(&incident.id, move |record| {
            record.counts = added(record.counts, counts);
            record.reached = record.reached.max(step);
        });
        tally.take(reached.await.map(drop));
    }

    /// Every step was taken: it is contained, if none failed.
    async fn conclude(&self, incident: &IncidentRecord, mut tally: Tally) -> Result<Arc<IncidentRecord>, Problem> {
        if tally.fault.is_none() {
            self.note_reached(incident, IncidentStep::Quarantined, &mut tally).await;
        }
        if let Some(problem) = tally.fault {
            return Err(problem);
        }
        let at = UnixMillis::now();
        // Once more is no news.
        self.change_incident(&incident.id, move |record| record.contained = record.contained.or(Some(at))).await
    }

    async fn take_step(&self, step: IncidentStep, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        match step {
            IncidentStep::Stored => {}
            IncidentStep::Opened => self.stop_quarantined(incident, by, tally).await,
            IncidentStep::Revoked => self.revoke_subject(incident, by, tally).await,
            IncidentStep::RunsEnded => self.end_runs_of_incident(incident, by, tally).await,
            IncidentStep::Flushed => self.flush(incident, tally),
            IncidentStep::Quarantined => self.record_quarantine(incident, by, tally).await,
        }
    }

    /// Nothing new begins: the quarantine is in the store. What runs of it is told at once, whatever else takes time.
    async fn stop_quarantined(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        if let IncidentSubject::Tenant { tenant } = &incident.subject {
            let (store, subject) = (Arc::clone(&self.store), tenant.clone());
            let suspended = crate::blocking(move || store.set_tenant_state(&subject, TenantState::Suspended)).await;
            tally.take(suspended.map(drop));
        }
        let told = self.holders.stop_calls(|held| {
            incident.quarantine.iter().any(|meant| meant.covers(&held.facts.tenant, &held.facts.tool))
        });
        let opened = self.incident_act(incident, by, ActKind::IncidentOpened, incident.id.as_str());
        let note = format!("about {} {}", incident.subject.kind(), incident.subject.name());
        tally.take(self.record_revoked(Act { note, ..opened }).await);
        self.holders.gone(&told).await;
        tally.counts.calls_cancelled += told.calls;
        tally.counts.dispatches_cancelled += told.requests;
    }

    async fn record_quarantine(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        for quarantine in &incident.quarantine {
            let meant = [
                quarantine.package.as_ref().map(ToString::to_string),
                quarantine.tool.as_ref().map(ToString::to_string),
            ];
            let name = meant.into_iter().flatten().collect::<Vec<_>>().join(".");
            let name = if name.is_empty() { keybearer_ledger::EVERY_TOOL.to_owned() } else { name };
            let quarantined = self.incident_act(incident, by, ActKind::Quarantined, &name);
            tally.take(self.record_revoked(Act { note: incident.id.to_string(), ..quarantined }).await);
        }
    }

    async fn revoke_subject(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        match &incident.subject {
            IncidentSubject::Credential { tenant, credential } => {
                self.revoke_credentials(tenant, std::slice::from_ref(credential), by, tally).await;
            }
            IncidentSubject::Tenant { tenant } => {
                tally.take(
                    self.record_revoked(act::within(tenant, by.clone(), ActKind::TenantSuspended, tenant.as_str()))
                        .await,
                );
                for token in self.store.tokens(tenant).iter().filter(|token| token.revoked.is_none()) {
                    let (store, owner, id) = (Arc::clone(&self.store), tenant.clone(), token.id.clone());
                    let done = crate::blocking(move || store.revoke_token(&owner, &id, UnixMillis::now())).await;
                    let is_done = done.is_ok();
                    tally.take(done.map(drop));
                    if is_done {
                        tally.counts.tokens_revoked += 1;
                        let act = act::within(tenant, by.clone(), ActKind::TokenRevoked, token.id.as_str());
                        tally.take(self.record_revoked(act).await);
                    }
                }
                let credentials: Vec<_> = self.store.credentials(tenant).iter().map(|one| one.id.clone()).collect();
                self.revoke_credentials(tenant, &credentials, by, tally).await;
            }
            IncidentSubject::Grant { tenant, grant, .. } => {
                let taken = self.take_grant_of(tenant, grant, by).await;
                tally.counts.grants_taken += u64::from(taken.is_ok());
                tally.revoked(taken);
            }
            IncidentSubject::Token { tenant, token } => {
                let is_news = |known: &Arc<TokenRecord>| known.id == *token && known.revoked.is_none();
                tally.counts.tokens_revoked += u64::from(self.store.tokens(tenant).iter().any(is_news));
                tally.revoked(self.revoke_token_of(tenant, token, by).await);
            }
            IncidentSubject::Principal { tenant, principal } => {
                let is_news = |known: &&Arc<TokenRecord>| known.label == *principal && known.revoked.is_none();
                tally.counts.tokens_revoked += self.store.tokens(tenant).iter().filter(is_news).count() as u64;
                tally.revoked(self.revoke_principal_of(tenant, principal, by).await);
            }
            // Its right to run is what is taken: no byte of a credential was ever a tool's to know. A run ends in the
            // next step.
            IncidentSubject::Package { .. }
            | IncidentSubject::Tool { .. }
            | IncidentSubject::OwnTool { .. }
            | IncidentSubject::Run { .. } => {}
        }
    }

    /// All are out of use before any issuer is asked for anything: how long that takes is up to whoever is stopped.
    async fn revoke_credentials(
        &self,
        tenant: &TenantId,
        credentials: &[CredentialId],
        by: &PrincipalLabel,
        tally: &mut Tally,
    ) {
        let mut cut_off = Vec::with_capacity(credentials.len());
        for id in credentials {
            match self.cut_off_credential(tenant, id, by).await {
                Ok(cut) => {
                    tally.counts.credentials_revoked += u64::from(cut.before != CredentialState::Revoked);
                    cut_off.push(cut);
                }
                Err(problem) => tally.take(Err(problem)),
            }
        }
        if tally.until.is_none() {
            tally.owed = cut_off.extract_if(.., |cut| cut.is_owed()).collect();
        }
        self.take_back_all(cut_off, by, tally).await;
    }

    /// Issuers are asked at once and under one deadline, as many as the tenant has.
    async fn take_back_all(&self, cut_off: Vec<CutOff>, by: &PrincipalLabel, tally: &mut Tally) {
        use futures_util::StreamExt as _;
        // From now: how many there are is the tenant's to say, too.
        let until = mint::issuers_until();
        let asked: Vec<_> = cut_off.into_iter().map(|cut| self.take_back(cut, by, until)).collect();
        let mut done = futures_util::stream::iter(asked).buffer_unordered(ISSUERS_AT_ONCE);
        while let Some(revoked) = done.next().await {
            tally.revoked(revoked);
        }
    }

    /// Ends the runs that could go on using what the incident is about.
    async fn end_runs_of_incident(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        let until = tally.until.unwrap_or_else(Instant::now);
        for run in self.store.open_runs().iter().filter(|run| self.is_meant(&incident.subject, run)) {
            match self.end_one(&run.tenant, &run.id, by, until).await {
                Ok(over) => {
                    tally.counts.runs_ended += over.runs;
                    tally.counts.minted_revoked += over.minted;
                    // Those of any other subject were counted when they were told.
                    if matches!(incident.subject, IncidentSubject::Run { .. }) {
                        tally.counts.calls_cancelled += over.calls;
                    }
                }
                Err(problem) => tally.take(Err(problem)),
            }
        }
    }

    fn is_meant(&self, subject: &IncidentSubject, run: &RunRecord) -> bool {
        let seals = |grants: Vec<keybearer_gate::Grant>, is_meant: &dyn Fn(&keybearer_gate::Grant) -> bool| {
            let meant = |grant: &&keybearer_gate::Grant| is_meant(grant);
            grants.iter().filter(meant).any(|grant| run.sealed.iter().any(|sealed| sealed.grant == grant.id))
        };
        match subject {
            IncidentSubject::Credential { tenant, credential } => {
                run.tenant == *tenant
                    && seals(self.store.grants(tenant), &|grant| grant.credential.as_ref() == Some(credential))
            }
            IncidentSubject::Tenant { tenant } => run.tenant == *tenant,
            IncidentSubject::Package { package } => {
                seals(self.store.grants(&run.tenant), &|grant| grant.package == *package)
            }
            IncidentSubject::Tool { tool } => {
                run.allows(tool) && seals(self.store.grants(&run.tenant), &|grant| grant.package == tool.package)
            }
            IncidentSubject::OwnTool { tenant, tool } => {
                run.tenant == *tenant
                    && run.allows(tool)
                    && seals(self.store.grants(tenant), &|grant| grant.package == tool.package)
            }
            IncidentSubject::Grant { tenant, grant, .. } => run.tenant == *tenant && run.seals(grant),
            IncidentSubject::Run { tenant, run: meant } => run.tenant == *tenant && run.id == *meant,
            IncidentSubject::Token { tenant, .. } | IncidentSubject::Principal { tenant, .. } => {
                run.tenant == *tenant && self.labels_of(subject).iter().any(|label| run.principal.as_str() == label)
            }
        }
    }

    /// How records name whoever a token's or a principal's incident is about.
    pub(super) fn labels_of(&self, subject: &IncidentSubject) -> Vec<String> {
        match subject {
            IncidentSubject::Token { token, .. } => vec![label_of(token)],
            IncidentSubject::Principal { tenant, principal } => {
                let tokens = self.store.tokens(tenant);
                let issued = tokens.iter().filter(|token| token.label == *principal);
                issued.map(|token| label_of(&token.id)).chain([principal.clone()]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Drops what is kept: connections, and packages that are held ready.
    fn flush(&self, incident: &IncidentRecord, tally: &mut Tally) {
        let package = match &incident.subject {
            IncidentSubject::Credential { .. }
            | IncidentSubject::Run { .. }
            | IncidentSubject::Token { .. }
            | IncidentSubject::Principal { .. } => return,
            IncidentSubject::Grant { tenant, package, .. }
            | IncidentSubject::OwnTool { tenant, tool: ToolRef { package, .. } } => {
                tally.counts.connections_closed += self.close_of_package_for(tenant, package);
                return;
            }
            IncidentSubject::Tenant { tenant } => {
                tally.counts.connections_closed += self.egress.close_all_connections(tenant);
                return;
            }
            IncidentSubject::Package { package } => package,
            IncidentSubject::Tool { tool } => &tool.package,
        };
        tally.counts.connections_closed += self.close_of_package(package);
        let versions = self.store.versions(package);
        let dropped = versions.iter().filter(|record| self.catalogue.forget(&record.digest)).count();
        tally.counts.caches_flushed += dropped as u64;
    }
}

fn added(a: IncidentCounts, b: IncidentCounts) -> IncidentCounts {
    IncidentCounts {
        credentials_revoked: a.credentials_revoked + b.credentials_revoked,
        tokens_revoked: a.tokens_revoked + b.tokens_revoked,
        grants_taken: a.grants_taken + b.grants_taken,
        calls_cancelled: a.calls_cancelled + b.calls_cancelled,
        dispatches_cancelled: a.dispatches_cancelled + b.dispatches_cancelled,
        runs_ended: a.runs_ended + b.runs_ended,
        connections_closed: a.connections_closed + b.connections_closed,
        caches_flushed: a.caches_flushed + b.caches_flushed,
        minted_revoked: a.minted_revoked + b.minted_revoked,
    }
}
