//! The exposure report: what the ledger says of the use of what an incident is about, and what the store says of its
//! scope. Names of things only, bounded lists, and a plain number for what a list leaves out.

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::DispatchId;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::Grant;
use keybearer_gate::IncidentRecord;
use keybearer_gate::OperatorContext;
use keybearer_gate::VersionState;
use serde::Serialize;
use utoipa::ToSchema;

use super::IncidentView;
use super::Walk;
use super::exposure::Gatherer;
use super::exposure::word;
use super::views;
use crate::Executor;

/// What was exposed, to whom it went, and for how long.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ExposureReport {
    /// The incident.
    pub incident: IncidentView,
    /// When this was put together, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub made: UnixMillis,
    /// Records of the ledger that were looked at: all of them; for a tenant, those that could be about it.
    pub records: u64,
    /// Those that could be about it.
    #[serde(skip)]
    pub(super) records_of_it: u64,
    /// What a token or principal administered, at most its latest 200 acts: what it issued may have to go, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<ActUse>,
    /// Earlier acts of it.
    pub acts_left_out: u64,
    /// Calls that used it.
    pub calls_total: u64,
    /// Requests that carried it, or that it sent. One whose outcome is not known counts.
    pub uses: u64,
    /// Requests that were stopped before a byte of them was sent.
    pub not_sent: u64,
    /// The first use, in milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    pub first_use: Option<UnixMillis>,
    /// The last use.
    #[schema(value_type = Option<u64>)]
    pub last_use: Option<UnixMillis>,
    /// The credentials, at most 500.
    pub credentials: Vec<CredentialUse>,
    /// Credentials beyond that.
    pub credentials_left_out: u64,
    /// Where the requests went, at most 1000 places, most used first.
    pub destinations: Vec<DestinationUse>,
    /// Requests to places beyond that.
    pub destinations_left_out: u64,
    /// On whose behalf, at most 1000, most active first.
    pub principals: Vec<WhoUse>,
    /// Requests of principals beyond that.
    pub principals_left_out: u64,
    /// In which runs, at most 1000, most active first.
    pub runs: Vec<WhoUse>,
    /// Requests of runs beyond that.
    pub runs_left_out: u64,
    /// The latest calls, at most 1000, oldest first.
    pub calls: Vec<CallUse>,
    /// Earlier calls, which are counted above and not listed.
    pub calls_left_out: u64,
}

/// The use of one credential.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CredentialUse {
    /// Whose.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Which.
    #[schema(value_type = String)]
    pub credential: CredentialId,
    /// What people call it; empty if it is gone from the store.
    pub name: String,
    /// What kind it is.
    pub kind: String,
    /// Who answers for it.
    pub owner: String,
    /// As `credential list` has it, or `gone` from the store.
    pub state: String,
    /// When it was stored.
    #[schema(value_type = Option<u64>)]
    pub created: Option<UnixMillis>,
    /// When it was revoked, by the ledger.
    #[schema(value_type = Option<u64>)]
    pub revoked: Option<UnixMillis>,
    /// What it was good for by the grants that stand.
    pub scope: Vec<Scope>,
    /// Its versions.
    pub versions: Vec<VersionUse>,
    /// Requests that carried it.
    pub uses: u64,
    /// The first of them.
    #[schema(value_type = Option<u64>)]
    pub first_use: Option<UnixMillis>,
    /// The last of them.
    #[schema(value_type = Option<u64>)]
    pub last_use: Option<UnixMillis>,
    /// From the first use to the revocation, or to this report where there is none; in milliseconds.
    pub exposed_ms: Option<u64>,
    /// What was done to it, at most the latest 200 acts.
    pub acts: Vec<ActUse>,
    /// Earlier acts.
    pub acts_left_out: u64,
}

/// What a grant lets a credential be used for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Scope {
    /// By which package.
    pub package: String,
    /// In which slot.
    pub slot: String,
    /// By which of its tools; empty for every one.
    pub tools: Vec<String>,
    /// Where: `METHODS https://host:port paths`.
    pub places: Vec<String>,
}

/// The use of one version.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VersionUse {
    /// Which.
    pub version: u32,
    /// `current`, `retired`, `revoked`, `destroyed`, or `gone` if the store does not know it.
    pub state: String,
    /// When it was stored.
    #[schema(value_type = Option<u64>)]
    pub created: Option<UnixMillis>,
    /// Requests that carried it.
    pub uses: u64,
    /// The first of them.
    #[schema(value_type = Option<u64>)]
    pub first_use: Option<UnixMillis>,
    /// The last of them.
    #[schema(value_type = Option<u64>)]
    pub last_use: Option<UnixMillis>,
}

/// A place that requests went to.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DestinationUse {
    /// Scheme, host and port.
    pub destination: String,
    /// The method.
    pub method: String,
    /// The path, with `*` for what looks like an id.
    pub path: String,
    /// With which credential; absent for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// `guest`, or `mint` and `give_back` for the host's own requests to its source.
    pub purpose: String,
    /// How many.
    pub uses: u64,
    /// The first.
    #[schema(value_type = u64)]
    pub first_use: UnixMillis,
    /// The last.
    #[schema(value_type = u64)]
    pub last_use: UnixMillis,
}

/// A principal or a run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WhoUse {
    /// Whose.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Which: a principal's label, or a run's id.
    pub name: String,
    /// Requests.
    pub uses: u64,
    /// The first.
    #[schema(value_type = u64)]
    pub first_use: UnixMillis,
    /// The last.
    #[schema(value_type = u64)]
    pub last_use: UnixMillis,
}

/// One call.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CallUse {
    /// Which.
    #[schema(value_type = String)]
    pub call: CallId,
    /// Whose.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// In which run.
    #[schema(value_type = String)]
    pub run: RunId,
    /// By whom.
    pub principal: String,
    /// Of which tool.
    #[schema(value_type = String)]
    pub tool: ToolRef,
    /// In which version of its package.
    #[schema(value_type = String)]
    pub package: Digest,
    /// When it was first heard of.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    /// `result`, the code of the problem, `unknown`, `running` when this was put together, or `host` for what
    /// was no call but an act's request to a source.
    pub outcome: String,
    /// Its requests, at most 20.
    pub dispatches: Vec<DispatchUse>,
    /// Requests beyond that.
    pub dispatches_left_out: u64,
}

/// One request.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DispatchUse {
    /// Which.
    #[schema(value_type = String)]
    pub dispatch: DispatchId,
    /// When its intent was recorded.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    /// The method.
    pub method: String,
    /// Scheme, host, port and path, without the query.
    pub place: String,
    /// The address that was dialled.
    pub address: String,
    /// With which credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// And which version of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The status, the fault, `unknown`, or `running` when this was put together; with `, not sent` where no byte left.
    pub outcome: String,
}

/// What was done to a credential.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ActUse {
    /// When.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    /// What.
    pub what: String,
    /// By whom.
    pub by: String,
    /// What it was done to, where that is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The version that it made or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

impl Executor {
    /// What the ledger says of an incident's exposure, as of now.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::LedgerUnavailable`] if it cannot be read.
    pub async fn incident_report(
        &self,
        _operator: &OperatorContext,
        id: &IncidentId,
    ) -> Result<ExposureReport, Problem> {
        let incident = self.store.incident(id).ok_or_else(Problem::not_found)?;
        self.report_of(&incident, views::view(&incident), None).await
    }

    /// The report, with the incident as whoever asks is shown it. A walk is over when the ledger is read, whoever hangs
    /// up meanwhile.
    pub(super) async fn report_of(
        &self,
        incident: &IncidentRecord,
        view: IncidentView,
        walk: Option<Walk>,
    ) -> Result<ExposureReport, Problem> {
        let (subject, labels) = (incident.subject.clone(), self.labels_of(&incident.subject));
        let (reader, mut gatherer, made) = (self.ledger.reader(), Gatherer::new(subject, labels), UnixMillis::now());
        let gathered = tokio::task::spawn_blocking(move || {
            let _walk = walk;
            let records = reader.visit(&mut gatherer)?;
            std::io::Result::Ok(gatherer.end(view, made, records))
        });
        let mut report = match gathered.await {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => {
                tracing::error!(%error, "the ledger cannot be read");
                return Err(Problem::new(Code::LedgerUnavailable, "the ledger cannot be read now: try again"));
            }
            Err(_) => return Err(Problem::new(Code::Internal, "try again; if it stays, look at the log")),
        };
        for credential in &mut report.credentials {
            self.describe(credential, made);
        }
        Ok(report)
    }

    /// Adds what the store knows of a credential.
    fn describe(&self, of: &mut CredentialUse, made: UnixMillis) {
        if let Some(record) = self.store.credential(&of.tenant, &of.credential) {
            of.name.clone_from(&record.name);
            of.owner.clone_from(&record.owner);
            of.kind = serde_json::to_value(&record.kind)
                .ok()
                .and_then(|kind| kind["kind"].as_str().map(str::to_owned))
                .unwrap_or_default();
            of.state = word(&record.state);
            of.created = Some(record.created);
            for version in &record.versions {
                let used = of.versions.iter_mut().find(|used| used.version == version.version);
                let used = match used {
                    Some(used) => used,
                    None => {
                        of.versions.push(VersionUse::unused(version.version));
                        of.versions.last_mut().expect("one was pushed")
                    }
                };
                used.created = Some(version.created);
                used.state = state_of(version.state).to_owned();
            }
            of.versions.sort_unstable_by_key(|version| version.version);
        }
        let grants = self.store.grants(&of.tenant);
        let meant = grants.iter().filter(|grant| grant.credential.as_ref() == Some(&of.credential));
        of.scope = meant.map(scope).collect();
        let until = of.revoked.unwrap_or(made);
        of.exposed_ms = of.first_use.map(|first| until.0.saturating_sub(first.0));
    }
}

impl VersionUse {
    pub(super) fn unused(version: u32) -> Self {
        Self { version, state: "gone".to_owned(), created: None, uses: 0, first_use: None, last_use: None }
    }
}

fn state_of(state: VersionState) -> &'static str {
    match state {
        VersionState::Current => "current",
        VersionState::Retired => "retired",
        VersionState::Revoked => "revoked",
        VersionState::Destroyed => "destroyed",
    }
}

fn scope(grant: &Grant) -> Scope {
    let bindings = grant.approved.slot.iter().flat_map(|slot| &slot.bindings);
    let places = bindings.map(|binding| {
        let methods: Vec<_> = binding.methods.iter().map(|method| method.as_str()).collect();
        let paths: Vec<_> = binding.paths.iter().map(word).collect();
        let host = grant
            .base_url
            .as_ref()
            .map_or_else(|| format!("https://{}:{}", word(&binding.host), binding.port), ToString::to_string);
        format!("{} {host} {}", methods.join(","), paths.join(" "))
    });
    Scope {
        package: grant.package.to_string(),
        slot: grant.slot.as_ref().map(ToString::to_string).unwrap_or_default(),
        tools: grant.actions.iter().flatten().map(ToString::to_string).collect(),
        places: places.collect(),
    }
}
