//! Messages of the Workload API: whole ones are held, everything else changes nothing.

use keybearer_contract::UnixMillis;
use keybearer_gate::SpiffeId;
use keybearer_gate::SpiffeX509;
use rcgen::CertificateParams;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;

use super::*;
use crate::LeaseRefused;
use crate::Yield;
use crate::fixture::House;
use crate::fixture::NOW;
use crate::fixture::cleared;
use crate::fixture::facts;

const ID: &str = "spiffe://acme.example/keybearer";

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut length = bytes.len();
    let mut field = vec![number << 3 | 2];
    while length > 127 {
        field.push(u8::try_from(length & 127).expect("seven bits") | 128);
        length >>= 7;
    }
    field.push(u8::try_from(length).expect("seven bits"));
    field.extend_from_slice(bytes);
    field
}

fn message(bytes: &[u8]) -> SvidMessage {
    let mut message = SvidMessage::of_length(bytes.len()).expect("short");
    assert_eq!(message.fill(bytes), bytes.len());
    message
}

fn leaf(id: &str, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ascii"))];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.self_signed(key).expect("signed").der().to_vec()
}

fn svid(id: &str, certificate: &[u8], key: &[u8]) -> Vec<u8> {
    field(1, &[field(1, id.as_bytes()), field(2, certificate), field(3, key), field(4, b"bundle")].concat())
}

fn svid_of(id: &str) -> Vec<u8> {
    let key = KeyPair::generate().expect("key");
    svid(id, &leaf(id, &key), &key.serialize_der())
}

fn id() -> SpiffeId {
    ID.parse().expect("an id")
}

// If it failed, an identity that was rotated would go on being shown, or one that was taken away.
#[test]
fn r04_each_message_replaces_what_was_held() {
    let house = House::new();
    let now = UnixMillis::now();
    let take = |bytes: &[u8]| house.strongbox.take_svids(message(bytes)).expect("whole");
    let first = svid_of(ID);
    let changed = take(&first);
    assert_eq!((changed.fresh.len(), changed.gone.len()), (1, 0));
    assert_eq!(changed.fresh[0].id, id());
    assert_eq!(take(&first), SvidsChanged::default(), "the same again is no change");
    let changed = take(&svid_of(ID));
    assert_eq!((changed.fresh.len(), changed.gone.len()), (1, 0));
    let mut vessel = Vessel::default();
    let facts = house.strongbox.svid(&id(), &mut vessel, "svid", now).expect("held");
    assert_eq!(facts, changed.fresh[0], "the newest");
    assert!(ClientIdentity::parse(vessel.get("svid").expect("filled")).is_ok());
    assert_eq!(take(&svid_of("spiffe://acme.example/other")).gone, [id()]);
    assert_eq!(house.strongbox.svid(&id(), &mut vessel, "svid", now), None);
    assert_eq!(house.strongbox.forget_svids().gone.len(), 1);
    assert!(house.strongbox.svid_facts().is_empty());
}

// If it failed, the ledger would name another certificate than the one that the upstream was shown.
#[tokio::test]
async fn p6_an_svid_that_was_replaced_since_the_intent_was_recorded_is_not_proved() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::SpiffeX509(SpiffeX509 { spiffe_id: id() }), "");
    let selected = house.selected(&tenant, &credential);
    let come = || {
        let taken = house.strongbox.take_svids(message(&svid_of(ID))).expect("whole");
        let mut vessel = Vessel::default();
        house.strongbox.svid(&id(), &mut vessel, "svid", NOW).expect("held");
        let yielded = Yield { parts: vec!["svid"], life_s: Some(600), ..Yield::default() };
        house.strongbox.keep(&selected, &vessel, yielded, &facts(&tenant), NOW).expect("kept");
        taken.fresh[0].serial.clone()
    };
    let cleared = || cleared(&tenant, "bearer", &credential, "/x");
    for _ in 0..2 {
        let serial = come();
        let recorded = house.intent(&cleared(), Some(&selected)).await;
        assert_eq!(recorded.svid(), Some(serial.as_str()));
        assert!(house.strongbox.lease(selected.clone(), &recorded, NOW).is_ok());
        come();
        assert!(matches!(house.strongbox.lease(selected.clone(), &recorded, NOW), Err(LeaseRefused::Stale)));
    }
    house.strongbox.forget_svids();
    let unnamed = house.intent(&cleared(), Some(&selected)).await;
    assert_eq!(unnamed.svid(), None);
    assert!(matches!(house.strongbox.lease(selected, &unnamed, NOW), Err(LeaseRefused::Stale)));
}

// If it failed, a host cut off from its Workload API would show what is over, instead of nothing.
#[test]
fn r04_an_svid_is_held_until_it_ends_and_no_longer() {
    let house = House::new();
    let taken = house.strongbox.take_svids(message(&svid_of(ID))).expect("whole");
    let ends = taken.fresh[0].ends;
    let mut vessel = Vessel::default();
    assert!(house.strongbox.svid(&id(), &mut vessel, "svid", UnixMillis(ends.0 - 1)).is_some());
    assert!(house.strongbox.svid(&id(), &mut vessel, "svid", ends).is_none());
}

// If it failed, the host would show a certificate that it cannot prove, or one of another id than was asked for.
#[test]
fn r04_a_message_that_is_not_whole_changes_nothing() {
    let house = House::new();
    house.strongbox.take_svids(message(&svid_of(ID))).expect("whole");
    let held = house.strongbox.svid_facts();
    let (key, other) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
    let certificate = leaf(ID, &key);
    let whole = svid(ID, &certificate, &key.serialize_der());
    for (why, bad) in [
        ("cut off", whole[..whole.len() - 1].to_vec()),
        ("another's key", svid(ID, &certificate, &other.serialize_der())),
        ("another id", svid("spiffe://acme.example/other", &certificate, &key.serialize_der())),
        ("no key", field(1, &[field(1, ID.as_bytes()), field(2, &certificate)].concat())),
        ("no certificate", svid(ID, b"", &key.serialize_der())),
        ("a good and a bad one", [whole.clone(), svid(ID, b"", b"")].concat()),
        ("too many", (0..65).flat_map(|n| svid_of(&format!("spiffe://acme.example/{n}"))).collect()),
    ] {
        assert!(house.strongbox.take_svids(message(&bad)).is_err(), "{why}");
        assert_eq!(house.strongbox.svid_facts(), held, "{why}");
    }
    assert!(SvidMessage::of_length(MESSAGE_BYTES_MAX + 1).is_none());
    assert_eq!(SvidMessage::of_length(2).expect("short").fill(b"abc"), 2);
}

// If it failed, a token for one audience would be carried to another, or one that is over.
#[test]
fn r04_a_jwt_svid_is_of_the_id_and_for_the_audience_that_was_asked() {
    let house = House::new();
    let taken = |id: &str, claims: &serde_json::Value| {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let bytes = field(1, &[field(1, id.as_bytes()), field(2, token.as_bytes())].concat());
        let mut vessel = Vessel::default();
        let asked = (&super::tests::id(), "vault");
        let taken = house.strongbox.take_jwt_svid(message(&bytes), asked, (&mut vessel, "svid"), UnixMillis(10_000));
        assert_eq!(vessel.has("svid"), taken.is_ok());
        taken.ok()
    };
    let claims = |sub: &str, aud: serde_json::Value, exp: u64| serde_json::json!({"sub": sub, "aud": aud, "exp": exp});
    assert_eq!(taken(ID, &claims(ID, "vault".into(), 70)), Some(60));
    assert_eq!(taken(ID, &claims(ID, serde_json::json!(["vault"]), 70)), Some(60));
    for bad in [
        claims("spiffe://acme.example/other", "vault".into(), 70),
        claims(ID, "other".into(), 70),
        claims(ID, serde_json::json!(["vault", "other"]), 70),
        claims(ID, "vault".into(), 10),
        serde_json::json!({"sub": ID, "aud": "vault"}),
    ] {
        assert_eq!(taken(ID, &bad), None, "{bad}");
    }
    assert_eq!(taken("spiffe://acme.example/other", &claims(ID, "vault".into(), 70)), None);
}
