//! A key that signs JWTs (ES256), and its public half in the forms that servers ask for. For assertions of
//! workloads and of OAuth clients; not for the tokens that the product must refuse.

use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;

/// The id of the one key.
const KEY_ID: &str = "tests";

/// Signs JWTs.
pub struct Signer {
    key: EcdsaKeyPair,
}

impl Signer {
    /// With a new key.
    ///
    /// # Errors
    /// If none can be made.
    pub fn new() -> anyhow::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("a new key")?;
        Ok(Self { key })
    }

    /// The private key, PKCS #8 in PEM.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn private_pem(&self) -> anyhow::Result<String> {
        Ok(pem("PRIVATE KEY", self.key.to_pkcs8v1().context("the private key")?.as_ref()))
    }

    /// The public key, SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// If it cannot be written down.
    pub fn public_pem(&self) -> anyhow::Result<String> {
        let der: PublicKeyX509Der<'_> = self.key.public_key().as_der().context("the public key")?;
        Ok(pem("PUBLIC KEY", der.as_ref()))
    }

    /// The set with the public key (RFC 7517).
    #[must_use]
    pub fn key_set(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.key.public_key().as_ref();
        let half = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (half(&point[1..33]), half(&point[33..65]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": KEY_ID, "x": x, "y": y}]})
    }

    /// The claims of an assertion that is good for five minutes and serves once: what a case changes, it
    /// changes there.
    #[must_use]
    pub fn claims(issuer: &str, subject: &str, audience: &str) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let id = crate::canary("");
        // OpenBao makes an `nbf` of its own where there is none: two and a half minutes before the end.
        json!({"iss": issuer, "sub": subject, "aud": audience, "nbf": now, "iat": now, "exp": now + 300, "jti": id})
    }

    /// A JWT with these claims and none else.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub fn jwt(&self, claims: &Value) -> anyhow::Result<String> {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).context("a signature")?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
