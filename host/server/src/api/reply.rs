//! A good answer, and the headers that every answer has.

use bytes::Bytes;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use serde::Serialize;

use crate::api::input::Form;
use crate::api::input::MESSAGE_PACK;
use crate::api::msgpack;

/// A good answer.
pub(crate) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Reply {
    /// A value as JSON.
    pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Result<Self, Problem> {
        let body =
            serde_json::to_vec(value).map_err(|_| Problem::new(Code::Internal, "an answer could not be written"))?;
        Ok(Self::bytes(status, "application/json", body))
    }

    /// A value in the form that was asked for.
    pub(crate) fn in_form<T: Serialize>(form: Form, status: StatusCode, value: &T) -> Result<Self, Problem> {
        match form {
            Form::Json => Self::json(status, value),
            Form::MessagePack => Ok(Self::bytes(status, MESSAGE_PACK, msgpack::from_json(value)?)),
        }
    }

    /// A value as JSON, 200.
    pub(crate) fn ok<T: Serialize>(value: &T) -> Result<Self, Problem> {
        Self::json(StatusCode::OK, value)
    }

    /// A value as JSON, 201.
    pub(crate) fn created<T: Serialize>(value: &T) -> Result<Self, Problem> {
        Self::json(StatusCode::CREATED, value)
    }

    /// A list, in an object so that it can grow.
    pub(crate) fn items<T: Serialize>(items: &[T]) -> Result<Self, Problem> {
        #[derive(Serialize)]
        struct Items<'items, T> {
            items: &'items [T],
        }
        Self::ok(&Items { items })
    }

    /// Nothing, 204.
    pub(crate) fn nothing() -> Self {
        Self::bytes(StatusCode::NO_CONTENT, "", Vec::new())
    }

    /// Bytes of a type.
    pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, body: body.into() }
    }

    /// The answer as it is sent.
    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !self.content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        put_common_headers(headers);
        response
    }
}

/// Answers are one caller's and no cache's; nothing renders them.
pub(crate) fn put_common_headers(headers: &mut http::HeaderMap) {
    const COMMON: [(HeaderName, HeaderValue); 4] = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, private")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    for (name, value) in COMMON {
        headers.insert(name, value);
    }
}
