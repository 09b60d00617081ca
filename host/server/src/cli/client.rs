//! A small HTTP client for the command line and the exporter: one connection a request, no redirects, no
//! proxies, nothing from the environment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use keybearer_contract::Code;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::api::problem::ProblemBody;
use crate::cli::failure::Cause;
use crate::tls;

/// Opens connections, with TLS for `https`.
#[derive(Clone)]
pub(crate) struct Connector {
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Trusts the authorities of a PEM file only.
    pub(crate) fn trusting(path: &Path) -> anyhow::Result<Self> {
        Self::new(tls::roots(path)?)
    }

    /// Trusts nobody: for listeners without TLS.
    pub(crate) fn plain() -> anyhow::Result<Self> {
        Self::new(RootCertStore::empty())
    }

    /// Trusts the public authorities.
    pub(crate) fn public() -> anyhow::Result<Self> {
        Self::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    fn new(roots: RootCertStore) -> anyhow::Result<Self> {
        let config = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(config) })
    }

    /// Sends one request with an absolute URL and reads the answer, of at most so many bytes.
    #[expect(clippy::disallowed_methods, reason = "to this server or its collector, never on a guest's behalf")]
    pub(crate) async fn send(&self, request: Request<Bytes>, bytes_max: usize) -> anyhow::Result<Response<Bytes>> {
        let uri = request.uri().clone();
        let host = uri.host().context("the URL names no host")?.trim_matches(['[', ']']).to_owned();
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("the URL begins with http:// or https://"),
        };
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port))
            .await
            .with_context(|| format!("{host}:{port} does not answer: is the server running?"))?;
        stream.set_nodelay(true)?;
        if secure {
            let name = ServerName::try_from(host.clone()).context("the URL's host is no name and no address")?;
            let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.with_context(|| {
                format!("the TLS handshake with {host}:{port} failed: name its authority with --ca")
            })?;
            exchange(stream, request, bytes_max).await
        } else {
            exchange(stream, request, bytes_max).await
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Bytes>, bytes_max: usize) -> anyhow::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().context("the URL names no host")?.to_string();
    head.uri = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse::<Uri>()?;
    head.headers.insert(header::HOST, authority.parse()?);
    let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, bytes_max)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer could not be read: {error}"))?
        .to_bytes();
    driving.abort();
    Ok(Response::from_parts(head, body))
}

/// One side of one server, with a token.
pub(crate) struct Client {
    connector: Connector,
    base: String,
    token: Zeroizing<String>,
}

/// The server refused; the sentence is its problem's.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) ProblemBody);

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let problem = &self.0;
        write!(formatter, "{} ({}): {}", problem.title, problem.code.as_str(), problem.detail)?;
        if let Some(pointer) = problem.pointer.as_ref().filter(|pointer| !problem.detail.contains(pointer.as_str())) {
            write!(formatter, " [at {pointer}]")?;
        }
        if let Some(limit) = &problem.limit {
            write!(formatter, " [{} = {}]", limit.name, limit.value)?;
        }
        if let Some(instance) = &problem.instance {
            write!(formatter, " [{instance}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// A call's own ceiling and some more.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(600);

/// Results have at most 4 MiB by default; lists of packages hold manifests and schemas.
const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Client {
    pub(crate) fn new(connector: Connector, base: String, token: Zeroizing<String>) -> Self {
        Self { connector, base, token }
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, "", Bytes::new(), &[]).await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, "", Bytes::new(), &[]).await
    }

    /// A POST without a body.
    pub(crate) async fn act(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::POST, path, "", Bytes::new(), &[]).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, "application/json", Bytes::from(body.to_string()), &[]).await
    }

    /// A request; `null` for an answer without a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Value> {
        let body = self.fetch(method, path, content_type, body, headers).await?;
        if body.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_slice(&body)?) }
    }

    /// A request; the answer's body as it came.
    pub(crate) async fn fetch(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Bytes> {
        let mut bearer = http::HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", *self.token)))
            .context("the token holds characters that no token has")?;
        bearer.set_sensitive(true);
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header(header::AUTHORIZATION, bearer);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sending = self.connector.send(request.body(body)?, ANSWER_BYTES_MAX);
        let sent = tokio::time::timeout(ANSWER_TIME_MAX, sending).await.context("no answer came in ten minutes");
        let response = sent.flatten().map_err(|error| Cause::ServerUnreachable.of(error))?;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        Err(refusal(status, &body))
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    match serde_json::from_slice::<ProblemBody>(body) {
        Ok(problem) => match problem.code {
            Code::Unauthenticated => anyhow::Error::new(Refused(problem))
                .context("the server does not take this token, which may have ended or been revoked: name another with --token-file"),
            _ => Refused(problem).into(),
        },
        Err(_) => {
            Cause::ServerUnreachable.says(format!("the server answered {status} without a problem: is this Keybearer?"))
        }
    }
}
