//! Sealing: AES-256-GCM under a random 96-bit nonce. A sealed thing is bound by its associated data to
//! what it is and whose it is, so that it opens nowhere else, even for who can write to the store.
//!
//! A random nonce is safe for about 2^32 seals by one key (NIST SP 800-38D §8.3). Keys are one a
//! tenant and use, so that a tenant would have to make a thousand calls a second for fifty days.

use std::fs::File;
use std::io;
use std::io::Write as _;

use aws_lc_rs::aead::AES_256_GCM;
use aws_lc_rs::aead::Aad;
use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::aead::NONCE_LEN;
use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::UnboundKey;
use keybearer_contract::CredentialId;
use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use zeroize::Zeroize as _;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Format, key id, nonce; then the ciphertext with its tag of 16 bytes.
const FORMAT: u8 = 1;
const KEY_ID_BYTES: usize = 8;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;

/// Which key sealed: derived from the key, so that it needs no record.
pub(crate) type KeyId = [u8; KEY_ID_BYTES];

/// The bytes are damaged, of another key, or belong to another tenant, credential, version or use.
/// Which of these is not said: it is one refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed bytes do not open here: they are damaged, of another key, or belong elsewhere")]
pub struct SealBroken;

/// A key that seals and opens.
pub(crate) struct SealingKey {
    id: KeyId,
    key: LessSafeKey,
}

impl SealingKey {
    /// `secret` is 32 bytes: every caller makes or has checked them.
    pub(crate) fn new(secret: &Secret) -> Self {
        let derived = blake3::derive_key("keybearer 2026-11 key id", secret.expose());
        let mut id = KeyId::default();
        id.copy_from_slice(&derived[..KEY_ID_BYTES]);
        let key = UnboundKey::new(&AES_256_GCM, secret.expose()).expect("an AES-256 key has 32 bytes");
        Self { id, key: LessSafeKey::new(key) }
    }

    pub(crate) fn id(&self) -> KeyId {
        self.id
    }

    pub(crate) fn seal(&self, aad: &[u8], plain: &[u8]) -> Sealed {
        let mut nonce = [0_u8; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the kernel's random source does not fail once seeded");
        // Reserved whole, so that the plain bytes are never moved while they are still plain.
        let mut sealed = Vec::with_capacity(HEAD_BYTES + plain.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed[HEAD_BYTES..])
            .expect("AES-GCM seals anything shorter than 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        Sealed(sealed.into())
    }

    pub(crate) fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Secret, SealBroken> {
        if key_id_of(sealed) != Some(self.id) {
            return Err(SealBroken);
        }
        let (head, body) = sealed.0.split_at(HEAD_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + KEY_ID_BYTES..]).map_err(|_| SealBroken)?;
        let mut bytes = Zeroizing::new(body.to_vec());
        let plain = self.key.open_in_place(nonce, Aad::from(aad), &mut bytes).map_err(|_| SealBroken)?;
        let secret = Secret::take(plain.to_vec());
        plain.zeroize();
        Ok(secret)
    }
}

/// The id of the key that sealed this; none if it is not sealed bytes at all.
pub(crate) fn key_id_of(sealed: &Sealed) -> Option<KeyId> {
    if sealed.0.len() < HEAD_BYTES + AES_256_GCM.tag_len() || sealed.0[0] != FORMAT {
        return None;
    }
    sealed.0[1..=KEY_ID_BYTES].try_into().ok()
}

/// A key of 256 bits for one use, derived one way.
pub(crate) fn derive_key(root: &Secret, context: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key(context, root.expose()))
}

/// A tenant's key for one use, derived from its data key.
pub(crate) fn subkey(data_key: &Secret, context: &str) -> SealingKey {
    SealingKey::new(&Secret::take(derive_key(data_key, context).to_vec()))
}

/// Keyed blake3 of a value; the key is 32 bytes.
pub(crate) fn fingerprint(key: &Secret, value: &Secret) -> [u8; 32] {
    let key = Zeroizing::new(blake3::derive_key("keybearer 2026-11 fingerprints", key.expose()));
    *blake3::keyed_hash(&key, value.expose()).as_bytes()
}

/// Appends a key to the master key file.
pub(crate) fn write_key(key: &Secret, file: &mut File) -> io::Result<()> {
    file.write_all(key.expose())
}

/// Wraps a secret by another key than the one it was opened with.
pub(crate) fn wrap_secret(wrap: impl FnOnce(&[u8]) -> Sealed, secret: &Secret) -> Sealed {
    wrap(secret.expose())
}

/// What was sealed for its tenant goes back to who sealed it.
pub(crate) fn give_back(secret: &Secret) -> Vec<u8> {
    secret.expose().to_vec()
}

/// What a tenant's data key is bound to.
pub(crate) fn data_key_aad(tenant: &TenantId) -> Vec<u8> {
    aad("data key", &[tenant.as_str().as_bytes()])
}

/// What the secret that signs notices to the operator is bound to.
pub(crate) fn notice_aad(target: &HookId) -> Vec<u8> {
    aad("notice", &[target.as_str().as_bytes()])
}

/// What a credential's value is bound to.
pub(crate) fn value_aad(tenant: &TenantId, credential: &CredentialId, version: u32) -> Vec<u8> {
    aad("value", &[tenant.as_str().as_bytes(), credential.as_str().as_bytes(), &version.to_be_bytes()])
}

/// What anything else of a tenant's is bound to.
pub(crate) fn context_aad(tenant: &TenantId, context: &str) -> Vec<u8> {
    aad("context", &[tenant.as_str().as_bytes(), context.as_bytes()])
}

/// Each part has its length in front, so that no byte can move from one to the next.
fn aad(use_: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"keybearer 2026-11 sealed".to_vec();
    for part in std::iter::once(use_.as_bytes()).chain(parts.iter().copied()) {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::new(&Secret::take(vec![byte; 32]))
    }

    #[test]
    fn what_is_sealed_opens_by_the_same_key_and_binding_only() {
        let sealed = key(1).seal(b"here", b"plain");
        assert_eq!(key(1).open(b"here", &sealed).ok().map(|plain| plain.expose().to_vec()), Some(b"plain".to_vec()));
        assert!(key(1).open(b"there", &sealed).is_err());
        assert!(key(2).open(b"here", &sealed).is_err());
        assert!(!sealed.0.windows(5).any(|window| window == b"plain"));
        assert_ne!(key(1).seal(b"here", b"plain").0, sealed.0, "a nonce is never used twice");
    }

    #[test]
    fn sealed_bytes_that_were_cut_or_changed_at_any_byte_do_not_open() {
        let sealed = key(1).seal(b"here", b"plain");
        for index in 0..sealed.0.len() {
            let mut changed = sealed.0.to_vec();
            changed[index] ^= 1;
            assert!(key(1).open(b"here", &Sealed(changed.into())).is_err(), "changed at {index}");
            assert!(key(1).open(b"here", &Sealed(sealed.0[..index].into())).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn t04_no_byte_can_move_between_the_parts_of_a_binding() {
        assert_ne!(aad("value", &[b"ab", b"c"]), aad("value", &[b"a", b"bc"]));
        assert_ne!(aad("value", &[b"a"]), aad("valuea", &[]));
    }
}
