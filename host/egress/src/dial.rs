//! Dialling: a vetted address becomes a connection on which one request at a time can be sent. The
//! only file of the project that opens a connection to an upstream. HTTP/1.1 only: what HTTP/2 would save in
//! handshakes the pool saves as well, and its floods and header compression are left out with it (threats N24).

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use keybearer_contract::Scheme;
use keybearer_gate::Destination;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::ConfigInvalid;
use crate::EgressConfig;
use crate::SendReason;
use crate::Vetted;
use crate::config::Deadlines;
use crate::drive::Driver;
use crate::pool::Idle;
use crate::watch::Watched;

/// A connection that was shaken hands on. Dropping it closes it.
pub(crate) struct Connection {
    /// Above `driver`, because fields are dropped in this order: what cannot be asked any more says goodbye.
    pub(crate) sender: http1::SendRequest<Full<Bytes>>,
    pub(crate) driver: Driver,
    /// What was dialled: a vetted address.
    pub(crate) address: SocketAddr,
    opened: Instant,
}

impl Idle for Connection {
    fn is_closed(&self) -> bool {
        self.driver.is_closed() || self.sender.is_closed()
    }

    fn opened(&self) -> Instant {
        self.opened
    }
}

/// Twice what common servers send at the most; a head that is larger is an attack or a mistake.
const HEAD_BYTES_MAX: usize = 64 << 10;

pub(crate) struct Dialler {
    tls: TlsConnector,
    http: http1::Builder,
    deadlines: Deadlines,
    is_observed: bool,
}

impl Dialler {
    pub(crate) fn new(config: &EgressConfig) -> Result<Self, ConfigInvalid> {
        let mut http = http1::Builder::new();
        // The number of fields is bounded by hyper's own 100, which lie on its stack.
        http.max_header_size(HEAD_BYTES_MAX);
        http.writev(false);
        let is_observed = config.observer.is_some();
        Ok(Self { tls: TlsConnector::from(Arc::new(tls(config)?)), http, deadlines: config.deadlines, is_observed })
    }

    /// Opens a connection to the vetted address, and proves an identity there if the peer asks for one.
    /// `is_own` is asked once more about what was really reached.
    pub(crate) async fn dial(
        &self,
        vetted: &Vetted,
        identity: Option<Arc<CertifiedKey>>,
        deadline: Instant,
        is_own: impl Fn(SocketAddr) -> bool,
    ) -> Result<Connection, SendReason> {
        let stream = within(deadline, self.deadlines.connect, connect(vetted.address())).await?;
        let peer = stream.peer_addr().map_err(|_| SendReason::Unreachable)?;
        let is_hairpin = stream.local_addr().is_ok_and(|local| local.ip() == peer.ip());
        if peer != vetted.address() || (is_hairpin && is_own(peer)) {
            return Err(SendReason::Refused);
        }
        match vetted.destination().scheme() {
            Scheme::Http => self.shake_hands(stream, peer).await,
            Scheme::Https => {
                let name = server_name(vetted.destination())?;
                let tls = identity.map_or_else(|| self.tls.clone(), |identity| self.proving(identity));
                let stream = within(deadline, self.deadlines.tls, tls.connect(name, stream)).await?;
                self.shake_hands(stream, peer).await
            }
        }
    }

    /// The same, with a client certificate for whoever asks for one.
    fn proving(&self, identity: Arc<CertifiedKey>) -> TlsConnector {
        let mut tls = ClientConfig::clone(self.tls.config());
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(identity));
        TlsConnector::from(Arc::new(tls))
    }

    pub(crate) async fn shake_hands<T>(&self, stream: T, address: SocketAddr) -> Result<Connection, SendReason>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (io, watch) = Watched::new(TokioIo::new(stream));
        let io = io.observed(self.is_observed);
        let (sender, connection) = self.http.handshake(io).await.map_err(|_| SendReason::Unreachable)?;
        // Nobody but who asked for a WebSocket takes the connection over: every other answer of 101 is refused.
        let connection = connection.with_upgrades();
        Ok(Connection { sender, driver: Driver::new(connection, watch), address, opened: Instant::now() })
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that opens a connection to an upstream")]
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // A request is one write; Nagle's algorithm would hold its last piece back for an acknowledgement.
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn within<T>(
    deadline: Instant,
    step: std::time::Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, SendReason> {
    match tokio::time::timeout_at(deadline.min(Instant::now() + step), work).await {
        Ok(Ok(done)) => Ok(done),
        // Rustls reports what is wrong with the peer as invalid data; everything else is the network.
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(SendReason::Untrusted),
        Ok(Err(_)) => Err(SendReason::Unreachable),
        Err(_) => Err(SendReason::Timeout),
    }
}

/// The very host that was cleared and resolved is what TLS is asked to prove.
fn server_name(destination: &Destination) -> Result<ServerName<'static>, SendReason> {
    ServerName::try_from(destination.host().as_str().to_owned()).map_err(|_| SendReason::Refused)
}

fn tls(config: &EgressConfig) -> Result<ClientConfig, ConfigInvalid> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for (index, root) in config.extra_roots.iter().enumerate() {
        roots.add(root.clone()).map_err(|_| ConfigInvalid::RootRefused { index })?;
    }
    // The provider is named: a process-wide default would be whatever another library installed.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| ConfigInvalid::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A ticket would tie one tenant's connection to another's at the upstream.
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}
