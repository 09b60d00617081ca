//! A SPIFFE Workload API on a local socket, as small as a test needs it: the two calls that the host makes. What it
//! serves is issued by OpenBao's PKI. It is not SPIRE, and proves nothing about SPIRE's own behaviour.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use h2::server::SendResponse;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::OpenBao;
use crate::Signer;

/// An X.509-SVID.
#[derive(Clone)]
pub struct Svid {
    /// Whose.
    pub id: String,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// Its key, PKCS #8.
    pub key: Vec<u8>,
}

impl Svid {
    /// Has the role `workload` of the PKI at `pki` issue one that holds for so many seconds.
    ///
    /// # Errors
    /// If OpenBao refuses.
    pub async fn issue(bao: &OpenBao, id: &str, life_s: u64) -> anyhow::Result<Self> {
        // OpenBao's own logins by certificate want a common name.
        let wanted = json!({
            "uri_sans": id, "common_name": "executor.keybearer.test", "ttl": format!("{life_s}s"),
            "format": "der", "private_key_format": "pkcs8",
        });
        let issued = bao.write("pki/issue/workload", &wanted).await?;
        let part = |name: &str| {
            let text = issued["data"][name].as_str().with_context(|| format!("no {name}"))?;
            anyhow::Ok(STANDARD.decode(text)?)
        };
        Ok(Self { id: id.to_owned(), certificate: part("certificate")?, key: part("private_key")? })
    }
}

/// What is served: none for a workload that is registered for nothing.
type Served = Option<Vec<Svid>>;

/// A Workload API that runs until it is dropped.
pub struct Workload {
    socket: PathBuf,
    served: watch::Sender<Served>,
    shared: Arc<Shared>,
    task: Option<tokio::task::JoinHandle<()>>,
}

struct Shared {
    signer: Arc<Signer>,
    jwts: AtomicUsize,
}

impl Workload {
    /// Starts one at a socket; JWT-SVIDs are signed by `signer`.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(socket: &Path, signer: Arc<Signer>) -> anyhow::Result<Self> {
        let (served, _) = watch::channel(Some(Vec::new()));
        let shared = Arc::new(Shared { signer, jwts: AtomicUsize::new(0) });
        let mut workload = Self { socket: socket.to_owned(), served, shared, task: None };
        workload.come()?;
        Ok(workload)
    }

    /// `unix:///…`, for the configuration.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// From now on these are served, to those that wait already, too.
    pub fn serve(&self, svids: Vec<Svid>) {
        self.served.send_replace(Some(svids));
    }

    /// From now on nobody is registered for anything.
    pub fn deny(&self) {
        self.served.send_replace(None);
    }

    /// How many JWT-SVIDs were given.
    #[must_use]
    pub fn jwts(&self) -> usize {
        self.shared.jwts.load(Ordering::Relaxed)
    }

    /// It goes away, with every connection.
    pub async fn go(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Its connections end with it.
            drop(task.await);
        }
    }

    /// It comes back.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn come(&mut self) -> anyhow::Result<()> {
        if self.socket.exists() {
            std::fs::remove_file(&self.socket)?;
        }
        let listener = UnixListener::bind(&self.socket)?;
        self.task = Some(tokio::spawn(accept(listener, self.served.clone(), Arc::clone(&self.shared))));
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn accept(listener: UnixListener, served: watch::Sender<Served>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(speak(stream, served.subscribe(), Arc::clone(&shared)));
    }
}

async fn speak(stream: UnixStream, served: watch::Receiver<Served>, shared: Arc<Shared>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut calls = tokio::task::JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (served, shared) = (served.clone(), Arc::clone(&shared));
        calls.spawn(async move {
            // A peer that went away is no matter.
            drop(answer(request, respond, served, &shared).await);
        });
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut served: watch::Receiver<Served>,
    shared: &Shared,
) -> anyhow::Result<()> {
    // Workload Endpoint §6.1: without it, a request is refused.
    let is_meant = request.headers().get("workload.spiffe.io").is_some_and(|value| value == "true");
    let path = request.uri().path().to_owned();
    let mut asked = Vec::new();
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        asked.extend_from_slice(&data?);
    }
    if !is_meant {
        return status(&mut respond, "3");
    }
    match path.as_str() {
        "/SpiffeWorkloadAPI/FetchX509SVID" => {
            let Some(mut svids) = served.borrow_and_update().clone() else { return status(&mut respond, "7") };
            let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut stream = respond.send_response(head, false)?;
            loop {
                let message: Vec<u8> = svids.iter().flat_map(|svid| field(1, &x509(svid))).collect();
                if !svids.is_empty() {
                    stream.send_data(framed(&message), false)?;
                }
                served.changed().await?;
                let Some(next) = served.borrow_and_update().clone() else { break };
                svids = next;
            }
            stream.send_trailers(http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("7"),
            )]))?;
            Ok(())
        }
        "/SpiffeWorkloadAPI/FetchJWTSVID" if served.borrow().is_some() => {
            // Five bytes of frame, then audience and id, each of less than 128 bytes.
            let text = |at: usize| {
                let length = usize::from(*asked.get(at)?);
                String::from_utf8(asked.get(at + 1..at + 1 + length)?.to_vec()).ok()
            };
            let audience = text(6).context("an audience")?;
            let id = text(8 + audience.len()).context("an id")?;
            let token = shared.signer.jwt(&Signer::claims("https://spiffe.test", &id, &audience))?;
            shared.jwts.fetch_add(1, Ordering::Relaxed);
            let svid = [field(1, id.as_bytes()), field(2, token.as_bytes())].concat();
            let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(framed(&field(1, &svid)), false)?;
            stream.send_trailers(http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]))?;
            Ok(())
        }
        "/SpiffeWorkloadAPI/FetchJWTSVID" => status(&mut respond, "7"),
        _ => status(&mut respond, "12"),
    }
}

/// An answer that is its status alone (gRPC over HTTP/2, Trailers-Only).
fn status(respond: &mut SendResponse<Bytes>, status: &str) -> anyhow::Result<()> {
    let head = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", status);
    respond.send_response(head.body(())?, true)?;
    Ok(())
}

fn x509(svid: &Svid) -> Vec<u8> {
    [field(1, svid.id.as_bytes()), field(2, &svid.certificate), field(3, &svid.key)].concat()
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

/// A field of bytes (Protocol Buffers).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        field.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    field.push((length & 0x7f) as u8);
    field.extend_from_slice(bytes);
    field
}
