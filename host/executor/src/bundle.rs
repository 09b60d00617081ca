//! A bundle: a package as a file. Component and manifest under one digest, and an ed25519 signature
//! over that digest (RFC 8032). A bundle that parsed is whole: its digest was computed from its own
//! bytes and its signature holds; whether its signer is trusted is the operator's question.

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::UnparsedPublicKey;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Manifest;
use keybearer_contract::Problem;
use serde::Deserialize;
use serde::Serialize;
use zeroize::Zeroizing;

/// The largest component; what the sandbox is ready to compile.
pub const COMPONENT_BYTES_MAX: usize = 32 << 20;

/// The first bytes of a bundle: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"KBPKG\x00\x00\x01";

/// What is signed is the digest with this in front, so that the signature says nothing else.
const SIGNATURE_CONTEXT: &[u8] = b"keybearer 2026-11 package signature\0";

/// A package as a file.
pub struct Bundle {
    component: Vec<u8>,
    manifest_text: String,
    manifest: Manifest,
    digest: Digest,
    signature: Option<Signature>,
}

/// Who signed, and the signature: hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The ed25519 public key, hex.
    pub signer: String,
    /// The signature, hex.
    pub signature: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    component: Vec<u8>,
    manifest: String,
    signature: Option<Signature>,
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::PackageInvalid, detail)
}

impl Bundle {
    /// Packs a component and its manifest.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`] if the manifest is refused or the component is no component.
    pub fn unsigned(component: Vec<u8>, manifest_text: String) -> Result<Self, Problem> {
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(
                invalid("the component is larger than 32 MiB").at_limit("component_bytes", COMPONENT_BYTES_MAX as u64)
            );
        }
        // The preamble of a component (layer 1), not of a core module (layer 0).
        if component.get(..8) != Some(b"\0asm\x0d\0\x01\0") {
            return Err(invalid("this is not a WebAssembly component: build one with `keybearer tool build`"));
        }
        let manifest = Manifest::parse(&manifest_text).map_err(|error| invalid(error.to_string()))?;
        let digest = Digest::of_package(&component, manifest_text.as_bytes());
        Ok(Self { component, manifest_text, manifest, digest, signature: None })
    }

    /// Signs the digest.
    pub fn sign(&mut self, key: &SigningKey) {
        self.signature =
            Some(Signature { signer: key.public(), signature: hex(key.0.sign(&signed_bytes(&self.digest)).as_ref()) });
    }

    /// Reads a bundle and verifies its signature, if it has one.
    ///
    /// # Errors
    /// [`Code::PackageInvalid`], or [`Code::SignatureRefused`] if the signature does not hold.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Problem> {
        let mut body = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| invalid("this is not a Keybearer package: make one with `keybearer tool pack`"))?;
        let damaged = || invalid("the package is cut short or damaged");
        let wire: Wire = rmp_serde::from_read(&mut body).map_err(|_| damaged())?;
        if !body.is_empty() {
            // What follows is covered by no signature.
            return Err(damaged());
        }
        let mut bundle = Self::unsigned(wire.component, wire.manifest)?;
        if let Some(signature) = wire.signature {
            let refused =
                || Problem::new(Code::SignatureRefused, "the signature does not hold for this component and manifest");
            let signer = unhex(&signature.signer).ok_or_else(refused)?;
            let value = unhex(&signature.signature).ok_or_else(refused)?;
            UnparsedPublicKey::new(&ED25519, signer)
                .verify(&signed_bytes(&bundle.digest), &value)
                .map_err(|_| refused())?;
            bundle.signature = Some(signature);
        }
        Ok(bundle)
    }

    /// The bundle as a file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire =
            WireRef { component: &self.component, manifest: &self.manifest_text, signature: self.signature.as_ref() };
        let mut bytes = MAGIC.to_vec();
        bytes.extend(rmp_serde::to_vec_named(&wire).expect("plain data serialises"));
        bytes
    }

    /// The digest over component and manifest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The component.
    #[must_use]
    pub fn component(&self) -> &[u8] {
        &self.component
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest as written.
    #[must_use]
    pub fn manifest_text(&self) -> &str {
        &self.manifest_text
    }

    /// The signature, verified; none on an unsigned bundle.
    #[must_use]
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }
}

#[derive(Serialize)]
struct WireRef<'bundle> {
    component: &'bundle [u8],
    manifest: &'bundle str,
    signature: Option<&'bundle Signature>,
}

fn signed_bytes(digest: &Digest) -> Vec<u8> {
    [SIGNATURE_CONTEXT, digest.as_bytes()].concat()
}

/// A publisher's ed25519 key.
pub struct SigningKey(Ed25519KeyPair);

/// A key file cannot be used; says why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefused {
    /// It cannot be read or written.
    #[error("the key file cannot be used: {0}")]
    File(#[from] std::io::Error),
    /// It is no key.
    #[error("this is not a signing key: make one with `keybearer tool keygen`")]
    Malformed,
}

impl SigningKey {
    /// Makes a key and writes it to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`KeyRefused::File`] if the file exists or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyRefused> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *seed).map_err(|_| KeyRefused::Malformed)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let text = Zeroizing::new(format!("keybearer-signing-key:{}\n", &*Zeroizing::new(hex(&*seed))));
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Self::from_seed(&*seed)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyRefused`] if it cannot be read or is no key.
    pub fn from_file(path: &Path) -> Result<Self, KeyRefused> {
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(path)?.take(4096).read_to_string(&mut text)?;
        let body = text.trim().strip_prefix("keybearer-signing-key:").ok_or(KeyRefused::Malformed)?;
        Self::from_seed(&Zeroizing::new(unhex(body).ok_or(KeyRefused::Malformed)?))
    }

    fn from_seed(seed: &[u8]) -> Result<Self, KeyRefused> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyRefused::Malformed)
    }

    /// The public half, hex: what an operator lists under `trusted_signers`.
    #[must_use]
    pub fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0rest";
    const MANIFEST: &str = "[package]\nname = \"a\"\nversion = \"1.0.0\"\ndescription = \"d\"\n";

    fn signed() -> Vec<u8> {
        let folder = tempfile::tempdir().expect("folder");
        let key = SigningKey::generate(&folder.path().join("key")).expect("key");
        let again = SigningKey::from_file(&folder.path().join("key")).expect("reads");
        assert_eq!(key.public(), again.public());
        let mut bundle = Bundle::unsigned(COMPONENT.to_vec(), MANIFEST.to_owned()).expect("packs");
        bundle.sign(&key);
        bundle.to_bytes()
    }

    #[test]
    fn a_signed_bundle_reads_back_with_the_same_digest() {
        let bundle = Bundle::from_bytes(&signed()).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(bundle.digest(), Digest::of_package(COMPONENT, MANIFEST.as_bytes()));
        assert!(bundle.signature().is_some());
    }

    #[test]
    fn w01_w10_a_bundle_with_any_byte_changed_or_missing_is_refused() {
        let good = signed();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            let same_meaning = Bundle::from_bytes(&bad).is_ok_and(|bundle| bundle.signature().is_some());
            assert!(!same_meaning, "byte {index} changed");
            assert!(Bundle::from_bytes(&good[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn w01_a_core_module_and_other_bytes_are_refused() {
        for bad in [&b""[..], b"\0asm\x01\0\0\0", b"\x7fELF", b"random bytes"] {
            assert!(Bundle::unsigned(bad.to_vec(), MANIFEST.to_owned()).is_err());
        }
    }
}
