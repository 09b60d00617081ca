//! The port through which a guest gets out. This room defines it and implements none: what is behind
//! it (clearing, credentials, the wire) is the business of whoever binds it.

use std::future::Future;
use std::pin::Pin;

use keybearer_contract::Delivery;
use keybearer_contract::GuestRequest;
use keybearer_contract::GuestSignature as Asked;
use tokio::sync::oneshot;

/// Where a guest's requests go.
pub trait Outlet: Send + Sync + 'static {
    /// What comes back: a type that the implementor's own rooms let out only when it is fit for a guest.
    type Reply: GuestReply + Send;

    /// Hands a request over. The import only waits on the receiver; the dispatch is a task of the
    /// implementor's own, so that a guest that is stopped leaves no dispatch without an outcome, and
    /// nothing of a credential ever lies on a guest's stack. A sender that is dropped without an answer
    /// is a fault of the host.
    fn send(&self, request: GuestRequest) -> oneshot::Receiver<Result<Self::Reply, GuestFault>>;

    /// What comes of signing, fit for a guest as a reply is.
    type Signature: GuestSignature + Send;

    /// Has something signed: as [`Self::send`], a task of the implementor's own.
    fn sign(&self, asked: Asked) -> oneshot::Receiver<Result<Self::Signature, SigningFault>>;
}

/// What was signed, fit for a guest.
pub trait GuestSignature {
    /// A MAC as it is, a JWT and a URL as text.
    fn into_bytes(self) -> Vec<u8>;
}

/// An answer that is fit for a guest.
pub trait GuestReply {
    /// Status, header fields, body.
    fn into_parts(self) -> ReplyParts;
}

/// Status, header fields, body.
pub type ReplyParts = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

/// What a guest hears in place of an answer; the same cases as `error` in `wit/world.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFault {
    /// Refused, for whichever reason; nothing was sent.
    Denied,
    /// The guest is at fault; nothing was sent.
    Guest(GuestMistake),
    /// The upstream is at fault, or the way to it.
    Upstream {
        /// What went wrong.
        reason: UpstreamReason,
        /// Whether it may have acted.
        delivery: Delivery,
    },
    /// The host is at fault.
    Host {
        /// Whether the upstream may have acted.
        delivery: Delivery,
    },
}

/// What a guest did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestMistake {
    /// The URL is not in canonical form.
    MalformedUrl,
    /// A header is not fit for the wire, or there are too many.
    MalformedHeader,
    /// The body is larger than the call's limit.
    RequestTooLarge,
    /// The call has spent its number of requests.
    TooManyRequests,
    /// The call has spent its bytes.
    TooManyBytes,
}

/// What a guest hears in place of a signature; the same cases as `error` of `signing` in `wit/world.wit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningFault {
    /// Refused, for whichever reason.
    Denied,
    /// The message is longer than its slot signs, or than the call's limit.
    MessageTooLarge,
    /// A claim is not fit for a JWT.
    MalformedClaim,
    /// The URL is not in canonical form.
    MalformedUrl,
    /// It is to be good for too long, or for no time.
    ExpiresOutOfRange,
    /// The call has spent its number of requests.
    TooManyRequests,
    /// The call has spent its bytes.
    TooManyBytes,
    /// The host is at fault.
    Host,
}

/// What went wrong at an upstream or on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamReason {
    /// Its name does not resolve.
    Unresolvable,
    /// No connection could be made.
    Unreachable,
    /// TLS failed.
    Untrusted,
    /// It did not answer in time.
    Timeout,
    /// What it answered is not HTTP, is in an unknown coding, or broke off.
    MalformedAnswer,
    /// What it answered is larger than the call's limit.
    AnswerTooLarge,
    /// It answered a part where the whole is asked for.
    PartialAnswer,
}

/// A reply under way.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<ReplyParts, GuestFault>> + Send>>;

/// A signature under way.
pub(crate) type Signing = Pin<Box<dyn Future<Output = Result<Vec<u8>, SigningFault>> + Send>>;

/// An [`Outlet`] without its type, so that compiled tools, linkers and stores are of one type whoever
/// binds the port. One allocation a request, next to a dispatch that costs a thousand times that.
pub(crate) trait Way: Send + Sync {
    fn go(&self, request: GuestRequest) -> Pending;

    fn sign(&self, asked: Asked) -> Signing;
}

impl<O: Outlet> Way for O {
    fn go(&self, request: GuestRequest) -> Pending {
        let receiver = self.send(request);
        Box::pin(async move {
            match receiver.await {
                Ok(Ok(reply)) => Ok(reply.into_parts()),
                Ok(Err(fault)) => Err(fault),
                // Whoever dropped the sender did not say how far it had come.
                Err(_) => Err(GuestFault::Host { delivery: Delivery::MaybeSent }),
            }
        })
    }

    fn sign(&self, asked: Asked) -> Signing {
        let receiver = Outlet::sign(self, asked);
        Box::pin(async move {
            match receiver.await {
                Ok(Ok(signature)) => Ok(signature.into_bytes()),
                Ok(Err(fault)) => Err(fault),
                Err(_) => Err(SigningFault::Host),
            }
        })
    }
}
