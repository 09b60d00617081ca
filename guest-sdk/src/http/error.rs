//! Why there is no response, by the party at fault. Not for what a tool tells its caller: that is
//! `ToolError`, which `?` makes of these.

use std::fmt;

use super::Response;

/// Why there is no response.
#[derive(Debug)]
pub enum Error {
    /// The host refused; nothing was sent. There is one `Denied` for every reason (no binding, no
    /// grant, revoked, a header that is not the tool's to set); the tenant's administrator finds the
    /// reason in `keybearer explain`.
    Denied,
    /// The tool is at fault; nothing was sent.
    Guest(GuestFault),
    /// The upstream is at fault, or the way to it.
    Upstream(UpstreamReason, Delivery),
    /// The host is at fault: its ledger, its store, its own limits.
    Host(Delivery),
    /// An argument cannot stand as a segment of a path; nothing was sent.
    Segment(String),
    /// The body could not be written as JSON; nothing was sent.
    Body(String),
    /// The upstream answered with a status other than 2xx; from [`Response::error_for_status`].
    Status(Box<Response>),
    /// The answer's body is not what was expected; from [`Response::json`] and [`Response::text`].
    Answer(String),
}

/// Whether the upstream may have acted on a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No byte of it left the host: to try again is safe.
    NotSent,
    /// Some or all of it left: the upstream may have acted.
    MaybeSent,
}

/// What the tool did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFault {
    /// The URL is not in canonical form.
    MalformedUrl,
    /// A header name or value is not fit for the wire, or there are too many.
    MalformedHeader,
    /// The request body is larger than the call's limit.
    RequestTooLarge,
    /// The call has spent its number of requests.
    TooManyRequests,
    /// The call has spent its bytes.
    TooManyBytes,
}

/// What went wrong at the upstream or on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamReason {
    /// Its name does not resolve.
    Unresolvable,
    /// No connection could be made.
    Unreachable,
    /// TLS failed: certificate, name, version.
    Untrusted,
    /// It did not answer within the deadline.
    Timeout,
    /// What it answered is not HTTP, is in an unknown coding, or broke off.
    MalformedAnswer,
    /// What it answered is larger than the call's limit.
    AnswerTooLarge,
    /// It asks for less than the whole answer, which credentialed requests do not allow.
    PartialAnswer,
}

impl Error {
    /// Whether the upstream may have acted.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        match self {
            Self::Denied | Self::Guest(_) | Self::Segment(_) | Self::Body(_) => Delivery::NotSent,
            Self::Upstream(_, delivery) | Self::Host(delivery) => *delivery,
            Self::Status(_) | Self::Answer(_) => Delivery::MaybeSent,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (party, what) = match self {
            Self::Denied => return formatter.write_str("the host refused the request"),
            Self::Segment(text) => {
                return write!(formatter, "{text:?} cannot stand as one segment of a path");
            }
            Self::Status(response) => return write!(formatter, "the upstream answered {}", response.status()),
            Self::Body(why) => ("the request's body could not be written", why.as_str()),
            Self::Answer(why) => ("the upstream's answer is not what was expected", why.as_str()),
            Self::Guest(fault) => ("the tool's request is at fault", fault.as_str()),
            Self::Upstream(reason, _) => ("the upstream failed", reason.as_str()),
            Self::Host(_) => ("the host failed", "see its log"),
        };
        write!(formatter, "{party}: {what}")?;
        match self {
            Self::Upstream(_, delivery) | Self::Host(delivery) => formatter.write_str(match delivery {
                Delivery::NotSent => "; nothing was sent",
                Delivery::MaybeSent => "; it may have acted",
            }),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl GuestFault {
    fn as_str(self) -> &'static str {
        match self {
            Self::MalformedUrl => "its URL is not canonical",
            Self::MalformedHeader => "a header is malformed, or there are too many",
            Self::RequestTooLarge => "its body is larger than the call's limit",
            Self::TooManyRequests => "the call has spent its requests",
            Self::TooManyBytes => "the call has spent its bytes",
        }
    }
}

impl UpstreamReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unresolvable => "its name does not resolve",
            Self::Unreachable => "no connection could be made",
            Self::Untrusted => "TLS failed",
            Self::Timeout => "it did not answer in time",
            Self::MalformedAnswer => "its answer is malformed",
            Self::AnswerTooLarge => "its answer is larger than the call's limit",
            Self::PartialAnswer => "its answer is only a part",
        }
    }
}
