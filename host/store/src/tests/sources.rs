//! What is known of the sources of values.

use super::*;
use crate::StoreError;

// If it failed, a replica that lags behind would give an old value to a process that has just been started, or one tenant's
// source would say what another's may give.
#[test]
fn a04_the_highest_version_of_a_source_only_grows_and_survives_a_restart() {
    let place = Place::new();
    let store = place.open();
    let (acme, globex) = (tenant(&store, "acme"), tenant(&store, "globex"));
    let ours = store.insert_credential(credential(&acme, "kv")).expect("stored").id.clone();
    let theirs = store.insert_credential(credential(&globex, "kv")).expect("stored").id.clone();
    for version in [3, 3, 7] {
        assert_eq!(store.note_source_version(&acme, &ours, version), Ok(()));
    }
    drop(store);
    let store = place.open();
    let older = Err(StoreError::Conflict("its source gave a newer version before"));
    assert_eq!(store.note_source_version(&acme, &ours, 6), older);
    assert_eq!(store.note_source_version(&globex, &theirs, 1), Ok(()), "another's is its own");
    assert_eq!(store.note_source_version(&globex, &ours, 9), Err(StoreError::NotFound));
    assert_eq!(store.note_source_version(&acme, &ours, 7), Ok(()));
    assert!(store.note_source_version(&acme, &ours, u64::MAX).is_err(), "a number that no source has");

    assert_eq!(store.forget_source_version(&globex, &ours), Err(StoreError::NotFound));
    assert_eq!(store.source_version(&acme, &ours), Ok(Some(7)));
    assert_eq!(store.forget_source_version(&acme, &ours), Ok(()));
    assert_eq!((store.source_version(&acme, &ours), store.source_version(&globex, &theirs)), (Ok(None), Ok(Some(1))));
    assert_eq!(store.note_source_version(&acme, &ours, 1), Ok(()), "begun anew");
    store.remove_tenant(&globex, UnixMillis(5)).expect("removed");
    assert_eq!(store.note_source_version(&globex, &theirs, 2), Err(StoreError::NotFound));
}
