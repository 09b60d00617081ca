//! The HTTP client: plain requests to the upstream's real URL, one or many at once. Not for
//! credentials (the host attaches them), redirects (they are answers), framing or retries.
//!
//! ```no_run
//! use keybearer_guest::prelude::*;
//!
//! # fn run(owner: &str, repo: &str) -> Result<(), ToolError> {
//! let issue: Value = http::post("https://api.github.com")
//!     .path(["repos", owner, repo, "issues"])
//!     .header("accept", "application/vnd.github+json")
//!     .json(&json!({ "title": "It broke" }))
//!     .send()?
//!     .error_for_status()?
//!     .json()?;
//! # Ok(())
//! # }
//! ```

mod error;
mod response;

use std::fmt;

use serde::Serialize;

use crate::encode;

pub use error::Delivery;
pub use error::Error;
pub use error::GuestFault;
pub use error::UpstreamReason;
pub use response::Response;

/// Methods that a tool can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 9110 §9.3.1
    Get,
    /// RFC 9110 §9.3.2
    Head,
    /// RFC 9110 §9.3.3
    Post,
    /// RFC 9110 §9.3.4
    Put,
    /// RFC 5789
    Patch,
    /// RFC 9110 §9.3.5
    Delete,
    /// RFC 9110 §9.3.7
    Options,
}

/// A GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new(Method::Get, url)
}

/// A HEAD request.
pub fn head(url: impl Into<String>) -> Request {
    Request::new(Method::Head, url)
}

/// A POST request.
pub fn post(url: impl Into<String>) -> Request {
    Request::new(Method::Post, url)
}

/// A PUT request.
pub fn put(url: impl Into<String>) -> Request {
    Request::new(Method::Put, url)
}

/// A PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new(Method::Patch, url)
}

/// A DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new(Method::Delete, url)
}

/// Sends several requests in parallel and waits for all; answers stand in the order of the requests.
/// The call's limits on parallel requests, number and bytes hold for all together.
///
/// One that could not be built is not sent, and its place holds the reason.
#[must_use]
pub fn send_all(requests: Vec<Request>) -> Vec<Result<Response, Error>> {
    let mut failures = Vec::with_capacity(requests.len());
    let mut parts = Vec::with_capacity(requests.len());
    for request in requests {
        failures.push(match request.into_parts() {
            Ok(ready) => {
                parts.push(ready);
                None
            }
            Err(error) => Some(error),
        });
    }
    let mut answers = crate::host::send_all(parts).into_iter();
    let lost = || Err(Error::Host(Delivery::MaybeSent));
    failures.into_iter().map(|failure| failure.map_or_else(|| answers.next().unwrap_or_else(lost), Err)).collect()
}

/// A request in the making. What is wrong with it is said by [`Request::send`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    parts: Parts,
    failure: Option<Error>,
}

/// What crosses to the host.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
}

impl Request {
    /// A request. The URL is absolute and canonical (`https://host[:port]/path[?query]`): the host
    /// refuses, and never repairs, anything else. [`Request::path`] and [`Request::query`] encode what
    /// comes from arguments.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self { parts: Parts { method, url: url.into(), headers: Vec::new(), body: None }, failure: None }
    }

    /// Appends segments to the path, each encoded, so that an argument can never add a segment of its
    /// own, climb, or begin a query. Stands before [`Request::query`].
    ///
    /// What no encoding makes a segment (see [`encode::segment`]) is told by [`Request::send`], as
    /// [`Error::Segment`].
    pub fn path<S: AsRef<str>>(mut self, segments: impl IntoIterator<Item = S>) -> Self {
        for segment in segments {
            match encode::segment(segment.as_ref()) {
                Ok(encoded) => {
                    if !self.parts.url.ends_with('/') {
                        self.parts.url.push('/');
                    }
                    self.parts.url.push_str(&encoded);
                }
                Err(error) => self.fail(error),
            }
        }
        self
    }

    /// Appends a pair to the query, both encoded.
    pub fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        if !self.parts.url.contains('?') {
            self.parts.url.push('?');
        }
        encode::pair_into(&mut self.parts.url, name, &value.to_string());
        self
    }

    /// Appends a pair to the query if there is a value.
    pub fn query_opt(self, name: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets a header field. Beside `accept`, `accept-language` and `content-type` only those that the
    /// manifest's binding lists are a tool's to set; one that the host or a slot owns is refused.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = name.to_ascii_lowercase();
        self.parts.headers.retain(|(other, _)| *other != name);
        self.parts.headers.push((name, value.as_ref().to_vec()));
        self
    }

    /// A JSON body, with its content type.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.header("content-type", "application/json").body(body),
            Err(error) => {
                self.fail(Error::Body(error.to_string()));
                self
            }
        }
    }

    /// A form as body (`application/x-www-form-urlencoded`), with its content type.
    pub fn form<N: AsRef<str>, V: AsRef<str>>(self, pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut body = String::new();
        for (name, value) in pairs {
            encode::pair_into(&mut body, name.as_ref(), value.as_ref());
        }
        self.header("content-type", "application/x-www-form-urlencoded").body(body)
    }

    /// Any other body; its content type is the caller's to set.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.parts.body = Some(body.into());
        self
    }

    /// Sends the request and waits for its answer. Every status is an answer: see
    /// [`Response::error_for_status`].
    ///
    /// # Errors
    /// [`Error`] says who is at fault and whether the upstream may have acted.
    pub fn send(self) -> Result<Response, Error> {
        crate::host::send(self.into_parts()?)
    }

    fn into_parts(self) -> Result<Parts, Error> {
        match self.failure {
            None => Ok(self.parts),
            Some(error) => Err(error),
        }
    }

    /// The first failure is the one that tells.
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }
}
