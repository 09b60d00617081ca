//! Gathering the use of what an incident is about out of the ledger, in one pass and in bounded memory: what is open is
//! held until it ends, what has ended is counted, and the latest of it is kept.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::collections::VecDeque;
use std::hash::Hash;

use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::DispatchId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_gate::IncidentSubject;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_ledger::Body;
use keybearer_ledger::DispatchFacts;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Record;
use keybearer_ledger::Visitor;

use super::IncidentView;
use super::report::ActUse;
use super::report::CallUse;
use super::report::CredentialUse;
use super::report::DestinationUse;
use super::report::DispatchUse;
use super::report::ExposureReport;
use super::report::VersionUse;
use super::report::WhoUse;

/// Calls that are listed: some hundred pages. All of them are in `ledger export`.
const CALLS_MAX: usize = 1_000;
/// Requests that are listed of one call.
const DISPATCHES_MAX: usize = 20;
/// Places, principals and runs, each.
const ROWS_MAX: usize = 1_000;
/// Credentials.
const CREDENTIALS_MAX: usize = 500;
/// Runs within one that are followed: as many as the operator lets a run have open, many times over.
const RUNS_MAX: usize = 10_000;
/// Acts on one credential, or by one principal.
const ACTS_MAX: usize = 200;

/// What was gathered so far.
pub(super) struct Gatherer {
    subject: IncidentSubject,
    /// How records name the principals that it is about.
    labels: Vec<String>,
    /// The runs that it is about.
    meant_runs: HashSet<RunId>,
    /// Records that could be about it.
    looked_at: u64,
    acts: Acts,
    /// What a line must hold to be worth parsing.
    word: String,
    open: HashMap<CallId, Open>,
    pending: HashMap<DispatchId, (UnixMillis, DispatchFacts)>,
    calls: VecDeque<CallUse>,
    calls_total: u64,
    not_sent: u64,
    all: Span,
    credentials: HashMap<(TenantId, CredentialId), Life>,
    credentials_left_out: u64,
    places: Rows<Place>,
    principals: Rows<(TenantId, String)>,
    runs: Rows<(TenantId, String)>,
}

/// A call that has not ended, or whose requests have not.
struct Open {
    call: CallUse,
    /// Whether it used what the incident is about.
    used: bool,
    pending: u32,
    ended: bool,
}

/// How often, and from when to when.
#[derive(Default, Clone, Copy)]
struct Span {
    uses: u64,
    first: Option<UnixMillis>,
    last: Option<UnixMillis>,
}

impl Span {
    fn take(&mut self, at: UnixMillis) {
        self.uses += 1;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }
}

#[derive(Default)]
struct Life {
    all: Span,
    versions: BTreeMap<u32, Span>,
    acts: Acts,
    revoked: Option<UnixMillis>,
}

/// The latest acts, and how many came before them.
#[derive(Default)]
struct Acts {
    latest: VecDeque<ActUse>,
    left_out: u64,
}

impl Acts {
    fn take(&mut self, act: ActUse) {
        if self.latest.len() >= ACTS_MAX {
            self.latest.pop_front();
            self.left_out += 1;
        }
        self.latest.push_back(act);
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Place {
    destination: String,
    method: &'static str,
    path: String,
    credential: Option<CredentialId>,
    purpose: String,
}

/// So many rows, and how much fell on others.
struct Rows<K> {
    rows: HashMap<K, Span>,
    left_out: u64,
}

impl<K: Eq + Hash> Rows<K> {
    fn new() -> Self {
        Self { rows: HashMap::new(), left_out: 0 }
    }

    fn take(&mut self, key: K, at: UnixMillis) {
        if self.rows.len() < ROWS_MAX || self.rows.contains_key(&key) {
            self.rows.entry(key).or_default().take(at);
        } else {
            self.left_out += 1;
        }
    }

    /// Most used first; then the earliest.
    fn sorted(self) -> Vec<(K, Span)> {
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        rows.sort_by_key(|(_, span)| (std::cmp::Reverse(span.uses), span.first));
        rows
    }
}

impl Visitor for Gatherer {
    fn wants(&self, line: &str) -> bool {
        if line.contains(&self.word) {
            return true;
        }
        // The end of a call does not name the credentials and grants that it used.
        let (IncidentSubject::Credential { tenant, .. } | IncidentSubject::Grant { tenant, .. }) = &self.subject else {
            return false;
        };
        line.contains("\"kind\":\"call_") && line.contains(tenant.as_str())
    }

    fn take(&mut self, record: Record) {
        let at = record.time;
        let tenant = self.subject.tenant();
        self.looked_at += u64::from(tenant.is_none() || record.body.tenant() == tenant);
        match record.body {
            Body::Act { act } => self.act(at, &act),
            // A run's incident is about those within it, too.
            Body::RunOpened { run }
                if run.parents.iter().any(|parent| self.meant_runs.contains(parent))
                    && self.meant_runs.len() < RUNS_MAX =>
            {
                self.meant_runs.insert(run.run);
            }
            Body::CallBegun { facts } if self.covers(&facts, None) => {
                self.open(at, &facts).used = true;
            }
            Body::CallClosed { facts, outcome } => {
                let said = outcome.problem.map_or_else(|| "result".to_owned(), |code| code.as_str().to_owned());
                self.call_over(&facts.call, said);
            }
            Body::CallAbandoned { facts } | Body::CallUnknown { facts } => {
                self.call_over(&facts.call, "unknown".to_owned());
            }
            Body::DispatchIntended { dispatch } if self.covers(&dispatch.facts, Some(&dispatch)) => {
                self.open(at, &dispatch.facts).pending += 1;
                self.pending.insert(dispatch.dispatch.clone(), (at, dispatch));
            }
            Body::DispatchClosed { dispatch, outcome } => {
                self.dispatch_over(&dispatch.dispatch, Some(&outcome), "unknown")
            }
            Body::DispatchAbandoned { dispatch } | Body::DispatchUnknown { dispatch } => {
                self.dispatch_over(&dispatch.dispatch, None, "unknown");
            }
            _ => {}
        }
    }
}

impl Gatherer {
    pub(super) fn new(subject: IncidentSubject, labels: Vec<String>) -> Self {
        let word = match &subject {
            IncidentSubject::Credential { credential, .. } => credential.to_string(),
            IncidentSubject::Tenant { tenant } => tenant.to_string(),
            IncidentSubject::Package { package } => format!("\"tool\":\"{package}."),
            IncidentSubject::Tool { tool } | IncidentSubject::OwnTool { tool, .. } => format!("\"tool\":\"{tool}\""),
            IncidentSubject::Grant { grant, .. } => grant.to_string(),
            IncidentSubject::Token { token, .. } => token.to_string(),
            // Labels are escaped in a line, and a sub-run's lines do not name the run.
            IncidentSubject::Run { tenant, .. } | IncidentSubject::Principal { tenant, .. } => tenant.to_string(),
        };
        let meant_runs = match &subject {
            IncidentSubject::Run { run, .. } => HashSet::from([run.clone()]),
            _ => HashSet::new(),
        };
        let mut gatherer = Self {
            subject,
            labels,
            meant_runs,
            looked_at: 0,
            acts: Acts::default(),
            word,
            open: HashMap::new(),
            pending: HashMap::new(),
            calls: VecDeque::new(),
            calls_total: 0,
            not_sent: 0,
            all: Span::default(),
            credentials: HashMap::new(),
            credentials_left_out: 0,
            places: Rows::new(),
            principals: Rows::new(),
            runs: Rows::new(),
        };
        // Shown also if it was never used.
        if let IncidentSubject::Credential { tenant, credential } = gatherer.subject.clone() {
            gatherer.credentials.insert((tenant, credential), Life::default());
        }
        gatherer
    }

    /// Whether the incident is about it.
    fn covers(&self, facts: &Facts, dispatch: Option<&DispatchFacts>) -> bool {
        if self.subject.tenant().is_some_and(|tenant| facts.tenant != *tenant) {
            return false;
        }
        match &self.subject {
            IncidentSubject::Credential { credential, .. } => {
                dispatch.is_some_and(|dispatch| dispatch.credential.as_ref() == Some(credential))
            }
            IncidentSubject::Grant { grant, .. } => {
                dispatch.is_some_and(|dispatch| dispatch.grant.as_ref() == Some(grant))
            }
            IncidentSubject::Run { .. } => self.meant_runs.contains(&facts.run),
            IncidentSubject::Token { .. } | IncidentSubject::Principal { .. } => self.is_by(facts.principal.as_str()),
            IncidentSubject::Tenant { .. } => true,
            IncidentSubject::Package { package } => facts.tool.package == *package,
            IncidentSubject::Tool { tool } | IncidentSubject::OwnTool { tool, .. } => facts.tool == *tool,
        }
    }

    fn is_by(&self, principal: &str) -> bool {
        self.labels.iter().any(|label| label == principal)
    }

    fn open(&mut self, at: UnixMillis, facts: &Facts) -> &mut Open {
        self.open.entry(facts.call.clone()).or_insert_with(|| Open {
            call: CallUse {
                call: facts.call.clone(),
                tenant: facts.tenant.clone(),
                run: facts.run.clone(),
                principal: facts.principal.to_string(),
                tool: facts.tool.clone(),
                package: facts.package,
                at,
                // What a source is asked without a call goes by a name of the host's own.
                outcome: if is_hosts(facts) { "host" } else { "running" }.to_owned(),
                dispatches: Vec::new(),
                dispatches_left_out: 0,
            },
            used: false,
            pending: 0,
            ended: is_hosts(facts),
        })
    }

    fn act(&mut self, at: UnixMillis, act: &Act) {
        if act.tenant.as_ref() == self.subject.tenant() && self.is_by(act.principal.as_str()) {
            self.acts.take(ActUse { subject: act.subject.clone(), ..act_use(at, act) });
        }
        let (Some(tenant), Ok(credential)) = (&act.tenant, act.subject.parse::<CredentialId>()) else { return };
        let is_meant = match &self.subject {
            IncidentSubject::Credential { tenant: owner, credential: meant } => owner == tenant && *meant == credential,
            IncidentSubject::Tenant { tenant: owner } => owner == tenant,
            _ => false,
        };
        if !is_meant {
            return;
        }
        let Some(life) = self.life(tenant, &credential) else { return };
        if act.what == ActKind::CredentialRevoked {
            life.revoked.get_or_insert(at);
        }
        life.acts.take(act_use(at, act));
    }

    fn life(&mut self, tenant: &TenantId, credential: &CredentialId) -> Option<&mut Life> {
        let key = (tenant.clone(), credential.clone());
        if self.credentials.len() >= CREDENTIALS_MAX && !self.credentials.contains_key(&key) {
            self.credentials_left_out += 1;
            return None;
        }
        Some(self.credentials.entry(key).or_default())
    }

    fn dispatch_over(&mut self, id: &DispatchId, outcome: Option<&DispatchOutcome>, otherwise: &str) {
        // One that the incident is not about, or that was told of before.
        let Some((at, dispatch)) = self.pending.remove(id) else { return };
        let is_sent = outcome.is_none_or(|outcome| outcome.delivery != Delivery::NotSent);
        let said = match outcome.map(|outcome| (outcome.status, outcome.fault)) {
            Some((Some(status), _)) => status.to_string(),
            Some((None, Some(fault))) => word(&fault),
            Some((None, None)) if dispatch.signed.is_some() => "signed".to_owned(),
            _ => otherwise.to_owned(),
        };
        let said = if is_sent { said } else { format!("{said}, not sent") };
        if is_sent {
            self.count(at, &dispatch);
        } else {
            self.not_sent += 1;
        }
        let call = dispatch.facts.call.clone();
        let method = method_of(&dispatch).to_owned();
        let Some(open) = self.open.get_mut(&call) else { return };
        open.used |= is_sent;
        open.pending = open.pending.saturating_sub(1);
        if open.call.dispatches.len() < DISPATCHES_MAX {
            open.call.dispatches.push(DispatchUse {
                dispatch: dispatch.dispatch,
                at,
                method,
                place: dispatch.place,
                address: dispatch.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
                credential: dispatch.credential,
                version: dispatch.version,
                outcome: said,
            });
        } else {
            open.call.dispatches_left_out += 1;
        }
        self.settle(&call);
    }

    fn count(&mut self, at: UnixMillis, dispatch: &DispatchFacts) {
        self.all.take(at);
        let tenant = &dispatch.facts.tenant;
        if let Some(credential) = &dispatch.credential
            && let Some(life) = self.life(tenant, credential)
        {
            life.all.take(at);
            if let Some(version) = dispatch.version {
                life.versions.entry(version).or_default().take(at);
            }
        }
        let (destination, path) = split(&dispatch.place);
        let place = Place {
            destination,
            path: pattern(&path),
            method: method_of(dispatch),
            credential: dispatch.credential.clone(),
            purpose: word(&dispatch.purpose),
        };
        self.places.take(place, at);
        self.principals.take((tenant.clone(), dispatch.facts.principal.to_string()), at);
        self.runs.take((tenant.clone(), dispatch.facts.run.to_string()), at);
    }

    fn call_over(&mut self, call: &CallId, outcome: String) {
        if let Some(open) = self.open.get_mut(call) {
            open.call.outcome = outcome;
            open.ended = true;
            self.settle(call);
        }
    }

    /// Lists a call when nothing more will be heard of it.
    fn settle(&mut self, call: &CallId) {
        if self.open.get(call).is_some_and(|open| open.ended && open.pending == 0)
            && let Some(open) = self.open.remove(call)
        {
            self.list(open);
        }
    }

    fn list(&mut self, open: Open) {
        if !open.used {
            return;
        }
        self.calls_total += 1;
        self.calls.push_back(open.call);
        if self.calls.len() > CALLS_MAX {
            self.calls.pop_front();
        }
    }

    /// What it comes to; what is still open counts as it stands.
    pub(super) fn end(mut self, incident: IncidentView, made: UnixMillis, records: u64) -> ExposureReport {
        let pending: Vec<_> = self.pending.keys().cloned().collect();
        for id in pending {
            self.dispatch_over(&id, None, "running");
        }
        let mut open: Vec<_> = std::mem::take(&mut self.open).into_values().collect();
        open.sort_unstable_by_key(|open| open.call.at);
        open.into_iter().for_each(|open| self.list(open));
        let mut calls: Vec<_> = self.calls.into();
        calls.sort_by_key(|call| call.at);
        let mut credentials: Vec<_> = self.credentials.into_iter().map(credential).collect();
        credentials.sort_by(|a, b| (b.uses, &a.credential).cmp(&(a.uses, &b.credential)));
        let (destinations_left_out, principals_left_out) = (self.places.left_out, self.principals.left_out);
        let runs_left_out = self.runs.left_out;
        ExposureReport {
            incident,
            made,
            records,
            records_of_it: self.looked_at,
            acts: self.acts.latest.into(),
            acts_left_out: self.acts.left_out,
            calls_left_out: self.calls_total - calls.len() as u64,
            calls_total: self.calls_total,
            calls,
            uses: self.all.uses,
            not_sent: self.not_sent,
            first_use: self.all.first,
            last_use: self.all.last,
            credentials,
            credentials_left_out: self.credentials_left_out,
            destinations: self.places.sorted().into_iter().filter_map(destination).collect(),
            destinations_left_out,
            principals: self.principals.sorted().into_iter().filter_map(who).collect(),
            principals_left_out,
            runs: self.runs.sorted().into_iter().filter_map(who).collect(),
            runs_left_out,
        }
    }
}

fn credential(((tenant, credential), life): ((TenantId, CredentialId), Life)) -> CredentialUse {
    let versions = life.versions.into_iter().map(|(version, span)| VersionUse {
        uses: span.uses,
        first_use: span.first,
        last_use: span.last,
        ..VersionUse::unused(version)
    });
    CredentialUse {
        tenant,
        credential,
        name: String::new(),
        kind: String::new(),
        owner: String::new(),
        state: "gone".to_owned(),
        created: None,
        revoked: life.revoked,
        scope: Vec::new(),
        versions: versions.collect(),
        uses: life.all.uses,
        first_use: life.all.first,
        last_use: life.all.last,
        exposed_ms: None,
        acts: life.acts.latest.into(),
        acts_left_out: life.acts.left_out,
    }
}

fn act_use(at: UnixMillis, act: &Act) -> ActUse {
    let (what, by) = (word(&act.what), act.principal.to_string());
    ActUse { at, what, by, subject: String::new(), version: act.version }
}

fn destination((place, span): (Place, Span)) -> Option<DestinationUse> {
    Some(DestinationUse {
        destination: place.destination,
        method: place.method.to_owned(),
        path: place.path,
        credential: place.credential,
        purpose: place.purpose,
        uses: span.uses,
        first_use: span.first?,
        last_use: span.last?,
    })
}

fn who(((tenant, name), span): ((TenantId, String), Span)) -> Option<WhoUse> {
    Some(WhoUse { tenant, name, uses: span.uses, first_use: span.first?, last_use: span.last? })
}

/// The method, or a word for what has none.
fn method_of(dispatch: &DispatchFacts) -> &'static str {
    dispatch.method.map_or("SIGN", keybearer_contract::Method::as_str)
}

/// Whether it is an act's request to a source, and no call's.
fn is_hosts(facts: &Facts) -> bool {
    facts.tool.package.as_str() == "keybearer" && facts.tool.tool.as_str() == "credential"
}

/// A word of a record, as it stands there.
pub(super) fn word<T: serde::Serialize>(of: &T) -> String {
    serde_json::to_value(of).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Destination and path of a place.
fn split(place: &str) -> (String, String) {
    let authority = place.find("://").map_or(0, |at| at + 3);
    let slash = place[authority..].find('/').map_or(place.len(), |at| authority + at);
    (place[..slash].to_owned(), place[slash..].to_owned())
}

/// The shortest segment that is taken for an id though it holds letters.
const ID_CHARS_MIN: usize = 16;

/// A path with `*` for every segment that looks like an id, so that a thousand customers are one row.
fn pattern(path: &str) -> String {
    let is_id = |segment: &str| {
        let digits = segment.bytes().filter(u8::is_ascii_digit).count();
        digits > 0
            && (segment.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
                || (segment.len() >= ID_CHARS_MIN && digits * 8 >= segment.len()))
    };
    path.split('/').map(|segment| if is_id(segment) { "*" } else { segment }).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[path = "exposure_tests.rs"]
mod tests;
