//! Tests of what a tenant stores: sealed values stay where they were put, and the master key rotates
//! under them.

use std::sync::OnceLock;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use keybearer_gate::VersionState;

use super::*;
use crate::fixture::House;
use crate::fixture::NOW;
use crate::fixture::Records;

const VALUE: &str = "canary-0123456789-canary";

fn opens(house: &House, tenant: &TenantId, credential: &CredentialId) -> bool {
    house.strongbox.lease_recorded(house.selected(tenant, credential), NOW).is_ok()
}

#[test]
fn a_sealed_value_moved_to_another_tenant_credential_or_version_does_not_open() {
    let house = House::new();
    let (tenant, other) = (house.tenant(), house.tenant());
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let sibling = house.credential(&tenant, CredentialKind::Bearer, "sibling-0123456789");
    let foreign = house.credential(&other, CredentialKind::Bearer, "foreign-0123456789");
    let sealed = house.records.credential(&tenant, &credential).expect("stored").versions[0].sealed.clone();
    for (tenant, credential) in [(&tenant, &sibling), (&other, &foreign)] {
        assert!(opens(&house, tenant, credential));
        house.change(tenant, credential, |record| record.versions[0].sealed = sealed.clone());
        assert!(!opens(&house, tenant, credential));
    }
    assert!(opens(&house, &tenant, &credential));
    house.change(&tenant, &credential, |record| record.versions[0].version = 2);
    assert!(!opens(&house, &tenant, &credential));
}

#[test]
fn a_data_key_moved_to_another_tenant_does_not_open() {
    let house = House::new();
    let (tenant, other) = (house.tenant(), house.tenant());
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let moved = house.records.data_key(&other).expect("stored");
    house.records.data_keys.lock().insert(tenant.clone(), moved.clone());
    assert!(!opens(&house, &tenant, &credential));
    assert!(house.strongbox.rewrap(&tenant, &moved).is_err());
    house.records.data_keys.lock().remove(&tenant);
    assert!(!opens(&house, &tenant, &credential));
}

#[test]
fn p7_no_sealed_byte_shows_the_value_and_the_same_value_is_found_under_another_tenant() {
    let house = House::new();
    let stored: Vec<_> = (0..2)
        .map(|_| {
            let tenant = house.tenant();
            let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
            house.records.credential(&tenant, &credential).expect("stored").versions[0].clone()
        })
        .collect();
    assert_eq!(stored[0].fingerprint, stored[1].fingerprint);
    assert_ne!(stored[0].sealed.0, stored[1].sealed.0);
    assert!(!stored[0].sealed.0.windows(8).any(|window| VALUE.as_bytes().windows(8).any(|part| part == window)));
    let other = House::new();
    let tenant = other.tenant();
    let credential = other.credential(&tenant, CredentialKind::Bearer, VALUE);
    let elsewhere = other.records.credential(&tenant, &credential).expect("stored").versions[0].fingerprint;
    assert_ne!(stored[0].fingerprint, elsewhere, "fingerprints of two installations cannot be compared");
}

#[test]
fn a_destroyed_version_does_not_open_even_if_its_bytes_are_still_there() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    house.change(&tenant, &credential, |record| record.versions[0].state = VersionState::Destroyed);
    let record = house.records.credential(&tenant, &credential).expect("stored");
    assert!(house.strongbox.open_version(&record, 1).is_err());
}

#[test]
fn p7_what_is_sealed_for_a_tenant_opens_for_the_same_tenant_and_context_only() {
    let house = House::new();
    let (tenant, other) = (house.tenant(), house.tenant());
    let sealed = house.strongbox.seal_for_tenant(&tenant, "answer 1", b"{}").expect("sealed");
    assert_eq!(house.strongbox.open_for_tenant(&tenant, "answer 1", &sealed).as_deref(), Ok(b"{}".as_slice()));
    assert!(house.strongbox.open_for_tenant(&tenant, "answer 2", &sealed).is_err());
    assert!(house.strongbox.open_for_tenant(&other, "answer 1", &sealed).is_err());
    assert!(house.strongbox.seal_for_tenant(&TenantId::random(), "answer 1", b"{}").is_err());
    // Nor does it pass for a credential's value.
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    house.change(&tenant, &credential, |record| record.versions[0].sealed = sealed);
    assert!(!opens(&house, &tenant, &credential));
}

#[test]
fn the_master_key_rotates_under_a_strongbox_in_use_and_a_tenant_that_came_meanwhile_is_not_lost() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let mac = house.strongbox.mac("a context", b"bytes");
    house.strongbox.begin_master_rotation().expect("begun");
    assert!(opens(&house, &tenant, &credential), "the old key still opens");

    let stored = || house.records.data_keys.lock().values().cloned().collect::<Vec<_>>();
    let refused = house.strongbox.finish_master_rotation(&stored());
    assert!(matches!(refused, Err(MasterKeyRefused::StillNeeded { remaining: 1 })));
    let newcomer = house.tenant();
    let anew = house.strongbox.rewrap(&tenant, &house.records.data_key(&tenant).expect("stored")).expect("opens");
    house.records.data_keys.lock().insert(tenant.clone(), anew);
    house.strongbox.finish_master_rotation(&stored()).expect("finished");

    assert!(opens(&house, &tenant, &credential));
    let theirs = house.credential(&newcomer, CredentialKind::Bearer, VALUE);
    assert!(opens(&house, &newcomer, &theirs));
    assert_ne!(house.strongbox.mac("a context", b"bytes"), mac);
    // A process that starts now sees the same.
    let master = MasterKey::open_or_create(house.folder.path().join("master.key")).expect("opened");
    let restarted = Strongbox::new(master, house.records.clone());
    let selected = restarted.select(&tenant, &credential, NOW).expect("usable");
    assert!(restarted.lease_recorded(selected, NOW).is_ok());
}

/// A directory in which the master key is rotated, whole, just after a data key was read.
struct RotatedMeanwhile {
    records: Arc<Records>,
    strongbox: OnceLock<Weak<Strongbox>>,
    is_rotated: AtomicBool,
}

impl keybearer_gate::CredentialDirectory for RotatedMeanwhile {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        self.records.credential(tenant, id)
    }

    fn data_key(&self, tenant: &TenantId) -> Option<keybearer_gate::Sealed> {
        let read = self.records.data_key(tenant)?;
        if !self.is_rotated.swap(true, Ordering::Relaxed) {
            let strongbox = self.strongbox.get().and_then(Weak::upgrade).expect("set");
            strongbox.begin_master_rotation().expect("begun");
            let anew = strongbox.rewrap(tenant, &read).expect("opens");
            self.records.data_keys.lock().insert(tenant.clone(), anew.clone());
            strongbox.finish_master_rotation([&anew]).expect("finished");
        }
        Some(read)
    }
}

/// If this fails, a call that meets the end of a rotation of the master key is refused.
#[test]
fn p7_a_data_key_that_is_wrapped_anew_while_it_is_opened_opens() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let directory = Arc::new(RotatedMeanwhile {
        records: house.records.clone(),
        strongbox: OnceLock::new(),
        is_rotated: false.into(),
    });
    let master = MasterKey::open(house.folder.path().join("master.key")).expect("opened");
    let strongbox = Arc::new(Strongbox::new(master, directory.clone()));
    directory.strongbox.set(Arc::downgrade(&strongbox)).expect("set once");
    let selected = strongbox.select(&tenant, &credential, NOW).expect("usable");
    assert!(strongbox.lease_recorded(selected, NOW).is_ok());
    assert!(directory.is_rotated.load(Ordering::Relaxed));
}

#[test]
fn macs_of_two_contexts_and_of_two_master_keys_differ() {
    let (house, other) = (House::new(), House::new());
    let mac = house.strongbox.mac("a context", b"bytes");
    assert_eq!(mac, house.strongbox.mac("a context", b"bytes"));
    assert_ne!(mac, house.strongbox.mac("another context", b"bytes"));
    assert_ne!(mac, house.strongbox.mac("a context", b"other bytes"));
    assert_ne!(mac, other.strongbox.mac("a context", b"bytes"));
}

#[test]
fn a_value_is_not_accepted_for_a_tenant_without_a_data_key() {
    let house = House::new();
    let value = SecretInput::new(VALUE.as_bytes().to_vec());
    let refused =
        house.strongbox.accept(&TenantId::random(), &CredentialId::random(), 1, &CredentialKind::Bearer, value);
    assert_eq!(refused.err(), Some(ValueRefused::Unsealable));
}

// If it failed, whoever reads two tenants' records could tell that the same was signed for both, or try what it was.
#[test]
fn the_digests_of_what_was_signed_are_under_a_key_of_each_tenants_own() {
    let house = House::new();
    let (one, other) = (house.tenant(), house.tenant());
    let key = |tenant: &TenantId| *house.strongbox.digest_key(tenant).expect("a data key");
    assert_eq!(key(&one), key(&one));
    assert_ne!(key(&one), key(&other));
    assert!(house.strongbox.digest_key(&TenantId::random()).is_err(), "nor is there one of nobody's");
}
