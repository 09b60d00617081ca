//! What the tests of this room share: an authority of their own, and upstreams on loopback whose every
//! byte is written by hand. Ports are the kernel's choice.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use keybearer_contract::TenantId;
use keybearer_gate::Destination;
use keybearer_gate::Target;
use parking_lot::Mutex;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::Egress;
use crate::EgressConfig;
use crate::Pin;
use crate::SendLimits;
use crate::pool::PoolKey;
use crate::watch::Hold;

/// The host that tests name; it does not resolve.
pub(crate) const HOST: &str = "api.example.com";

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::with(params)
    }

    pub(crate) fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("key");
        Self(CertifiedIssuer::self_signed(params, key).expect("certificate"))
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A server that proves these names, with the certificate changed as the test wants.
    pub(crate) fn serves(&self, names: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        edit(&mut params);
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.0).expect("certificate");
        server(certificate.der().clone(), &key)
    }
}

/// A server with this certificate.
pub(crate) fn server(certificate: CertificateDer<'static>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("certificate and key");
    Arc::new(config)
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One connection, as the upstream sees it.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    /// Which connection it is, from 0.
    pub(crate) number: usize,
    heads: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Wire {
    /// Reads one head and notes it; none if the peer is gone.
    pub(crate) async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).expect("heads are ASCII");
        self.heads.lock().push((self.number, head.clone()));
        Some(head)
    }

    /// Whether the peer took it.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Ends our half in good order, with a goodbye of TLS.
    pub(crate) async fn end(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Waits until the peer has closed.
    pub(crate) async fn until_closed(&mut self) {
        let mut rest = [0; 256];
        while matches!(self.stream.read(&mut rest).await, Ok(read) if read > 0) {}
    }
}

/// A server on loopback.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<(usize, String)>>>,
}

impl Upstream {
    pub(crate) async fn start<S, F>(tls: Option<Arc<ServerConfig>>, serve: S) -> Self
    where
        S: Fn(Wire) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let upstream = Self { address, accepted: accepted.clone(), heads: heads.clone() };
        let serve = Arc::new(serve);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("nodelay");
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let (tls, heads, serve) = (tls.clone(), heads.clone(), serve.clone());
                tokio::spawn(async move {
                    let stream: Box<dyn Duplex> = match tls {
                        None => Box::new(stream),
                        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    serve(Wire { stream, number, heads }).await;
                });
            }
        });
        upstream
    }

    /// Gives the same answer to every request, on connections that stay open.
    pub(crate) async fn answering(tls: Option<Arc<ServerConfig>>, answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(tls, move |mut wire| {
            let answer = answer.clone();
            async move { while wire.head().await.is_some() && wire.say(&answer).await {} }
        })
        .await
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The heads that came, each with the number of its connection.
    pub(crate) fn heads(&self) -> Vec<(usize, String)> {
        self.heads.lock().clone()
    }

    /// What leads requests for [`HOST`] here. Deadlines are short enough for a test and long enough for
    /// a busy machine.
    pub(crate) fn config(&self) -> EgressConfig {
        let mut config = EgressConfig::default();
        config.dangerous.allow_ranges = vec!["127.0.0.0/8".parse().expect("range")];
        let host: keybearer_contract::Host = HOST.parse().expect("host");
        config.dangerous.pin = [443, 80].map(|port| Pin { host: host.clone(), port, address: self.address }).into();
        config
    }
}

pub(crate) fn destination(url: &str) -> Destination {
    url.parse::<Target>().expect(url).destination().clone()
}

pub(crate) fn key(tenant: &TenantId, destination: &Destination) -> PoolKey {
    PoolKey { tenant: tenant.clone(), credential: None, identity: None, destination: destination.clone() }
}

pub(crate) fn limits() -> SendLimits {
    SendLimits { deadline: Instant::now() + Duration::from_secs(20), response_bytes: 1 << 20 }
}

pub(crate) fn get(path: &str) -> http::Request<Bytes> {
    http::Request::get(path)
        .header("host", HOST)
        .header("authorization", "Bearer canary-7c2f")
        .body(Bytes::new())
        .expect("request")
}

/// A guard that nobody cancels.
pub(crate) struct Free;

impl Hold for Free {
    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The way out that trusts this authority and leads to this upstream.
pub(crate) fn egress(upstream: &Upstream, authority: &Authority) -> Egress {
    egress_with(upstream.config(), authority)
}

pub(crate) fn egress_with(mut config: EgressConfig, authority: &Authority) -> Egress {
    config.extra_roots = vec![authority.root()];
    Egress::new(&config).expect("the configuration is good")
}
