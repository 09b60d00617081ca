//! An upstream that speaks bytes: for answers that no HTTP library would write, and for requests as they
//! came over the wire. One request a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What such an upstream does next.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Sends these bytes in a write of their own.
    Bytes(Vec<u8>),
    /// Waits.
    Pause(Duration),
    /// Keeps the connection open and says nothing more.
    Hang,
}

impl Piece {
    /// Sends this text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bytes(text.into().into_bytes())
    }
}

type Answering = dyn Fn(&str) -> Vec<Piece> + Send + Sync;

/// An upstream of bytes that runs until it is dropped.
pub struct RawUpstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl RawUpstream {
    /// Starts one, with TLS if a configuration is given, that answers a request's text by `answer`.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn start(
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&str) -> Vec<Piece> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { received: Arc::default(), answer: Box::new(answer) });
        let received = Arc::clone(&shared.received);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let acceptor = tls.map(TlsAcceptor::from);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    // A peer that goes away is part of what is tried.
                    let ended = match acceptor {
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => converse(stream, &shared).await,
                            Err(_) => Ok(()),
                        },
                        None => converse(stream, &shared).await,
                    };
                    drop(ended);
                });
            }
        });
        Ok(Self { address, received, connections, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request that has arrived so far, as bytes.
    #[must_use]
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().clone()
    }

    /// How often somebody connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    answer: Box<Answering>,
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) -> std::io::Result<()> {
    let request = read_request(&mut stream).await?;
    if request.is_empty() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    shared.received.lock().push(request);
    for piece in (shared.answer)(&text) {
        match piece {
            Piece::Bytes(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Piece::Pause(time) => tokio::time::sleep(time).await,
            Piece::Hang => std::future::pending().await,
        }
    }
    stream.shutdown().await
}

/// A head and the body that it announces.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if request.len() >= end + 4 + length {
                return Ok(request);
            }
        }
        // A TLS handshake that came to a port without TLS: no head will follow.
        if request.first() == Some(&0x16) {
            return Ok(request);
        }
        match stream.read(&mut piece).await? {
            0 => return Ok(request),
            count => request.extend_from_slice(&piece[..count]),
        }
    }
}
