//! A listener: accepts connections within caps, gives each its timeouts, and hands requests to the API.
//! Nothing is parsed here but by hyper and rustls.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use keybearer_executor::at_once;
use parking_lot::Mutex;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::api::App;
use crate::api::Peer;
use crate::api::Side;
use crate::api::auth::network;
use crate::listen::stall::Stalling;

mod stall;

/// A listener that is bound and not yet served.
pub(crate) struct Bound {
    pub(crate) side: Side,
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Bound {
    /// Binds, with the kernel's choice for port 0.
    ///
    /// # Errors
    /// A sentence that names the address.
    pub(crate) async fn new(side: Side, address: SocketAddr, tls: Option<TlsAcceptor>) -> anyhow::Result<Self> {
        let socket = TcpListener::bind(address).await.map_err(|error| {
            anyhow::anyhow!("{address} cannot be listened on ({error}): stop what listens there, or change the configuration's `listen`")
        })?;
        Ok(Self { side, socket, tls })
    }

    /// The address with its real port.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Accepts and serves until it is told to stop, then waits for what runs.
    pub(crate) async fn serve(self, app: Arc<App>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let caps = Arc::new(Caps::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or the peer is gone already: neither is a reason to stop, and the
                    // first would spin (threats C04).
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = Caps::enter(&caps, &app, peer.ip()) else {
                app.metrics.connection_refused();
                continue;
            };
            let (app, tls, side, stop) = (Arc::clone(&app), self.tls.clone(), self.side, stop.clone());
            connections.spawn(async move {
                connection(app, side, stream, peer, tls, stop).await;
                drop(place);
            });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }
}

/// Long enough for a descriptor to come back, short enough that nobody notices.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

async fn connection(
    app: Arc<App>,
    side: Side,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    // Answers are written at once; without this a small one waits for the peer's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match tls {
        None => serve(app, side, stream, Peer { address: peer.ip(), certificate: None }, stop).await,
        Some(tls) => {
            let handshake = Duration::from_millis(app.limits.handshake_ms);
            let Ok(Ok(stream)) = tokio::time::timeout(handshake, tls.accept(stream)).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|der| der.to_vec());
            serve(app, side, stream, Peer { address: peer.ip(), certificate }, stop).await;
        }
    }
}

async fn serve<S>(app: Arc<App>, side: Side, stream: S, peer: Peer, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &app.limits;
    let stream = Stalling::new(stream, Duration::from_millis(limits.stalled_write_ms));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_ms))
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes)
        .auto_date_header(true);
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        let (app, peer) = (Arc::clone(&app), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(api::answer(app, side, peer, request).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = at_once(connection.as_mut()) => ended,
        () = stop.cancelled() => {
            // The request that runs is answered, with `connection: close`; an idle connection ends at once.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(timeout = error.is_timeout(), parse = error.is_parse(), "a connection ended badly");
    }
}

/// How many connections there are, all together and of each network.
#[derive(Default)]
struct Caps {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    total: u32,
    of_network: HashMap<IpAddr, u32>,
}

/// A place under the caps.
struct Place {
    caps: Arc<Caps>,
    app: Arc<App>,
    network: IpAddr,
}

impl Caps {
    fn enter(caps: &Arc<Self>, app: &Arc<App>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        if !caps.open.lock().take(network, app.limits.connections, app.limits.connections_per_address) {
            return None;
        }
        app.metrics.connection_opened();
        Some(Place { caps: Arc::clone(caps), app: Arc::clone(app), network })
    }
}

impl Open {
    /// Takes a place, if there is one.
    fn take(&mut self, network: IpAddr, total_max: u32, of_network_max: u32) -> bool {
        let of_network = self.of_network.get(&network).copied().unwrap_or(0);
        if self.total >= total_max || of_network >= of_network_max {
            return false;
        }
        self.total += 1;
        self.of_network.insert(network, of_network + 1);
        true
    }

    /// Gives a place back.
    fn give(&mut self, network: IpAddr) {
        self.total -= 1;
        match self.of_network.get_mut(&network) {
            Some(1) | None => {
                self.of_network.remove(&network);
            }
            Some(count) => *count -= 1,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.metrics.connection_closed();
        self.caps.open.lock().give(self.network);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h03_one_address_cannot_take_every_place() {
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut open = Open::default();
        assert!(open.take(one, 3, 2) && open.take(one, 3, 2));
        assert!(!open.take(one, 3, 2), "its own cap");
        assert!(open.take(other, 3, 2));
        assert!(!open.take(other, 3, 2), "the cap of all");
        open.give(one);
        open.give(one);
        assert!(open.of_network.len() == 1 && open.take(other, 3, 2), "places come back");
    }
}
