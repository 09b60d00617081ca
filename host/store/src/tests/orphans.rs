//! What is noted to be given back at its issuer.

use keybearer_contract::RunId;
use keybearer_gate::Facts;
use keybearer_gate::OrphanRecord;
use keybearer_gate::PrincipalLabel;

use super::*;
use crate::StoreError;

fn orphan(credential: &CredentialRecord, reference: &str, ends: u64) -> OrphanRecord {
    let facts = Facts {
        tenant: credential.tenant.clone(),
        principal: PrincipalLabel::host(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "a.b".parse().expect("tool"),
        package: Digest::of_package(b"", b""),
    };
    let (credential, reference) = (credential.id.clone(), reference.to_owned());
    OrphanRecord { facts, credential, reference, ends: UnixMillis(ends) }
}

// If it failed, what a crash left at an issuer would be forgotten, or be given back for ever.
#[test]
fn r13_what_is_noted_survives_a_restart_until_it_is_given_back_ends_or_its_tenant_does() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let ours = store.insert_credential(credential(&acme, "db")).expect("stored");
    let theirs = store.insert_credential(credential(&globex, "db")).expect("stored");
    let kept = orphan(&ours, "lease/1", 100);
    for noted in
        [&kept, &orphan(&ours, "lease/2", 100), &orphan(&ours, "lease/3", 10), &orphan(&theirs, "lease/1", 100)]
    {
        store.note_orphan(noted, UnixMillis(1)).expect("noted");
    }
    let unknown = orphan(&credential(&acme, "x"), "lease/9", 100);
    assert!(store.note_orphan(&unknown, UnixMillis(1)).is_err(), "no such credential");
    store.forget_orphan(&acme, &ours.id, "lease/2").expect("forgotten");
    drop(store);
    let store = place.open();
    let left = || store.orphans(UnixMillis(10)).expect("read");
    assert_eq!(left().len(), 2, "what has ended is left out");
    assert!(left().contains(&kept));
    store.remove_tenant(&globex, UnixMillis(5)).expect("removed");
    assert_eq!(left(), [kept]);
    assert_eq!(store.note_orphan(&orphan(&theirs, "lease/1", 100), UnixMillis(1)), Err(StoreError::NotFound));
}
