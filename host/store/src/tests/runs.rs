//! Runs in the store: within their tenant, within one another, over a restart, and forgotten in time.

use keybearer_contract::RunId;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunDirectory as _;
use keybearer_gate::RunEnd;
use keybearer_gate::RunRecord;
use keybearer_gate::RunState;

use super::*;
use crate::RunBounds;
use crate::StoreError;

const BOUNDS: RunBounds = RunBounds { open: 4, sub_runs: 2 };

fn run(tenant: &TenantId, within: &[&RunRecord]) -> RunRecord {
    RunRecord {
        id: RunId::random(),
        tenant: tenant.clone(),
        parents: within.iter().map(|run| run.id.clone()).collect(),
        principal: PrincipalLabel::host(),
        agent: "a".parse().expect("a name"),
        sealed: Vec::new(),
        tools: None,
        created: UnixMillis(1),
        deadline: UnixMillis(u64::MAX),
        state: RunState::Open,
        generation: 0,
        token_hash: [7; 32],
    }
}

fn with_tenants(store: &Store) -> (TenantId, TenantId) {
    (tenant(store, "acme"), tenant(store, "globex"))
}

#[test]
fn t07_a_run_is_its_tenants_alone() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = with_tenants(&store);
    let own = run(&acme, &[]);
    store.insert_run(own.clone(), BOUNDS).expect("stored");
    assert!(store.run(&globex, &own.id).is_none() && store.runs(&globex).is_empty());
    assert!(store.open_with_sub_runs(&globex, &own.id).is_none());
    assert_eq!(store.end_run(&globex, &own.id, RunEnd::Aborted, UnixMillis(2)).err(), Some(StoreError::NotFound));
    assert_eq!(store.resume_run(&globex, &own.id, 0, [8; 32]).err(), Some(StoreError::NotFound));
    let stolen = run(&globex, &[&own]);
    assert!(matches!(store.insert_run(stolen, BOUNDS), Err(StoreError::Conflict(_))), "within another tenant's run");
    assert_eq!(store.run_of_token(&own.id).map(|run| run.tenant.clone()), Some(acme.clone()));
    store.remove_tenant(&acme, UnixMillis(3)).expect("removed");
    assert!(store.run_of_token(&own.id).is_none(), "it goes with its tenant");
    drop(store);
    assert!(place.open().run_of_token(&own.id).is_none());
}

#[test]
fn no_run_outlives_the_one_that_it_was_opened_within() {
    let place = Place::new();
    let store = place.open();
    let (acme, _) = with_tenants(&store);
    let first = run(&acme, &[]);
    let second = run(&acme, &[&first]);
    let third = run(&acme, &[&first, &second]);
    for run in [&first, &second, &third] {
        store.insert_run(run.clone(), BOUNDS).expect("stored");
    }
    let beyond = run(&acme, &[&first]);
    assert!(matches!(store.insert_run(beyond, BOUNDS), Err(StoreError::Conflict(_))), "too many within one run");
    let ended = store.end_run(&acme, &second.id, RunEnd::Finished, UnixMillis(5)).expect("ends");
    assert_eq!(ended.len(), 2);
    assert!(store.end_run(&acme, &second.id, RunEnd::Aborted, UnixMillis(6)).expect("no error").is_empty());
    drop(store);
    let store = place.open();
    let state = |id: &RunId| store.run(&acme, id).expect("remembered").state;
    let over = RunState::Ended { how: RunEnd::Finished, at: UnixMillis(5) };
    assert_eq!([&first, &second, &third].map(|run| state(&run.id)), [RunState::Open, over, over], "over a restart");
    assert!(store.insert_run(run(&acme, &[&first, &second]), BOUNDS).is_err(), "within one that has ended");
    assert_eq!(store.open_runs().len(), 1);
    for _ in 0..3 {
        store.insert_run(run(&acme, &[]), BOUNDS).expect("stored");
    }
    assert!(
        matches!(store.insert_run(run(&acme, &[]), BOUNDS), Err(StoreError::Conflict(_))),
        "too many of the tenant"
    );
}

#[test]
fn t08_a_generation_is_resumed_once() {
    let place = Place::new();
    let store = place.open();
    let (acme, _) = with_tenants(&store);
    let own = run(&acme, &[]);
    store.insert_run(own.clone(), BOUNDS).expect("stored");
    let resumed = store.resume_run(&acme, &own.id, 0, [8; 32]).expect("resumes");
    assert_eq!((resumed.generation, resumed.token_hash), (1, [8; 32]));
    for generation in [0, 2] {
        assert!(store.resume_run(&acme, &own.id, generation, [9; 32]).is_err(), "{generation}");
    }
    store.end_run(&acme, &own.id, RunEnd::Revoked, UnixMillis(2)).expect("ends");
    assert!(store.resume_run(&acme, &own.id, 1, [9; 32]).is_err(), "one that has ended");
    drop(store);
    assert_eq!(place.open().run(&acme, &own.id).map(|run| run.token_hash), Some([8; 32]));
}

#[test]
fn runs_that_ended_long_ago_or_are_too_many_are_forgotten_and_open_ones_are_not() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = with_tenants(&store);
    let runs: Vec<_> = (0..4).map(|_| run(&acme, &[])).collect();
    for (run, at) in runs.iter().zip(10..) {
        store.insert_run(run.clone(), BOUNDS).expect("stored");
        store.end_run(&acme, &run.id, RunEnd::Finished, UnixMillis(at)).expect("ends");
    }
    let open = [run(&acme, &[]), run(&globex, &[])];
    open.iter().for_each(|run| drop(store.insert_run(run.clone(), BOUNDS).expect("stored")));
    assert_eq!(store.forget_runs(UnixMillis(11), 10), Ok(1), "what ended before then");
    assert_eq!(store.forget_runs(UnixMillis(0), 2), Ok(1), "all but the last two");
    assert_eq!(store.forget_runs(UnixMillis(0), 2), Ok(0));
    drop(store);
    let store = place.open();
    let left: Vec<_> = store.runs(&acme).iter().map(|run| run.id.clone()).collect();
    assert_eq!(left.len(), 3);
    assert!([&runs[2], &runs[3], &open[0]].iter().all(|run| left.contains(&run.id)));
    assert_eq!(store.runs(&globex).len(), 1);
}
