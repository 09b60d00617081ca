//! Where notices go, and those that wait.

use std::sync::Arc;

use keybearer_contract::HookId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Addressee;
use keybearer_gate::NoticeRecord;
use keybearer_gate::NoticeTarget;
use keybearer_gate::Sealed;

use super::Place;
use crate::StoreError;

fn target() -> NoticeTarget {
    let url = "https://ops.example.com/notices".parse().expect("a URL");
    NoticeTarget { id: HookId::random(), url, created: UnixMillis(7), sealed: Sealed(Arc::from(*b"sealed")) }
}

fn notice(to: &Addressee, id: &str) -> NoticeRecord {
    let body = id.as_bytes().to_vec();
    NoticeRecord { to: to.clone(), id: id.to_owned(), created: UnixMillis(9), incident: None, body }
}

#[test]
fn a_notice_waits_over_a_restart_until_it_is_forgotten_and_each_addressee_has_its_own() {
    // If it failed, what happened during an outage would be told to nobody, or to somebody else.
    let place = Place::new();
    let store = place.open();
    let (tenant, operator) = (Addressee::Tenant(super::tenant(&store, "acme")), Addressee::Operator);
    assert!(matches!(store.put_notice(&notice(&tenant, "a")), Err(StoreError::NotFound)), "nobody wants it");
    for to in [&tenant, &operator] {
        store.set_notice_target(to, Some(target())).expect("set");
        assert!(store.put_notice(&notice(to, "a")).expect("put"));
        assert!(!store.put_notice(&notice(to, "a")).expect("the same once more is one"));
    }
    store.put_notice(&notice(&tenant, "b")).expect("put");
    store.forget_notice(&tenant, "a").expect("forgotten");
    drop(store);
    let store = place.open();
    let waiting = store.waiting_notices().expect("read");
    let mut waiting: Vec<_> = waiting.iter().map(|notice| (notice.to.clone(), &*notice.id, &*notice.body)).collect();
    waiting.sort_unstable_by_key(|(_, id, _)| *id);
    assert_eq!(waiting, [(operator.clone(), "a", &b"a"[..]), (tenant.clone(), "b", &b"b"[..])]);
    assert!(store.notice_target(&operator).is_some_and(|target| target.url.to_string().ends_with("/notices")));
    store.set_notice_target(&tenant, None).expect("removed");
    assert!(store.notice_target(&tenant).is_none());
    assert_eq!(store.waiting_notices().expect("read").len(), 1, "what waits goes with its target");
}

#[test]
fn notices_of_one_tenant_are_bounded_and_take_no_place_of_anothers() {
    let place = Place::new();
    let store = place.open();
    let one = Addressee::Tenant(super::tenant(&store, "acme"));
    let other = Addressee::Tenant(super::tenant(&store, "globex"));
    store.set_notice_target(&one, Some(target())).expect("set");
    store.set_notice_target(&other, Some(target())).expect("set");
    let put = |to: &Addressee, id: usize| store.put_notice(&notice(to, &id.to_string()));
    assert_eq!((0..300).filter(|id| put(&one, *id).is_ok()).count(), 256);
    assert!(matches!(put(&one, 999), Err(StoreError::Conflict(_))));
    assert!(put(&other, 0).expect("room"));
}
