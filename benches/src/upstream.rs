//! The upstream of credentialed calls: TLS with a throw-away authority, demands a bearer token, answers
//! one kibibyte of JSON. A process of its own, the same for both sides. It records nothing: the
//! harness's upstream, which does, would grow with every call.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The text in the answer: with the rest, about a kibibyte.
const FILLER_BYTES: usize = 1000;

/// Serves until it is killed.
///
/// # Errors
/// If it cannot start.
pub(crate) fn serve(certificate: &Path, key: &Path, token_file: &Path) -> anyhow::Result<()> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from_pem_file(certificate)?], PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let expected = format!("Bearer {}", std::fs::read_to_string(token_file).context("the token")?.trim());
    let expected: Arc<str> = expected.into();
    let body = Bytes::from(format!("{{\"text\":\"{}\"}}", "upstream ".repeat(FILLER_BYTES / 9)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        crate::listening(listener.local_addr()?);
        let mut ended = std::pin::pin!(crate::children::no_longer_needed());
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                () = &mut ended => return Ok(()),
            };
            stream.set_nodelay(true)?;
            let (acceptor, expected, body) = (acceptor.clone(), Arc::clone(&expected), body.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&request, &expected, &body);
                    async move { Ok::<_, Infallible>(answer) }
                });
                // Pooled connections end with the process at their other end.
                let http = hyper::server::conn::http1::Builder::new();
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    })
}

fn answer(request: &Request<Incoming>, expected: &str, body: &Bytes) -> Response<Full<Bytes>> {
    let presented = request.headers().get(header::AUTHORIZATION);
    if presented.is_none_or(|presented| presented.as_bytes() != expected.as_bytes()) {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = hyper::StatusCode::UNAUTHORIZED;
        return refused;
    }
    let mut response = Response::new(Full::new(body.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
