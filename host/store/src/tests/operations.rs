//! The operations: what each does, and what it refuses.

use std::fs;

use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TokenDirectory as _;

use super::*;
use crate::Begun;
use crate::IDEMPOTENCY_LIFE_MS;
use crate::PURGED_AT_ONCE;
use crate::Rollback;
use crate::StoreError;

#[test]
fn t07_another_tenants_ids_answer_as_missing_ones() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let credential = store.insert_credential(credential(&acme, "stripe")).expect("stored");
    let token = store.insert_token(token(&acme)).expect("stored");
    let grant = grant(&acme, &credential.id);
    store.put_grant(grant.clone()).expect("granted");

    // Each as globex with acme's id, and as globex with an id that nobody has.
    for id in [credential.id.clone(), CredentialId::random()] {
        assert!(store.credential(&globex, &id).is_none());
        assert_eq!(store.add_version(&globex, &id, version(2), 9).err(), Some(StoreError::NotFound));
        assert_eq!(store.revoke_credential(&globex, &id).err(), Some(StoreError::NotFound));
        assert_eq!(store.destroy_version(&globex, &id, 1).err(), Some(StoreError::NotFound));
        assert_eq!(store.put_grant(super::grant(&globex, &id)).err(), Some(StoreError::NotFound));
    }
    for id in [token.id.clone(), TokenId::random()] {
        assert_eq!(store.revoke_token(&globex, &id, UnixMillis(5)).err(), Some(StoreError::NotFound));
    }
    for id in [grant.id.clone(), GrantId::random()] {
        assert!(store.grant(&globex, &id).is_none());
        assert_eq!(store.remove_grant(&globex, &id).err(), Some(StoreError::NotFound));
        let approved = store.approve_grant(&globex, &id, grant.approved.clone());
        assert_eq!(approved.err(), Some(StoreError::NotFound));
    }
    assert!(store.credential_by_name(&globex, "stripe").is_none());
    assert!(store.credentials(&globex).is_empty() && store.tokens(&globex).is_empty());
    assert!(store.grants(&globex).is_empty() && store.grants_of_package(&globex, &grant.package).is_empty());
    // And acme's things are as they were.
    assert_eq!(store.credential(&acme, &credential.id).map(|record| record.epoch), Some(1));
    assert_eq!(store.grants(&acme).len(), 1);
    assert!(store.token(&token.id).is_some_and(|token| token.revoked.is_none()));
}

#[test]
fn t07_the_database_itself_refuses_a_grant_across_tenants() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let credential = store.insert_credential(credential(&acme, "stripe")).expect("stored");
    let written = store.commit(
        |transaction| {
            let sql =
                "INSERT INTO grants (tenant, package, slot, id, credential, record) VALUES (?1, 'p', '', 'g', ?2, '')";
            Ok(transaction.execute(sql, [globex.as_str(), credential.id.as_str()])?)
        },
        |_, rows| rows,
    );
    assert!(matches!(written, Err(StoreError::Conflict(_))));
}

#[test]
fn c08_an_epoch_that_does_not_grow_is_refused() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let id = store.insert_credential(credential(&acme, "stripe")).expect("stored").id.clone();
    store.add_version(&acme, &id, version(2), 5).expect("rotated");
    for epoch in [0, 4, 5] {
        assert!(matches!(store.add_version(&acme, &id, version(3), epoch), Err(StoreError::Conflict(_))));
    }
    assert_eq!(store.touch_credential(&acme, &id).expect("raised").epoch, 6, "whatever stood there, one more");
    // Not even past this crate's own check.
    let lowered =
        store.commit(|transaction| Ok(transaction.execute("UPDATE credentials SET epoch = 4", [])?), |_, rows| rows);
    assert!(matches!(lowered, Err(StoreError::Conflict(_))));
    let (before, record) = store.revoke_credential(&acme, &id).expect("revoked");
    assert_eq!((before.state, before.epoch), (CredentialState::Active, 6));
    assert_eq!((record.state, record.epoch), (CredentialState::Revoked, 7), "whatever stood there, one more");
    assert!(record.current(UnixMillis(0)).is_none());
    assert!(matches!(store.add_version(&acme, &id, version(3), 7), Err(StoreError::Conflict(_))));
    let epochs = store.epochs().expect("read");
    assert_eq!(epochs.iter().map(|row| row.epoch).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_version_that_is_not_the_next_one_is_refused() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let id = store.insert_credential(credential(&acme, "stripe")).expect("stored").id.clone();
    let retired = VersionRecord { state: VersionState::Retired, ..version(2) };
    for bad in [version(1), version(3), retired] {
        assert!(matches!(store.add_version(&acme, &id, bad, 2), Err(StoreError::Conflict(_))));
    }
    assert_eq!(store.credential(&acme, &id).map(|record| (record.epoch, record.versions.len())), Some((1, 1)));
}

#[test]
fn a_destroyed_versions_bytes_are_in_no_file() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let id = store.insert_credential(credential(&acme, "stripe")).expect("stored").id.clone();
    assert!(matches!(store.destroy_version(&acme, &id, 1), Err(StoreError::Conflict(_))));
    store.add_version(&acme, &id, version(2), 2).expect("rotated");
    let stands = |needle: &str| {
        ["", "-wal"].iter().any(|suffix| {
            let bytes = fs::read(place.file(suffix)).unwrap_or_default();
            bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
        })
    };
    assert!(stands("sealed value number 1"));
    let record = store.destroy_version(&acme, &id, 1).expect("destroyed");
    assert!(record.versions[0].sealed.0.is_empty());
    assert!(!stands("sealed value number 1") && stands("sealed value number 2"));
    assert!(store.same_fingerprint(&[1; 32]).is_empty() && store.same_fingerprint(&[0; 32]).is_empty());
}

#[test]
fn the_operator_finds_the_same_value_under_two_tenants() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    for tenant in [&acme, &globex] {
        store.insert_credential(credential(tenant, "stripe")).expect("stored");
    }
    let mut tenants: Vec<_> = store.same_fingerprint(&[1; 32]).into_iter().map(|(tenant, _)| tenant).collect();
    tenants.sort_unstable();
    let mut both = vec![acme, globex];
    both.sort_unstable();
    assert_eq!(tenants, both);
    // A value that one tenant has twice is its own affair.
    for name in ["a", "b"] {
        let record = CredentialRecord {
            versions: vec![VersionRecord { fingerprint: [9; 32], ..version(1) }],
            ..credential(&both[0], name)
        };
        store.insert_credential(record).expect("stored");
    }
    assert_eq!(store.shared_fingerprints().iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert!(store.same_fingerprint(&[2; 32]).is_empty());
}

#[test]
fn names_are_unique_where_they_must_be() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let again = store.create_tenant(tenant_record("acme"), sealed("k"));
    assert!(matches!(again, Err(StoreError::Conflict(_))));
    store.insert_credential(credential(&acme, "stripe")).expect("stored");
    let again = store.insert_credential(credential(&acme, "stripe"));
    assert!(matches!(again, Err(StoreError::Conflict(_))));
    let globex = tenant(&store, "globex");
    store.insert_credential(credential(&globex, "stripe")).expect("another tenant's names are its own");
}

#[test]
fn r10_a_removed_tenant_leaves_its_id_and_nothing_else() {
    let place = Place::new();
    let store = place.open();
    let record = tenant_record("acme");
    let acme = record.id.clone();
    store.create_tenant(record.clone(), sealed("data key of acme")).expect("created");
    let credential = store.insert_credential(credential(&acme, "stripe")).expect("stored");
    store.put_grant(grant(&acme, &credential.id)).expect("granted");
    let token = store.insert_token(token(&acme)).expect("stored");
    let sealed_bytes = store.sealed_of(&acme).expect("read");
    let removed = store.remove_tenant(&acme, UnixMillis(9)).expect("removed");
    assert_eq!((removed["credentials"], removed["grants"], removed["tokens"]), (1, 1, 1));

    let look = |store: &Store| {
        assert!(store.tenant(&acme).is_none() && store.data_key(&acme).is_none());
        assert!(store.token(&token.id).is_none() && store.credential(&acme, &credential.id).is_none());
        assert!(store.epochs().expect("read").is_empty() && store.removed_tenants().expect("read").contains(&acme));
        assert_eq!(store.rows_of(&acme).expect("read"), 0);
    };
    look(&store);
    for file in ["store.db", "store.db-wal"] {
        let bytes = std::fs::read(place.path().with_file_name(file)).unwrap_or_default();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!sealed_bytes.iter().any(|sealed| holds(sealed)), "{file}");
    }
    // The id is never given again; the name is free.
    assert!(matches!(store.create_tenant(record, sealed("k")), Err(StoreError::Conflict(_))));
    assert_ne!(tenant(&store, "acme"), acme);
    assert!(matches!(store.remove_tenant(&acme, UnixMillis(9)), Err(StoreError::NotFound)));
    drop(store);
    look(&place.open());
}

#[test]
fn the_data_keys_are_replaced_all_or_none() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let some = vec![(acme.clone(), sealed("new"))];
    assert!(matches!(store.replace_data_keys(some), Err(StoreError::Conflict(_))));
    let twice = vec![(acme.clone(), sealed("new")), (acme.clone(), sealed("new"))];
    assert!(matches!(store.replace_data_keys(twice), Err(StoreError::Conflict(_))));
    assert!(store.data_key(&acme) == Some(sealed("data key of acme")));
    let all = vec![(acme.clone(), sealed("new a")), (globex.clone(), sealed("new g"))];
    store.replace_data_keys(all).expect("replaced");
    drop(store);
    let store = place.open();
    assert!(store.data_key(&acme) == Some(sealed("new a")) && store.data_key(&globex) == Some(sealed("new g")));
}

#[test]
fn a_tenants_state_and_limits_change_and_last() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    store.set_tenant_state(&acme, TenantState::Suspended).expect("set");
    let limits = crate::TenantLimits { limits: Limits::default(), calls_per_second: 1, concurrent_calls: 2 };
    store.set_tenant_limits(&acme, limits).expect("set");
    drop(store);
    let record = place.open().tenant(&acme).expect("there");
    assert_eq!((record.state, record.calls_per_second, record.concurrent_calls), (TenantState::Suspended, 1, 2));
}

#[test]
fn a_grant_takes_the_place_of_the_one_for_its_slot() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let a = store.insert_credential(credential(&acme, "a")).expect("stored");
    let b = store.insert_credential(credential(&acme, "b")).expect("stored");
    store.put_grant(grant(&acme, &a.id)).expect("granted");
    let second = grant(&acme, &b.id);
    let replaced = store.put_grant(second.clone()).expect("granted");
    assert_eq!(replaced.map(|first| first.credential), Some(Some(a.id.clone())), "the one before is told");
    let whole = Grant { slot: None, credential: None, id: GrantId::random(), ..second.clone() };
    store.put_grant(whole).expect("granted");
    let approved = Approved { signer: "cd".to_owned(), ..Approved::clone(&second.approved) }.into();
    store.approve_grant(&acme, &second.id, approved).expect("approved");
    let held = store.grants(&acme);
    assert_eq!(held.len(), 2);
    assert_eq!((held[1].credential.as_ref(), held[1].approved.signer.as_str()), (Some(&b.id), "cd"));
    store.remove_grant(&acme, &second.id).expect("removed");
    drop(store);
    assert_eq!(place.open().grants(&acme).len(), 1);
}

#[test]
fn w13_an_older_version_is_published_only_when_it_is_meant() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let (old, new) = (package("0.9.0"), package("0.10.0"));
    store.publish(new.clone(), COMPONENT, Rollback::Refused).expect("published");
    let back = store.publish(old.clone(), COMPONENT, Rollback::Refused);
    assert!(matches!(back, Err(StoreError::Conflict(_))));
    store.publish(new.clone(), COMPONENT, Rollback::Refused).expect("the same again changes nothing");
    store.publish(old.clone(), COMPONENT, Rollback::Allowed).expect("published");
    let newest = |store: &Store| store.newest_for(&acme, &old.name).map(|package| package.digest);
    assert_eq!(newest(&store), Some(old.digest));
    store.withdraw(&old.digest, UnixMillis(7)).expect("withdrawn");
    assert_eq!(newest(&store), Some(new.digest));
    // A withdrawn package does not come back by being published once more.
    assert!(matches!(store.publish(old.clone(), COMPONENT, Rollback::Refused), Err(StoreError::Conflict(_))));
    drop(store);
    let store = place.open();
    assert_eq!(newest(&store), Some(new.digest));
    assert_eq!(store.packages().iter().map(|package| package.digest).collect::<Vec<_>>(), [old.digest, new.digest]);
}

#[test]
fn a_package_is_open_to_those_whom_it_names() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let record = PackageRecord { visible_to: Some(vec![acme.clone()]), ..package("0.1.0") };
    let record = store.publish(record, COMPONENT, Rollback::Refused).expect("published");
    assert!(store.newest_for(&acme, &record.name).is_some() && store.newest_for(&globex, &record.name).is_none());
    store.set_visibility(&record.digest, None).expect("set");
    assert!(store.newest_for(&globex, &record.name).is_some());
}

#[test]
fn a_component_that_is_not_what_was_published_is_refused() {
    let place = Place::new();
    let store = place.open();
    let other = store.publish(package("0.1.0"), b"other bytes", Rollback::Refused);
    assert!(matches!(other, Err(StoreError::Conflict(_))));
    let record = store.publish(package("0.1.0"), COMPONENT, Rollback::Refused).expect("published");
    assert_eq!(store.component(&record.digest).as_deref(), Ok(COMPONENT));
    let sql = "UPDATE packages SET component = x'00'";
    store.commit(|transaction| Ok(transaction.execute(sql, [])?), |_, rows| rows).expect("tampered");
    assert!(matches!(store.component(&record.digest), Err(StoreError::Unavailable(_))));
    assert_eq!(store.component(&package("0.2.0").digest), Err(StoreError::NotFound));
}

#[test]
fn t09_h17_an_idempotency_key_belongs_to_one_tenant_and_one_request() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let begin = |tenant: &TenantId, request: u8, now: u64| {
        store.begin(key(tenant, 1), &[request; 32], &call(), UnixMillis(now)).expect("asked")
    };
    let Begun::New(first) = begin(&acme, 1, 10) else { panic!("the key is free") };
    assert!(matches!(begin(&acme, 1, 11), Begun::InFlight(_)));
    assert!(matches!(begin(&acme, 2, 11), Begun::Mismatch));
    let Begun::New(other) = begin(&globex, 2, 11) else { panic!("another tenant's key is another key") };
    other.forget().expect("forgotten");
    assert!(matches!(begin(&globex, 3, 12), Begun::New(_)));
    assert!(matches!(begin(&globex, 3, 12), Begun::Unknown(_)), "it was dropped without an end");
    first.finish(&sealed("answer")).expect("finished");
    assert!(matches!(begin(&acme, 1, 12), Begun::Done(_, answer) if answer == sealed("answer")));
    assert!(matches!(begin(&acme, 2, 12), Begun::Mismatch));
    assert!(matches!(begin(&acme, 2, 10 + IDEMPOTENCY_LIFE_MS), Begun::New(_)), "its life has ended");
}

#[test]
fn c01_a_key_whose_call_was_cut_off_is_never_run_again() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let cut_off = call();
    let begun = store.begin(key(&acme, 1), &[1; 32], &cut_off, UnixMillis(10)).expect("asked");
    // What a crash leaves is what lies on the disk before the call ends.
    let crashed = Place::new();
    for suffix in ["", "-wal", ".guard"] {
        fs::copy(place.file(suffix), crashed.file(suffix)).expect("copied");
    }
    drop(begun);
    let store = crashed.open();
    let begun = store.begin(key(&acme, 1), &[1; 32], &call(), UnixMillis(11)).expect("asked");
    assert!(matches!(begun, Begun::Unknown(call) if call == cut_off));
    let begun = store.begin(key(&acme, 1), &[2; 32], &call(), UnixMillis(11)).expect("asked");
    assert!(matches!(begun, Begun::Mismatch));
}

#[test]
fn purging_removes_what_has_ended_its_life_and_nothing_that_runs() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let begin = |byte: u8, now: u64| store.begin(key(&acme, byte), &[1; 32], &call(), UnixMillis(now)).expect("asked");
    let Begun::New(done) = begin(1, 10) else { panic!("free") };
    done.finish(&sealed("answer")).expect("finished");
    let Begun::New(running) = begin(2, 10) else { panic!("free") };
    assert_eq!(store.purge(UnixMillis(9 + IDEMPOTENCY_LIFE_MS)), Ok(0));
    assert_eq!(store.purge(UnixMillis(10 + IDEMPOTENCY_LIFE_MS)), Ok(1));
    assert!(matches!(begin(2, 11 + IDEMPOTENCY_LIFE_MS), Begun::InFlight(_)));
    running.finish(&sealed("late")).expect("finished");
    assert!(matches!(begin(2, 12 + IDEMPOTENCY_LIFE_MS), Begun::Done(..)));
}

#[test]
fn purging_goes_by_small_steps() {
    // If this failed, one tenant's old answers, megabytes each, would hold up everybody's writes (P9).
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    for byte in 0..=u8::try_from(PURGED_AT_ONCE).expect("small") {
        let begun = store.begin(key(&acme, byte), &[1; 32], &call(), UnixMillis(10)).expect("asked");
        let Begun::New(done) = begun else { panic!("free") };
        done.finish(&sealed("answer")).expect("finished");
    }
    let over = UnixMillis(10 + IDEMPOTENCY_LIFE_MS);
    assert_eq!(store.purge(over), Ok(PURGED_AT_ONCE));
    assert_eq!(store.purge(over), Ok(1));
    assert_eq!(store.purge(over), Ok(0));
}

#[test]
fn r08_what_is_renewed_again_and_again_does_not_pile_up() {
    // If this failed, a store would grow by a row with every access token, for as long as an account consents.
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let credential = store.insert_credential(credential(&acme, "crm")).expect("stored");
    let (id, last) = (credential.id.clone(), 60);
    for number in 2..=last {
        store.renew(&acme, &id, version(number), u64::from(number)).expect("renewed");
    }
    let shown = |store: &Store| {
        let record = store.credential(&acme, &id).expect("there");
        let of = |state| record.versions.iter().filter(|it| it.state == state).map(|it| it.version).collect::<Vec<_>>();
        (of(VersionState::Current), of(VersionState::Retired), of(VersionState::Destroyed))
    };
    let (current, retired, destroyed) = shown(&store);
    assert_eq!((current.as_slice(), retired.as_slice()), (&[last][..], &[last - 1][..]));
    assert_eq!((destroyed.first(), destroyed.len()), (Some(&(last - 17)), 16), "the last few are seen still");
    drop(store);
    let store = place.open();
    assert_eq!(shown(&store), (current, retired, destroyed), "in the file, too");
    store.renew(&acme, &id, version(last + 1), 99).expect("its numbers go on");
    assert!(store.add_version(&acme, &id, version(last + 3), 100).is_err(), "no number is left out");
}
