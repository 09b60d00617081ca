//! A throw-away certificate authority: upstreams of the tests prove the real names with it.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::SanType;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

/// A certificate authority that lives as long as the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    certificate: rustls_pki_types::CertificateDer<'static>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If the key cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        Self::with_key(KeyPair::generate()?)
    }

    /// The one that has this key, PEM. Its certificate is another one, but proofs are checked against its
    /// name and key, and those are the same.
    ///
    /// # Errors
    /// If it is no key.
    pub fn of_key(pem: &str) -> anyhow::Result<Self> {
        Self::with_key(KeyPair::from_pem(pem)?)
    }

    fn with_key(key: KeyPair) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        // A name of its own: OpenSSL takes a leaf that is named like its issuer for self-signed.
        params.distinguished_name.push(DnType::CommonName, "Keybearer throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let der = certificate.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), pem, certificate: der })
    }

    /// The authority's certificate, PEM: for `egress.extra_ca_files`.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The authority's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> &rustls_pki_types::CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate and key for these DNS names and URIs, PEM.
    ///
    /// # Errors
    /// If a name is no name.
    pub fn issue(&self, names: &[&str], uris: &[&str]) -> anyhow::Result<(String, String)> {
        let (certificate, key) = self.leaf(names, uris)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn leaf(&self, names: &[&str], uris: &[&str]) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        self.leaf_until(names, uris, 4096)
    }

    fn leaf_until(&self, names: &[&str], uris: &[&str], year: i32) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        // An X509-SVID must say so (X509-SVID §4.3), and real leaves do.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().context("not a URI")?));
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }

    /// A TLS server configuration for these names, HTTP/1.1 only.
    ///
    /// # Errors
    /// If a name is no name.
    pub fn server(&self, names: &[&str]) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        self.server_until(names, 4096)
    }

    /// The same, for clients that prove a certificate of this authority (PEM), and for no others.
    ///
    /// # Errors
    /// If a name is no name, or the authority no authority.
    pub fn server_for(&self, names: &[&str], clients: &str) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let (certificate, key) = self.leaf(names, &[])?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// The same, with a certificate that ended at the beginning of this year.
    ///
    /// # Errors
    /// If a name is no name.
    pub fn server_until(&self, names: &[&str], year: i32) -> anyhow::Result<Arc<rustls::ServerConfig>> {
        let (certificate, key) = self.leaf_until(names, &[], year)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
