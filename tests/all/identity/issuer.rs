//! An issuer of JWTs as the cases need it: three keys, their public halves as a set, and tokens of any
//! shape, good or bad.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;

/// Keys of the three kinds.
pub(super) struct Issuer {
    rsa: signature::RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

pub(super) const ISSUER: &str = "https://login.example.com/";
pub(super) const AUDIENCE: &str = "keybearer";

pub(super) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map(|now| now.as_secs()).unwrap_or_default()
}

/// The claims of a token that is accepted, for an organisation.
pub(super) fn claims(org: &str) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "agent-7", "org_id": org, "iat": now(), "exp": now() + 600,
    })
}

impl Issuer {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            rsa: signature::RsaKeyPair::generate(KeySize::Rsa2048)?,
            ec: EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?,
            ed: Ed25519KeyPair::generate()?,
        })
    }

    /// The public halves (RFC 7517).
    pub(super) fn key_set(&self) -> anyhow::Result<Value> {
        // PKCS #1 (RFC 8017 A.1.1) of 2048 bits: two lengths of two bytes, the modulus, and 65537.
        let rsa = self.rsa.public_key().as_ref();
        anyhow::ensure!(rsa.len() == 270, "a key of 2048 bits");
        let ec = self.ec.public_key().as_ref();
        Ok(json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": base64(&rsa[9..265]), "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "x": base64(&ec[1..33]), "y": base64(&ec[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": base64(self.ed.public_key())},
        ]}))
    }

    /// A token of one of the keys, with the header that belongs to it.
    pub(super) fn token(&self, kid: &str, claims: &Value) -> anyhow::Result<String> {
        let algorithm = match kid {
            "rsa" => "RS256",
            "ec" => "ES256",
            _ => "EdDSA",
        };
        self.signed(kid, &json!({"alg": algorithm, "kid": kid, "typ": "JWT"}).to_string(), &claims.to_string())
    }

    /// Any header and any claims, signed with the key of this id.
    pub(super) fn signed(&self, kid: &str, header: &str, claims: &str) -> anyhow::Result<String> {
        let message = format!("{}.{}", base64(header), base64(claims));
        let random = SystemRandom::new();
        let signature = match kid {
            "rsa" => {
                let mut bytes = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut bytes)?;
                bytes
            }
            "ec" => self.ec.sign(&random, message.as_bytes())?.as_ref().to_vec(),
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        Ok(format!("{message}.{}", base64(signature)))
    }

    /// Signed with HMAC, and the public key as the shared one.
    pub(super) fn confused(&self, claims: &Value) -> anyhow::Result<Vec<String>> {
        let ec = self.ec.public_key().as_der()?;
        let keys = [self.rsa.public_key().as_ref(), self.ed.public_key().as_ref(), ec.as_ref()];
        let header = |kid: &str| base64(json!({"alg": "HS256", "kid": kid, "typ": "JWT"}).to_string());
        let sign = |key: &&[u8], kid| {
            let message = format!("{}.{}", header(kid), base64(claims.to_string()));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
            format!("{message}.{}", base64(tag))
        };
        Ok(keys.iter().zip(["rsa", "ed", "ec"]).map(|(key, kid)| sign(key, kid)).collect())
    }
}
