//! The ledger as a whole: what survives a crash, a full disk, a failed sync, a hung disk, other people's
//! hands; and what concurrent writers leave. If one of these failed, an effect could have no record.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature;
use keybearer_contract::Method;
use keybearer_contract::TenantId;
use keybearer_contract::ToSign;
use keybearer_contract::UnixMillis;
use keybearer_gate::NothingWithheld;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Refusal;
use keybearer_gate::Refused;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::testing::Place;
use crate::testing::cleared;
use crate::testing::cleared_signature;
use crate::testing::details;
use crate::testing::facts;
use crate::testing::run;
use crate::testing::signing_details;
use crate::testing::until;
use crate::*;

fn check(place: &Place) -> Verified {
    let key = PublicKey::beside(&place.dir()).expect("the key lies beside");
    verify(&place.dir(), &place.anchor(), &key).unwrap_or_else(|broken| panic!("{broken}"))
}

fn kinds(records: &[Record]) -> Vec<String> {
    let kind = |record: &Record| serde_json::to_value(&record.body).expect("json")["kind"].as_str().map(str::to_owned);
    records.iter().filter_map(kind).collect()
}

fn act(what: ActKind, tenant: &TenantId, subject: &str, epoch: u64) -> Act {
    Act {
        tenant: Some(tenant.clone()),
        principal: PrincipalLabel::operator(),
        what,
        subject: subject.to_owned(),
        version: Some(1),
        epoch: Some(epoch),
        commit: None,
        note: "because".to_owned(),
    }
}

fn refused(refusal: Refusal, url: &str) -> Refused {
    let request = GuestRequest { method: Method::Get, url: url.to_owned(), headers: Vec::new(), body: None };
    Refused::request(refusal, &request, &NothingWithheld)
}

fn whole_call(ledger: &Ledger) -> keybearer_gate::Facts {
    let facts = facts();
    run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        let (intent, dispatch) = ledger.intend(&cleared(&facts), details()).await.expect("intends");
        assert_eq!((intent.call(), intent.version(), intent.epoch()), (&facts.call, Some(2), Some(3)));
        dispatch.close(DispatchOutcome::answered(200)).await.expect("closes");
        let receipt = call.close(CallOutcome { problem: Some(Code::Denied), ..CallOutcome::default() }).await;
        assert_eq!(receipt.expect("closes").call(), &facts.call);
    });
    facts
}

#[test]
fn every_line_reads_back_to_the_same_text_whoever_put_it_together() {
    let place = Place::new();
    let (ledger, recovery) = place.open();
    assert!(recovery.created);
    let facts = whole_call(&ledger);
    let (credential, tenant) = (CredentialId::random(), TenantId::random());
    let open = run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        let (_intent, dispatch) = ledger.intend(&cleared(&facts), details()).await.expect("intends");
        let refusal = Refusal::NotCanonical { why: "its host is \"bad\"".to_owned() };
        let url = "https://u:p@a.example/x?q=1";
        ledger.refuse(&facts, &refused(refusal, url)).await.expect("refuses");
        ledger.refuse(&facts, &refused(Refusal::Ambiguous, "\u{7}")).await.expect("refuses");
        let signature = cleared_signature(&facts, "a=b and no more");
        let (intent, signing) = ledger.intend_signature(&signature, signing_details()).await.expect("intends");
        assert!(intent.is_signature());
        signing.close(DispatchOutcome::signed()).await.expect("closes");
        drop(ledger.intend_signature(&signature, signing_details()).await.expect("intends"));
        for what in
            [ToSign::Message(Vec::new()), ToSign::Url { method: Method::Get, url: url.to_owned(), expires_s: 1 }]
        {
            let asked = GuestSignature { slot: "mac".to_owned(), what };
            let refused = Refused::signature(Refusal::NoSlot, &asked, &NothingWithheld);
            ledger.refuse(&facts, &refused).await.expect("refuses");
        }
        ledger.act(act(ActKind::CredentialRotated, &tenant, credential.as_str(), 7)).await.expect("acts");
        (dispatch, call)
    });
    // Enough to roll, so that everything that stands open is said again.
    for _ in 0..30 {
        whole_call(&ledger);
    }
    drop(open);
    let open = run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        (ledger.intend(&cleared(&facts), details()).await.expect("intends"), call)
    });
    ledger.shutdown();
    drop(open);
    drop(ledger);
    drop(place.open());
    let mut seen = HashSet::new();
    for path in place.segments() {
        for line in fs::read_to_string(path).expect("reads").lines() {
            let record: Record = serde_json::from_str(line).expect(line);
            seen.extend(kinds(std::slice::from_ref(&record)));
            assert_eq!(serde_json::to_string(&record).expect("json"), line);
            assert!(!line.contains("q=1") && !line.contains("a=b") && !line.contains("u:p"), "{line}");
        }
    }
    let mut seen: Vec<_> = seen.into_iter().collect();
    seen.sort_unstable();
    // Everything but `resumed`, which needs a broken disk and is checked there.
    let all = [
        "act",
        "call_abandoned",
        "call_begun",
        "call_closed",
        "call_unknown",
        "checkpoint",
        "dispatch_abandoned",
        "dispatch_closed",
        "dispatch_intended",
        "dispatch_refused",
        "dispatch_unknown",
        "epochs",
        "open_call",
        "open_dispatch",
        "segment",
    ];
    assert_eq!(seen, all);
    check(&place);
}

#[test]
fn p6_a_dispatch_names_everything_and_is_in_the_file_before_its_intent_is_handed_out() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let facts = facts();
    let cleared = cleared(&facts);
    let (intent, _entry) = run(ledger.intend(&cleared, details())).unwrap_or_else(|error| panic!("{error}"));
    let text = fs::read_to_string(place.segment()).expect("reads");
    let record: Record = serde_json::from_str(text.lines().last().expect("a line")).expect("a record");
    let Body::DispatchIntended { dispatch } = record.body else { panic!("{text}") };
    assert_eq!(&dispatch.dispatch, intent.dispatch());
    assert_eq!(dispatch.facts, facts);
    assert_eq!(dispatch.credential.as_ref(), cleared.attach().map(|attach| &attach.credential));
    assert_eq!((dispatch.version, dispatch.epoch), (Some(2), Some(3)));
    assert_eq!(dispatch.place, "https://id.example/token");
    assert_eq!(dispatch.address, Some(details().address));
}

#[test]
fn p6_a_signature_names_everything_but_what_was_signed_of_which_it_has_the_digest() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let facts = facts();
    let cleared = cleared_signature(&facts, "order 7");
    let (intent, _entry) =
        run(ledger.intend_signature(&cleared, signing_details())).unwrap_or_else(|error| panic!("{error}"));
    let text = fs::read_to_string(place.segment()).expect("reads");
    let record: Record = serde_json::from_str(text.lines().last().expect("a line")).expect("a record");
    let Body::DispatchIntended { dispatch } = record.body else { panic!("{text}") };
    assert_eq!((&dispatch.dispatch, &dispatch.facts), (intent.dispatch(), &facts));
    assert_eq!((dispatch.purpose, dispatch.place.as_str()), (crate::Purpose::Sign, "signing:mac"));
    assert_eq!((dispatch.method, dispatch.address, dispatch.version, dispatch.epoch), (None, None, Some(2), Some(3)));
    assert_eq!(dispatch.credential.as_ref(), Some(&cleared.attach().credential));
    let signed = dispatch.signed.expect("what was signed");
    let digest = blake3::keyed_hash(signing_details().digest_key, b"orders-v1.order 7").to_string();
    assert_eq!((signed.blake3, signed.bytes), (digest, 17));
    assert!(!text.contains("order 7"), "{text}");
}

#[test]
fn an_entry_that_is_dropped_says_that_it_was_abandoned() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let facts = facts();
    run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        drop(ledger.intend(&cleared(&facts), details()).await.expect("intends"));
        drop(call);
    });
    let records = ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads");
    assert_eq!(kinds(&records), ["call_begun", "dispatch_intended", "dispatch_abandoned", "call_abandoned"]);
    let other = ledger.reader().of_call(&TenantId::random(), &facts.call).expect("reads");
    assert!(other.is_empty(), "another tenant's call is as one that is not");
}

#[test]
fn c01_what_a_killed_process_left_open_is_listed_once() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let facts = facts();
    whole_call(&ledger);
    let open = run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        (call, ledger.intend(&cleared(&facts), details()).await.expect("intends"))
    });
    // It stays open over several segments: one is all that a start reads.
    for _ in 0..30 {
        whole_call(&ledger);
    }
    // What is in the file now is what a killed process leaves.
    let killed = place.copy();
    let anchor = fs::read(place.anchor()).expect("reads");
    drop((open, ledger));
    place.put_back(&killed);
    fs::write(place.anchor(), anchor).expect("writes");

    let (ledger, recovery) = place.open();
    assert_eq!(recovery.unknown.len(), 2);
    assert!(matches!(&recovery.unknown[0], UnknownOutcome::Dispatch(dispatch) if dispatch.facts == facts));
    assert_eq!(recovery.unknown[1], UnknownOutcome::Call(facts.clone()));
    let records = ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads");
    assert_eq!(kinds(&records), ["call_begun", "dispatch_intended", "dispatch_unknown", "call_unknown"]);
    drop(ledger);
    assert!(place.open().1.unknown.is_empty());
    check(&place);
}

#[test]
fn c05_a_torn_last_record_is_cut_off_and_anything_else_is_refused() {
    let place = Place::new();
    let (ledger, _) = place.open();
    whole_call(&ledger);
    drop(ledger);
    let end = fs::metadata(place.segment()).expect("there").len();
    let write = |text: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(place.segment()).expect("opens");
        file.write_all_at(text, end).expect("writes");
    };
    write(b"{\"seq\":1234,\"time\":1");
    let (ledger, recovery) = place.open();
    assert_eq!((recovery.torn_bytes, recovery.created), (20, false));
    drop(ledger);
    check(&place);
    let end = fs::metadata(place.segment()).expect("there").len();
    let file = fs::OpenOptions::new().write(true).open(place.segment()).expect("opens");
    file.write_all_at(b"{\"seq\":1234,\"time\":1\n", end).expect("writes");
    assert!(matches!(place.try_open(), Err(LedgerRefused::Broken(Broken { why: Why::Malformed, .. }))));
    assert_eq!(fs::metadata(place.segment()).expect("there").len(), end + 21, "nothing was changed");
}

#[test]
fn c08_the_highest_epoch_of_every_credential_is_known_after_segments_and_restarts() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let (tenant, one, other) = (TenantId::random(), CredentialId::random(), CredentialId::random());
    run(async {
        ledger.act(act(ActKind::CredentialStored, &tenant, one.as_str(), 1)).await.expect("acts");
        ledger.act(act(ActKind::CredentialRevoked, &tenant, one.as_str(), 5)).await.expect("acts");
        ledger.act(act(ActKind::CredentialRotated, &tenant, one.as_str(), 4)).await.expect("acts");
        ledger.act(act(ActKind::CredentialStored, &tenant, other.as_str(), 2)).await.expect("acts");
        ledger.act(act(ActKind::GrantGiven, &tenant, other.as_str(), 9)).await.expect("acts");
    });
    let called = whole_call(&ledger);
    for _ in 0..30 {
        whole_call(&ledger);
    }
    drop(ledger);
    for _ in 0..2 {
        let (_ledger, recovery) = place.open();
        assert_eq!(recovery.epochs.get(&(tenant.clone(), one.clone())), Some(&5));
        assert_eq!(recovery.epochs.get(&(tenant.clone(), other.clone())), Some(&2));
        let dispatched = recovery.epochs.iter().filter(|((tenant, _), epoch)| *tenant == called.tenant && **epoch == 3);
        assert_eq!(dispatched.count(), 1);
    }
}

#[test]
fn a11_a_second_opener_is_refused_until_the_first_has_gone() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let clone = ledger.clone();
    drop(ledger);
    assert!(matches!(place.try_open(), Err(LedgerRefused::Locked { .. })));
    drop(clone);
    assert!(place.try_open().is_ok());
}

#[test]
fn the_anchor_must_lie_outside_of_the_folder() {
    let place = Place::new();
    let config = LedgerConfig { anchor: place.dir().join("anchor"), ..place.config() };
    assert!(matches!(Ledger::open(config), Err(LedgerRefused::AnchorInside { .. })));
}

static BACKWARDS: AtomicU64 = AtomicU64::new(1_000_000);

#[test]
fn a15_a_clock_that_runs_backwards_changes_nothing_about_the_order() {
    let place = Place::new();
    let clock = || UnixMillis(BACKWARDS.fetch_sub(10, Ordering::SeqCst));
    let (ledger, _) = Ledger::open_with_clock(place.config(), clock).unwrap_or_else(|error| panic!("{error}"));
    let facts = whole_call(&ledger);
    let records = ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads");
    assert!(records.is_sorted_by_key(|record| record.seq) && !records.is_sorted_by_key(|record| record.time));
    drop(ledger);
    check(&place);
}

#[test]
fn a10_a_segment_that_others_rename_loses_no_record_and_is_complained_of() {
    let place = Place::new();
    let config = LedgerConfig { segment_bytes: 1 << 20, ..place.config() };
    let (ledger, _) = Ledger::open(config).unwrap_or_else(|error| panic!("{error}"));
    let (path, moved) = (place.segment(), place.root.path().join("rotated"));
    fs::rename(&path, &moved).expect("renames");
    let facts = whole_call(&ledger);
    until("the move is noticed", || ledger.healthy().is_err_and(|why| why.contains("moved")));
    fs::rename(&moved, &path).expect("renames");
    until("the move back is noticed", || ledger.healthy().is_ok());
    assert_eq!(ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads").len(), 4);
    drop(ledger);
    check(&place);
}

#[test]
fn a10_a_segment_that_others_cut_or_delete_stops_everything() {
    for delete in [false, true] {
        let place = Place::new();
        let (ledger, _) = place.open();
        whole_call(&ledger);
        if delete {
            fs::remove_file(place.segment()).expect("removes");
        } else {
            fs::OpenOptions::new().write(true).open(place.segment()).expect("opens").set_len(10).expect("cuts");
        }
        until("it is noticed", || ledger.healthy().is_err_and(|why| why.contains("somebody else")));
        assert!(matches!(run(ledger.begin_call(&facts())), Err(LedgerUnavailable::Refusing(_))));
    }
}

#[test]
fn a07_a_hung_disk_is_waited_for_once_and_by_nobody_for_long() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let facts = facts();
    let call = run(ledger.begin_call(&facts)).unwrap_or_else(|error| panic!("{error}"));
    let hung = ledger.inner().writer.lock();
    let begun = Instant::now();
    assert!(matches!(run(ledger.begin_call(&facts)), Err(LedgerUnavailable::Stalled)));
    assert!(begun.elapsed() >= Duration::from_millis(900));
    // A machine that is busy may take as long for once; one of them that waited would make every batch as long.
    let is_quick = |_| {
        let begun = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(run(ledger.begin_call(&facts)), Err(LedgerUnavailable::Stalled)));
        }
        assert!(ledger.healthy().is_err());
        begun.elapsed() < Duration::from_millis(900)
    };
    assert!((0..10).any(is_quick));
    assert!(matches!(run(call.close(CallOutcome::default())), Err(LedgerUnavailable::Stalled)));
    drop(hung);
    until("what is owed is paid", || {
        kinds(&ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads")) == ["call_begun", "call_closed"]
    });
    assert_eq!(ledger.healthy(), Ok(()));
}

/// A small file system of its own, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        fs::create_dir(at).expect("creates");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(at).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "NOT RUN: a full disk needs a small file system, and `mount -t tmpfs` needs root; run this test as root"
        );
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a06_a_full_disk_refuses_before_the_effect_tears_nothing_and_is_recovered_from() {
    let place = Place::new();
    let disk = SmallDisk::mount(&place.root.path().join("disk"));
    let filler = disk.0.join("filler");
    fs::write(&filler, vec![1; 48 << 10]).expect("fills");
    let dir = disk.0.join("ledger");
    let config = LedgerConfig { dir: dir.clone(), segment_bytes: 1 << 20, ..place.config() };
    let (ledger, _) = Ledger::open(config).unwrap_or_else(|error| panic!("{error}"));
    let facts = facts();
    let (call, dispatch) = run(async {
        let call = ledger.begin_call(&facts).await.expect("begins");
        (call, ledger.intend(&cleared(&facts), details()).await.expect("intends").1)
    });
    let refused = loop {
        if let Err(error) = run(ledger.intend(&cleared(&facts), details())) {
            break error;
        }
    };
    assert!(matches!(&refused, LedgerUnavailable::Write(error) if error.kind() == std::io::ErrorKind::StorageFull));
    assert!(ledger.healthy().is_err());
    assert!(run(dispatch.close(DispatchOutcome::answered(201))).is_err());
    assert!(run(call.close(CallOutcome::default())).is_err(), "no receipt, and so no answer");
    let segment = dir.join("00000000000000000001.jsonl");
    assert!(fs::read(&segment).expect("reads").ends_with(b"\"}\n"), "nothing is torn");

    fs::remove_file(filler).expect("removes");
    until("it recovers by itself", || ledger.healthy().is_ok());
    until("what is owed is paid", || {
        let records = ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads");
        kinds(&records).ends_with(&["dispatch_closed".to_owned(), "call_closed".to_owned()])
    });
    let told = ledger.reader().tail(1000, &Filter::default()).expect("reads");
    let told = told.iter().find(|record| matches!(record.body, Body::Resumed { refused: 1.., .. }));
    let line = serde_json::to_string(told.expect("the gap is told")).expect("json");
    assert!(fs::read_to_string(&segment).expect("reads").contains(&line));
    drop(run(ledger.begin_call(&facts)).unwrap_or_else(|error| panic!("{error}")));
    ledger.shutdown();
    verify(&dir, &place.anchor(), &ledger.public_key()).unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn a06_a_sync_that_fails_fails_who_waits_for_it_and_what_it_lost_is_written_again() {
    let place = Place::new();
    let config = LedgerConfig { durability: Durability::Power, ..place.config() };
    let (ledger, _) = Ledger::open(config).unwrap_or_else(|error| panic!("{error}"));
    let facts = facts();
    let _call = run(ledger.begin_call(&facts)).unwrap_or_else(|error| panic!("{error}"));
    ledger.inner().faults.failing_sync.store(true, Ordering::SeqCst);
    let failed = run(ledger.intend(&cleared(&facts), details()));
    assert!(matches!(failed, Err(LedgerUnavailable::NotDurable)));
    assert!(ledger.healthy().is_err());
    assert!(matches!(run(ledger.intend(&cleared(&facts), details())), Err(LedgerUnavailable::Refusing(_))));
    ledger.inner().faults.failing_sync.store(false, Ordering::SeqCst);
    until("it recovers by itself", || ledger.healthy().is_ok());
    let records = || ledger.reader().of_call(&facts.tenant, &facts.call).expect("reads");
    until("what is owed is paid", || kinds(&records()) == ["call_begun", "dispatch_intended", "dispatch_closed"]);
    let records = records();
    let Some(Body::DispatchClosed { outcome, .. }) = records.last().map(|record| &record.body) else { panic!() };
    assert_eq!((outcome.fault, outcome.delivery), (Some(Fault::LedgerUnavailable), Delivery::NotSent));
    drop(run(ledger.intend(&cleared(&facts), details())).unwrap_or_else(|error| panic!("{error}")));
    ledger.shutdown();
    check(&place);
}

#[test]
fn an_anchor_that_cannot_be_written_is_complained_of_and_loses_no_record() {
    let place = Place::new();
    let (ledger, _) = place.open();
    // The next line of an anchor that has grown too long goes into a file beside it: no such file can be
    // made where there is a folder of that name.
    let beside = place.root.path().join("anchor.unplaced");
    fs::create_dir(&beside).expect("creates");
    ledger.inner().anchor.lock().pretend_full();
    whole_call(&ledger);
    assert!(matches!(ledger.checkpoint(), Err(LedgerUnavailable::Anchor(_))));
    until("it is told", || ledger.healthy().is_err_and(|why| why.contains("anchor")));
    whole_call(&ledger);
    fs::remove_dir(&beside).expect("removes");
    until("it recovers by itself", || ledger.healthy().is_ok());
    drop(ledger);
    assert_eq!(check(&place).torn_bytes, 0);
}

#[test]
fn power_durability_waits_for_the_disk_and_many_waiters_share_a_sync() {
    let place = Place::new();
    let config = LedgerConfig { durability: Durability::Power, segment_bytes: 1 << 20, ..place.config() };
    let (ledger, _) = Ledger::open(config).unwrap_or_else(|error| panic!("{error}"));
    let runtime = Runtime::new().expect("starts");
    let faults = &ledger.inner().faults;
    let before = ledger.head().expect("stands").seq;
    let hung = faults.gate.lock();
    let syncs = faults.syncs.load(Ordering::SeqCst);
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let ledger = ledger.clone();
            runtime.spawn(async move {
                let facts = facts();
                let (_intent, dispatch) = ledger.intend(&cleared(&facts), details()).await?;
                dispatch.close(DispatchOutcome::answered(200)).await
            })
        })
        .collect();
    until("all have written", || ledger.head().expect("stands").seq >= before + 64);
    assert!(waiting.iter().all(|task| !task.is_finished()), "nobody goes on before the disk has it");
    drop(hung);
    for task in waiting {
        runtime.block_on(task).expect("runs").unwrap_or_else(|error| panic!("{error}"));
    }
    // The one that hung may have begun before the others wrote; the next one is for all of them. One more
    // may fall due by the clock.
    let shared = faults.syncs.load(Ordering::SeqCst) - syncs;
    assert!((1..=3).contains(&shared), "{shared}");
}

#[test]
fn tail_and_export_give_what_the_filter_admits_in_order() {
    let place = Place::new();
    let (ledger, _) = place.open();
    let mine = whole_call(&ledger);
    for _ in 0..30 {
        whole_call(&ledger);
    }
    assert!(place.segments().len() > 1);
    let reader = ledger.reader();
    let last = reader.tail(5, &Filter::default()).expect("reads");
    let head = ledger.head().expect("stands").seq;
    assert_eq!(last.iter().map(|record| record.seq).collect::<Vec<_>>(), (head - 4..=head).collect::<Vec<_>>());
    let filter = Filter { tenant: Some(mine.tenant.clone()), call: None };
    let found = reader.tail(3, &filter).expect("reads");
    assert_eq!(kinds(&found), ["dispatch_intended", "dispatch_closed", "call_closed"]);
    let mut text = Vec::new();
    assert_eq!(reader.export(&filter, &mut text).expect("exports"), 4);
    let text = String::from_utf8(text).expect("text");
    assert!(text.lines().all(|line| line.contains(mine.tenant.as_str())) && text.lines().count() == 4);
    let mut all = Vec::new();
    assert_eq!(reader.export(&Filter::default(), &mut all).expect("exports"), head);
    assert!(reader.tail(0, &Filter::default()).expect("reads").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn concurrent_writers_leave_one_unbroken_chain(
        writers in 1_usize..9,
        calls in 1_usize..12,
        segment_bytes in 1_u64..40_000,
        power in any::<bool>(),
    ) {
        let place = Place::new();
        let durability = if power { Durability::Power } else { Durability::Process };
        let config = LedgerConfig { segment_bytes, durability, checkpoint_every_records: 7, ..place.config() };
        let (ledger, _) = Ledger::open(config).unwrap_or_else(|error| panic!("{error}"));
        std::thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| (0..calls).for_each(|_| drop(whole_call(&ledger))));
            }
        });
        drop(ledger);
        let verified = check(&place);
        prop_assert_eq!(verified.anchored, verified.head.seq);
        let mut text = Vec::new();
        Reader::new(&place.dir()).export(&Filter::default(), &mut text).expect("exports");
        let text = String::from_utf8(text).expect("text");
        prop_assert_eq!(text.matches("\"kind\":\"call_closed\"").count(), writers * calls);
        prop_assert!(place.open().1.unknown.is_empty());
    }
}
