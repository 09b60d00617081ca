//! Scrubbing: an answer goes in, a reply comes out in which no credential stands, in any of the forms
//! that `scrub/forms.rs` and `scrub/views.rs` name. Bodies are decoded first, bounded, and looked at as
//! a whole, so that it makes no difference how they were cut into pieces.
//!
//! Whole values only, in any case of letters: to redact fragments would tell a guest, who has an
//! upstream repeat its guesses, which of them are right (P10, threats X29). What an upstream split,
//! reversed or transformed in ways that are not named is not found; SECURITY.md says so.

mod decode;
mod forms;
mod sets;
mod sieve;
mod views;

use bytes::Bytes;
use http::HeaderMap;
use zeroize::Zeroizing;

use crate::Raw;
use crate::Reply;

pub use sets::ScrubSet;
pub(crate) use sets::ScrubSets;

/// What stands where a value stood: always the same, so that it tells nothing of the value's length
/// (threats X20).
pub const REDACTED: &str = "[redacted]";

/// How much an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubLimits {
    /// Bytes of the body after decoding. Decoding stops there: an answer of a few bytes can decode to
    /// gigabytes (threats N27).
    pub decoded_bytes_max: u64,
}

/// How often something was redacted: an upstream that repeats credentials is worth knowing of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reflected {
    /// Places, in header fields and body together.
    pub count: u64,
}

/// Why an answer cannot be passed on. Nothing of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScrubFault {
    /// The body is larger than allowed, possibly only after decoding.
    #[error("the answer is larger than allowed")]
    TooLarge,
    /// A content coding that cannot be looked into, or more than two.
    #[error("the answer is in a content coding that was not asked for")]
    UnknownCoding,
    /// The body is not what its content coding says.
    #[error("the answer does not decode")]
    MalformedCoding,
    /// A part of something, to a request that carried a credential (threats X27).
    #[error("the answer is partial, and the request carried a credential")]
    Partial,
    /// A value to look for could not be opened: without it nothing can be passed on.
    #[error("what is to be looked for in the answer is not complete")]
    SetIncomplete,
}

/// Takes every trace of the set's values out of an answer.
///
/// # Errors
/// [`ScrubFault`]; the answer is dropped.
pub fn scrub(raw: Raw, set: &ScrubSet, limits: ScrubLimits) -> Result<(Reply, Reflected), ScrubFault> {
    if !set.is_complete() {
        return Err(ScrubFault::SetIncomplete);
    }
    if raw.credentialed && raw.status == 206 {
        return Err(ScrubFault::Partial);
    }
    let status = raw.status;
    let own = ScrubSet::of_derived(&raw.derived);
    if own.as_ref().is_some_and(|own| !own.is_complete()) {
        return Err(ScrubFault::SetIncomplete);
    }
    let mut reflected = Reflected::default();
    let mut headers = scrub_headers(&raw.headers, set, &mut reflected);
    let mut body = decoded_body(raw, usize::try_from(limits.decoded_bytes_max).unwrap_or(usize::MAX))?;
    reflected.count += set.redact(&mut body);
    if let Some(own) = own {
        headers.retain(|(name, _)| !own.holds(name.as_bytes()));
        reflected.count += headers.iter_mut().map(|(_, value)| own.redact(value)).sum::<u64>();
        reflected.count += own.redact(&mut body);
    }
    Ok((Reply { status, headers, body }, reflected))
}

/// Takes every trace of the set's values out of a text: a tool's result, a log line, a trap's message.
/// Returns how many places it redacted. Of a set that is not complete, nothing is left of the text.
pub fn scrub_text(set: &ScrubSet, text: &mut String) -> u64 {
    let mut bytes = std::mem::take(text).into_bytes();
    let count = scrub_bytes(set, &mut bytes);
    // What is cut out begins and ends at ASCII characters, so this is never lossy; if it were, it would
    // still be without the value.
    *text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    count
}

/// As [`scrub_text`], but for what stands within one of these texts.
pub(crate) fn scrub_text_but(set: &ScrubSet, keep: &[Zeroizing<Vec<u8>>], text: &mut String) -> u64 {
    if !set.is_complete() {
        return scrub_text(set, text);
    }
    let mut bytes = std::mem::take(text).into_bytes();
    let count = set.redact_but(keep, &mut bytes);
    // As there.
    *text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    count
}

/// As [`scrub_text`], of bytes.
pub fn scrub_bytes(set: &ScrubSet, bytes: &mut Vec<u8>) -> u64 {
    if set.is_complete() {
        return set.redact(bytes);
    }
    *bytes = REDACTED.as_bytes().to_vec();
    1
}

/// The body in one piece, decoded.
pub(crate) fn decoded_body(raw: Raw, bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    let body = joined(raw.body, bytes_max)?;
    // An answer to HEAD, a 204 or a 304 names the coding of a body that is not there.
    if body.is_empty() {
        return Ok(body);
    }
    decode::decode(&raw.headers, body, bytes_max)
}

fn joined(mut pieces: Vec<Bytes>, bytes_max: usize) -> Result<Vec<u8>, ScrubFault> {
    let length = pieces.iter().map(Bytes::len).fold(0, usize::saturating_add);
    if length > bytes_max || u32::try_from(length).is_err() {
        return Err(ScrubFault::TooLarge);
    }
    // One piece is taken over without a copy where nobody else holds it.
    if pieces.len() == 1 {
        return Ok(pieces.pop().map(Vec::from).unwrap_or_default());
    }
    let mut body = Vec::with_capacity(length);
    pieces.iter().for_each(|piece| body.extend_from_slice(piece));
    Ok(body)
}

/// Fields that are about the connection (RFC 9110 §7.6.1) or about a coding that is gone, and names that
/// are ours to say (threats N34).
const DROPPED: [&str; 16] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-encoding",
    "content-length",
    "traceparent",
    "tracestate",
    "baggage",
    "x-run-id",
    "alt-svc",
];

fn scrub_headers(headers: &HeaderMap, set: &ScrubSet, reflected: &mut Reflected) -> Vec<(String, Vec<u8>)> {
    let named_by_connection: Vec<&str> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let mut kept = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let name = name.as_str();
        let is_dropped = DROPPED.contains(&name)
            || name.starts_with("x-keybearer-")
            || named_by_connection.iter().any(|named| named.eq_ignore_ascii_case(name));
        if is_dropped {
            continue;
        }
        if set.holds(name.as_bytes()) {
            reflected.count += 1;
            continue;
        }
        let mut value = value.as_bytes().to_vec();
        reflected.count += set.redact(&mut value);
        kept.push((name.to_owned(), value));
    }
    kept
}

/// One round of percent-decoding.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    views::percent_decoded(bytes)
}

#[cfg(test)]
mod coding_tests;
#[cfg(test)]
mod form_tests;
