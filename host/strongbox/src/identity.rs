//! A client identity: a certificate chain and its key, as a connection proves who we are with (RFC 8446
//! §4.4.2, RFC 8705). The key signs handshakes and is not to be had from it.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroize as _;

use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Who we are on one connection.
pub struct ClientIdentity(Arc<CertifiedKey>);

assert_lacks!(ClientIdentity: std::fmt::Debug, PartialEq, serde::Serialize);

/// It is no certificate chain with its key. Nothing of it is in this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a private key and the certificates of its chain in PEM, the key's own first")]
pub struct IdentityRefused;

/// Certificates of a chain, its own included: what a peer walks at the most.
const CHAIN_MAX: usize = 8;

impl ClientIdentity {
    /// What is proven in a handshake, and signed with. For egress alone.
    #[must_use]
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }

    /// Reads PEM: one private key and the chain, the key's own certificate first.
    pub(crate) fn parse(pem: &Secret) -> Result<Self, IdentityRefused> {
        let pem = pem.expose();
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let chain = chain.map_err(|_| IdentityRefused)?;
        if chain.is_empty() || chain.len() > CHAIN_MAX {
            return Err(IdentityRefused);
        }
        let mut key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| IdentityRefused)?;
        let signing = any_supported_type(&key);
        key.zeroize();
        let certified = CertifiedKey::new(chain, signing.map_err(|_| IdentityRefused)?);
        certified.keys_match().map_err(|_| IdentityRefused)?;
        Ok(Self(Arc::new(certified)))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rcgen::KeyPair;

    use super::*;

    fn is_read(text: &str) -> bool {
        ClientIdentity::parse(&Secret::take(text.as_bytes().to_vec())).is_ok()
    }

    // If it failed, what is stored would turn out to be of no use when it is needed, or another's certificate would
    // be shown with this key.
    #[test]
    fn r04_an_identity_is_a_key_and_the_chain_that_belongs_to_it() {
        let (key, other) = (KeyPair::generate().expect("key"), KeyPair::generate().expect("key"));
        let params = CertificateParams::new(vec!["client.test".to_owned()]).expect("params");
        let certificate = params.self_signed(&key).expect("certificate").pem();
        let (key, other) = (key.serialize_pem(), other.serialize_pem());
        assert!(is_read(&format!("{key}{certificate}")));
        assert!(is_read(&format!("{certificate}{certificate}{key}")));
        for bad in [
            String::new(),
            key.clone(),
            certificate.clone(),
            format!("{other}{certificate}"),
            format!("{key}{}", certificate.repeat(9)),
            format!("{key}{}", certificate.replace('A', "%")),
        ] {
            assert!(!is_read(&bad));
        }
    }
}
