//! An upstream on loopback, with TLS for the real names: it records every request with its headers and
//! answers what the test says.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::Authority;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields in order, names in lower case, values as text.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The peer's address: tells connections apart.
    pub peer: SocketAddr,
    /// The certificate that the peer proved, DER, if it proved one.
    pub certificate: Option<Vec<u8>>,
}

impl Recorded {
    /// The value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// What the upstream answers.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: body.to_string().into_bytes() }
    }
}

type Answering = dyn Fn(Recorded) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// An upstream that runs until it is dropped.
pub struct Upstream {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// Starts one that proves `names` and answers by `answer`.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn start<Answer, Answered>(authority: &Authority, names: &[&str], answer: Answer) -> anyhow::Result<Self>
    where
        Answer: Fn(Recorded) -> Answered + Send + Sync + 'static,
        Answered: Future<Output = Reply> + Send + 'static,
    {
        Self::start_tls(authority.server(names)?, answer).await
    }

    /// Starts one with a TLS configuration of the case's own.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn start_tls<Answer, Answered>(tls: Arc<rustls::ServerConfig>, answer: Answer) -> anyhow::Result<Self>
    where
        Answer: Fn(Recorded) -> Answered + Send + Sync + 'static,
        Answered: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(tls);
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answering> = Arc::new(move |request| Box::pin(answer(request)));
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&recorded), answer));
        Ok(Self { address, recorded, task })
    }

    /// Starts one that demands a bearer token and echoes what it was sent, the token included.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn echo(authority: &Authority, names: &[&str], tokens: Vec<String>) -> anyhow::Result<Self> {
        let tokens = Arc::new(tokens);
        Self::start(authority, names, move |request: Recorded| {
            let tokens = Arc::clone(&tokens);
            async move { echo(&request, &tokens) }
        })
        .await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far.
    #[must_use]
    pub fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().clone()
    }

    /// Forgets what has arrived.
    pub fn forget(&self) {
        self.recorded.lock().clear();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn echo(request: &Recorded, tokens: &[String]) -> Reply {
    let presented = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if !presented.is_some_and(|token| tokens.iter().any(|known| known == token)) {
        return Reply::json(401, &serde_json::json!({"error": "unknown token"}));
    }
    let headers: serde_json::Map<_, _> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let body = serde_json::json!({
        "method": request.method,
        "target": request.target,
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
    });
    Reply::json(200, &body)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    answer: Arc<Answering>,
) {
    while let Ok((stream, peer)) = listener.accept().await {
        let (acceptor, recorded, answer) = (acceptor.clone(), Arc::clone(&recorded), Arc::clone(&answer));
        tokio::spawn(async move {
            if stream.set_nodelay(true).is_err() {
                return;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let proved = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = proved.map(|leaf| leaf.to_vec());
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (recorded, answer) = (Arc::clone(&recorded), Arc::clone(&answer));
                let certificate = certificate.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
                    let headers = parts.headers.iter().map(|(name, value)| {
                        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    });
                    let request = Recorded {
                        method: parts.method.to_string(),
                        target: parts.uri.to_string(),
                        headers: headers.collect(),
                        body,
                        peer,
                        certificate,
                    };
                    recorded.lock().push(request.clone());
                    Ok::<_, Infallible>(respond(answer(request).await))
                }
            });
            // A connection that breaks is the peer's business; what arrived is recorded.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn respond(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let mut response = hyper::Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(reply.status).unwrap_or(hyper::StatusCode::IM_A_TEAPOT);
    for (name, value) in reply.headers {
        if let (Ok(name), Ok(value)) =
            (hyper::header::HeaderName::try_from(name), hyper::header::HeaderValue::try_from(value))
        {
            response.headers_mut().append(name, value);
        }
    }
    response
}
