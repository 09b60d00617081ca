//! Tests of signing for guests: each function against its published form, and neither with another's intent, key or lease.

use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use keybearer_contract::CredentialId;
use keybearer_contract::Method;
use keybearer_contract::SigningAlgorithm;
use keybearer_contract::TenantId;
use keybearer_contract::ToSign;
use keybearer_gate::JwtKey;
use serde_json::Value;

use super::*;
use crate::MadeInCall;
use crate::REDACTED;
use crate::Raw;
use crate::ScrubLimits;
use crate::ScrubSet;
use crate::fixture::House;
use crate::fixture::cleared;
use crate::fixture::cleared_signature;
use crate::place;

const MAC_KEY: &str = "sixteen-bytes-or-more";

/// RFC 8037 appendix A.1.
const ED_KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// The pair of AWS's own examples.
const AWS_KEYS: &str = "AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn jwt_key() -> CredentialKind {
    CredentialKind::JwtKey(JwtKey { alg: SigningAlgorithm::EdDsa, kid: Some("key-1".to_owned()) })
}

fn message(bytes: &[u8]) -> ToSign {
    ToSign::Message(bytes.to_vec())
}

fn url() -> ToSign {
    let url = "https://examplebucket.s3.amazonaws.com/test.txt".to_owned();
    ToSign::Url { method: Method::Get, url, expires_s: 86_400 }
}

struct Case {
    house: House,
    tenant: TenantId,
    credential: CredentialId,
}

impl Case {
    fn new(kind: CredentialKind, value: &str) -> Self {
        let house = House::new();
        let tenant = house.tenant();
        let credential = house.credential(&tenant, kind, value);
        Self { house, tenant, credential }
    }

    fn sign_at(&self, slot: &str, what: ToSign, now: UnixMillis) -> Result<Made, PlaceRefused> {
        let cleared = cleared_signature(&self.tenant, slot, &self.credential, what);
        sign_recorded(cleared, self.house.lease(&self.tenant, &self.credential), now)
    }

    fn sign(&self, slot: &str, what: ToSign) -> Result<Made, PlaceRefused> {
        self.sign_at(slot, what, crate::fixture::NOW)
    }

    fn made(&self, slot: &str, what: ToSign) -> Made {
        self.sign(slot, what).unwrap_or_else(|refused| panic!("{refused}"))
    }
}

fn text(made: Made) -> String {
    String::from_utf8(made.hand_over().into_guest()).expect("text")
}

#[test]
fn p09_a_mac_is_over_the_context_and_the_message() {
    let case = Case::new(CredentialKind::HmacKey, MAC_KEY);
    let mac = case.made("fmac", message(b"order 7")).hand_over().into_guest();
    let key = hmac::Key::new(hmac::HMAC_SHA256, MAC_KEY.as_bytes());
    assert!(hmac::verify(&key, b"orders-v1.order 7", &mac).is_ok());
    assert!(hmac::verify(&key, b"order 7", &mac).is_err());
}

#[test]
fn p09_a_jwt_is_signed_by_the_slots_algorithm_and_names_its_key() {
    let case = Case::new(jwt_key(), ED_KEY);
    let jwt = text(case.made("fjwt", ToSign::Claims(vec![("sub".to_owned(), "order-7".to_owned())])));
    let (signed, signature) = jwt.rsplit_once('.').expect("parts");
    let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("base64");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    assert!(UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).is_ok());
    let parsed =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON") };
    let (header, claims) = signed.split_once('.').expect("parts");
    assert_eq!(parsed(header), serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": "key-1"}));
    assert_eq!((&parsed(claims)["sub"], &parsed(claims)["iss"]), (&"order-7".into(), &"us".into()));
}

#[test]
fn p09_a_presigned_url_is_that_of_the_published_example() {
    // Amazon S3 API reference, "Authenticating requests: using query parameters", 2013-05-24.
    let case = Case::new(CredentialKind::AwsKeys, AWS_KEYS);
    let made = case.sign_at("furl", url(), UnixMillis(1_369_353_600_000)).unwrap_or_else(|why| panic!("{why}"));
    let expected = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z\
        &X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
        &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    assert_eq!(text(made), expected);
}

#[test]
fn p09_a_session_signs_no_url_for_its_token_would_stand_in_it() {
    let case = Case::new(CredentialKind::AwsKeys, &format!("{AWS_KEYS}\nsession-token+/0123=="));
    assert_eq!(case.sign("furl", url()).err(), Some(PlaceRefused::SessionToken));
}

#[test]
fn a_key_signs_by_the_function_that_it_is_for_and_for_its_own_tenant() {
    for (kind, value, slot, what) in [
        (CredentialKind::Bearer, MAC_KEY, "fmac", message(b"a")),
        (CredentialKind::HmacKey, MAC_KEY, "furl", url()),
        (CredentialKind::AwsKeys, AWS_KEYS, "fmac", message(b"a")),
        (jwt_key(), ED_KEY, "fmac", message(b"a")),
        (CredentialKind::HmacKey, MAC_KEY, "fjwt", ToSign::Claims(Vec::new())),
    ] {
        assert_eq!(Case::new(kind, value).sign(slot, what).err(), Some(PlaceRefused::WrongKind), "{slot}");
    }
    let (case, other) = (Case::new(CredentialKind::HmacKey, MAC_KEY), Case::new(CredentialKind::HmacKey, MAC_KEY));
    let cleared = cleared_signature(&case.tenant, "fmac", &case.credential, message(b"a"));
    let lease = other.house.lease(&other.tenant, &other.credential);
    assert_eq!(sign_recorded(cleared, lease, crate::fixture::NOW).err(), Some(PlaceRefused::Mismatch));
}

#[tokio::test]
async fn p6_a_recorded_signature_sends_nothing_and_a_recorded_request_signs_nothing() {
    let case = Case::new(CredentialKind::HmacKey, MAC_KEY);
    let selected = case.house.selected(&case.tenant, &case.credential);
    let lease = || case.house.lease(&case.tenant, &case.credential);
    let asked = || cleared_signature(&case.tenant, "fmac", &case.credential, message(b"a"));
    let request = cleared(&case.tenant, "mac", &case.credential, "/x");
    let of_request = case.house.intent(&request, Some(&selected)).await;
    assert_eq!(sign(asked(), of_request, lease(), crate::fixture::NOW).err(), Some(PlaceRefused::Mismatch));
    let of_signature = case.house.signing_intent(&asked(), &selected).await;
    assert_eq!(place(request, of_signature, lease()).err(), Some(PlaceRefused::Mismatch));
    let (mine, other) = (asked(), asked());
    let of_another_call = case.house.signing_intent(&other, &selected).await;
    assert_eq!(sign(mine, of_another_call, lease(), crate::fixture::NOW).err(), Some(PlaceRefused::Mismatch));
    let mine = asked();
    let intent = case.house.signing_intent(&mine, &selected).await;
    assert!(sign(mine, intent, lease(), crate::fixture::NOW).is_ok());
}

#[tokio::test]
async fn r05_a_revocation_waits_until_what_was_made_is_handed_over_or_thrown_away() {
    let case = Case::new(CredentialKind::HmacKey, MAC_KEY);
    let made = case.made("fmac", message(b"a"));
    assert!(!made.is_cancelled());
    let mut barrier = std::pin::pin!(case.house.strongbox.barrier_revoke(&case.tenant, &case.credential, 2));
    assert!(futures_pending(barrier.as_mut()).await);
    assert!(made.is_cancelled());
    drop(made);
    assert_eq!(barrier.await, 1);
}

/// Whether it waits, after one look.
async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[test]
fn x10_what_was_made_is_taken_out_in_every_form_and_only_for_the_caller_left_in_the_result() {
    let case = Case::new(CredentialKind::HmacKey, MAC_KEY);
    let all = MadeInCall::default();
    let made = case.made("fmac", message(b"a"));
    all.note(&made);
    let mac = made.hand_over().into_guest();
    let none = ScrubSet::empty();
    let numbers: Vec<_> = mac.iter().map(u8::to_string).collect();
    for form in [
        hex::encode(&mac),
        hex::encode_upper(&mac),
        STANDARD.encode(&mac),
        URL_SAFE_NO_PAD.encode(&mac),
        STANDARD.encode([b"x".as_slice(), &mac].concat()),
        numbers.join(","),
        numbers.join(", "),
    ] {
        let (mut said, mut result) = (format!("a {form} b"), format!("{{\"mac\": \"{form}\"}}"));
        assert_eq!((all.scrub_text(&mut said), all.scrub_result(&none, &mut result)), (1, 1), "{form}");
        assert!(said.contains(REDACTED) && !said.contains(&form) && !result.contains(&form), "{form}");
    }
    let body = Bytes::from(format!("you sent {}", hex::encode(&mac)));
    let headers = [("x-echo", hex::encode(&mac))].into_iter();
    let headers = headers.map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect();
    let raw = Raw::new(200, headers, vec![body], false);
    let limits = ScrubLimits { decoded_bytes_max: 1024 };
    let (mut reply, _) = crate::scrub(raw, &none, limits).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(all.scrub_reply(&mut reply), 2);
    assert_eq!(
        (reply.body(), reply.headers()[0].1.as_slice()),
        (b"you sent [redacted]".as_slice(), REDACTED.as_bytes())
    );
}

#[test]
fn x10_a_url_for_the_caller_stays_whole_and_the_id_of_its_key_nowhere_else() {
    let case = Case::new(CredentialKind::AwsKeys, AWS_KEYS);
    let set = case.house.strongbox.scrub_set(&case.tenant, std::slice::from_ref(&case.credential));
    let all = MadeInCall::default();
    let made = case.made("furl", url());
    all.note(&made);
    let url = text(made);
    let mut result = format!("{{\"url\": \"{url}\", \"id\": \"AKIAIOSFODNN7EXAMPLE\"}}");
    assert_eq!(all.scrub_result(&set, &mut result), 1);
    assert_eq!(result, format!("{{\"url\": \"{url}\", \"id\": \"[redacted]\"}}"));
    // Not whole, it is not what was made for the caller.
    let mut part = url.replace("test.txt", "other.txt");
    all.scrub_result(&set, &mut part);
    assert!(part.contains(REDACTED) && !part.contains("AKIA"), "{part}");
    let mut log = format!("made {url}");
    crate::scrub_text(&set, &mut log);
    all.scrub_text(&mut log);
    assert!(!log.contains("aeeed9") && !log.contains("AKIA") && log.matches(REDACTED).count() == 2, "{log}");
}
