//! What is gathered out of a ledger of several segments: each use once, whatever is said again at a segment's head,
//! and nothing of others.

use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::IncidentId;
use keybearer_contract::RunId;
use keybearer_gate::IncidentCounts;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentState;
use keybearer_gate::IncidentStep;
use keybearer_gate::NoticeState;
use keybearer_gate::PrincipalLabel;
use keybearer_ledger::Reader;
use serde_json::Value;
use serde_json::json;

use super::*;

struct Lines {
    tenant: TenantId,
    credential: CredentialId,
    seq: u64,
    text: String,
}

impl Lines {
    fn new() -> Self {
        Self { tenant: TenantId::random(), credential: CredentialId::random(), seq: 0, text: String::new() }
    }

    fn put(&mut self, kind: &str, of: &Value, more: Value) {
        self.seq += 1;
        let zeros = "0".repeat(64);
        let mut line = json!({"seq": self.seq, "time": self.seq * 1_000, "prev": zeros, "kind": kind, "hash": zeros});
        for part in [of.clone(), more] {
            line.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
        }
        self.text.push_str(&format!("{line}\n"));
    }

    fn call(&self) -> Value {
        json!({
            "tenant": self.tenant, "principal": "token:tok_x", "run": RunId::random(), "call": CallId::random(),
            "tool": "http-get.get", "package": Digest::of_package(b"c", b"m"),
        })
    }

    fn dispatch(&self, call: &Value, version: u32) -> Value {
        let mut dispatch = call.clone();
        let more = json!({
            "dispatch": DispatchId::random(), "purpose": "guest", "method": "GET", "address": "192.0.2.1:443",
            "place": "https://a.example/v1/customers/42", "credential": self.credential, "version": version, "epoch": 1,
        });
        dispatch.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        dispatch
    }

    fn report(&self, folder: &std::path::Path, subject: IncidentSubject) -> ExposureReport {
        let record = IncidentRecord {
            id: IncidentId::random(),
            subject: subject.clone(),
            note: String::new(),
            opened: UnixMillis(0),
            by: PrincipalLabel::operator(),
            own: false,
            state: IncidentState::Open,
            reached: IncidentStep::Stored,
            quarantine: Vec::new(),
            contained: None,
            counts: IncidentCounts::default(),
            notice: NoticeState::None,
        };
        // As the executor names whoever it is about.
        let labels = match &subject {
            IncidentSubject::Principal { principal, .. } => vec![principal.clone()],
            IncidentSubject::Token { token, .. } => vec![format!("token:{token}")],
            _ => Vec::new(),
        };
        let mut gatherer = Gatherer::new(subject, labels);
        let records = Reader::new(folder).visit(&mut gatherer).expect("the ledger is read");
        assert_eq!(records, self.seq, "every record is looked at");
        gatherer.end(crate::incidents::views::view(&record), UnixMillis(1_000_000), records)
    }
}

fn sent(status: u16) -> Value {
    json!({"status": status, "delivery": "maybe_sent", "sent_bytes": 0, "received_bytes": 2, "reflected": 0, "wall_ms": 1})
}

fn result() -> Value {
    json!({"wall_ms": 5, "requests": 1, "result_bytes": 2})
}

#[test]
fn r11_each_use_is_counted_once_over_segments_and_what_was_not_sent_is_no_use() {
    // If this failed, a report would name uses twice, miss those of another segment, or accuse a call that sent nothing.
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Lines::new();
    let (long, stale, cut, foreign) = (lines.call(), lines.call(), lines.call(), lines.call());
    let (first, second) = (lines.dispatch(&long, 1), lines.dispatch(&long, 2));
    lines.put("call_begun", &long, json!({}));
    lines.put("dispatch_intended", &first, json!({}));
    std::fs::write(folder.path().join(format!("{:020}.jsonl", 1)), &lines.text).expect("written");
    // The next segment says again what is open.
    lines.text.clear();
    let from = lines.seq + 1;
    lines.put("open_call", &long, json!({}));
    lines.put("open_dispatch", &first, json!({}));
    lines.put("dispatch_closed", &first, sent(200));
    let refused = lines.dispatch(&stale, 1);
    lines.put("dispatch_intended", &refused, json!({}));
    let not_sent = json!({
        "fault": "stale", "delivery": "not_sent", "sent_bytes": 0, "received_bytes": 0, "reflected": 0, "wall_ms": 0,
    });
    lines.put("dispatch_closed", &refused, not_sent);
    lines.put("call_closed", &stale, result());
    lines.put("dispatch_intended", &second, json!({}));
    lines.put("dispatch_closed", &second, sent(201));
    lines.put("call_closed", &long, result());
    let lost = lines.dispatch(&cut, 2);
    lines.put("dispatch_intended", &lost, json!({}));
    lines.put("call_unknown", &cut, json!({}));
    lines.put("dispatch_unknown", &lost, json!({}));
    let mut other = lines.dispatch(&foreign, 1);
    other["tenant"] = json!(TenantId::random());
    lines.put("dispatch_intended", &other, json!({}));
    lines.put("dispatch_closed", &other, sent(200));
    std::fs::write(folder.path().join(format!("{from:020}.jsonl")), &lines.text).expect("written");

    let (tenant, credential) = (lines.tenant.clone(), lines.credential.clone());
    let report = lines.report(folder.path(), IncidentSubject::Credential { tenant, credential });
    assert_eq!((report.uses, report.not_sent, report.calls_total), (3, 1, 2));
    let listed: Vec<_> = report.calls.iter().map(|call| (json!(call.call), call.outcome.as_str())).collect();
    assert_eq!(listed, [(long["call"].clone(), "result"), (cut["call"].clone(), "unknown")]);
    let versions = &report.credentials[0].versions;
    let uses: Vec<_> = versions.iter().map(|version| (version.version, version.uses, version.first_use)).collect();
    assert_eq!(uses, [(1, 1, Some(UnixMillis(2_000))), (2, 2, Some(UnixMillis(9_000)))]);
    assert_eq!((report.first_use, report.last_use), (Some(UnixMillis(2_000)), Some(UnixMillis(12_000))));
    assert_eq!((report.destinations.len(), report.destinations[0].path.as_str()), (1, "/v1/customers/*"));
    assert_eq!(report.destinations[0].uses, 3);

    let tool = "http-get.get".parse().expect("a name");
    let of_tool = lines.report(folder.path(), IncidentSubject::Tool { tool });
    assert_eq!((of_tool.uses, of_tool.calls_total, of_tool.credentials.len()), (4, 3, 2), "every tenant's");
}

#[test]
fn r11_t07_what_a_tenants_own_incident_is_about_is_gathered_and_nothing_of_others() {
    // If this failed, a tenant's report would show another's calls, or miss those of a run within the run.
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Lines::new();
    let (mut call, mut within, mut foreign) = (lines.call(), lines.call(), lines.call());
    let (run, sub_run) = (RunId::random(), RunId::random());
    (call["run"], within["run"]) = (json!(run), json!(sub_run));
    // The very names, in another tenant.
    (foreign["run"], foreign["tenant"]) = (json!(run), json!(TenantId::random()));
    let opened = json!({
        "tenant": lines.tenant, "principal": "token:tok_x", "run": sub_run, "parents": [run], "agent": "helper",
        "grants": [], "deadline": 1, "generation": 0,
    });
    lines.put("run_opened", &opened, json!({}));
    let (grant, other_grant) = (GrantId::random(), GrantId::random());
    for (call, grant) in [(&call, &grant), (&within, &other_grant), (&foreign, &grant)] {
        let dispatch = lines.dispatch(call, 1);
        lines.put("call_begun", call, json!({}));
        lines.put("dispatch_intended", &dispatch, json!({"grant": grant}));
        lines.put("dispatch_closed", &dispatch, sent(200));
        lines.put("call_closed", call, result());
    }
    let act = |tenant: &TenantId| json!({"tenant": tenant, "principal": "token:tok_x", "what": "token_issued", "subject": "tok_y"});
    let (mine, others) = (act(&lines.tenant), act(&TenantId::random()));
    lines.put("act", &mine, json!({}));
    lines.put("act", &others, json!({}));
    std::fs::write(folder.path().join(format!("{:020}.jsonl", 1)), &lines.text).expect("written");

    let (tenant, token) = (lines.tenant.clone(), keybearer_contract::TokenId::random());
    let package = "http-get".parse().expect("a name");
    let tool = "http-get.get".parse().expect("a name");
    for (subject, uses) in [
        (IncidentSubject::Run { tenant: tenant.clone(), run }, 2),
        (IncidentSubject::Principal { tenant: tenant.clone(), principal: "token:tok_x".to_owned() }, 2),
        (IncidentSubject::OwnTool { tenant: tenant.clone(), tool }, 2),
        (IncidentSubject::Grant { tenant: tenant.clone(), grant, package }, 1),
        // Of whom no line speaks.
        (IncidentSubject::Token { tenant: tenant.clone(), token }, 0),
    ] {
        let report = lines.report(folder.path(), subject.clone());
        assert_eq!((report.uses, report.calls_total), (uses, uses), "{subject:?}");
        assert!(report.calls.iter().all(|call| call.tenant == tenant), "{subject:?}");
        assert!(report.records_of_it < lines.seq, "{subject:?}: not those of others");
        let acts: Vec<_> = report.acts.iter().map(|act| act.subject.as_str()).collect();
        let expected = if matches!(subject, IncidentSubject::Principal { .. }) { vec!["tok_y"] } else { Vec::new() };
        assert_eq!(acts, expected, "{subject:?}");
    }
}

#[test]
fn r11_a_report_of_very_many_calls_lists_the_latest_and_counts_all() {
    // If this failed, a busy credential's report would take all memory, or hide that it is not whole.
    let folder = tempfile::tempdir().expect("a folder");
    let mut lines = Lines::new();
    let mut last = Value::Null;
    for _ in 0..CALLS_MAX + 7 {
        let call = lines.call();
        let dispatch = lines.dispatch(&call, 1);
        lines.put("dispatch_intended", &dispatch, json!({}));
        lines.put("dispatch_closed", &dispatch, sent(200));
        lines.put("call_closed", &call, result());
        last = call["call"].clone();
    }
    std::fs::write(folder.path().join(format!("{:020}.jsonl", 1)), &lines.text).expect("written");
    let (tenant, credential) = (lines.tenant.clone(), lines.credential.clone());
    let report = lines.report(folder.path(), IncidentSubject::Credential { tenant, credential });
    assert_eq!((report.calls.len(), report.calls_left_out, report.calls_total), (CALLS_MAX, 7, CALLS_MAX as u64 + 7));
    assert_eq!(report.calls.last().map(|call| json!(call.call)), Some(last));
    assert_eq!((report.runs.len(), report.runs_left_out), (ROWS_MAX, 7), "each call has a run of its own");
    assert!(report.page().contains("7 earlier calls are not listed"), "said plainly");
}

#[test]
fn paths_of_many_things_are_one_row_and_words_stay() {
    for (path, expected) in [
        ("/v1/customers/12345", "/v1/customers/*"),
        ("/v1/charges/ch_3OqL2eABcDeFgHiJ1k2l3m4n/refunds", "/v1/charges/*/refunds"),
        ("/orders/6f9619ff-8b86-d011-b42d-00cf4fc964ff", "/orders/*"),
        ("/2010-04-01/Accounts", "/*/Accounts"),
        ("/v1/oauth2/token", "/v1/oauth2/token"),
        ("/anything/a-name-without-digits-in-it", "/anything/a-name-without-digits-in-it"),
        ("/", "/"),
    ] {
        assert_eq!(pattern(path), expected, "{path}");
    }
    assert_eq!(split("https://a.example:8443/x/y"), ("https://a.example:8443".to_owned(), "/x/y".to_owned()));
    assert_eq!(split("https://a.example"), ("https://a.example".to_owned(), String::new()));
}
