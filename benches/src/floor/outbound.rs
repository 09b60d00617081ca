//! The bare way out: hyper over TLS on pooled connections to one address, with one bearer token. No
//! vetting, no bindings, no deadlines, no scrubbing.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The one upstream, as the run describes it to the bare server in a file.
#[derive(Serialize, Deserialize)]
pub(crate) struct Upstream {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// The name that its certificate proves.
    pub(crate) name: String,
    /// The authority that issued it, PEM.
    pub(crate) authority: String,
    /// The bearer token that it demands.
    pub(crate) token: String,
}

/// A pool of connections to one upstream.
pub(crate) struct Outbound {
    address: SocketAddr,
    name: ServerName<'static>,
    host: HeaderValue,
    authorization: HeaderValue,
    tls: TlsConnector,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// Status, header fields, body.
type Answer = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

impl Outbound {
    /// A pool without a connection.
    ///
    /// # Errors
    /// If the description does not fit.
    pub(crate) fn new(upstream: &Upstream) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(upstream.authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            address: upstream.address,
            name: ServerName::try_from(upstream.name.clone())?,
            host: upstream.name.parse()?,
            authorization: format!("Bearer {}", upstream.token).parse()?,
            tls: TlsConnector::from(Arc::new(config)),
            idle: Mutex::default(),
        })
    }

    /// `GET`s the path of a URL.
    ///
    /// # Errors
    /// If there is no answer.
    pub(crate) async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        let path = url.strip_prefix("https://").and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        let request = Request::get(format!("/{path}"))
            .header(hyper::header::HOST, self.host.clone())
            .header(hyper::header::AUTHORIZATION, self.authorization.clone())
            .body(Empty::new())?;
        let pooled = self.idle.lock().pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.ready().await?;
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        self.idle.lock().push(connection);
        let headers = head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        Ok((head.status.as_u16(), headers.collect(), body))
    }

    #[expect(clippy::disallowed_methods, reason = "the floor has one upstream and no credentials of anybody's")]
    async fn connect(&self) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // A connection that breaks is found out by whoever uses it next, and fails the run.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }
}
