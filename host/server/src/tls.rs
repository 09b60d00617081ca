//! TLS of the listeners: TLS 1.2 and 1.3 with one provider, HTTP/1.1 only, and client certificates of
//! configured authorities.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::ensure;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_rustls::TlsAcceptor;

use crate::config::file;

/// Whether a client without a certificate is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    Optional,
    Required,
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The acceptor of a listener.
///
/// # Errors
/// A sentence that names the file.
pub(crate) fn acceptor(tls: &file::Tls, client: ClientCertificate) -> anyhow::Result<TlsAcceptor> {
    let certificates = certificates(&tls.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .with_context(|| format!("tls.key: {} holds no private key in PEM that can be read", tls.key.display()))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider());
            let verifier = match client {
                ClientCertificate::Optional => verifier.allow_unauthenticated(),
                ClientCertificate::Required => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().context("tls.client_ca cannot be used")?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates, key).context("tls.certificate and tls.key do not fit each other")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Trust anchors of a PEM file.
pub(crate) fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .with_context(|| format!("{} holds a certificate that cannot be an authority", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("{} holds no certificates in PEM that can be read", path.display()))?;
    ensure!(!certificates.is_empty(), "{} holds no certificate in PEM", path.display());
    Ok(certificates)
}
