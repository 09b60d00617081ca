//! A JWT as a placement: what it claims, how it is signed, and how long it is good for. Not for making it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// The most claims that a manifest fixes.
const CLAIMS_MAX: usize = 8;

/// The longest name of a claim, in bytes; a name may be a URL (RFC 7519 §4.2).
const CLAIM_NAME_BYTES_MAX: usize = 128;

/// The longest value of a claim, in bytes.
const CLAIM_BYTES_MAX: usize = 512;

/// The longest time that a JWT is good for, in seconds: what its upstreams take at most.
const LIFETIME_S_MAX: u32 = 3_600;

/// The host's to say: when it is good, which one it is, and whose key confirms it (RFC 7519 §4.1, RFC 7800 §3.1).
const HOST_CLAIMS: &[&str] = &["iat", "exp", "nbf", "jti", "cnf"];

/// A JWT that the host signs anew for each request (RFC 7519), as `Authorization: Bearer …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// How it is signed.
    pub algorithm: SigningAlgorithm,
    /// What it claims, beside `iat`, `exp` and `jti`, which the host sets.
    pub claims: BTreeMap<String, String>,
    /// From `iat` to `exp`, in seconds; at most an hour.
    pub lifetime_s: u32,
}

/// How a JWT is signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

impl SigningAlgorithm {
    /// The header's `alg`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
        }
    }
}

impl Jwt {
    /// Whether a manifest may say this.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        check(&self.claims, self.lifetime_s)
    }
}

/// Whether a manifest may fix these claims, for so many seconds.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn check(claims: &BTreeMap<String, String>, lifetime_s: u32) -> Result<(), String> {
    if !(1..=LIFETIME_S_MAX).contains(&lifetime_s) {
        return Err(format!("a JWT is good for 1 to {LIFETIME_S_MAX} seconds"));
    }
    if !(1..=CLAIMS_MAX).contains(&claims.len()) {
        return Err(format!("a JWT claims 1 to {CLAIMS_MAX} things"));
    }
    if let Some(name) = claims.keys().find(|name| is_hosts(name)) {
        return Err(format!("the claim `{name}` is for the host to set"));
    }
    if claims.iter().all(|(name, value)| is_name(name) && is_claim_text(value)) {
        Ok(())
    } else {
        Err(format!(
            "a claim is printable ASCII: a name of at most {CLAIM_NAME_BYTES_MAX} characters, a text of at most {CLAIM_BYTES_MAX}"
        ))
    }
}

/// Whether only the host may set this claim.
pub(super) fn is_hosts(name: &str) -> bool {
    HOST_CLAIMS.contains(&name)
}

/// Whether it is fit for the name of a claim.
pub(super) fn is_name(name: &str) -> bool {
    is_text(name, CLAIM_NAME_BYTES_MAX)
}

/// Whether a text is fit for what a JWT claims: printable ASCII, bounded, and not empty.
#[must_use]
pub fn is_claim_text(text: &str) -> bool {
    is_text(text, CLAIM_BYTES_MAX)
}

fn is_text(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}
