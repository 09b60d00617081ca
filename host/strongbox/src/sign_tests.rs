//! Signing, against keys that were made here and vectors of the RFCs.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
use aws_lc_rs::signature::UnparsedPublicKey;

use super::*;

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

fn claims() -> Map<String, Value> {
    Map::from_iter([("iss".to_owned(), Value::from("client"))])
}

/// What is signed, and the signature.
fn parts(jwt: &Secret) -> (Vec<u8>, Vec<u8>) {
    let text = std::str::from_utf8(jwt.expose()).expect("ASCII");
    let (signed, signature) = text.rsplit_once('.').expect("three parts");
    (signed.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature).expect("base64url"))
}

#[test]
fn a_jwt_verifies_with_the_public_half_of_the_key_that_is_stored() {
    let es = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("made");
    let ed = Ed25519KeyPair::generate().expect("made");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("made");
    type Row<'key> = (SigningAlgorithm, Vec<u8>, &'key [u8], &'static dyn aws_lc_rs::signature::VerificationAlgorithm);
    let keys: [Row<'_>; 3] = [
        (
            SigningAlgorithm::Es256,
            pem("PRIVATE KEY", es.to_pkcs8v1().expect("der").as_ref()),
            es.public_key().as_ref(),
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            SigningAlgorithm::EdDsa,
            pem("PRIVATE KEY", ed.to_pkcs8().expect("der").as_ref()),
            ed.public_key().as_ref(),
            &ED25519,
        ),
        (
            SigningAlgorithm::Rs256,
            pem("PRIVATE KEY", AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).expect("der").as_ref()),
            rsa.public_key().as_ref(),
            &RSA_PKCS1_2048_8192_SHA256,
        ),
    ];
    for (alg, key, public, verifies) in keys {
        let jwt = sign_jwt(alg, &key, Map::new(), &claims()).expect("signed");
        let (signed, signature) = parts(&jwt);
        let key = UnparsedPublicKey::new(verifies, public);
        assert!(key.verify(&signed, &signature).is_ok(), "{alg:?}");
        let header = signed.split(|byte| *byte == b'.').next().expect("a header");
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("JSON");
        assert_eq!(header, serde_json::json!({"alg": alg.as_str(), "typ": "JWT"}));
    }
}

#[test]
fn a_jwk_signs_as_its_pem_does() {
    // RFC 8037 appendix A.1 and A.4: Ed25519 is deterministic.
    let jwk = br#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let key = SigningKey::read(SigningAlgorithm::EdDsa, jwk).expect("a key");
    let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(URL_SAFE_NO_PAD.encode(key.sign(signed).expect("signed")), signature);
    // RFC 7515 appendix A.3.1.
    let jwk = br#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
    assert!(SigningKey::read(SigningAlgorithm::Es256, jwk).is_ok());
    assert!(SigningKey::read(SigningAlgorithm::EdDsa, jwk).is_err(), "a key serves its own algorithm only");
}

#[test]
fn what_is_no_private_key_is_refused() {
    for text in ["", "a client secret, no key", "{}", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
        assert!(SigningKey::read(SigningAlgorithm::Es256, text.as_bytes()).is_err(), "{text}");
    }
}
