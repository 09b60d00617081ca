//! Tests of selecting and leasing: what was rotated out or revoked is never opened again (P3).

use keybearer_gate::CredentialState;

use super::*;
use crate::fixture::House;
use crate::fixture::NOW;
use crate::fixture::cleared;
use crate::fixture::oauth;

const VALUE: &str = "canary-0123456789-canary";

fn house_with_credential() -> (House, TenantId, CredentialId) {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    (house, tenant, credential)
}

#[test]
fn p2_a_credential_of_another_tenant_answers_as_one_that_is_not_there() {
    let (house, tenant, credential) = house_with_credential();
    assert!(house.strongbox.select(&tenant, &credential, NOW).is_ok());
    assert_eq!(house.strongbox.select(&house.tenant(), &credential, NOW).err(), Some(CredentialUnusable));
    assert_eq!(house.strongbox.select(&tenant, &CredentialId::random(), NOW).err(), Some(CredentialUnusable));
}

#[test]
fn a04_a_directory_that_answers_with_another_tenants_record_is_not_believed() {
    let (house, tenant, credential) = house_with_credential();
    let foreign = house.tenant();
    let record = house.strongbox.record(&tenant, &credential).expect("stored");
    house.records.credentials.lock().insert((foreign.clone(), credential.clone()), record);
    assert!(house.strongbox.select(&foreign, &credential, NOW).is_err());
}

#[test]
fn r07_blank_expired_and_revoked_credentials_are_not_selected() {
    for (index, unusable) in [
        (|record: &mut CredentialRecord| record.versions.clear()) as fn(&mut CredentialRecord),
        |record| record.expires = Some(NOW),
        |record| record.state = CredentialState::Revoked,
        |record| record.versions[0].state = keybearer_gate::VersionState::Retired,
    ]
    .into_iter()
    .enumerate()
    {
        let (house, tenant, credential) = house_with_credential();
        let before = house.selected(&tenant, &credential);
        house.change(&tenant, &credential, unusable);
        assert!(house.strongbox.select(&tenant, &credential, NOW).is_err(), "{index}");
        assert!(matches!(house.strongbox.lease_recorded(before, NOW), Err(LeaseRefused::Unusable)), "{index}");
    }
}

#[test]
fn r01_what_was_rotated_between_selection_and_lease_is_stale() {
    let (house, tenant, credential) = house_with_credential();
    let selected = house.selected(&tenant, &credential);
    house.rotate(&tenant, &credential, "rotated-0123456789-canary");
    assert!(matches!(house.strongbox.lease_recorded(selected, NOW), Err(LeaseRefused::Stale)));
    let again = house.selected(&tenant, &credential);
    assert_eq!((again.version(), again.epoch()), (2, 2));
    let lease = house.strongbox.lease_recorded(again, NOW).unwrap_or_else(|refused| panic!("{refused}"));
    assert!(matches!(lease.value, Leased::Stored(_, secret) if secret.expose() == b"rotated-0123456789-canary"));
}

#[tokio::test]
async fn r03_after_a_barrier_a_directory_that_has_not_heard_of_it_opens_nothing() {
    let (house, tenant, credential) = house_with_credential();
    let selected = house.selected(&tenant, &credential);
    // The directory stays as it was, as the cache of a node that missed the news.
    house.strongbox.barrier_revoke(&tenant, &credential, 2).await;
    assert!(house.strongbox.select(&tenant, &credential, NOW).is_err());
    assert!(matches!(house.strongbox.lease_recorded(selected, NOW), Err(LeaseRefused::Stale)));
}

#[tokio::test]
async fn r05_a_revocation_tells_the_leases_and_returns_when_they_are_gone() {
    let (house, tenant, credential) = house_with_credential();
    let lease = house.lease(&tenant, &credential);
    let request = tokio::spawn(async move { lease.guard.expect("held").cancelled().await });
    assert_eq!(house.strongbox.barrier_revoke(&tenant, &credential, 2).await, 1);
    request.await.expect("was told");
}

#[tokio::test]
async fn p6_what_the_ledger_does_not_name_is_not_leased() {
    let (house, tenant, credential) = house_with_credential();
    let selected = house.selected(&tenant, &credential);
    let request = cleared(&tenant, "bearer", &credential, "/x");
    let intent = house.intent(&request, Some(&selected)).await;
    house.rotate(&tenant, &credential, "rotated-0123456789-canary");
    let newer = house.selected(&tenant, &credential);
    assert!(matches!(house.strongbox.lease(newer, &intent, NOW), Err(LeaseRefused::NotRecorded)));
    let sibling = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let other = house.selected(&tenant, &sibling);
    assert!(matches!(house.strongbox.lease(other, &intent, NOW), Err(LeaseRefused::NotRecorded)));
    let unnamed = house.intent(&request, None).await;
    let newer = house.selected(&tenant, &credential);
    assert!(matches!(house.strongbox.lease(newer, &unnamed, NOW), Err(LeaseRefused::NotRecorded)));
}

#[test]
fn the_client_of_a_recipe_is_leased_for_minting_only_and_of_no_other_kind() {
    let (house, tenant, credential) = house_with_credential();
    let selected = house.selected(&tenant, &credential);
    assert!(matches!(
        house.strongbox.lease_source_recorded(selected, &Vessel::default(), NOW),
        Err(LeaseRefused::Unusable)
    ));
    let recipe = house.credential(&tenant, oauth("id"), VALUE);
    assert!(house.strongbox.lease_source_recorded(house.selected(&tenant, &recipe), &Vessel::default(), NOW).is_ok());
    let selected = house.selected(&tenant, &recipe);
    assert!(!house.strongbox.is_ready(&selected, NOW));
    assert!(matches!(house.strongbox.lease_recorded(selected, NOW), Err(LeaseRefused::NeedsMint)));
}

/// A directory in which a rotation's barrier begins at the very moment of the second look.
struct Meanwhile {
    records: Arc<crate::fixture::Records>,
    strongbox: std::sync::OnceLock<std::sync::Weak<Strongbox>>,
    has_waited: std::sync::atomic::AtomicBool,
}

impl keybearer_gate::CredentialDirectory for Meanwhile {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        if let Some(strongbox) = self.strongbox.get().and_then(std::sync::Weak::upgrade) {
            let mut barrier = std::pin::pin!(strongbox.barrier_rotate(tenant, id, 2));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let is_pending = std::future::Future::poll(barrier.as_mut(), &mut context).is_pending();
            self.has_waited.store(is_pending, std::sync::atomic::Ordering::Relaxed);
        }
        self.records.credential(tenant, id)
    }

    fn data_key(&self, tenant: &TenantId) -> Option<keybearer_gate::Sealed> {
        self.records.data_key(tenant)
    }
}

/// If this fails, a rotation can be acknowledged between the look at the record and the guard, and the
/// old version is sent after it.
#[test]
fn r01_the_guard_is_held_before_the_record_is_looked_at_again() {
    let (house, tenant, credential) = house_with_credential();
    let directory = Arc::new(Meanwhile {
        records: house.records.clone(),
        strongbox: std::sync::OnceLock::new(),
        has_waited: false.into(),
    });
    let master = crate::MasterKey::open(house.folder.path().join("master.key")).expect("opened");
    let strongbox = Arc::new(Strongbox::new(master, directory.clone()));
    let selected = strongbox.select(&tenant, &credential, NOW).expect("usable");
    directory.strongbox.set(Arc::downgrade(&strongbox)).expect("set once");
    assert!(strongbox.lease_recorded(selected, NOW).is_ok());
    assert!(directory.has_waited.load(std::sync::atomic::Ordering::Relaxed));
}

/// A directory in which a rotation is done between the first look at a record and what follows from it.
struct Overtaken {
    records: Arc<crate::fixture::Records>,
    strongbox: std::sync::OnceLock<std::sync::Weak<Strongbox>>,
    newer: parking_lot::Mutex<Option<CredentialRecord>>,
}

impl keybearer_gate::CredentialDirectory for Overtaken {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        let seen = self.records.credential(tenant, id);
        if let Some(newer) = self.newer.lock().take() {
            let strongbox = self.strongbox.get().and_then(std::sync::Weak::upgrade).expect("set");
            let epoch = newer.epoch;
            self.records.credentials.lock().insert((tenant.clone(), id.clone()), Arc::new(newer));
            let mut barrier = std::pin::pin!(strongbox.barrier_rotate(tenant, id, epoch));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(std::future::Future::poll(barrier.as_mut(), &mut context).is_ready());
        }
        seen
    }

    fn data_key(&self, tenant: &TenantId) -> Option<keybearer_gate::Sealed> {
        self.records.data_key(tenant)
    }
}

/// If this fails, a call that meets a rotation is refused as if its credential had been revoked.
#[test]
fn r01_a_rotation_that_overtakes_a_selection_gives_it_the_new_version() {
    let (house, tenant, credential) = house_with_credential();
    let before = house.strongbox.record(&tenant, &credential).expect("stored");
    house.rotate(&tenant, &credential, "rotated-0123456789-canary");
    let newer = Arc::unwrap_or_clone(house.strongbox.record(&tenant, &credential).expect("stored"));
    house.records.credentials.lock().insert((tenant.clone(), credential.clone()), before);
    let directory = Arc::new(Overtaken {
        records: house.records.clone(),
        strongbox: std::sync::OnceLock::new(),
        newer: Some(newer).into(),
    });
    let master = crate::MasterKey::open(house.folder.path().join("master.key")).expect("opened");
    let strongbox = Arc::new(Strongbox::new(master, directory.clone()));
    directory.strongbox.set(Arc::downgrade(&strongbox)).expect("set once");
    let selected = strongbox.select(&tenant, &credential, NOW).expect("usable");
    assert_eq!((selected.version(), selected.epoch()), (2, 2));
}
