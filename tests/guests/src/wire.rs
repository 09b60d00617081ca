//! The import as it is, without what the SDK does for a tool: header names in any case, twice, with any
//! bytes; and what it answers, in words that a test can compare.

use keybearer_guest::bindings::keybearer::tool::http as raw;
use keybearer_guest::prelude::*;

/// A request as a test says it.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    /// The method; GET, if none is said.
    #[serde(default)]
    method: Option<String>,
    /// The URL, byte for byte.
    pub(crate) url: String,
    /// Header fields: name and value. A character of the value is one byte.
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// The body. A character is one byte.
    #[serde(default)]
    body: Option<String>,
}

impl Said {
    /// A GET of this URL.
    pub(crate) fn get(url: String) -> Self {
        Self { method: None, url, headers: Vec::new(), body: None }
    }

    /// The same with these header fields.
    pub(crate) fn with_headers(self, headers: Vec<(String, String)>) -> Self {
        Self { headers, ..self }
    }

    /// The same with this body.
    pub(crate) fn with_body(self, body: String) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The same with this in place of `{made}` in URL and names.
    pub(crate) fn with_made(self, made: &str) -> Self {
        let headers = self.headers.into_iter().map(|(name, value)| (name.replace("{made}", made), value));
        Self { url: self.url.replace("{made}", made), headers: headers.collect(), ..self }
    }

    /// As the import takes it.
    ///
    /// # Errors
    /// If the method is one that no guest can say.
    pub(crate) fn into_raw(self) -> Result<raw::Request, ToolError> {
        let method = match self.method.as_deref().unwrap_or("GET") {
            "GET" => raw::Method::Get,
            "HEAD" => raw::Method::Head,
            "POST" => raw::Method::Post,
            "PUT" => raw::Method::Put,
            "PATCH" => raw::Method::Patch,
            "DELETE" => raw::Method::Delete,
            "OPTIONS" => raw::Method::Options,
            other => return Err(ToolError::invalid(format!("no guest can say {other}"))),
        };
        let headers = self.headers.into_iter().map(|(name, value)| raw::Header { name, value: bytes(&value) });
        Ok(raw::Request { method, url: self.url, headers: headers.collect(), body: self.body.map(|body| bytes(&body)) })
    }
}

/// A character of up to U+00FF is one byte; others are theirs in UTF-8.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(character) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend(character.to_string().bytes()),
        }
    }
    bytes
}

/// What the import answered.
pub(crate) type Heard = Result<raw::Response, raw::Error>;

/// Sends one request.
pub(crate) fn send(said: Said) -> Result<Heard, ToolError> {
    Ok(raw::send(&said.into_raw()?))
}

/// What was heard, in a few words: a status, or who is at fault and whether it was sent.
pub(crate) fn outcome(heard: &Heard) -> String {
    let delivery = |delivery| match delivery {
        raw::Delivery::NotSent => "not sent",
        raw::Delivery::MaybeSent => "maybe sent",
    };
    match heard {
        Ok(response) => response.status.to_string(),
        Err(raw::Error::Denied) => "denied".to_owned(),
        Err(raw::Error::Guest(fault)) => match fault {
            raw::GuestFault::MalformedUrl => "malformed url".to_owned(),
            raw::GuestFault::MalformedHeader => "malformed header".to_owned(),
            raw::GuestFault::RequestTooLarge => "request too large".to_owned(),
            raw::GuestFault::TooManyRequests => "too many requests".to_owned(),
            raw::GuestFault::TooManyBytes => "too many bytes".to_owned(),
        },
        Err(raw::Error::Upstream(fault)) => {
            let reason = match fault.reason {
                raw::UpstreamReason::Unresolvable => "unresolvable",
                raw::UpstreamReason::Unreachable => "unreachable",
                raw::UpstreamReason::Untrusted => "untrusted",
                raw::UpstreamReason::Timeout => "timeout",
                raw::UpstreamReason::MalformedAnswer => "malformed answer",
                raw::UpstreamReason::AnswerTooLarge => "answer too large",
                raw::UpstreamReason::PartialAnswer => "partial answer",
            };
            format!("upstream: {reason}, {}", delivery(fault.delivery))
        }
        Err(raw::Error::Host(fault)) => format!("host, {}", delivery(fault.delivery)),
    }
}

/// Every byte that was heard: status, header fields, body.
pub(crate) fn everything(heard: &Heard) -> Vec<u8> {
    let Ok(response) = heard else { return outcome(heard).into_bytes() };
    let mut bytes = format!("{}\n", response.status).into_bytes();
    for header in &response.headers {
        bytes.extend(header.name.bytes());
        bytes.extend(b": ");
        bytes.extend(&header.value);
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend(&response.body);
    bytes
}
