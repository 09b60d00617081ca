//! What readers see, and when: nothing before it is on the disk, and nothing at all of what failed.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::TenantDirectory as _;

use super::*;
use crate::StoreError;
use crate::StoreUnavailable;

#[test]
fn readers_do_not_wait_for_a_transaction_and_see_nothing_of_it() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let failed: Result<(), StoreError> = store.commit(
        |transaction| {
            transaction.execute("UPDATE tenants SET record = replace(record, 'acme', 'evil')", [])?;
            // Another thread reads while the transaction is open.
            std::thread::scope(|scope| {
                let read = scope.spawn(|| store.tenant(&acme).map(|tenant| tenant.name.to_string()));
                assert_eq!(read.join().expect("read").as_deref(), Some("acme"));
            });
            Err(StoreError::Conflict("given up"))
        },
        |_, ()| panic!("what failed is not shown"),
    );
    assert!(failed.is_err());
    drop(store);
    assert_eq!(place.open().tenants()[0].name.as_str(), "acme");
}

#[test]
fn every_reader_sees_whole_states_in_their_order() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let id = store.insert_credential(credential(&acme, "stripe")).expect("stored").id.clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Acquire) {
                    let record = store.credential(&acme, &id).expect("there");
                    let current = record.current(UnixMillis(0)).expect("one is current");
                    let retired = record.versions.iter().filter(|v| v.state == VersionState::Retired).count();
                    assert_eq!(u64::from(current.version), record.epoch);
                    assert_eq!(retired + 1, record.versions.len());
                    assert!(record.epoch >= last, "an epoch went back");
                    last = record.epoch;
                }
            });
        }
        for number in 2..=60 {
            store.add_version(&acme, &id, version(number), u64::from(number)).expect("rotated");
            // Who was told that it is done sees it, here and everywhere.
            assert_eq!(store.credential(&acme, &id).map(|record| record.epoch), Some(u64::from(number)));
        }
        done.store(true, Ordering::Release);
    });
}

#[test]
fn a12_a_full_disk_is_a_typed_error_and_passes_when_there_is_room() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let limit = |pages: i64| {
        store
            .query(|connection| {
                let sql = format!("PRAGMA max_page_count = {pages}");
                Ok(connection.query_row(&sql, [], |row| row.get::<_, i64>(0))?)
            })
            .expect("set");
    };
    limit(1);
    let mut large = credential(&acme, "stripe");
    large.justification = "x".repeat(100_000);
    let full = store.insert_credential(large.clone());
    assert_eq!(full.err(), Some(StoreError::Unavailable(StoreUnavailable)));
    assert!(store.credentials(&acme).is_empty());
    limit(1_000_000);
    store.insert_credential(large).expect("stored");
}
