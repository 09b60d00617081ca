//! Dispatch: an armed request is opened here, in this one file, put on a connection to its vetted address,
//! and its answer is read up to its limits and handed over as [`Raw`], which only the strongbox can
//! read. One attempt: a retry is a new dispatch, with an intent of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;
use http::uri::PathAndQuery;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::Scheme;
use keybearer_contract::TenantId;
use keybearer_gate::Destination;
use keybearer_gate::Target;
use keybearer_strongbox::Armed;
use keybearer_strongbox::ClientIdentity;
use keybearer_strongbox::OpenArmed;
use keybearer_strongbox::Raw;
use keybearer_strongbox::UseGuard;
use rustls::sign::CertifiedKey;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::ConfigInvalid;
use crate::EgressConfig;
use crate::Names;
use crate::VetFault;
use crate::Vetted;
use crate::config::Deadlines;
use crate::dial::Connection;
use crate::dial::Dialler;
use crate::drive::CalledOff;
use crate::messages;
use crate::messages::Messages;
use crate::messages::Opened;
use crate::names::Dns;
use crate::pool::Idle as _;
use crate::pool::Pool;
use crate::pool::PoolKey;
use crate::vet::Vetter;
use crate::watch::Carried;
use crate::watch::Hold;
use crate::watch::Observed;
use crate::watch::WireObserver;

/// The way out of one node.
pub struct Egress {
    vetter: Vetter,
    dialler: Dialler,
    pool: Pool<Connection>,
    deadlines: Deadlines,
    observer: Option<Arc<dyn WireObserver>>,
}

/// What one request may use.
#[derive(Debug, Clone, Copy)]
pub struct SendLimits {
    /// When it is given up, whatever it is doing.
    pub deadline: Instant,
    /// The answer's body as it comes over the wire, in bytes; decoding has a limit of its own.
    pub response_bytes: u64,
}

/// A message of the host's own, to be sent by POST.
pub struct Message {
    path_and_query: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    /// A message to a place, with these fields beside those of framing and `host`; none if one of them cannot stand
    /// in a request.
    #[must_use]
    pub fn new(place: &Target, fields: &[(&'static str, &str)], body: Vec<u8>) -> Option<Self> {
        let path_and_query = match place.query() {
            Some(query) => format!("{}?{query}", place.path()).parse(),
            None => place.path().parse(),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).ok()?);
        }
        Some(Self { path_and_query: path_and_query.ok()?, headers, body: Bytes::from(body) })
    }
}

/// A request that has no answer. Its text names no place and repeats nothing that was sent or received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendFault {
    /// What went wrong.
    pub reason: SendReason,
    /// Whether the upstream may have acted.
    pub delivery: Delivery,
}

/// What went wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum SendReason {
    /// No connection could be made.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// TLS failed: certificate, name, version.
    #[error("the upstream did not prove who it is")]
    Untrusted,
    /// A deadline passed: of connecting, of TLS, of the first byte, between bytes, or of the call.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// What came back is not HTTP, or broke off.
    #[error("the upstream's answer is malformed")]
    MalformedAnswer,
    /// What came back is larger than the limit.
    #[error("the upstream's answer is too large")]
    AnswerTooLarge,
    /// The credential was revoked while its bytes were on their way.
    #[error("the credential was revoked while the request was being sent")]
    Cancelled,
    /// A kept connection was closed by the upstream before a byte of the request was on it: always
    /// [`Delivery::NotSent`]. A new dispatch is safe.
    #[error("a kept connection was closed before it was used")]
    StaleConnection,
    /// The request must not be sent as it is: it is not for the vetted destination, or its credential would go out
    /// without TLS, or what answered is this server itself. Always [`Delivery::NotSent`].
    #[error("the request must not be sent")]
    Refused,
}

impl SendReason {
    fn not_sent(self) -> SendFault {
        SendFault { reason: self, delivery: Delivery::NotSent }
    }

    fn maybe_sent(self) -> SendFault {
        SendFault { reason: self, delivery: Delivery::MaybeSent }
    }
}

impl Egress {
    /// The way out with the DNS as resolver.
    ///
    /// # Errors
    /// [`ConfigInvalid`] says which part of the configuration cannot be used.
    pub fn new(config: &EgressConfig) -> Result<Self, ConfigInvalid> {
        let names = Arc::new(Dns::new(config)?);
        Self::with_names(config, names)
    }

    /// The way out with a resolver of the caller's.
    ///
    /// # Errors
    /// [`ConfigInvalid`] says which part of the configuration cannot be used.
    pub fn with_names(config: &EgressConfig, names: Arc<dyn Names>) -> Result<Self, ConfigInvalid> {
        Ok(Self {
            vetter: Vetter::new(config, names)?,
            dialler: Dialler::new(config)?,
            pool: Pool::new(config.pool),
            deadlines: config.deadlines,
            observer: config.observer.clone(),
        })
    }

    /// Names a place of our own that must not be dialled, once it is known: a listener's port may be
    /// chosen by the kernel.
    pub fn add_own_listener(&self, listener: SocketAddr) {
        self.vetter.add_own_listener(listener);
    }

    /// Resolves a destination once and looks at every address of the answer.
    ///
    /// # Errors
    /// [`VetFault`]; nothing was sent to the destination.
    pub async fn vet(&self, destination: &Destination, deadline: Instant) -> Result<Vetted, VetFault> {
        self.vetter.vet(destination, deadline).await
    }

    /// Sends an armed request to its vetted destination and reads the answer.
    ///
    /// # Errors
    /// [`SendFault`]: what went wrong, and whether the upstream may have acted.
    pub async fn send(&self, armed: Armed, vetted: Vetted, limits: SendLimits) -> Result<Raw, SendFault> {
        let is_credentialed = armed.is_credentialed();
        let is_plain = vetted.destination().scheme() == Scheme::Http;
        if armed.destination() != vetted.destination() || (is_credentialed && is_plain) {
            return Err(SendReason::Refused.not_sent());
        }
        let mut key = PoolKey {
            tenant: armed.facts().tenant.clone(),
            credential: armed.credential().cloned(),
            identity: None,
            destination: vetted.destination().clone(),
        };
        let derived = armed.derived();
        let observed = self.observed(&armed);
        let (request, guard, identity) = written(armed.open());
        let identity = identity.map(|identity| identity.certified());
        key.identity = identity.as_ref().and_then(|identity| identity.cert.first().cloned());
        let to = Peer { vetted: &vetted, identity };
        let Answer { status, headers, body } =
            self.exchange(key, Outgoing { request, observed }, guard, to, limits).await?;
        Ok(Raw::new(status, headers, body, is_credentialed).answering(derived))
    }

    /// Who is told of the bytes of a request that carries a credential, if anybody measures.
    fn observed(&self, armed: &Armed) -> Option<Observed> {
        let (observer, credential) = (self.observer.as_ref()?, armed.credential()?);
        let (tenant, credential) = (armed.facts().tenant.clone(), credential.clone());
        let carried = Carried { tenant, credential, version: armed.version() };
        Some(Observed { observer: Arc::clone(observer), carried })
    }

    /// Sends a message of the host's own: without a credential, over TLS, on a connection of its own. Gives the
    /// status; what else is answered is read up to the limit and dropped.
    ///
    /// # Errors
    /// [`SendFault`]; [`SendReason::Refused`] for a place without TLS.
    pub async fn tell(&self, vetted: &Vetted, message: Message, limits: SendLimits) -> Result<u16, SendFault> {
        if vetted.destination().scheme() != Scheme::Https {
            return Err(SendReason::Refused.not_sent());
        }
        let Ok(host) = HeaderValue::try_from(vetted.destination().authority()) else {
            return Err(SendReason::Refused.not_sent());
        };
        let mut request = http::Request::new(message.body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from(message.path_and_query);
        *request.headers_mut() = message.headers;
        request.headers_mut().insert(header::HOST, host);
        let to = Peer { vetted, identity: None };
        let fresh = self.fresh(None::<&UseGuard>, to, limits.deadline).await;
        let mut connection = fresh.map_err(SendReason::not_sent)?;
        let answer = self.carry(&mut connection, request, None::<UseGuard>, limits, SendReason::Unreachable).await?;
        Ok(answer.status)
    }

    /// Sends an armed request that opens a connection on which its destination sends messages, over TLS and on a
    /// connection of its own.
    ///
    /// # Errors
    /// [`SendFault`]: what went wrong, and whether the upstream may have acted.
    pub async fn open_messages(&self, armed: Armed, vetted: &Vetted, deadline: Instant) -> Result<Opened, SendFault> {
        if armed.destination() != vetted.destination() || vetted.destination().scheme() != Scheme::Https {
            return Err(SendReason::Refused.not_sent());
        }
        let (mut request, guard, identity) = written(armed.open());
        let accepts = messages::ask(request.headers_mut()).map_err(SendReason::not_sent)?;
        let to = Peer { vetted, identity: identity.map(|identity| identity.certified()) };
        let mut connection = self.fresh(guard.as_ref(), to, deadline).await.map_err(SendReason::not_sent)?;
        if connection.driver.watch.begin(guard).is_err() {
            return Err(SendReason::Unreachable.not_sent());
        }
        let Connection { sender, driver, .. } = &mut connection;
        let asking = async {
            let sent = timeout_at(deadline, sender.try_send_request(request.map(Full::new))).await;
            let response = sent.map_err(|_| SendReason::Timeout)?.map_err(|_| SendReason::MalformedAnswer)?;
            if !messages::is_open(response.status(), response.headers(), &accepts) {
                return Ok(Opened::Refused(response.status().as_u16()));
            }
            let upgraded = timeout_at(deadline, hyper::upgrade::on(response)).await;
            let upgraded = upgraded.map_err(|_| SendReason::Timeout)?.map_err(|_| SendReason::MalformedAnswer)?;
            Ok(Opened::Messages(Box::new(Messages::new(upgraded).await)))
        };
        let opened = driver.run(asking).await.unwrap_or_else(|CalledOff| Err(SendReason::Cancelled));
        // An answer that came before the request had left would leave its guard on the connection.
        if opened.is_ok() && !driver.watch.finish() {
            return Err(SendReason::MalformedAnswer.maybe_sent());
        }
        opened.map_err(SendReason::maybe_sent)
    }

    /// Closes the idle connections on which a credential was used, and says how many; those in use are closed
    /// when their answer has been read.
    pub fn close_connections(&self, tenant: &TenantId, credential: &CredentialId) -> u64 {
        self.pool.close(tenant, Some(credential))
    }

    /// As [`Self::close_connections`], for everything of a tenant's.
    pub fn close_all_connections(&self, tenant: &TenantId) -> u64 {
        self.pool.close(tenant, None)
    }

    async fn exchange<G: Hold>(
        &self,
        key: PoolKey,
        outgoing: Outgoing,
        guard: Option<G>,
        to: Peer<'_>,
        limits: SendLimits,
    ) -> Result<Answer, SendFault> {
        let Outgoing { request, observed } = outgoing;
        let (kept, ticket) = self.kept(&key, to.vetted.address()).await;
        let unused = if kept.is_some() { SendReason::StaleConnection } else { SendReason::Unreachable };
        let mut connection = match kept {
            Some(connection) => connection,
            // Boxed: with a kept connection, nothing of dialling and TLS is needed.
            None => Box::pin(self.fresh(guard.as_ref(), to, limits.deadline)).await.map_err(SendReason::not_sent)?,
        };
        if let Some(observed) = observed {
            connection.driver.watch.observe_next(observed);
        }
        let answer = self.carry(&mut connection, request, guard, limits, unused).await?;
        if connection.driver.watch.finish() {
            self.pool.put(key, connection, ticket);
        }
        Ok(answer)
    }

    /// One request and its answer on one connection; `unused` is what is wrong if the connection turns out to be
    /// closed before a byte was written.
    async fn carry<G: Hold>(
        &self,
        connection: &mut Connection,
        request: http::Request<Bytes>,
        guard: Option<G>,
        limits: SendLimits,
        unused: SendReason,
    ) -> Result<Answer, SendFault> {
        if connection.driver.watch.begin(guard).is_err() {
            return Err(unused.not_sent());
        }
        self.converse(connection, request, limits).await.map_err(|reason| {
            if connection.driver.watch.wrote_something() {
                reason.maybe_sent()
            } else if matches!(reason, SendReason::Timeout | SendReason::Cancelled) {
                reason.not_sent()
            } else {
                unused.not_sent()
            }
        })
    }

    /// The status alone: what tests of other files may know of an answer.
    #[cfg(test)]
    pub(crate) async fn status(
        &self,
        key: PoolKey,
        request: http::Request<Bytes>,
        vetted: &Vetted,
        limits: SendLimits,
    ) -> Result<u16, SendFault> {
        self.exchange(key, request.into(), Some(crate::fixture::Free), to(vetted), limits)
            .await
            .map(|answer| answer.status)
    }

    /// A kept connection to the vetted address that can take a request now, if there is one. One that leads
    /// elsewhere was vetted too, but the ledger has named this address.
    async fn kept(&self, key: &PoolKey, address: SocketAddr) -> (Option<Connection>, crate::pool::Ticket) {
        loop {
            let (kept, ticket) = self.pool.take(key);
            let Some(mut connection) = kept else {
                return (None, ticket);
            };
            if connection.address != address {
                continue;
            }
            // Nobody has looked at it since it was put down: this finds out whether the peer has closed it, or
            // has said something that it was not asked.
            let Connection { sender, driver, .. } = &mut connection;
            let ready = driver.run(tokio::time::timeout(TURN, sender.ready())).await;
            if matches!(ready, Ok(Ok(Ok(())))) && !connection.is_closed() {
                return (Some(connection), ticket);
            }
        }
    }

    async fn fresh<G: Hold>(
        &self,
        guard: Option<&G>,
        to: Peer<'_>,
        deadline: Instant,
    ) -> Result<Connection, SendReason> {
        let Peer { vetted, identity } = to;
        let cancelled = async {
            match guard {
                Some(guard) => guard.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let dialled = tokio::select! {
            biased;
            () = cancelled => return Err(SendReason::Cancelled),
            dialled = self.dialler.dial(vetted, identity, deadline, |address| self.vetter.is_own(address)) => dialled,
        };
        dialled.inspect_err(|_| self.vetter.demote(vetted))
    }

    async fn converse(
        &self,
        connection: &mut Connection,
        request: http::Request<Bytes>,
        limits: SendLimits,
    ) -> Result<Answer, SendReason> {
        let Connection { sender, driver, .. } = connection;
        let asking = async {
            let until = limits.deadline.min(Instant::now() + self.deadlines.first_byte);
            let sent = timeout_at(until, sender.try_send_request(request.map(Full::new))).await;
            let response = sent.map_err(|_| SendReason::Timeout)?.map_err(|_| SendReason::MalformedAnswer)?;
            let (head, body) = response.into_parts();
            // 101 would be another protocol; above 599 is no status (RFC 9110 §15). Both framings at once
            // are how answers are smuggled (RFC 9112 §6.3): which one the next reader believes is unknown.
            let is_framed_twice = head.headers.contains_key(header::TRANSFER_ENCODING)
                && head.headers.contains_key(header::CONTENT_LENGTH);
            if !(200..600).contains(&head.status.as_u16()) || is_framed_twice {
                return Err(SendReason::MalformedAnswer);
            }
            let body = read(body, limits, self.deadlines.idle).await?;
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        driver.run(asking).await.unwrap_or_else(|CalledOff| Err(SendReason::Cancelled))
    }
}

/// How long a kept connection may need to say that it is ready: the last byte of an answer was read, and what is
/// left to do is in memory.
const TURN: Duration = Duration::from_millis(5);

/// Where a connection leads, and who we prove to be there.
struct Peer<'vetted> {
    vetted: &'vetted Vetted,
    identity: Option<Arc<CertifiedKey>>,
}

/// A peer to whom nothing is proven.
#[cfg(test)]
fn to(vetted: &Vetted) -> Peer<'_> {
    Peer { vetted, identity: None }
}

/// A request, and who is told of its bytes.
struct Outgoing {
    request: http::Request<Bytes>,
    observed: Option<Observed>,
}

/// Nobody measures.
#[cfg(test)]
impl From<http::Request<Bytes>> for Outgoing {
    fn from(request: http::Request<Bytes>) -> Self {
        Self { request, observed: None }
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<Bytes>,
}

/// The request as it goes on the connection, and what must be held until its head has left. All
/// that is secret is in the head: a credential in a body would need another way to know when it is gone.
fn written(open: OpenArmed) -> (http::Request<Bytes>, Option<UseGuard>, Option<ClientIdentity>) {
    let OpenArmed { method, path_and_query, mut headers, body, has_body, identity, guard, .. } = open;
    let wants_length = has_body || matches!(method, Method::POST | Method::PUT | Method::PATCH);
    if wants_length && body.is_empty() {
        // Hyper frames what is there and says nothing of what is not (RFC 9110 §8.6).
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(path_and_query);
    *request.headers_mut() = headers;
    (request, guard, identity)
}

/// Reads a body to its end or to its limit. Trailers are dropped: nobody scrubs what nobody asked for.
async fn read(mut body: Incoming, limits: SendLimits, idle: Duration) -> Result<Vec<Bytes>, SendReason> {
    if body.size_hint().lower() > limits.response_bytes {
        return Err(SendReason::AnswerTooLarge);
    }
    let mut pieces = Pieces::default();
    loop {
        let until = limits.deadline.min(Instant::now() + idle);
        let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| SendReason::Timeout)? else {
            return Ok(pieces.whole());
        };
        let Ok(data) = frame.map_err(|_| SendReason::MalformedAnswer)?.into_data() else {
            continue;
        };
        pieces.bytes += data.len() as u64;
        if pieces.bytes > limits.response_bytes {
            return Err(SendReason::AnswerTooLarge);
        }
        pieces.push(data);
    }
}

/// A body in pieces. Large ones are kept as they came; small ones are joined, so that an answer of
/// chunks of one byte does not cost a hundred times its size.
#[derive(Default)]
struct Pieces {
    joined: Vec<Bytes>,
    small: BytesMut,
    bytes: u64,
}

/// Below this, to copy costs less than to keep a piece, and the buffer that it is a part of, alive.
const SMALL_BYTES: usize = 2 << 10;

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        let is_first = self.joined.is_empty() && self.small.is_empty();
        if is_first || piece.len() >= SMALL_BYTES {
            self.join();
            self.joined.push(piece);
        } else {
            self.small.extend_from_slice(&piece);
        }
    }

    fn join(&mut self) {
        if !self.small.is_empty() {
            self.joined.push(self.small.split().freeze());
        }
    }

    fn whole(mut self) -> Vec<Bytes> {
        self.join();
        self.joined
    }
}

impl Hold for UseGuard {
    fn cancelled(&self) -> impl Future<Output = ()> + Send {
        UseGuard::cancelled(self)
    }
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
