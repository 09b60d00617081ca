//! An answer before and after scrubbing. A [`Raw`] has no reader outside this room but for its status: it can only be
//! scrubbed, or read as a source's answer. A [`Reply`] is for everyone.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use crate::secret::Secret;
use crate::secret::assert_lacks;

/// An answer as it came off the connection: it may hold what was sent.
#[must_use]
pub struct Raw {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<Bytes>,
    pub(crate) credentialed: bool,
    pub(crate) derived: Derived,
}

/// What was made of a credential for one request, as its signature: looked for in the answer to that request (threats
/// X10). It is of no use to anybody beyond it.
#[derive(Clone, Default)]
pub struct Derived(Option<Arc<Secret>>);

assert_lacks!(Derived: std::fmt::Debug, PartialEq, serde::Serialize);

impl Derived {
    pub(crate) fn of(secret: Secret) -> Self {
        Self(Some(Arc::new(secret)))
    }

    pub(crate) fn secret(&self) -> Option<&Secret> {
        self.0.as_deref()
    }
}

assert_lacks!(Raw: std::fmt::Debug, Clone, PartialEq, serde::Serialize);

impl Raw {
    /// What egress read: status, header fields, and the body in the pieces in which it came.
    /// `credentialed` says whether a credential was on the request. Reason, trailers and informational
    /// answers have no place here and so reach nobody (threats X02).
    pub fn new(status: u16, headers: HeaderMap, body: Vec<Bytes>, credentialed: bool) -> Self {
        Self { status, headers, body, credentialed, derived: Derived::default() }
    }

    /// The answer to a request for which this was made.
    pub fn answering(self, derived: Derived) -> Self {
        Self { derived, ..self }
    }

    /// The status, for records.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// An answer without any trace of a credential, in the encodings that the scrubber names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header fields, in lower case, in order.
    #[must_use]
    pub fn headers(&self) -> &[(String, Vec<u8>)] {
        &self.headers
    }

    /// The body, decoded.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Status, header fields, body.
    #[must_use]
    #[expect(clippy::type_complexity, reason = "three plain parts, which every caller takes apart at once")]
    pub fn into_parts(self) -> (u16, Vec<(String, Vec<u8>)>, Vec<u8>) {
        (self.status, self.headers, self.body)
    }
}
