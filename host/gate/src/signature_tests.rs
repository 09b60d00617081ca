//! Tests of clearing what is to be signed: every refusal once, and what is signed.

use keybearer_contract::CredentialId;
use keybearer_contract::GrantId;
use keybearer_contract::Manifest;
use keybearer_contract::SlotName;

use super::*;
use crate::Approved;
use crate::Grant;
use crate::Terms;
use crate::clear::tests::Held;
use crate::clear::tests::facts;

const MANIFEST: &str = r#"
    [package]
    name = "stripe"
    version = "0.1.0"
    description = "d"
    [[slots]]
    name = "mac"
    description = "d"
    placement = { kind = "function", signs = { kind = "hmac", algorithm = "hmac-sha256", context = "orders-v1.", max_bytes = 8 } }
    [[slots]]
    name = "jwt"
    description = "d"
    placement = { kind = "function", signs = { kind = "jwt", algorithm = "ES256", claims = { iss = "us", aud = "them" }, may_claim = ["sub", "role"], lifetime_s = 60 } }
    [[slots]]
    name = "url"
    description = "d"
    placement = { kind = "function", signs = { kind = "sigv4", region = "eu-west-1", service = "s3", max_expires_s = 300 } }
    bindings = [{ host = "bucket.s3.eu-west-1.amazonaws.com", methods = ["GET"], paths = ["/reports/{key}"] }]
    [[slots]]
    name = "plain"
    description = "d"
    placement = { kind = "bearer" }
    bindings = [{ host = "api.stripe.com", methods = ["GET"], paths = ["/v1"] }]
"#;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST).expect("parses")
}

fn grant(facts: &Facts, slot: &str) -> Grant {
    let slot: SlotName = slot.parse().expect("name");
    Grant {
        id: GrantId::random(),
        tenant: facts.tenant.clone(),
        package: "stripe".parse().expect("name"),
        approved: Approved::of(&manifest(), facts.package, "s", &[], Some(&slot)).into(),
        slot: Some(slot),
        credential: Some(CredentialId::random()),
        base_url: None,
        actions: None,
        created: UnixMillis(1),
    }
}

fn asked_of(slot: &str, what: ToSign) -> GuestSignature {
    GuestSignature { slot: slot.to_owned(), what }
}

fn message(bytes: &[u8]) -> ToSign {
    ToSign::Message(bytes.to_vec())
}

fn claims(claims: &[(&str, &str)]) -> ToSign {
    ToSign::Claims(claims.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

fn url(method: Method, url: &str, expires_s: u32) -> ToSign {
    ToSign::Url { method, url: url.to_owned(), expires_s }
}

/// With every slot granted.
fn outcome(terms: &Terms, slot: &str, what: ToSign) -> Result<SigningWork, Refusal> {
    let facts = facts();
    let grants = ["mac", "jwt", "url", "plain"].map(|slot| grant(&facts, slot));
    let rights = Rights { grants: &grants, credentials: &Held(terms.clone()) };
    clear_signature(&facts, &manifest(), rights, asked_of(slot, what), NOW).map(|cleared| cleared.into_parts().2)
}

fn refused(slot: &str, what: ToSign) -> Refusal {
    outcome(&Terms::default(), slot, what).err().expect("refused")
}

const KEY: &str = "https://bucket.s3.eu-west-1.amazonaws.com/reports/2026";

#[test]
fn p09_a_message_is_signed_behind_the_context_of_its_slot_and_no_longer_than_it_says() {
    let Ok(SigningWork::Mac(bytes)) = outcome(&Terms::default(), "mac", message(b"12345678")) else {
        panic!("is cleared")
    };
    assert_eq!(bytes, b"orders-v1.12345678");
    assert!(matches!(refused("mac", message(b"123456789")), Refusal::MessageTooLarge { bytes_max: 8, .. }));
}

#[test]
fn p09_a_jwt_claims_what_its_slot_says_what_it_admits_and_what_the_host_adds() {
    let cleared = outcome(&Terms::default(), "jwt", claims(&[("sub", "order-7")]));
    let Ok(SigningWork::Jwt { algorithm: SigningAlgorithm::Es256, claims: text }) = cleared else {
        panic!("is cleared")
    };
    let mut said: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(said["jti"].take().as_str().map(str::len), Some(32));
    let expected = serde_json::json!({
        "iss": "us", "aud": "them", "sub": "order-7", "iat": 1_800_000_000, "exp": 1_800_000_060, "jti": null,
    });
    assert_eq!(said, expected);
    for name in ["iss", "aud", "exp", "iat", "nbf", "jti", "cnf", "scope", "", "sub "] {
        let refusal = refused("jwt", claims(&[("sub", "x"), (name, "1")]));
        assert_eq!(refusal, Refusal::ClaimNotAllowed { name: name.to_owned() });
    }
    let long = "x".repeat(513);
    for value in ["", "a\nb", "\u{e9}", long.as_str()] {
        assert_eq!(refused("jwt", claims(&[("sub", value)])), Refusal::MalformedClaim { index: 0 });
    }
    assert_eq!(refused("jwt", claims(&[("sub", "a"), ("sub", "b")])), Refusal::MalformedClaim { index: 1 });
}

#[test]
fn p09_a_url_is_signed_within_the_binding_of_its_slot_and_not_for_longer_than_it_says() {
    let Ok(SigningWork::Url(signed)) =
        outcome(&Terms::default(), "url", url(Method::Get, &format!("{KEY}?uploads"), 300))
    else {
        panic!("is cleared")
    };
    assert_eq!((signed.region.as_str(), signed.service.as_str(), signed.expires_s), ("eu-west-1", "s3", 300));
    assert_eq!((signed.path.as_str(), signed.query.as_deref()), ("/reports/2026", Some("uploads")));
    for (method, place) in [
        (Method::Put, KEY.to_owned()),
        (Method::Get, KEY.replace("reports", "other")),
        (Method::Get, format!("{KEY}/more")),
        (Method::Get, KEY.replace("bucket", "other")),
        (Method::Get, KEY.replace("eu-west-1", "us-east-1")),
        (Method::Get, "https://iam.amazonaws.com/reports/2026".to_owned()),
        (Method::Get, KEY.replace("https", "http")),
    ] {
        assert!(matches!(refused("url", url(method, &place, 60)), Refusal::NoBinding { .. }), "{place}");
    }
    for place in [
        KEY.replace("reports/", "reports/../"),
        KEY.replace("2026", ".."),
        KEY.replace("2026", "%2e%2e"),
        format!("{KEY}\r\nx: y"),
        format!("{KEY}#x"),
        KEY.replace("bucket", "u:p@bucket"),
        KEY.replace(".com/", ".com:443/"),
    ] {
        assert!(matches!(refused("url", url(Method::Get, &place, 60)), Refusal::NotCanonical { .. }), "{place}");
    }
    for query in [
        "X-Amz-Expires=604800",
        "prefix=b&x-amz-signature=00",
        "X%2DAmz-Credential=x",
        "X-Amz-Security-Token=t",
        "acl",
        "versionId=v",
        "x-amz-acl=public-read",
    ] {
        let refusal = refused("url", url(Method::Get, &format!("{KEY}?{query}"), 60));
        assert!(matches!(refusal, Refusal::ParameterNotAllowed { .. } | Refusal::NotCanonical { .. }), "{query}");
    }
    for expires_s in [0, 301, u32::MAX] {
        assert!(matches!(refused("url", url(Method::Get, KEY, expires_s)), Refusal::ExpiresOutOfRange { .. }));
    }
}

#[test]
fn p09_a_slot_signs_what_it_is_for_and_nothing_else() {
    let slot = |name: &str| Refusal::NotItsFunction { slot: name.parse().expect("name") };
    assert_eq!(refused("mac", claims(&[])), slot("mac"));
    assert_eq!(refused("jwt", message(b"a")), slot("jwt"));
    assert_eq!(refused("mac", url(Method::Get, KEY, 60)), slot("mac"));
    assert_eq!(refused("url", message(b"a")), slot("url"));
    assert_eq!(refused("plain", message(b"a")), slot("plain"));
    for unknown in ["other", "", "Mac", "mac\n", "../mac"] {
        assert_eq!(refused(unknown, message(b"a")), Refusal::NoSlot, "{unknown}");
    }
}

#[test]
fn p03_nothing_is_signed_without_a_grant_or_beyond_the_credentials_own_terms() {
    let facts = facts();
    let (mac, other) = (grant(&facts, "mac"), grant(&crate::clear::tests::facts(), "mac"));
    let of_another_tool = Grant { actions: Some(vec!["list".parse().expect("name")]), ..mac.clone() };
    let sign = |grants: &[Grant]| {
        let rights = Rights { grants, credentials: &Held(Terms::default()) };
        clear_signature(&facts, &manifest(), rights, asked_of("mac", message(b"a")), NOW).err()
    };
    assert_eq!(sign(std::slice::from_ref(&mac)), None);
    assert!(matches!(sign(&[]), Some(Refusal::NoGrant { .. })));
    assert!(matches!(sign(&[grant(&facts, "jwt")]), Some(Refusal::NoGrant { .. })));
    assert!(matches!(sign(&[other]), Some(Refusal::NoGrant { .. })), "another tenant's");
    assert!(matches!(sign(&[of_another_tool]), Some(Refusal::ActionNotGranted { .. })));
    let terms = |path: &str| {
        let text =
            format!(r#"[{{"host": "bucket.s3.eu-west-1.amazonaws.com", "methods": ["GET"], "paths": ["{path}"]}}]"#);
        Terms { binding: serde_json::from_str(&text).expect("parses"), ..Terms::default() }
    };
    let (wide, narrow) = (terms("/{rest...}"), terms("/reports/2025"));
    assert!(outcome(&wide, "url", url(Method::Get, KEY, 60)).is_ok());
    let outside = |outcome: Result<SigningWork, Refusal>| matches!(outcome, Err(Refusal::OutsideBinding { .. }));
    assert!(outside(outcome(&narrow, "url", url(Method::Get, KEY, 60))));
    assert!(outside(outcome(&wide, "mac", message(b"a"))) && outside(outcome(&wide, "jwt", claims(&[]))));
}

#[test]
fn a_record_knows_what_was_signed_and_does_not_say_it() {
    let facts = facts();
    let grants = ["mac", "url"].map(|slot| grant(&facts, slot));
    let rights = Rights { grants: &grants, credentials: &Held(Terms::default()) };
    let cleared =
        |asked| clear_signature(&facts, &manifest(), rights, asked, NOW).unwrap_or_else(|why| panic!("{why}"));
    let mac = cleared(asked_of("mac", message(b"a")));
    let key = [7; 32];
    assert_eq!(mac.signed(&key).blake3, blake3::keyed_hash(&key, b"orders-v1.a").to_string());
    assert_ne!(
        mac.signed(&key).blake3,
        blake3::hash(b"orders-v1.a").to_string(),
        "one of few texts is found by trying"
    );
    assert_ne!(mac.signed(&key).blake3, mac.signed(&[8; 32]).blake3, "another tenant's is another");
    assert_eq!(
        (mac.signed(&key).bytes, mac.method(), mac.place(&crate::NothingWithheld).as_str()),
        (11, None, "signing:mac")
    );
    let line = format!("{KEY}?uploads");
    let url = cleared(asked_of("url", url(Method::Get, &line, 60)));
    assert_eq!(url.signed(&key).blake3, blake3::keyed_hash(&key, format!("GET {line}").as_bytes()).to_string());
    assert_eq!((url.method(), url.place(&crate::NothingWithheld).as_str()), (Some(Method::Get), KEY));
}
