//! Placing: cleared request + recorded intent + lease → an armed request. This is where a credential
//! meets a request, and the last look before it leaves: that lease and request belong together, that
//! the connection will be encrypted, and that nobody else has set what the slot owns.
//!
//! Not for deciding whether a request may be sent: that is the gate's. What is checked here a second
//! time is checked because a mistake there would be a leak here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use http::uri::PathAndQuery;
use keybearer_contract::CredentialId;
use keybearer_contract::DispatchId;
use keybearer_contract::Method;
use keybearer_contract::Placement;
use keybearer_contract::Scheme;
use keybearer_contract::UnixMillis;
use keybearer_gate::Attach;
use keybearer_gate::Cleared;
use keybearer_gate::ClearedParts;
use keybearer_gate::Destination;
use keybearer_gate::Facts;
use keybearer_gate::How;
use keybearer_ledger::Intent;
use zeroize::Zeroizing;

use crate::ClientIdentity;
use crate::Derived;
use crate::Lease;
use crate::UseGuard;
use crate::carry;
use crate::lease::Leased;
use crate::proof::Proof;
use crate::secret::Secret;
use crate::secret::assert_lacks;

/// Why a credential was not put on a request. Each is a mistake of ours: the gate has let through what
/// it must not, or lease and request were mixed up. Nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceRefused {
    /// Request, recorded intent and lease are not of the same call, tenant, credential, version and epoch.
    #[error("request, intent and lease do not belong together")]
    Mismatch,
    /// The value is not of the kind that goes there.
    #[error("the credential is of another kind than its place takes")]
    WrongKind,
    /// The request names a credential and came without a lease.
    #[error("the request names a credential")]
    NeedsLease,
    /// The request names none and came with a lease.
    #[error("the request names no credential")]
    NothingToPlace,
    /// A credential goes out over HTTPS only.
    #[error("a credential goes out over https only")]
    InTheClear,
    /// What the slot owns, or what the host sets, is already on the request.
    #[error("the request already holds a field that is not the guest's")]
    AlreadyPresent,
    /// The access key is a session's: its token would stand in the URL that is signed.
    #[error("a session's access key signs no URL")]
    SessionToken,
    /// Path, query or a header cannot be written on the wire.
    #[error("the request cannot be written on the wire")]
    Malformed,
}

/// The host's own: set here, or never set (threats N20–N22, N25, X27). A request that holds one has not
/// been cleared as it should.
pub(crate) const HOST_HEADERS: [HeaderName; 11] = [
    header::HOST,
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    header::RANGE,
    header::IF_RANGE,
];

/// The codings that `scrub` can look into (threats X27).
const CODINGS: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");

/// A request with its credential on it. It can only be sent: whom it is for and what it is can be asked,
/// what it says cannot.
#[must_use]
pub struct Armed {
    intent: Intent,
    open: OpenArmed,
}

assert_lacks!(Armed: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

/// An armed request, opened to be written on a connection. For egress alone, and there in one file.
pub struct OpenArmed {
    /// Whose request it is, for records.
    pub facts: Facts,
    /// Where to: what was vetted, what is dialled, what TLS is asked to prove.
    pub destination: Destination,
    /// The method.
    pub method: http::Method,
    /// Origin form (RFC 9112 §3.2.1). May hold a credential: not for records.
    pub path_and_query: PathAndQuery,
    /// Every field but those that frame the body; `host` first. A credential is marked as sensitive.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Bytes,
    /// Whether there is a body, be it an empty one: then `content-length` is sent.
    pub has_body: bool,
    /// The credential that is on it: part of the key of the pool, so that no connection is shared by two.
    pub credential: Option<CredentialId>,
    /// Who the connection proves that we are; part of the key of the pool, too.
    pub identity: Option<ClientIdentity>,
    /// To be held until the last byte of the credential is with the kernel, or the connection is closed.
    pub guard: Option<UseGuard>,
    /// What was made of the credential for this request.
    pub derived: Derived,
}

assert_lacks!(OpenArmed: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

impl Armed {
    /// Where to.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.open.destination
    }

    /// Whose request it is, for records.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.open.facts
    }

    /// Under which dispatch it was recorded.
    #[must_use]
    pub fn dispatch(&self) -> &DispatchId {
        self.intent.dispatch()
    }

    /// Which credential is on it.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialId> {
        self.open.credential.as_ref()
    }

    /// Which version of it, as the record says.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.intent.version()
    }

    /// The size of its body, for records.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.open.body.len() as u64
    }

    /// Whether a credential is on it.
    #[must_use]
    pub fn is_credentialed(&self) -> bool {
        self.open.credential.is_some()
    }

    /// What was made of the credential for this request: goes to the [`crate::Raw`] that answers it.
    #[must_use]
    pub fn derived(&self) -> Derived {
        self.open.derived.clone()
    }

    /// Opens it, to be written on a connection. For egress alone, and there in one file: whoever else
    /// calls this reads a secret.
    #[must_use]
    pub fn open(self) -> OpenArmed {
        self.open
    }
}

/// Puts the leased value on the request.
///
/// # Errors
/// [`PlaceRefused`]; the lease is given up, and the value wiped.
pub fn place(cleared: Cleared, intent: Intent, lease: Lease) -> Result<Armed, PlaceRefused> {
    let attached = cleared.attach().map(|attach| &attach.credential);
    let is_recorded = !intent.is_signature()
        && intent.call() == &cleared.facts().call
        && intent.credential() == attached
        && intent.version() == Some(lease.version)
        && intent.epoch() == Some(lease.epoch);
    if !is_recorded {
        return Err(PlaceRefused::Mismatch);
    }
    Ok(Armed { intent, open: arm(cleared, lease)? })
}

/// Makes a request ready that carries no credential.
///
/// # Errors
/// [`PlaceRefused::NeedsLease`] if it names one, which it never goes out without.
pub fn plain(cleared: Cleared, intent: Intent) -> Result<Armed, PlaceRefused> {
    let is_recorded = intent.call() == &cleared.facts().call && intent.credential().is_none();
    let open = arm_plain(cleared)?;
    if is_recorded { Ok(Armed { intent, open }) } else { Err(PlaceRefused::Mismatch) }
}

/// [`place`], without the proof of the intent.
pub(crate) fn arm(cleared: Cleared, lease: Lease) -> Result<OpenArmed, PlaceRefused> {
    let (facts, parts, attach) = cleared.into_parts();
    let attach = attach.ok_or(PlaceRefused::NothingToPlace)?;
    if lease.tenant != facts.tenant || lease.credential != attach.credential {
        return Err(PlaceRefused::Mismatch);
    }
    if parts.destination.scheme() != Scheme::Https {
        return Err(PlaceRefused::InTheClear);
    }
    let injection = injection(&attach, &lease.value)?;
    let proof = proof(&attach, &lease.value)?;
    let mut open = assemble(facts, parts, Some(injection))?;
    if let Some(proof) = proof {
        open.derived = proof.put(&mut open, UnixMillis::now())?;
    }
    open.credential = Some(attach.credential);
    open.guard = lease.guard;
    Ok(open)
}

/// [`plain`], without the proof of the intent.
pub(crate) fn arm_plain(cleared: Cleared) -> Result<OpenArmed, PlaceRefused> {
    let (facts, parts, attach) = cleared.into_parts();
    if attach.is_some() {
        return Err(PlaceRefused::NeedsLease);
    }
    assemble(facts, parts, None)
}

/// What is added to a request.
#[derive(Default)]
struct Injection {
    header: Option<(HeaderName, HeaderValue)>,
    /// Name, and the value percent-encoded.
    query: Option<(String, Zeroizing<String>)>,
    body: Option<Zeroizing<Vec<u8>>>,
    identity: Option<ClientIdentity>,
}

fn injection(attach: &Attach, value: &Leased) -> Result<Injection, PlaceRefused> {
    match (&attach.how, value) {
        (How::Slot(placement), Leased::Stored(kind, secret)) if kind.fits(placement) => slotted(placement, secret),
        (How::Slot(placement), Leased::Minted(kind, secret)) if kind.fits(placement) => slotted(placement, secret),
        (How::Exchange(carried), Leased::Source(stored, vessel)) => {
            let (header, body) = carry::complete(carried, stored.as_ref(), vessel)?;
            let identity = carry::identity(carried, stored.as_ref(), vessel)?;
            Ok(Injection { header, body, identity, query: None })
        }
        // A stored value of a recipe reaches no guest's request, nor anything else a source.
        _ => Err(PlaceRefused::WrongKind),
    }
}

/// What is made over the request once all else is on it, if something is.
fn proof<'lease>(attach: &'lease Attach, value: &'lease Leased) -> Result<Option<Proof<'lease>>, PlaceRefused> {
    match (&attach.how, value) {
        (How::Slot(placement), Leased::Stored(kind, secret)) => Proof::of_slot(placement, kind, secret),
        (How::Slot(placement), Leased::Minted(kind, secret)) => Proof::of_slot(placement, kind, secret),
        (How::Exchange(carried), Leased::Source(stored, vessel)) => {
            let signing = carry::signing(carried, stored.as_ref(), vessel)?;
            Ok(signing.map(|(scope, keys)| Proof::Sigv4(scope, keys)))
        }
        _ => Ok(None),
    }
}

fn slotted(placement: &Placement, secret: &Secret) -> Result<Injection, PlaceRefused> {
    let header = |name, value| Ok(Injection { header: Some((name, value)), ..Injection::default() });
    match placement {
        Placement::Bearer => header(header::AUTHORIZATION, authorization("Bearer ", secret.expose())?),
        Placement::Basic => header(header::AUTHORIZATION, authorization("Basic ", &base64_of(secret))?),
        Placement::Header { name } => {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| PlaceRefused::Malformed)?;
            header(name, authorization("", secret.expose())?)
        }
        Placement::Query { name } => {
            let mut encoded = Zeroizing::new(String::with_capacity(3 * secret.len()));
            percent_encode(secret.expose(), &mut encoded);
            Ok(Injection { query: Some((name.clone(), encoded)), ..Injection::default() })
        }
        // It is made when all else is on it.
        Placement::Sigv4 { .. } | Placement::Hmac(_) | Placement::Jwt(_) => Ok(Injection::default()),
        // It is on no request; one that was cleared for it was cleared by mistake.
        Placement::Function(_) => Err(PlaceRefused::WrongKind),
        Placement::MutualTls => {
            let identity = ClientIdentity::parse(secret).map_err(|_| PlaceRefused::WrongKind)?;
            Ok(Injection { identity: Some(identity), ..Injection::default() })
        }
    }
}

/// `scheme value`, marked so that it is neither printed nor put into a header compression table.
pub(crate) fn authorization(scheme: &str, value: &[u8]) -> Result<HeaderValue, PlaceRefused> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(scheme.len() + value.len()));
    bytes.extend_from_slice(scheme.as_bytes());
    bytes.extend_from_slice(value);
    let mut value = HeaderValue::from_bytes(&bytes).map_err(|_| PlaceRefused::Malformed)?;
    value.set_sensitive(true);
    Ok(value)
}

fn base64_of(secret: &Secret) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(STANDARD.encode(secret.expose()).into_bytes())
}

/// `client_id:client_secret`, each form-encoded before they are joined (RFC 6749 §2.3.1).
pub(crate) fn client_pair(client_id: &str, secret: &[u8]) -> Secret {
    // Reserved whole, so that it is never moved while it grows.
    let mut pair = Zeroizing::new(String::with_capacity(3 * (client_id.len() + secret.len()) + 1));
    form_encode(client_id.as_bytes(), &mut pair);
    pair.push(':');
    form_encode(secret, &mut pair);
    Secret::take(pair.as_bytes().to_vec())
}

/// RFC 3986 §2.1: everything but the unreserved characters.
pub(crate) fn percent_encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            push_percent(*byte, out);
        }
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
pub(crate) fn form_encode(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b' ' => out.push('+'),
            b'*' | b'-' | b'.' | b'_' => out.push(char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(*byte)),
            _ => push_percent(*byte, out),
        }
    }
}

fn push_percent(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn assemble(facts: Facts, parts: ClearedParts, injection: Option<Injection>) -> Result<OpenArmed, PlaceRefused> {
    let ClearedParts { destination, method, path, query, headers, body } = parts;
    let injection = injection.unwrap_or_default();
    let mut map = HeaderMap::with_capacity(headers.len() + 3);
    let authority = HeaderValue::try_from(destination.authority()).map_err(|_| PlaceRefused::Malformed)?;
    // First, as RFC 9112 §3.2 would have it.
    map.insert(header::HOST, authority);
    for (name, value) in &headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| PlaceRefused::Malformed)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| PlaceRefused::Malformed)?;
        if HOST_HEADERS.contains(&name) || map.insert(name, value).is_some() {
            return Err(PlaceRefused::AlreadyPresent);
        }
    }
    map.insert(header::ACCEPT_ENCODING, CODINGS);
    if let Some((name, value)) = injection.header
        && (HOST_HEADERS.contains(&name) || map.insert(name, value).is_some())
    {
        return Err(PlaceRefused::AlreadyPresent);
    }
    let path_and_query = target(&path, query.as_deref(), injection.query.as_ref())?;
    let body = match injection.body {
        Some(mut completed) => Some(std::mem::take(&mut *completed)),
        None => body,
    };
    let has_body = body.is_some();
    Ok(OpenArmed {
        facts,
        destination,
        method: wire_method(method),
        path_and_query,
        headers: map,
        body: body.map(Bytes::from).unwrap_or_default(),
        has_body,
        credential: None,
        identity: injection.identity,
        guard: None,
        derived: Derived::default(),
    })
}

fn target(
    path: &str,
    query: Option<&str>,
    owned: Option<&(String, Zeroizing<String>)>,
) -> Result<PathAndQuery, PlaceRefused> {
    let (owned, value) = match owned {
        Some((name, value)) => (Some(name.as_str()), value.as_str()),
        None => (None, ""),
    };
    let length = path.len() + query.map_or(0, str::len) + owned.map_or(0, str::len) + value.len() + 3;
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.push_str(path);
    if let Some(query) = query {
        if owned.is_some_and(|owned| holds_parameter(query, owned)) {
            return Err(PlaceRefused::AlreadyPresent);
        }
        text.push('?');
        text.push_str(query);
    }
    if let Some(owned) = owned {
        text.push(match query {
            None => '?',
            Some(_) => '&',
        });
        text.push_str(owned);
        text.push('=');
        text.push_str(value);
    }
    let target = PathAndQuery::try_from(text.as_bytes()).map_err(|_| PlaceRefused::Malformed)?;
    // A fragment would be cut off without a word, and so would be what comes after it.
    if target.as_str() == text.as_str() && path.starts_with('/') { Ok(target) } else { Err(PlaceRefused::Malformed) }
}

/// Whether the query sets this parameter in any spelling.
fn holds_parameter(query: &str, owned: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name).replace('+', " ");
        crate::scrub::percent_decoded(name.as_bytes()).eq_ignore_ascii_case(owned.as_bytes())
    })
}

fn wire_method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Head => http::Method::HEAD,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
        Method::Options => http::Method::OPTIONS,
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
