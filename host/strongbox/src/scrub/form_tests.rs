//! Tests of what is found, and that nothing else is: the encoders here are written anew, so that they
//! share no mistake with the needles and the views.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_gate::CredentialKind;
use keybearer_gate::VersionState;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::fixture::House;

/// Values of the shapes that there are: a token, base64 with its odd characters, one that itself looks
/// percent-coded and escaped, a password with spaces and quotes, digits alone.
const VALUES: [&str; 5] = [
    "sk_live_51Hx0canary0123456789",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY==",
    r#"p%41ss&amp;\u0041 "quoted" \ <canary>"#,
    "correct horse 'battery' staple / canary",
    "4242424242424242",
];

fn set(values: &[&str]) -> ScrubSet {
    ScrubSet::of(&values.iter().map(|value| Zeroizing::new(value.as_bytes().to_vec())).collect::<Vec<_>>())
}

fn each(value: &str, encode: impl Fn(u8) -> String) -> String {
    value.bytes().map(encode).collect()
}

/// Whether a character must be escaped in JSON (and is, in the encoders that escape little).
fn json_minimal(value: &str) -> String {
    let text = serde_json::to_string(value).expect("a string");
    text[1..text.len() - 1].to_owned()
}

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}

fn html_named(byte: u8) -> String {
    match byte {
        b'&' => "&amp;".to_owned(),
        b'<' => "&lt;".to_owned(),
        b'>' => "&gt;".to_owned(),
        b'"' => "&quot;".to_owned(),
        b'\'' => "&#39;".to_owned(),
        _ => char::from(byte).to_string(),
    }
}

fn wrapped(text: &str, columns: usize, end: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(columns).map(|line| String::from_utf8_lossy(line)).collect();
    lines.join(end)
}

/// Every encoding of a value that is claimed, by name.
fn encodings(value: &str) -> Vec<(&'static str, String)> {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mixed = hex.char_indices().map(|(at, digit)| if at % 3 == 0 { digit.to_ascii_uppercase() } else { digit });
    let percent_all = each(value, |byte| format!("%{byte:02x}"));
    let percent_some = each(value, percent);
    let json_all = each(value, |byte| format!("\\u{byte:04X}"));
    let lengthened = format!("{}{value}{}", "before ".repeat(20), " after".repeat(20));
    vec![
        ("raw", value.to_owned()),
        ("upper case", value.to_ascii_uppercase()),
        ("hex lower", hex.clone()),
        ("hex upper", hex.to_ascii_uppercase()),
        ("hex mixed", mixed.collect()),
        ("\\x", each(value, |byte| format!("\\x{byte:02x}"))),
        ("percent all lower", percent_all.clone()),
        ("percent all upper", each(value, |byte| format!("%{byte:02X}"))),
        ("percent as needed", percent_some.clone()),
        ("percent mixed case", percent_some.replace("%2F", "%2f").replace("%3D", "%3d")),
        ("form", percent_some.replace("%20", "+")),
        (
            "percent twice",
            each(&percent_all, |byte| if byte == b'%' { "%25".to_owned() } else { char::from(byte).to_string() }),
        ),
        ("percent as needed twice", each(&percent_some, percent)),
        ("JSON minimal", json_minimal(value)),
        ("JSON with \\/", json_minimal(value).replace('/', "\\/")),
        ("JSON \\u all", json_all.clone()),
        ("JSON \\u lower", each(value, |byte| format!("\\u{byte:04x}"))),
        ("JSON in JSON", json_minimal(&json_minimal(value))),
        ("JSON \\u in JSON", json_minimal(&json_all)),
        ("HTML named", each(value, html_named)),
        ("HTML decimal", each(value, |byte| format!("&#{byte};"))),
        ("HTML hex", each(value, |byte| format!("&#x{byte:X};"))),
        ("HTML hex padded", each(value, |byte| format!("&#X{byte:06x};"))),
        ("HTML in JSON", json_minimal(&each(value, html_named)).replace('&', "\\u0026")),
        ("percent in JSON", json_minimal(&percent_some)),
        ("base64", STANDARD.encode(value)),
        ("base64url", URL_SAFE_NO_PAD.encode(value)),
        ("base64 wrapped at 76", wrapped(&STANDARD.encode(&lengthened), 76, "\r\n")),
        ("base64 wrapped at 64", wrapped(&STANDARD.encode(&lengthened), 64, "\n")),
        ("base64 wrapped tightly", wrapped(&STANDARD.encode(value), 8, "\n")),
        ("base64 wrapped in JSON", wrapped(&STANDARD.encode(&lengthened), 76, "\\r\\n")),
        ("base64 percent-coded", each(&STANDARD.encode(value), percent)),
        ("UTF-16LE", each(value, |byte| format!("{}\0", char::from(byte)))),
        ("UTF-16BE", each(value, |byte| format!("\0{}", char::from(byte)))),
        ("JSON \\u in UTF-16LE", each(&json_all, |byte| format!("{}\0", char::from(byte)))),
    ]
}

/// No twelve bytes of what was encoded are left, wherever they are not the text's own.
fn assert_gone(name: &str, encoded: &str, after: &[u8]) {
    let left = encoded.as_bytes().windows(12).filter(|window| !window.iter().all(|byte| b"before aft".contains(byte)));
    for window in left {
        assert!(
            !after.windows(12).any(|other| other == window),
            "{name}: {:?} is left in {:?}",
            String::from_utf8_lossy(window),
            String::from_utf8_lossy(after)
        );
    }
}

#[test]
fn x01_x03_x04_x08_every_claimed_encoding_of_every_value_is_redacted_and_nothing_around_it() {
    let set = set(&VALUES);
    for value in VALUES {
        for (name, encoded) in encodings(value) {
            let mut text = format!("{{\"a\": \"{encoded}\", \"b\": 1}}").into_bytes();
            let count = set.redact(&mut text);
            let text = String::from_utf8(text).expect("text");
            assert!(count > 0, "{name} of {value}: {encoded}");
            let (before, after) = text.split_once(REDACTED).expect("the marker");
            assert!(before.starts_with("{\"a\": \""), "{name}: {text}");
            assert!(after.ends_with("\", \"b\": 1}"), "{name}: {text}");
            if !encoded.contains("YmVmb3Jl") && !name.contains("wrapped") {
                let zeros = |text: &str| text.replace('\0', "");
                assert_eq!(zeros(before), "{\"a\": \"", "{name}");
                assert_eq!(zeros(after), "\", \"b\": 1}", "{name}");
                assert_gone(name, &encoded, text.as_bytes());
            }
        }
    }
}

#[test]
fn x03_base64_at_every_offset_and_with_every_neighbour_leaves_no_bit_of_the_value() {
    let set = set(&VALUES);
    for value in VALUES {
        for before in 0..4 {
            for after in 0..4 {
                let blob = [b"\xff".repeat(before), value.as_bytes().to_vec(), b"\xff".repeat(after)].concat();
                for encoded in [STANDARD.encode(&blob), URL_SAFE_NO_PAD.encode(&blob)] {
                    let mut text = encoded.clone().into_bytes();
                    assert_eq!(set.redact(&mut text), 1, "{encoded}");
                    let text = String::from_utf8(text).expect("text");
                    let (head, tail) = text.split_once(REDACTED).expect("the marker");
                    // What is left holds bits of what stood around the value alone.
                    let tail_start = encoded.len() - tail.len();
                    assert!(6 * head.len() <= 8 * before, "{encoded}: {text}");
                    assert!(6 * tail_start >= 8 * (before + value.len()), "{encoded}: {text}");
                }
            }
        }
    }
}

#[test]
fn x20_the_marker_is_the_same_whatever_the_value() {
    let set = set(&VALUES);
    for value in VALUES {
        let mut text = format!("<{value}>").into_bytes();
        assert_eq!(set.redact(&mut text), 1);
        assert_eq!(text, b"<[redacted]>");
    }
}

#[test]
fn x29_a_value_without_its_first_or_last_bytes_or_in_parts_is_left_as_it_is() {
    let set = set(&VALUES);
    for value in VALUES {
        let (front, back) = value.split_at(value.len() / 2);
        for fragment in [&value[2..], &value[..value.len() - 2], front, back] {
            for (name, encoded) in encodings(fragment) {
                // Two bytes, for base64 within base64 shares the first and last ones with their neighbours.
                let mut text = format!("({encoded})").into_bytes();
                assert_eq!(set.redact(&mut text), 0, "{name} of {fragment}");
                assert_eq!(text, format!("({encoded})").into_bytes());
            }
        }
        let mut apart = format!(r#"["{front}","{back}"]"#).into_bytes();
        assert_eq!(set.redact(&mut apart), 0, "a value that was split is not promised");
    }
}

#[test]
fn x28_two_values_that_overlap_are_both_gone() {
    let set = set(&["abcdefghijklmnopqrst", "klmnopqrstuvwxyz0123"]);
    let mut text = b"<abcdefghijklmnopqrstuvwxyz0123>".to_vec();
    assert_eq!(set.redact(&mut text), 1);
    assert_eq!(text, b"<[redacted]>");
    let periodic = self::set(&["abcdabcdabcdabcd"]);
    let mut text = b"<abcdabcdabcdabcdabcdabcd>".to_vec();
    periodic.redact(&mut text);
    assert_eq!(text, b"<[redacted]>", "no tail is left of a value that overlaps with itself");
}

#[test]
fn x09_bytes_that_are_not_text_are_looked_through_as_bytes() {
    let set = set(&VALUES);
    let mut body = b"\x89PNG\0\xff\xfe\x80".to_vec();
    body.extend_from_slice(VALUES[0].as_bytes());
    body.extend_from_slice(b"\xff\0\xc3");
    assert_eq!(set.redact(&mut body), 1);
    assert_eq!(body, b"\x89PNG\0\xff\xfe\x80[redacted]\xff\0\xc3");
}

#[test]
fn a_text_without_a_value_is_not_changed() {
    let set = set(&VALUES);
    let text = include_str!("../scrub.rs").repeat(3) + "100% \\ &amp; &#; %zz \\u12 = + \0 \r\n";
    let mut scrubbed = text.clone();
    assert_eq!(scrub_text(&set, &mut scrubbed), 0);
    assert_eq!(scrubbed, text);
    let empty = ScrubSet::empty();
    assert_eq!(scrub_text(&empty, &mut scrubbed), 0);
}

#[test]
fn x10_x28_a_set_holds_every_undestroyed_version_of_every_credential_and_follows_changes() {
    let house = House::new();
    let tenant = house.tenant();
    let (first, second) = ("first-0123456789-canary", "second-0123456789-canary");
    let credential = house.credential(&tenant, CredentialKind::Bearer, first);
    let basic = house.credential(&tenant, CredentialKind::Basic, "user:password-0123456789");
    let ids = [credential.clone(), basic];
    let scrubbed = |text: &str| {
        let mut text = text.to_owned();
        scrub_text(&house.strongbox.scrub_set(&tenant, &ids), &mut text);
        text
    };
    assert_eq!(scrubbed(first), REDACTED);
    assert_eq!(scrubbed(second), second);
    house.rotate(&tenant, &credential, second);
    assert_eq!(scrubbed(&format!("{first} {second}")), "[redacted] [redacted]");
    house.change(&tenant, &credential, |record| record.versions[0].state = VersionState::Revoked);
    assert_eq!(scrubbed(first), REDACTED);
    house.change(&tenant, &credential, |record| record.versions[0].state = VersionState::Destroyed);
    assert_eq!(scrubbed(&format!("{first} {second}")), format!("{first} [redacted]"));
    // The password alone, the pair, and the blob that was sent, also within another base64.
    let blob = STANDARD.encode("user:password-0123456789");
    let nested = STANDARD.encode(format!("Authorization: Basic {blob}"));
    for text in ["password-0123456789", "user:password-0123456789", &blob] {
        assert_eq!(scrubbed(text), REDACTED);
    }
    assert!(scrubbed(&nested).contains(REDACTED) && !scrubbed(&nested).contains(&nested[40..60]));
}

#[test]
fn a_set_is_kept_while_nothing_changes_and_belongs_to_one_tenant() {
    let house = House::new();
    let (tenant, other) = (house.tenant(), house.tenant());
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUES[0]);
    let sibling = house.credential(&tenant, CredentialKind::Bearer, VALUES[1]);
    let one = house.strongbox.scrub_set(&tenant, &[credential.clone(), sibling.clone()]);
    let same = house.strongbox.scrub_set(&tenant, &[sibling.clone(), credential.clone(), sibling]);
    assert!(Arc::ptr_eq(&one, &same));
    let foreign = house.strongbox.scrub_set(&other, std::slice::from_ref(&credential));
    assert!(!foreign.holds(VALUES[0].as_bytes()), "another tenant's set does not even tell that it is a value");
    for _ in 0..2 * sets::SETS_MAX {
        drop(house.strongbox.scrub_set(&TenantId::random(), &[CredentialId::random()]));
    }
    assert!(house.strongbox.scrub_sets.len() <= sets::SETS_MAX);
}

#[test]
fn if_a_version_does_not_open_nothing_passes() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUES[0]);
    house.change(&tenant, &credential, |record| record.versions[0].sealed = keybearer_gate::Sealed([0; 64].into()));
    let set = house.strongbox.scrub_set(&tenant, &[credential]);
    let raw = Raw::new(200, HeaderMap::new(), vec![Bytes::from_static(b"body")], true);
    let fault = scrub(raw, &set, ScrubLimits { decoded_bytes_max: 1 << 20 }).err();
    assert_eq!(fault, Some(ScrubFault::SetIncomplete));
    let mut text = "anything".to_owned();
    scrub_text(&set, &mut text);
    assert_eq!(text, REDACTED);
}

/// One character, escaped in one of the ways there are.
fn any_escape(byte: u8, choice: u8) -> String {
    match choice % 7 {
        0 => format!("%{byte:02x}"),
        1 => format!("%{byte:02X}"),
        2 => format!("\\u{byte:04x}"),
        3 => format!("\\x{byte:02X}"),
        4 => format!("&#{byte};"),
        5 => format!("&#x{byte:x};"),
        _ => char::from(byte).to_string(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_mixture_of_escapes_once_or_twice_is_found_whole(
        value in "[A-Za-z0-9_./+=-]{16,40}",
        first in proptest::collection::vec(any::<u8>(), 64),
        second in proptest::collection::vec(any::<u8>(), 640),
        twice in any::<bool>(),
        around in "[ a-z]{0,20}",
    ) {
        let mut encoded: String = value.bytes().zip(&first).map(|(byte, choice)| any_escape(byte, *choice)).collect();
        if twice {
            // An encoder escapes at least what begins or ends an escape, or it could not be undone.
            let choice = |byte: u8, choice: u8| if b"%\\&#;".contains(&byte) { choice % 6 } else { choice };
            encoded = encoded.bytes().zip(&second).map(|(byte, any)| any_escape(byte, choice(byte, *any))).collect();
        }
        let set = set(&[&value]);
        let mut text = format!("({around}[{encoded}]{around})");
        prop_assert_eq!(scrub_text(&set, &mut text), 1);
        prop_assert_eq!(text, format!("({around}[{REDACTED}]{around})"));
    }

    #[test]
    fn base64_of_anything_around_the_value_never_decodes_to_the_value(
        value in "[!-~]{16,48}",
        before in proptest::collection::vec(any::<u8>(), 0..40),
        after in proptest::collection::vec(any::<u8>(), 0..40),
        columns in 4_usize..90,
    ) {
        let blob = [before, value.clone().into_bytes(), after].concat();
        let encoded = wrapped(&STANDARD.encode(&blob), columns, "\r\n");
        let set = set(&[&value]);
        let mut text = encoded.clone();
        prop_assert!(scrub_text(&set, &mut text) >= 1);
        let joined = text.replace("\r\n", "");
        for piece in joined.split(REDACTED) {
            let decoded = STANDARD.decode(&piece[..piece.len() / 4 * 4]).unwrap_or_default();
            prop_assert!(!decoded.windows(value.len()).any(|window| window == value.as_bytes()));
        }
    }

    #[test]
    fn however_the_body_is_cut_the_reply_is_the_same_and_holds_no_value(
        value in "[!-~]{16,32}",
        texts in proptest::collection::vec("[ -~\r\n]{0,60}", 1..6),
        forms in proptest::collection::vec(any::<prop::sample::Index>(), 6),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let encodings = encodings(&value);
        let mut body = String::new();
        for (text, form) in texts.iter().zip(&forms) {
            write!(body, "{text}|{}|", form.get(&encodings).1).expect("a string takes it");
        }
        let body = Bytes::from(body);
        let set = set(&[&value]);
        let limits = ScrubLimits { decoded_bytes_max: 1 << 20 };
        let whole = scrub(Raw::new(200, HeaderMap::new(), vec![body.clone()], true), &set, limits).expect("passes");
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).chain([0, body.len()]).collect();
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| body.slice(pair[0]..pair[1])).collect();
        let cut = scrub(Raw::new(200, HeaderMap::new(), pieces, true), &set, limits).expect("passes");
        prop_assert_eq!(&whole, &cut);
        prop_assert!(whole.1.count > 0);
        prop_assert!(!set.holds(whole.0.body()), "{}", String::from_utf8_lossy(whole.0.body()));
    }

    #[test]
    fn no_text_makes_it_panic_or_lose_what_it_must_keep(text in proptest::collection::vec(
        prop_oneof![any::<u8>(), Just(b'%'), Just(b'\\'), Just(b'&'), Just(b'#'), Just(b'u'), Just(b'0'), Just(b'\n'), Just(0)],
        0..200,
    )) {
        let set = set(&VALUES);
        let mut scrubbed = text.clone();
        prop_assert_eq!(set.redact(&mut scrubbed), 0);
        prop_assert_eq!(scrubbed, text);
    }
}
