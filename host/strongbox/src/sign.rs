//! Signing with a stored private key: a key is read from PEM or a JWK, used once, and dropped; what comes out is a
//! signature or a JWT. Not for deciding what is signed: that stands in an exchange or a slot.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use aws_lc_rs::signature::RsaKeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_contract::SigningAlgorithm;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The bytes are no private key for that algorithm, or nothing can be signed with them. Which is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAKey;

/// A private key, ready to sign by one algorithm. The library holds it, and wipes it.
pub(crate) enum SigningKey {
    Es256(Box<EcdsaKeyPair>),
    EdDsa(Box<Ed25519KeyPair>),
    Rs256(Box<RsaKeyPair>),
}

impl SigningKey {
    /// Reads a key: PEM of PKCS#8, of SEC1 or of PKCS#1; or a JWK of an elliptic curve (RFC 7518 §6.2, RFC 8037 §2).
    ///
    /// # Errors
    /// [`NotAKey`], also for an RSA key of less than 2048 bits.
    pub(crate) fn read(alg: SigningAlgorithm, text: &[u8]) -> Result<Self, NotAKey> {
        let text = std::str::from_utf8(text).map_err(|_| NotAKey)?.trim();
        if text.starts_with('{') {
            return of_jwk(alg, text);
        }
        let (label, der) = of_pem(text)?;
        let read = match (alg, label) {
            (SigningAlgorithm::Es256, "PRIVATE KEY") => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).map(|key| Self::Es256(Box::new(key)))
            }
            (SigningAlgorithm::Es256, "EC PRIVATE KEY") => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                    .map(|key| Self::Es256(Box::new(key)))
            }
            (SigningAlgorithm::EdDsa, "PRIVATE KEY") => {
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map(|key| Self::EdDsa(Box::new(key)))
            }
            (SigningAlgorithm::Rs256, "PRIVATE KEY") => {
                RsaKeyPair::from_pkcs8(&der).map(|key| Self::Rs256(Box::new(key)))
            }
            (SigningAlgorithm::Rs256, "RSA PRIVATE KEY") => {
                RsaKeyPair::from_der(&der).map(|key| Self::Rs256(Box::new(key)))
            }
            _ => return Err(NotAKey),
        };
        read.map_err(|_| NotAKey)
    }

    /// Signs.
    ///
    /// # Errors
    /// [`NotAKey`] if the library cannot.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotAKey> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => {
                key.sign(&random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| NotAKey)
            }
            Self::EdDsa(key) => Ok(key.sign(message).as_ref().to_vec()),
            Self::Rs256(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(|_| NotAKey)?;
                Ok(signature)
            }
        }
    }
}

/// A signed JWT (RFC 7519), whole. `header` is what its header holds beside `alg`; `typ` if nothing else is said.
///
/// # Errors
/// [`NotAKey`].
pub(crate) fn sign_jwt(
    alg: SigningAlgorithm,
    key: &[u8],
    header: Map<String, Value>,
    claims: &Map<String, Value>,
) -> Result<Secret, NotAKey> {
    sign_claims(alg, key, header, &serde_json::to_vec(claims).map_err(|_| NotAKey)?)
}

/// The same, of claims that are written down already.
///
/// # Errors
/// [`NotAKey`].
pub(crate) fn sign_claims(
    alg: SigningAlgorithm,
    key: &[u8],
    mut header: Map<String, Value>,
    claims: &[u8],
) -> Result<Secret, NotAKey> {
    header.insert("alg".to_owned(), alg.as_str().into());
    header.entry("typ").or_insert_with(|| "JWT".into());
    let header = serde_json::to_vec(&header).map_err(|_| NotAKey)?;
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = SigningKey::read(alg, key)?.sign(signed.as_bytes())?;
    Ok(Secret::take(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into_bytes()))
}

/// The label and the bytes of the first block (RFC 7468), which must be a private key that is not encrypted.
fn of_pem(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), NotAKey> {
    let (_, rest) = text.split_once("-----BEGIN ").ok_or(NotAKey)?;
    let (label, rest) = rest.split_once("-----").ok_or(NotAKey)?;
    let (body, _) = rest.split_once("-----END ").ok_or(NotAKey)?;
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.chars().filter(|character| !character.is_ascii_whitespace()));
    let mut der = Zeroizing::new(Vec::with_capacity(body.len()));
    STANDARD.decode_vec(base64.as_bytes(), &mut der).map_err(|_| NotAKey)?;
    Ok((label, der))
}

/// What of a JWK is needed; everything else is passed over.
#[derive(Deserialize)]
struct Jwk<'text> {
    kty: &'text str,
    crv: &'text str,
    d: &'text str,
    x: &'text str,
    #[serde(default)]
    y: &'text str,
}

fn of_jwk(alg: SigningAlgorithm, text: &str) -> Result<SigningKey, NotAKey> {
    let jwk: Jwk<'_> = serde_json::from_str(text).map_err(|_| NotAKey)?;
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map(Zeroizing::new).map_err(|_| NotAKey);
    let (private, x) = (bytes(jwk.d)?, bytes(jwk.x)?);
    match (alg, jwk.kty, jwk.crv) {
        (SigningAlgorithm::Es256, "EC", "P-256") => {
            // SEC 1 §2.3.3: uncompressed.
            let public = [&[4][..], &x, &bytes(jwk.y)?].concat();
            let key =
                EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &public);
            key.map(|key| SigningKey::Es256(Box::new(key))).map_err(|_| NotAKey)
        }
        (SigningAlgorithm::EdDsa, "OKP", "Ed25519") => {
            let key = Ed25519KeyPair::from_seed_and_public_key(&private, &x);
            key.map(|key| SigningKey::EdDsa(Box::new(key))).map_err(|_| NotAKey)
        }
        _ => Err(NotAKey),
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;
