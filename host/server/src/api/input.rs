//! A request after its route was found: parameters, headers, and a body that is read at most once,
//! within its limits.

use std::time::Duration;

use http::HeaderMap;
use http::header;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use hyper::body::Incoming;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::api::body;
use crate::api::msgpack;
use crate::config::file::LimitsSection;

/// A request.
pub(crate) struct Input {
    head: http::request::Parts,
    body: Incoming,
    parameters: Vec<String>,
}

/// Which of the two forms a body has, or is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    MessagePack,
}

/// The media type of MessagePack bodies.
pub(crate) const MESSAGE_PACK: &str = "application/msgpack";

impl Input {
    pub(crate) fn new(head: http::request::Parts, body: Incoming, parameters: Vec<String>) -> Self {
        Self { head, body, parameters }
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The path's parameter, parsed. What does not parse cannot exist, and is answered so.
    pub(crate) fn parameter<T: std::str::FromStr>(&self, index: usize) -> Result<T, Problem> {
        self.parameters.get(index).and_then(|text| text.parse().ok()).ok_or_else(Problem::not_found)
    }

    /// The query as written.
    pub(crate) fn raw_query(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// The query's parameters as written.
    pub(crate) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        self.raw_query()
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    /// One parameter of the query, by name.
    pub(crate) fn query_value(&self, name: &str) -> Option<&str> {
        self.query().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// In which form the answer is wanted.
    pub(crate) fn accepts(&self) -> Form {
        let accept = self.head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let wants = accept.split(',').any(|part| media_type(part).eq_ignore_ascii_case(MESSAGE_PACK));
        if wants { Form::MessagePack } else { Form::Json }
    }

    /// In which form the body is.
    pub(crate) fn form(&self) -> Result<Form, Problem> {
        let kind = self.content_type();
        if kind.eq_ignore_ascii_case("application/json") {
            Ok(Form::Json)
        } else if kind.eq_ignore_ascii_case(MESSAGE_PACK) {
            Ok(Form::MessagePack)
        } else {
            Err(Problem::new(
                Code::UnsupportedMediaType,
                "say content-type: application/json, or application/msgpack for calls and runs",
            ))
        }
    }

    /// The body's media type, without parameters.
    fn content_type(&self) -> &str {
        let mut values = self.head.headers.get_all(header::CONTENT_TYPE).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => media_type(value.to_str().unwrap_or_default()),
            _ => "",
        }
    }

    /// The body as JSON of one type.
    pub(crate) async fn json<T: DeserializeOwned>(self, limits: &LimitsSection) -> Result<T, Problem> {
        if self.form()? != Form::Json {
            return Err(Problem::new(Code::UnsupportedMediaType, "say content-type: application/json"));
        }
        let bytes = self.bytes(limits, limits.body_bytes).await?;
        body::parse(&bytes, limits.json_depth)
    }

    /// The body as JSON text, from JSON or MessagePack; not yet looked at.
    pub(crate) async fn json_text(self, limits: &LimitsSection) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let form = self.form()?;
        let mut bytes = self.bytes(limits, limits.body_bytes).await?;
        if form == Form::MessagePack {
            *bytes = msgpack::to_json(&bytes, limits.json_depth)?.into_bytes();
        }
        Ok(bytes)
    }

    /// The body as opaque bytes.
    pub(crate) async fn octets(self, limits: &LimitsSection, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        if !self.content_type().eq_ignore_ascii_case("application/octet-stream") {
            return Err(Problem::new(Code::UnsupportedMediaType, "say content-type: application/octet-stream"));
        }
        let mut bytes = self.bytes(limits, bytes_max).await?;
        Ok(std::mem::take(&mut *bytes))
    }

    /// The body's bytes, wiped when dropped: a body may carry a credential. A body that says that it is
    /// too long is refused before it is read.
    pub(crate) async fn bytes(self, limits: &LimitsSection, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, Problem> {
        let too_large = || {
            Problem::new(Code::BodyTooLarge, format!("send at most {bytes_max} bytes"))
                .at_limit("body_bytes", bytes_max)
        };
        let announced = self.body.size_hint().upper();
        if announced.is_some_and(|bytes| bytes > bytes_max) {
            return Err(too_large());
        }
        let capacity = usize::try_from(announced.unwrap_or(4096)).unwrap_or(4096);
        let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
        let mut body = self.body;
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame =
                    frame.map_err(|_| Problem::new(Code::MalformedBody, "the body ended early or is misframed"))?;
                let Ok(data) = frame.into_data() else { continue };
                if (bytes.len() + data.len()) as u64 > bytes_max {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_millis(limits.body_ms), reading).await.map_err(|_| {
            Problem::new(Code::MalformedBody, "the body came too slowly").at_limit("body_ms", limits.body_ms)
        })??;
        Ok(bytes)
    }
}

fn media_type(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}
