//! Tests of the use guards with real threads. That no order of steps breaks them is `guards_model`'s to show.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;

use crate::guards::*;

fn key() -> GuardKey {
    GuardKey { tenant: TenantId::random(), credential: CredentialId::random() }
}

#[tokio::test]
async fn a_revocation_tells_requests_that_wait_for_their_answer_and_does_not_wait_for_them() {
    let guards = Guards::new();
    let key = key();
    let waiting = guards.fly(key.clone(), 1);
    let newer = guards.fly(key.clone(), 2);
    assert_eq!(guards.end_before(&key, 2, false).await, 0, "a rotation tells nobody");
    assert_eq!(guards.end_before(&key, 2, true).await, 1);
    waiting.cancelled().await;
    let told = tokio::time::timeout(std::time::Duration::ZERO, newer.cancelled()).await;
    assert!(told.is_err(), "a request of the new epoch goes on");
}

#[tokio::test]
async fn a_rotation_waits_for_older_guards_without_cancelling_them() {
    let guards = Guards::new();
    let key = key();
    let guard = guards.take(key.clone(), 1).expect("given");
    let waiting = tokio::spawn({
        let (guards, key) = (Arc::clone(&guards), key.clone());
        async move { guards.end_before(&key, 2, false).await }
    });
    while !guards.is_over(&key, 1) {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished() && !guard.is_cancelled());
    assert_eq!(guards.take(key.clone(), 1).err(), Some(EpochOver));
    let newer = guards.take(key.clone(), 2).expect("given");
    drop(guard);
    assert_eq!(waiting.await.expect("ends"), 0);
    assert!(!newer.is_cancelled());
}

#[tokio::test]
async fn a_revocation_cancels_older_guards_and_tells_how_many() {
    let guards = Guards::new();
    let key = key();
    let held: Vec<_> = (0..3).map(|_| guards.take(key.clone(), 1).expect("given")).collect();
    let tasks: Vec<_> = held.into_iter().map(|guard| tokio::spawn(async move { guard.cancelled().await })).collect();
    assert_eq!(guards.end_before(&key, 2, true).await, 3);
    for task in tasks {
        task.await.expect("was cancelled and let go");
    }
    assert_eq!(guards.end_before(&key, 2, true).await, 0);
}

#[tokio::test]
async fn t04_another_credential_and_another_tenant_are_not_touched() {
    let guards = Guards::new();
    let key = key();
    let sibling = GuardKey { credential: CredentialId::random(), ..key.clone() };
    let foreign = GuardKey { tenant: TenantId::random(), ..key.clone() };
    let held: Vec<_> = [&sibling, &foreign].map(|key| guards.take(key.clone(), 1).expect("given")).into();
    assert_eq!(guards.end_before(&key, 9, true).await, 0);
    assert!(held.iter().all(|guard| !guard.is_cancelled()));
    assert!(guards.take(sibling, 1).is_ok() && guards.take(foreign, 1).is_ok());
}

#[tokio::test]
async fn a_barrier_that_was_given_up_keeps_the_epochs_ended() {
    let guards = Guards::new();
    let key = key();
    let guard = guards.take(key.clone(), 1).expect("given");
    let given_up = tokio::time::timeout(std::time::Duration::ZERO, guards.end_before(&key, 2, false)).await;
    assert!(given_up.is_err());
    assert_eq!(guards.take(key.clone(), 1).err(), Some(EpochOver));
    drop(guard);
    assert_eq!(guards.end_before(&key, 1, true).await, 0, "an epoch never goes back");
    assert_eq!(guards.take(key, 1).err(), Some(EpochOver));
}

#[test]
fn o5_credentials_that_were_only_used_leave_a_bounded_number_of_entries_behind() {
    let guards = Guards::new();
    for _ in 0..3 * SHARDS * KEPT {
        let key = key();
        let guard = guards.take(key.clone(), 7).expect("given");
        drop((guard, guards.fly(key, 7)));
    }
    assert_eq!(guards.entries(), SHARDS * KEPT);
}

/// If this fails, a request with a revoked credential can leave after the revocation was
/// acknowledged.
#[test]
fn r05_no_guard_of_an_older_epoch_is_alive_after_the_barrier_returned_in_10_000_trials() {
    const TRIALS: u64 = 10_000;
    const TAKERS: usize = 3;
    let guards = Guards::new();
    let key = key();
    // The epoch up to which barriers have returned; what takers have in their hands must not be below.
    let acknowledged = AtomicU64::new(0);
    // As the directory would say it: raised before the barrier, read by takers at any time.
    let directory = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (taken, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..TAKERS {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let epoch = directory.load(Ordering::SeqCst);
                    let Ok(guard) = guards.take(key.clone(), epoch) else {
                        refused.fetch_add(1, Ordering::Relaxed);
                        continue;
                    };
                    taken.fetch_add(1, Ordering::Relaxed);
                    std::hint::spin_loop();
                    // While it is held, no barrier of a later epoch can have returned.
                    assert!(acknowledged.load(Ordering::SeqCst) <= guard.epoch(), "a guard outlived its barrier");
                    drop(guard);
                }
            });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        for epoch in 1..=TRIALS {
            directory.store(epoch, Ordering::SeqCst);
            runtime.block_on(guards.end_before(&key, epoch, epoch % 2 == 0));
            acknowledged.store(epoch, Ordering::SeqCst);
            if epoch % 64 == 0 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(taken.load(Ordering::Relaxed) > 0, "the test has met no guard at all");
    eprintln!("{} taken, {} refused", taken.into_inner(), refused.into_inner());
}
