//! The digest that names a package: blake3 over component and manifest, each with its length in
//! front, so that no byte can move from one to the other.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

/// A blake3 digest, written `blake3:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// The text is not `blake3:` and 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a digest: it must be `blake3:` and 64 lower-case hex digits")]
pub struct DigestMalformed;

impl Digest {
    /// Separates this use of blake3 from every other one.
    const PACKAGE_CONTEXT: &'static str = "keybearer 2026-11 package digest: component and manifest";

    /// The digest of a package.
    #[must_use]
    pub fn of_package(component: &[u8], manifest: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(Self::PACKAGE_CONTEXT);
        for part in [component, manifest] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The digest's bytes, over which the signature is made.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hex digits, without what stands before them.
    #[must_use]
    pub fn to_hex(&self) -> impl std::ops::Deref<Target = str> {
        blake3::Hash::from(self.0).to_hex()
    }
}

/// What every digest's text begins with.
const PREFIX: &str = "blake3:";

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        formatter.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = DigestMalformed;

    fn from_str(text: &str) -> Result<Self, DigestMalformed> {
        let hex = text.strip_prefix(PREFIX).ok_or(DigestMalformed)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DigestMalformed);
        }
        blake3::Hash::from_hex(hex).map(|hash| Self(*hash.as_bytes())).map_err(|_| DigestMalformed)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestMalformed;

    fn try_from(text: String) -> Result<Self, DigestMalformed> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        [PREFIX, &digest.to_hex()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w09_a_byte_that_moves_between_component_and_manifest_changes_the_digest() {
        assert_ne!(Digest::of_package(b"ab", b"c"), Digest::of_package(b"a", b"bc"));
        let digest = Digest::of_package(b"ab", b"c");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
