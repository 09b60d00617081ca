//! What an intruder with write access to the folder may try, one by one and at random. If one of these
//! passed, a dispatch could be made never to have happened.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::Act;
use crate::ActKind;
use crate::CallOutcome;
use crate::DispatchOutcome;
use crate::Ledger;
use crate::LedgerRefused;
use crate::testing::Place;
use crate::testing::cleared;
use crate::testing::details;
use crate::testing::facts;
use crate::testing::run;

fn calls(ledger: &Ledger, count: usize) {
    for _ in 0..count {
        run(async {
            let facts = facts();
            let call = ledger.begin_call(&facts).await.expect("begins");
            let (_intent, dispatch) = ledger.intend(&cleared(&facts), details()).await.expect("intends");
            dispatch.close(DispatchOutcome::answered(200)).await.expect("closes");
            let _receipt = call.close(CallOutcome::default()).await.expect("closes");
        });
    }
}

fn check(place: &Place) -> Result<Verified, Broken> {
    let key = PublicKey::beside(&place.dir()).expect("the key lies beside");
    verify(&place.dir(), &place.anchor(), &key)
}

/// Several segments, cleanly shut down: the anchor knows of the last record.
fn several_segments() -> Place {
    let place = Place::new();
    let (ledger, _) = place.open();
    calls(&ledger, 30);
    drop(ledger);
    assert!(place.segments().len() > 3);
    place
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("reads").lines().map(str::to_owned).collect()
}

fn write_lines(path: &Path, lines: &[String]) {
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("writes");
}

fn why(place: &Place) -> Why {
    check(place).expect_err("must not verify").why
}

#[test]
fn an_untouched_ledger_verifies_and_its_anchor_vouches_for_its_last_record() {
    let place = several_segments();
    let verified = check(&place).expect("verifies");
    assert_eq!(verified.anchored, verified.head.seq);
    assert_eq!((verified.records, verified.torn_bytes), (verified.head.seq, 0));
    assert_eq!(verified.segments, place.segments().len() as u64);
    assert!(verified.checkpoints >= verified.segments);
}

#[test]
fn a09_an_edited_record_is_found_out_at_its_line() {
    let place = several_segments();
    let path = place.segments().swap_remove(1);
    let mut text = lines(&path);
    text[10] = text[10].replace("\"principal\":\"jwt", "\"principal\":\"jwu");
    write_lines(&path, &text);
    let broken = check(&place).expect_err("edited");
    assert_eq!((broken.line, broken.why), (11, Why::Edited));
    assert!(path.ends_with(broken.segment));
}

#[test]
fn a09_an_edited_record_with_its_hash_made_anew_is_found_out_at_the_next_line() {
    let place = several_segments();
    let path = place.segments().swap_remove(1);
    let mut text = lines(&path);
    let before = line::claimed_head(text[9].as_bytes()).expect("a line");
    let mut forged = Vec::new();
    line::seal(&mut forged, before, keybearer_contract::UnixMillis(1), "resumed", b"\"why\":\"\",\"refused\":0");
    text[10] = String::from_utf8(forged).expect("text").trim_end().to_owned();
    write_lines(&path, &text);
    assert_eq!(why(&place), Why::OffTheChain);
}

#[test]
fn a09_a_deleted_record_is_found_out() {
    let place = several_segments();
    let path = place.segments().swap_remove(1);
    let mut text = lines(&path);
    text.remove(4);
    write_lines(&path, &text);
    assert!(matches!(why(&place), Why::OutOfOrder { .. }));
}

#[test]
fn a09_reordered_records_are_found_out() {
    let place = several_segments();
    let path = place.segments().swap_remove(1);
    let mut text = lines(&path);
    text.swap(4, 5);
    write_lines(&path, &text);
    assert!(matches!(why(&place), Why::OutOfOrder { .. }));
}

#[test]
fn a09_a_duplicated_record_is_found_out() {
    let place = several_segments();
    let path = place.segments().swap_remove(1);
    let mut text = lines(&path);
    text.insert(5, text[4].clone());
    write_lines(&path, &text);
    assert!(matches!(why(&place), Why::OutOfOrder { .. }));
}

#[test]
fn a09_a_tail_that_was_cut_off_is_found_out_by_the_anchor_even_at_a_checkpoint() {
    let place = several_segments();
    let path = place.segment();
    let mut text = lines(&path);
    let before = text.len();
    text.pop();
    // Back to the checkpoint before the last one: what is left is whole and signed.
    while !text.last().expect("each segment begins with one").contains("\"kind\":\"checkpoint\"") {
        text.pop();
    }
    assert!(text.len() < before);
    write_lines(&path, &text);
    assert!(matches!(why(&place), Why::ShorterThanAnchor { .. }));
    assert!(matches!(place.try_open(), Err(LedgerRefused::ShorterThanAnchor { .. })));
}

#[test]
fn a09_a_deleted_segment_is_found_out_first_middle_and_last() {
    for index in [0, 1, usize::MAX] {
        let place = several_segments();
        let all = place.segments();
        fs::remove_file(&all[index.min(all.len() - 1)]).expect("removes");
        assert!(matches!(why(&place), Why::OutOfOrder { .. } | Why::ShorterThanAnchor { .. }));
    }
}

#[test]
fn a09_a_segment_of_another_ledger_in_place_of_ours_is_found_out() {
    let (place, other) = (several_segments(), several_segments());
    fs::copy(&other.segments()[0], &place.segments()[0]).expect("copies");
    assert_eq!(why(&place), Why::OffTheChain);
    // And the whole folder, key and all, against our anchor.
    place.put_back(&other.copy());
    assert_eq!(why(&place), Why::Signature);
    assert!(matches!(place.try_open(), Err(LedgerRefused::AnchorMalformed { .. })));
}

#[test]
fn a09_c08_an_earlier_state_of_the_folder_is_refused_and_found_out() {
    let place = Place::new();
    let (ledger, _) = place.open();
    calls(&ledger, 3);
    drop(ledger);
    let earlier = place.copy();
    let (ledger, _) = place.open();
    calls(&ledger, 3);
    drop(ledger);
    place.put_back(&earlier);
    assert!(matches!(why(&place), Why::ShorterThanAnchor { .. }));
    assert!(matches!(place.try_open(), Err(LedgerRefused::ShorterThanAnchor { .. })));
}

#[test]
fn a09_an_earlier_state_that_was_written_on_with_the_real_key_is_found_out() {
    let place = Place::new();
    let (ledger, _) = place.open();
    calls(&ledger, 3);
    drop(ledger);
    let (earlier, earlier_anchor) = (place.copy(), fs::read(place.anchor()).expect("reads"));
    let (ledger, _) = place.open();
    calls(&ledger, 3);
    drop(ledger);
    // The intruder has the key and runs our own binary, with an anchor of his own, until there are more
    // records than there were.
    let anchor = fs::read(place.anchor()).expect("reads");
    place.put_back(&earlier);
    fs::write(place.anchor(), earlier_anchor).expect("writes");
    let (ledger, _) = place.open();
    calls(&ledger, 20);
    drop(ledger);
    check(&place).expect("with his own anchor it holds");
    fs::write(place.anchor(), anchor).expect("writes");
    assert!(matches!(why(&place), Why::OffTheAnchor { .. }));
    assert!(matches!(place.try_open(), Err(LedgerRefused::OffTheAnchor { .. })));
}

#[test]
fn a09_without_its_anchor_or_its_key_a_ledger_with_records_is_refused() {
    let place = several_segments();
    let anchor = fs::read(place.anchor()).expect("reads");
    fs::remove_file(place.anchor()).expect("removes");
    assert!(matches!(why(&place), Why::Anchor(_)));
    assert!(matches!(place.try_open(), Err(LedgerRefused::AnchorMissing { .. })));
    fs::write(place.anchor(), "").expect("writes");
    assert!(matches!(place.try_open(), Err(LedgerRefused::AnchorMissing { .. })));
    fs::write(place.anchor(), "{}\n").expect("writes");
    assert!(matches!(place.try_open(), Err(LedgerRefused::AnchorMalformed { line: 1, .. })));
    fs::write(place.anchor(), anchor).expect("writes");
    fs::remove_file(place.dir().join("checkpoint.key")).expect("removes");
    assert!(matches!(place.try_open(), Err(LedgerRefused::KeyMissing { .. })));
}

#[test]
fn a09_an_emptied_folder_is_refused_by_its_anchor() {
    let place = several_segments();
    fs::remove_dir_all(place.dir()).expect("removes");
    assert!(place.try_open().is_err());
}

#[test]
fn a09_a_forged_checkpoint_is_found_out() {
    // The intruder makes a whole chain anew, hashes and all, but has no key.
    let place = several_segments();
    let mut head = PublicKey::beside(&place.dir()).expect("key").genesis();
    for path in place.segments() {
        let mut forged = Vec::new();
        for text in lines(&path) {
            let record: Record = serde_json::from_str(&text).expect("a record");
            let body = serde_json::to_value(&record.body).expect("json");
            let kind = body["kind"].as_str().expect("kind").to_owned();
            let start = text.find(&format!("\"kind\":\"{kind}\"")).expect("kind") + kind.len() + 10;
            let inner = text[start..text.len() - 75].replace("create_refund", "list_charges");
            let inner = match &record.body {
                Body::Checkpoint { checkpoint } => {
                    let moved = Checkpoint { upto: head.seq, head: head.hash, ..checkpoint.clone() };
                    String::from_utf8(crate::record::encode::extend(Vec::new(), &moved)).expect("text")
                }
                _ => inner,
            };
            head = line::seal(&mut forged, head, record.time, &kind, inner.trim_start_matches(',').as_bytes());
        }
        fs::write(path, forged).expect("writes");
    }
    assert_eq!(why(&place), Why::Signature);
}

#[test]
fn what_follows_the_last_anchored_record_is_verified_as_well() {
    let place = Place::new();
    let (ledger, _) = place.open();
    calls(&ledger, 2);
    let verified = check(&place).expect("a ledger that is being written verifies");
    assert!(verified.anchored < verified.head.seq);
    let act = Act {
        tenant: None,
        principal: keybearer_gate::PrincipalLabel::operator(),
        what: ActKind::ServerStopped,
        subject: "server".to_owned(),
        version: None,
        epoch: None,
        commit: None,
        note: String::new(),
    };
    run(ledger.act(act)).expect("acts");
    ledger.checkpoint().expect("anchors");
    let verified = check(&place).expect("verifies");
    assert_eq!(verified.anchored, verified.head.seq);
}

/// Segment names and their bytes, of one ledger that all random edits begin from.
static WHOLE: LazyLock<(Place, Vec<Vec<u8>>)> = LazyLock::new(|| {
    let place = several_segments();
    let bytes = place.segments().iter().map(|path| fs::read(path).expect("reads")).collect();
    (place, bytes)
});

#[derive(Debug, Clone)]
enum Edit {
    Change(u8),
    Insert(u8),
    Delete(usize),
    CutAfter,
    Zero(usize),
    CopyFrom(proptest::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (1_u8..).prop_map(Edit::Change),
        any::<u8>().prop_map(Edit::Insert),
        (1_usize..3000).prop_map(Edit::Delete),
        Just(Edit::CutAfter),
        (1_usize..64).prop_map(Edit::Zero),
        (any::<proptest::sample::Index>(), 1_usize..2000).prop_map(|(index, length)| Edit::CopyFrom(index, length)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a09_no_random_edit_of_a_segment_verifies(
        segment in any::<proptest::sample::Index>(),
        offset in any::<proptest::sample::Index>(),
        edit in edit(),
    ) {
        let (whole, bytes) = &*WHOLE;
        let number = segment.index(bytes.len());
        let mut text = bytes[number].clone();
        let at = offset.index(text.len());
        match edit {
            Edit::Change(by) => text[at] = text[at].wrapping_add(by),
            Edit::Insert(byte) => text.insert(at, byte),
            Edit::Delete(count) => drop(text.drain(at..(at + count).min(bytes[number].len()))),
            Edit::CutAfter => text.truncate(at),
            Edit::Zero(count) => text.iter_mut().skip(at).take(count).for_each(|byte| *byte = 0),
            Edit::CopyFrom(from, count) => {
                let from = from.index(text.len());
                let piece: Vec<u8> = text.iter().copied().skip(from).take(count).collect();
                text.splice(at..at, piece);
            }
        }
        prop_assume!(text != bytes[number]);
        let place = Place::new();
        fs::create_dir(place.dir()).expect("creates");
        place.put_back(&whole.copy());
        fs::copy(whole.anchor(), place.anchor()).expect("copies");
        prop_assert!(check(&place).is_ok());
        fs::write(&place.segments()[number], &text).expect("writes");
        prop_assert!(check(&place).is_err());
    }
}

#[test]
fn a_record_that_a_crash_tore_is_told_from_an_edit() {
    let place = several_segments();
    let path = place.segment();
    let end = fs::metadata(&path).expect("there").len();
    let file = fs::OpenOptions::new().write(true).open(&path).expect("opens");
    file.write_all_at(b"{\"seq\":9", end).expect("writes");
    assert_eq!(check(&place).expect("verifies").torn_bytes, 8);
    // Nowhere but at the very end.
    let first = place.segments().swap_remove(0);
    let end = fs::metadata(&first).expect("there").len();
    fs::OpenOptions::new().write(true).open(&first).expect("opens").write_all_at(b"{", end).expect("writes");
    assert_eq!(why(&place), Why::Torn);
}
