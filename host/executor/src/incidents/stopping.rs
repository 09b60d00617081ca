//! How an incident stops things, step by step. A step that fails does not keep the next one from being taken: what
//! could be stopped is stopped, and the first fault is told.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialState;
use keybearer_gate::IncidentCounts;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentSubject;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::TenantState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;

use crate::Executor;
use crate::act;

/// What was stopped so far, and what went wrong first.
#[derive(Default)]
struct Tally {
    counts: IncidentCounts,
    fault: Option<Problem>,
}

impl Tally {
    fn take(&mut self, done: Result<(), Problem>) {
        if let Err(problem) = done {
            self.fault.get_or_insert(problem);
        }
    }
}

impl Executor {
    /// Carries an incident out. Whoever does it again finds less to stop.
    ///
    /// # Errors
    /// The first fault; every step was tried.
    pub(super) async fn contain(
        self: &Arc<Self>,
        incident: &IncidentRecord,
        by: &PrincipalLabel,
    ) -> Result<Arc<IncidentRecord>, Problem> {
        let mut tally = Tally::default();
        // Nothing new begins: the quarantine is in the store. What runs of it is told at once, whatever else takes time.
        if let IncidentSubject::Tenant { tenant } = &incident.subject {
            let (store, subject) = (Arc::clone(&self.store), tenant.clone());
            let suspended = crate::blocking(move || store.set_tenant_state(&subject, TenantState::Suspended)).await;
            tally.take(suspended.map(drop));
        }
        let told = self.holders.stop_calls(|held| {
            incident.quarantine.iter().any(|meant| meant.covers(&held.facts.tenant, &held.facts.tool))
        });
        let opened = self.incident_act(incident, by, ActKind::IncidentOpened, incident.id.as_str());
        let note = format!("about {} {}", kind(&incident.subject), incident.subject.name());
        tally.take(self.record_revoked(Act { note, ..opened }).await);
        self.holders.gone(&told).await;
        tally.counts.calls_cancelled += told.calls;
        tally.counts.dispatches_cancelled += told.requests;
        self.revoke_subject(incident, by, &mut tally).await;
        self.end_runs_of_incident(incident, by, &mut tally).await;
        self.flush(incident, &mut tally);
        for quarantine in &incident.quarantine {
            let meant = [
                quarantine.package.as_ref().map(ToString::to_string),
                quarantine.tool.as_ref().map(ToString::to_string),
            ];
            let name = meant.into_iter().flatten().collect::<Vec<_>>().join(".");
            let name = if name.is_empty() { "every tool".to_owned() } else { name };
            let quarantined = self.incident_act(incident, by, ActKind::Quarantined, &name);
            tally.take(self.record_revoked(Act { note: incident.id.to_string(), ..quarantined }).await);
        }
        if let Some(problem) = tally.fault {
            return Err(problem);
        }
        let (counts, notice, at) = (tally.counts, self.notice_state(), UnixMillis::now());
        let contained = self.change_incident(&incident.id, move |record| {
            record.counts = added(record.counts, counts);
            // Once more is no news.
            if record.contained.is_none() {
                (record.contained, record.notice) = (Some(at), notice);
            }
        });
        let contained = contained.await?;
        if incident.contained.is_none() {
            self.tell_of(&contained).await;
        }
        Ok(contained)
    }

    async fn revoke_subject(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        match &incident.subject {
            IncidentSubject::Credential { tenant, credential } => {
                let revoked = self.revoke_for_incident(tenant, credential, by, &mut tally.counts).await;
                tally.take(revoked);
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
                for credential in self.store.credentials(tenant) {
                    let revoked = self.revoke_for_incident(tenant, &credential.id, by, &mut tally.counts).await;
                    tally.take(revoked);
                }
            }
            // Its right to run is what is taken: no byte of a credential was ever a tool's to know.
            IncidentSubject::Package { .. } | IncidentSubject::Tool { .. } => {}
        }
    }

    async fn revoke_for_incident(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        by: &PrincipalLabel,
        counts: &mut IncidentCounts,
    ) -> Result<(), Problem> {
        let record = self.store.credential(tenant, id).ok_or_else(Problem::not_found)?;
        counts.credentials_revoked += u64::from(record.state != CredentialState::Revoked);
        let revoked = self.revoke_record(&record, by).await?;
        counts.dispatches_cancelled += revoked.dispatches_cancelled;
        counts.connections_closed += revoked.connections_closed;
        counts.caches_flushed += revoked.caches_flushed;
        counts.minted_revoked += revoked.minted_revoked;
        Ok(())
    }

    /// Ends the runs that could go on using what the incident is about.
    async fn end_runs_of_incident(&self, incident: &IncidentRecord, by: &PrincipalLabel, tally: &mut Tally) {
        for run in self.store.open_runs().iter().filter(|run| self.is_meant(&incident.subject, run)) {
            match self.terminate_run(&run.tenant, &run.id, RunEnd::Revoked, by).await {
                Ok(over) => tally.counts.runs_ended += over.runs,
                // With the run that it was within, a moment ago.
                Err(problem) if problem.code == Code::NotFound => {}
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
        }
    }

    /// Drops what is kept: connections, and packages that are held ready.
    fn flush(&self, incident: &IncidentRecord, tally: &mut Tally) {
        let package = match &incident.subject {
            IncidentSubject::Credential { .. } => return,
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

fn kind(subject: &IncidentSubject) -> &'static str {
    match subject {
        IncidentSubject::Credential { .. } => "credential",
        IncidentSubject::Tenant { .. } => "tenant",
        IncidentSubject::Package { .. } => "package",
        IncidentSubject::Tool { .. } => "tool",
    }
}

fn added(a: IncidentCounts, b: IncidentCounts) -> IncidentCounts {
    IncidentCounts {
        credentials_revoked: a.credentials_revoked + b.credentials_revoked,
        tokens_revoked: a.tokens_revoked + b.tokens_revoked,
        calls_cancelled: a.calls_cancelled + b.calls_cancelled,
        dispatches_cancelled: a.dispatches_cancelled + b.dispatches_cancelled,
        runs_ended: a.runs_ended + b.runs_ended,
        connections_closed: a.connections_closed + b.connections_closed,
        caches_flushed: a.caches_flushed + b.caches_flushed,
        minted_revoked: a.minted_revoked + b.minted_revoked,
    }
}
