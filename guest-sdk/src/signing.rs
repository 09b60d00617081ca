//! Signing by the host: a slot of placement `function` names the key, which no tool ever has, and says what it signs.
//! Not for a signature over the tool's own requests: there a slot of placement `hmac`, `jwt` or `sigv4` is the better
//! way, since the signature is never in the tool's hands.
//!
//! ```no_run
//! use keybearer_guest::prelude::*;
//!
//! # fn run(body: &str) -> Result<(), ToolError> {
//! let mac = signing::mac("events", body)?;
//! http::post("https://events.example.com/v1/events")
//!     .header("x-signature", signing::hex(&mac))
//!     .body(body)
//!     .send()?
//!     .error_for_status()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is made is a secret of the call: the host takes it out of answers, log lines and, unless the slot says
//! `for_caller`, the tool's result. It counts as one of the call's requests.

use std::fmt;

use crate::http::Method;

/// Why nothing was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// The host refused. There is one `Denied` for every reason (no such slot, one that signs something else, no grant,
    /// revoked, a claim or a place that is not the tool's to say); the tenant's administrator finds the reason in
    /// `keybearer explain`.
    Denied,
    /// The tool is at fault.
    Guest(GuestFault),
    /// The host is at fault: its ledger, its store, its own limits.
    Host,
}

/// What the tool did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFault {
    /// The message is longer than the slot signs, or than the call's limit for requests.
    MessageTooLarge,
    /// A claim's value is not printable ASCII, empty or too long, or the claim is there twice.
    MalformedClaim,
    /// The URL is not in canonical form.
    MalformedUrl,
    /// It is to be good for no time, or for longer than the slot allows.
    ExpiresOutOfRange,
    /// The call has spent its number of requests: a signature counts as one.
    TooManyRequests,
    /// The call has spent its bytes.
    TooManyBytes,
}

/// HMAC-SHA-256 over the slot's context and the message. Who verifies it puts the context before the message, too.
///
/// # Errors
/// [`Error`] says who is at fault.
pub fn mac(slot: &str, message: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
    crate::host::mac(slot, message.as_ref())
}

/// A JWT of the slot's claims, these (name and value), and `iat`, `exp` and `jti`, which the host sets.
///
/// # Errors
/// [`Error`] says who is at fault; a claim that the slot does not let a tool say is [`Error::Denied`].
pub fn jwt(slot: &str, claims: &[(&str, &str)]) -> Result<String, Error> {
    crate::host::jwt(slot, claims)
}

/// A URL that is good by itself for so many seconds, for whoever holds it to send a request of this method. The URL
/// is absolute and canonical, as that of a request, and one that the slot binds.
///
/// # Errors
/// [`Error`] says who is at fault.
pub fn presign(slot: &str, method: Method, url: &str, expires_s: u32) -> Result<String, Error> {
    crate::host::presign(slot, method, url, expires_s)
}

/// Bytes as lower-case hexadecimal, as most receivers of webhooks read a MAC.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Denied => "the host refused to sign",
            Self::Host => "the host failed to sign: see its log",
            Self::Guest(GuestFault::MessageTooLarge) => "the message is longer than the slot or the call allows",
            Self::Guest(GuestFault::MalformedClaim) => "a claim is malformed, or there twice",
            Self::Guest(GuestFault::MalformedUrl) => "the URL to be signed is not canonical",
            Self::Guest(GuestFault::ExpiresOutOfRange) => "the slot signs no URL that is good for so long",
            Self::Guest(GuestFault::TooManyRequests) => "the call has spent its requests",
            Self::Guest(GuestFault::TooManyBytes) => "the call has spent its bytes",
        })
    }
}

impl std::error::Error for Error {}
