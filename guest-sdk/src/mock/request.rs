//! A request as the mock host saw it, and how a test reads it.

use serde::de::DeserializeOwned;

use crate::http::Method;
use crate::http::Parts;

/// A request as the mock host saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The URL, query included.
    pub url: String,
    /// The header fields, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

impl From<Parts> for Request {
    fn from(parts: Parts) -> Self {
        Self { method: parts.method, url: parts.url, headers: parts.headers, body: parts.body }
    }
}

impl Request {
    /// A header field's value, if it is there and is UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        std::str::from_utf8(value).ok()
    }

    /// The URL without its query.
    #[must_use]
    pub fn url_without_query(&self) -> &str {
        self.url.split_once('?').map_or(&self.url, |(front, _)| front)
    }

    /// The query's pairs, decoded, in order.
    #[must_use]
    pub fn query(&self) -> Vec<(String, String)> {
        self.url.split_once('?').map_or_else(Vec::new, |(_, query)| pairs(query))
    }

    /// The body as the pairs of a form, decoded, in order.
    #[must_use]
    pub fn form(&self) -> Vec<(String, String)> {
        pairs(&String::from_utf8_lossy(self.body.as_deref().unwrap_or_default()))
    }

    /// The body as JSON of a type.
    ///
    /// # Panics
    /// Where it is not.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(self.body.as_deref().unwrap_or_default())
            .expect("the request's body is JSON of this type")
    }
}

fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = text.get(index + 1..index + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (bytes[index], hex) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                index += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
