//! Tests of JWTs: every case of T02 once, each against a token that would be taken without it.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::RsaKeyPair;
use jsonwebtoken::EncodingKey;
use serde_json::json;

use super::*;
use crate::Scope;

const NOW_S: u64 = 1_700_000_000;

/// One key of each kind, made once: an RSA key takes a while.
struct Keys {
    ed: EncodingKey,
    ec: EncodingKey,
    rsa: EncodingKey,
    rsa_modulus: Vec<u8>,
    set: JwkSet,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let ed = Ed25519KeyPair::generate().expect("made");
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("made");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("made");
    let point = ec.public_key().as_ref();
    let modulus = rsa.public_key().modulus().big_endian_without_leading_zero().to_vec();
    let exponent = rsa.public_key().exponent().big_endian_without_leading_zero().to_vec();
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "use": "sig", "alg": "EdDSA", "x": text(ed.public_key().as_ref())},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": text(&point[1..33]), "y": text(&point[33..])},
        {"kty": "RSA", "kid": "rsa", "n": text(&modulus), "e": text(&exponent)},
        {"kty": "RSA", "kid": "encryption", "use": "enc", "n": text(&modulus), "e": text(&exponent)},
        {"kty": "oct", "kid": "shared", "k": text(b"a shared secret, which no set should hold")},
        {"kty": "something new", "kid": "new"},
    ]});
    let ed_der = ed.to_pkcs8v1().expect("der");
    let ec_der = ec.to_pkcs8v1().expect("der");
    let rsa_der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = rsa.as_der().expect("der");
    Keys {
        ed: EncodingKey::from_ed_der(ed_der.as_ref()),
        ec: EncodingKey::from_ec_der(ec_der.as_ref()),
        // What is asked for here is the PKCS#1 key that PKCS#8 wraps in 26 bytes of a fixed form.
        rsa: EncodingKey::from_rsa_der(&rsa_der.as_ref()[26..]),
        rsa_modulus: modulus,
        set: JwkSet::parse(set.to_string().as_bytes()).expect("parses"),
    }
});

struct OneIssuer;

impl JwtKeys for OneIssuer {
    fn key(&self, issuer: &str, kid: &str) -> Option<Arc<VerifyingKey>> {
        if issuer == "https://issuer.example" { KEYS.set.key(kid) } else { None }
    }
}

static TENANT: LazyLock<TenantId> = LazyLock::new(TenantId::random);

fn issuer(algorithms: &[JwtAlgorithm]) -> JwtIssuer {
    JwtIssuer {
        issuer: "https://issuer.example".to_owned(),
        audience: "keybearer".to_owned(),
        algorithms: algorithms.to_vec(),
        tenant_claim: "org".to_owned(),
        tenants: HashMap::from([("acme".to_owned(), TENANT.clone()), ("caf\u{e9}".to_owned(), TENANT.clone())]),
        scopes: Scopes::of(&[Scope::Call]),
    }
}

fn all() -> Vec<JwtIssuer> {
    vec![issuer(&[JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa])]
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": "keybearer",
        "sub": "agent-7",
        "org": "acme",
        "iat": NOW_S - 10,
        "exp": NOW_S + 300,
    })
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().expect("an object").remove(name).expect("it was there");
    object
}

/// Signs whatever texts it is given, well-formed or not.
fn sign(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("signed");
    format!("{message}.{signature}")
}

fn ed(header: &Value, claims: &Value) -> String {
    sign(&header.to_string(), &claims.to_string(), &KEYS.ed, Algorithm::EdDSA)
}

fn verdict(token: &str) -> Result<Principal, Unauthenticated> {
    authenticate_jwt(token, &all(), &OneIssuer, UnixMillis(NOW_S * 1000))
}

#[track_caller]
fn refused(token: &str) {
    assert!(verdict(token).is_err(), "it was taken");
}

#[test]
fn a_token_of_each_algorithm_becomes_its_tenants_principal() {
    for (name, kid, key, algorithm) in [
        ("EdDSA", "ed", &KEYS.ed, Algorithm::EdDSA),
        ("ES256", "ec", &KEYS.ec, Algorithm::ES256),
        ("RS256", "rsa", &KEYS.rsa, Algorithm::RS256),
    ] {
        let token = sign(&json!({"alg": name, "kid": kid}).to_string(), &claims().to_string(), key, algorithm);
        let principal = verdict(&token).unwrap_or_else(|_| panic!("{name} is refused"));
        assert_eq!(principal.tenant, *TENANT);
        assert_eq!(principal.label.as_str(), "jwt:https://issuer.example#agent-7");
        assert_eq!(principal.issued, UnixMillis((NOW_S - 10) * 1000));
        assert!(principal.scopes.has(Scope::Call) && !principal.scopes.has(Scope::Tokens));
    }
}

#[test]
fn t02_an_algorithm_that_is_not_configured_is_refused() {
    let token = ed(&header(), &claims());
    let only_rsa = [issuer(&[JwtAlgorithm::Rs256])];
    assert!(authenticate_jwt(&token, &only_rsa, &OneIssuer, UnixMillis(NOW_S * 1000)).is_err());
    for name in ["none", "None", "NONE", "HS256", "eddsa", "ES512", ""] {
        refused(&ed(&with(header(), "alg", json!(name)), &claims()));
    }
    let unsigned = ed(&with(header(), "alg", json!("none")), &claims());
    refused(&format!("{}.", unsigned.rsplit_once('.').expect("three parts").0));
    refused(unsigned.rsplit_once('.').expect("three parts").0);
}

#[test]
fn t02_a_public_key_is_never_taken_for_a_shared_one() {
    let shared = EncodingKey::from_secret(&KEYS.rsa_modulus);
    for name in ["HS256", "RS256"] {
        let header = json!({"alg": name, "kid": "rsa"}).to_string();
        refused(&sign(&header, &claims().to_string(), &shared, Algorithm::HS256));
    }
    // A key serves its own algorithm only, and one for encryption or of a shared secret is not there.
    refused(&ed(&with(header(), "kid", json!("rsa")), &claims()));
    refused(&sign(
        &json!({"alg": "RS256", "kid": "encryption"}).to_string(),
        &claims().to_string(),
        &KEYS.rsa,
        Algorithm::RS256,
    ));
    assert!(KEYS.set.key("shared").is_none() && KEYS.set.key("new").is_none());
}

#[test]
fn t02_a_key_that_the_token_brings_or_points_to_is_refused() {
    for name in ["jku", "x5u", "jwk", "x5c", "crit", "b64", "enc", "zip", "cty"] {
        refused(&ed(&with(header(), name, json!("https://evil.example/keys")), &claims()));
    }
    for kid in ["../../dev/null", "ed' OR '1'='1", "https://evil.example/k", "ed\0", "", "ED", &"e".repeat(129)] {
        refused(&ed(&with(header(), "kid", json!(kid)), &claims()));
    }
    refused(&ed(&without(header(), "kid"), &claims()));
    refused(&ed(&with(header(), "typ", json!("logout+jwt")), &claims()));
    assert!(verdict(&ed(&with(header(), "typ", json!("at+JWT")), &claims())).is_ok());
}

#[test]
fn t02_a_token_counts_from_its_beginning_to_its_end() {
    let at = |name: &str, seconds: u64| verdict(&ed(&header(), &with(claims(), name, json!(seconds)))).is_ok();
    assert!(!at("exp", NOW_S - 30) && at("exp", NOW_S - 5));
    assert!(!at("nbf", NOW_S + 31) && at("nbf", NOW_S + 30));
    assert!(!at("iat", NOW_S + 31) && at("iat", NOW_S + 30));
    refused(&ed(&header(), &with(claims(), "exp", json!(NOW_S - 10))));
    for name in ["exp", "nbf", "iat"] {
        for bad in [json!("1700000300"), json!(1_700_000_300.5), json!(-1), json!(null), json!([1])] {
            refused(&ed(&header(), &with(claims(), name, bad)));
        }
    }
}

#[test]
fn t02_every_required_claim_is_required() {
    for name in ["exp", "iat", "iss", "aud", "sub", "org"] {
        refused(&ed(&header(), &without(claims(), name)));
        refused(&ed(&header(), &with(claims(), name, json!(""))));
    }
}

#[test]
fn t02_issuer_and_audience_are_exact_and_single() {
    for (name, bad) in [
        ("iss", json!("https://issuer.example/")),
        ("iss", json!("https://other.example")),
        ("iss", json!(["https://issuer.example"])),
        ("aud", json!("keybearer2")),
        ("aud", json!(["keybearer"])),
        ("aud", json!(["keybearer", "other"])),
    ] {
        refused(&ed(&header(), &with(claims(), name, bad)));
    }
}

#[test]
fn t02_the_tenant_claim_is_one_exact_string() {
    for bad in [
        json!(""),
        json!(["acme"]),
        json!({"acme": true}),
        json!(7),
        json!("Acme"),
        json!("acme "),
        json!("acme\u{200b}"),
        json!("x/../acme"),
        json!("\u{ff41}cme"),
        // The same letters, composed otherwise.
        json!("cafe\u{301}"),
        json!(TENANT.as_str()),
    ] {
        refused(&ed(&header(), &with(claims(), "org", bad)));
    }
    assert!(verdict(&ed(&header(), &with(claims(), "org", json!("caf\u{e9}")))).is_ok());
}

#[test]
fn t02_a_member_given_twice_is_refused() {
    for (from, to) in [
        ("\"org\":\"acme\"", "\"org\":\"globex\",\"org\":\"acme\""),
        ("\"org\":\"acme\"", "\"org\":\"acme\",\"\\u006frg\":\"acme\""),
        ("\"aud\":\"keybearer\"", "\"aud\":\"other\",\"aud\":\"keybearer\""),
    ] {
        let twice = claims().to_string().replace(from, to);
        assert_ne!(twice, claims().to_string());
        refused(&sign(&header().to_string(), &twice, &KEYS.ed, Algorithm::EdDSA));
    }
    let header = r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#;
    refused(&sign(header, &claims().to_string(), &KEYS.ed, Algorithm::EdDSA));
}

#[test]
fn t02_what_is_huge_or_encrypted_or_not_a_token_is_refused() {
    let large = with(claims(), "padding", json!("x".repeat(TOKEN_BYTES_MAX)));
    refused(&ed(&header(), &large));
    let token = ed(&header(), &claims());
    refused(&format!("{token}.{}.{}", "AA", "AA"));
    for bad in ["", ".", "..", "a.b.c", "é.é.é", &format!("{token} "), &format!("{token}="), &format!(" {token}")] {
        refused(bad);
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    refused(&sign(&header().to_string(), &deep, &KEYS.ed, Algorithm::EdDSA));
}

#[test]
fn t02_a_token_with_one_character_changed_is_refused() {
    let token = ed(&header(), &claims());
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        refused(&String::from_utf8(bytes).expect("ascii"));
    }
}

#[test]
fn every_refusal_says_the_same() {
    let texts = ["", "a.b.c", &ed(&header(), &with(claims(), "exp", json!(1)))]
        .map(|token| verdict(token).err().map(|error| error.to_string()));
    assert!(texts.iter().all(|text| text.is_some() && *text == texts[0]));
}

#[test]
fn a_set_of_keys_that_is_ambiguous_or_too_large_is_refused() {
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": URL_SAFE_NO_PAD.encode([1; 32])});
    let parse = |keys: Value| JwkSet::parse(json!({"keys": keys}).to_string().as_bytes()).map(|_| ());
    assert_eq!(parse(json!([key])), Ok(()));
    assert!(parse(json!([key, key])).is_err());
    assert!(parse(json!([])).is_err());
    assert!(parse(json!(vec![json!({"kty": "x"}); 65])).is_err());
    assert!(JwkSet::parse(&[b' '; SET_BYTES_MAX + 1]).is_err());
    for (name, bad) in [("x", json!("AAAA")), ("kid", json!("../a")), ("alg", json!("ES256")), ("use", json!("enc"))] {
        assert!(parse(json!([with(key.clone(), name, bad)])).is_err(), "{name}");
    }
}
