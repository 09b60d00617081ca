//! The one place where a problem becomes an HTTP answer (RFC 9457). What is ours to mend is logged with
//! an id and answered without its inside.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use keybearer_contract::Code;
use keybearer_contract::Party;
use keybearer_contract::Problem;
use keybearer_executor::LogView;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Side;
use crate::api::reply::put_common_headers;

/// A problem as it is sent (RFC 9457 §3). `code` is what programs look at.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `urn:keybearer:problem:` and the code.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The same few words every time.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What to do about it.
    pub(crate) detail: String,
    /// The stable code.
    #[schema(value_type = String)]
    pub(crate) code: Code,
    /// Whose fault it is: `caller`, `guest`, `upstream` or `host`.
    #[schema(value_type = String)]
    pub(crate) party: Party,
    /// The call, or for an error of ours the id under which it was logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
    /// JSON pointer to what is wrong: into the arguments for `invalid_arguments`, into the body for `malformed_body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pointer: Option<String>,
    /// The limit that was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<LimitBody>,
    /// What the tool of a failed call logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) logs: Vec<LogView>,
}

/// A limit that was reached.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Limit)]
pub(crate) struct LimitBody {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: u64,
}

/// The media type of problems.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// The answer to a problem.
pub(crate) fn respond(problem: &Problem, side: Side) -> Response<Full<Bytes>> {
    let body = ProblemBody::of(problem);
    let bytes = serde_json::to_vec(&body).expect("a problem is plain data");
    let mut response = Response::new(Full::new(Bytes::from(bytes)));
    *response.status_mut() = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    put_common_headers(headers);
    match problem.code {
        Code::Unauthenticated => {
            let realm = match side {
                Side::Public => "Bearer realm=\"keybearer\"",
                Side::Admin => "Bearer realm=\"keybearer operator\"",
            };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(realm));
        }
        Code::MethodNotAllowed => {
            let methods = problem.detail.strip_prefix("use ").unwrap_or_default();
            if let Ok(value) = HeaderValue::from_str(methods) {
                headers.insert(header::ALLOW, value);
            }
        }
        _ => {}
    }
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl ProblemBody {
    /// A problem as it may be told.
    pub(crate) fn of(problem: &Problem) -> Self {
        let code = problem.code;
        let mut instance = problem.call.as_ref().map(ToString::to_string);
        let mut detail = problem.detail.clone();
        if code == Code::Internal {
            let id = log_id();
            tracing::error!(id, detail = %problem.detail, "internal error");
            "try again; if it stays, give the operator this problem's `instance`".clone_into(&mut detail);
            instance = instance.or(Some(id));
        }
        Self {
            kind: format!("urn:keybearer:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail,
            code,
            party: code.party(),
            instance,
            pointer: problem.pointer.as_deref().map(str::to_owned),
            limit: problem.limit.as_ref().map(|(name, value)| LimitBody { name: name.to_string(), value: *value }),
            logs: problem.logs.iter().map(LogView::from).collect(),
        }
    }
}

/// An id under which an error of ours stands in the log.
fn log_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("err_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h15_every_code_becomes_a_problem_with_its_status_and_title() {
        for code in Code::ALL {
            let response = respond(&Problem::new(*code, "use GET, POST"), Side::Public);
            assert_eq!(response.status().as_u16(), code.status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store, private");
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), *code == Code::Unauthenticated);
            assert_eq!(response.headers().contains_key(header::ALLOW), *code == Code::MethodNotAllowed);
        }
    }

    #[test]
    fn h15_an_internal_error_says_nothing_of_the_inside() {
        let body = ProblemBody::of(&Problem::new(Code::Internal, "store.db: no such table at 10.0.0.7"));
        let text = serde_json::to_string(&body).expect("plain data");
        assert!(!text.contains("store.db") && !text.contains("10.0.0.7"), "{text}");
        assert!(body.instance.is_some_and(|id| id.starts_with("err_")));
    }

    #[test]
    fn a_problem_carries_pointer_limit_and_call() {
        let call = keybearer_contract::CallId::random();
        let mut problem = Problem::new(Code::InvalidArguments, "mend it").at_pointer("/amount").at_limit("requests", 3);
        problem.call = Some(Box::new(call.clone()));
        let value = serde_json::to_value(ProblemBody::of(&problem)).expect("plain data");
        assert_eq!(value["pointer"], "/amount");
        assert_eq!(value["limit"]["value"], 3);
        assert_eq!(value["instance"], call.as_str());
        assert_eq!(value["type"], "urn:keybearer:problem:invalid_arguments");
    }
}
