//! Tests of proofs: MACs against RFC 4231, JWTs against the public half of their key, and neither beside another's field.

use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use keybearer_contract::CredentialId;
use keybearer_contract::SigningAlgorithm;
use keybearer_gate::JwtKey;

use super::*;
use crate::fixture::House;
use crate::fixture::cleared;
use crate::place::arm;
use crate::place::arm_plain;

const NOW: UnixMillis = UnixMillis(1_700_000_000_999);

/// RFC 8037 appendix A.1.
const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// RFC 7515 appendix A.3.1.
const P256: &str = r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;

fn request(body: &[u8]) -> OpenArmed {
    let tenant = House::new().tenant();
    let open = arm_plain(cleared(&tenant, "open", &CredentialId::random(), "/x")).unwrap_or_else(|_| panic!("plain"));
    OpenArmed { body: Bytes::copy_from_slice(body), has_body: true, ..open }
}

fn hmac_of(over: HmacOver, encoding: HmacEncoding) -> Hmac {
    Hmac {
        header: "x-signature".to_owned(),
        algorithm: HmacAlgorithm::HmacSha256,
        over,
        encoding,
        prefix: "sha256=".to_owned(),
        timestamp_header: (over == HmacOver::TimestampBody).then(|| "x-timestamp".to_owned()),
    }
}

fn eddsa() -> Jwt {
    let claims = [("iss", "us"), ("aud", "https://api.example.com"), ("sub", "reports")];
    let claims = claims.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Jwt { algorithm: SigningAlgorithm::EdDsa, claims, lifetime_s: 60 }
}

fn header(open: &OpenArmed, name: &str) -> String {
    String::from_utf8(open.headers[name].as_bytes().to_vec()).expect("text")
}

#[test]
fn the_mac_of_a_body_is_that_of_rfc_4231() {
    // §4.2, §4.3 and §4.7: keys of 20, 4 and 131 bytes.
    let cases: [(&[u8], &[u8], &str); 3] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ];
    for (key, body, expected) in cases {
        let mut open = request(body);
        let said = hmac_of(HmacOver::Body, HmacEncoding::Hex);
        let derived = Proof::Hmac(&said, key).put(&mut open, NOW).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(header(&open, "x-signature"), format!("sha256={expected}"));
        assert!(open.headers["x-signature"].is_sensitive());
        assert_eq!(derived.secret().map(Secret::expose), Some(expected.as_bytes()), "to be looked for in the answer");
        let said = hmac_of(HmacOver::Body, HmacEncoding::Base64);
        let mut open = request(body);
        assert!(Proof::Hmac(&said, key).put(&mut open, NOW).is_ok());
        let base64 = STANDARD.encode(hex::decode(expected).expect("hex"));
        assert_eq!(header(&open, "x-signature"), format!("sha256={base64}"));
    }
}

#[test]
fn the_time_under_a_mac_is_the_hosts_and_stands_in_its_own_field() {
    let mut open = request(b"{}");
    let said = hmac_of(HmacOver::TimestampBody, HmacEncoding::Hex);
    assert!(Proof::Hmac(&said, b"0123456789abcdef").put(&mut open, NOW).is_ok());
    assert_eq!(header(&open, "x-timestamp"), "1700000000");
    let mut same = request(b"1700000000.{}");
    let said = hmac_of(HmacOver::Body, HmacEncoding::Hex);
    assert!(Proof::Hmac(&said, b"0123456789abcdef").put(&mut same, NOW).is_ok());
    assert_eq!(header(&open, "x-signature"), header(&same, "x-signature"));
}

#[test]
fn p09_a_jwt_says_what_the_manifest_says_and_verifies_with_the_public_key() {
    let said = eddsa();
    let mut jtis = Vec::new();
    for _ in 0..2 {
        let mut open = request(b"");
        let proof = Proof::Jwt(&said, KEY.as_bytes(), Some("key-1"));
        let derived = proof.put(&mut open, NOW).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(open.headers["authorization"].is_sensitive());
        let jwt = header(&open, "authorization");
        let (signed, signature) = jwt.strip_prefix("Bearer ").and_then(|jwt| jwt.rsplit_once('.')).expect("a JWT");
        assert_eq!(derived.secret().map(Secret::expose), Some(signature.as_bytes()));
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
        let public = decoded("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        let public = UnparsedPublicKey::new(&ED25519, &public);
        assert!(public.verify(signed.as_bytes(), &decoded(signature)).is_ok());
        let (fields, claims) = signed.split_once('.').expect("two parts");
        let fields: Value = serde_json::from_slice(&decoded(fields)).expect("JSON");
        assert_eq!(fields, serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": "key-1"}));
        let mut claims: Value = serde_json::from_slice(&decoded(claims)).expect("JSON");
        jtis.push(claims["jti"].take());
        let expected = serde_json::json!({
            "iss": "us", "aud": "https://api.example.com", "sub": "reports",
            "iat": 1_700_000_000, "exp": 1_700_000_060, "jti": null,
        });
        assert_eq!(claims, expected);
    }
    assert!(jtis[0].as_str().is_some_and(|jti| jti.len() == 32) && jtis[0] != jtis[1], "no two are alike");
}

#[test]
fn n20_what_a_proof_adds_is_on_no_request_already() {
    let timed = hmac_of(HmacOver::TimestampBody, HmacEncoding::Hex);
    let said = eddsa();
    for (field, proof) in [
        ("x-signature", Proof::Hmac(&timed, b"0123456789abcdef")),
        ("x-timestamp", Proof::Hmac(&timed, b"0123456789abcdef")),
        ("authorization", Proof::Jwt(&said, KEY.as_bytes(), None)),
    ] {
        let mut open = request(b"");
        open.headers.insert(field, HeaderValue::from_static("mine"));
        assert_eq!(proof.put(&mut open, NOW).err(), Some(PlaceRefused::AlreadyPresent), "{field}");
    }
    let framing = Hmac { header: "content-length".to_owned(), ..timed };
    let outcome = Proof::Hmac(&framing, b"0123456789abcdef").put(&mut request(b""), NOW);
    assert_eq!(outcome.err(), Some(PlaceRefused::AlreadyPresent));
}

#[test]
fn a_key_that_makes_proofs_goes_into_the_slot_of_its_kind_and_algorithm_alone() {
    let house = House::new();
    let tenant = house.tenant();
    let mac_key = "key-of-a-MAC-0123456789";
    let jwt_key = |alg| CredentialKind::JwtKey(JwtKey { alg, kid: None });
    let armed = |slot: &str, kind: CredentialKind, value: &str| {
        let credential = house.credential(&tenant, kind, value);
        arm(cleared(&tenant, slot, &credential, "/x"), house.lease(&tenant, &credential))
    };
    for (slot, kind, value, field) in [
        ("mac", CredentialKind::HmacKey, mac_key, "x-signature"),
        ("jwt", jwt_key(SigningAlgorithm::EdDsa), KEY, "authorization"),
    ] {
        let open = armed(slot, kind, value).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(open.headers.contains_key(field) && open.derived.secret().is_some());
        for (name, placed) in &open.headers {
            assert!(!String::from_utf8_lossy(placed.as_bytes()).contains(value), "{name}");
        }
    }
    for (slot, kind, value) in [
        ("mac", CredentialKind::Header, mac_key),
        ("mac", jwt_key(SigningAlgorithm::EdDsa), KEY),
        ("jwt", CredentialKind::HmacKey, mac_key),
        ("jwt", jwt_key(SigningAlgorithm::Es256), P256),
        ("header", CredentialKind::HmacKey, mac_key),
        ("bearer", jwt_key(SigningAlgorithm::EdDsa), KEY),
        ("basic", CredentialKind::HmacKey, mac_key),
    ] {
        assert_eq!(armed(slot, kind.clone(), value).err(), Some(PlaceRefused::WrongKind), "{slot} {kind:?}");
    }
}
