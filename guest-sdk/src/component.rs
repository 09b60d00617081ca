//! The two sides of the component: the host's imports in the SDK's types, and the exports that
//! `export!` hands out. Only on wasm32; `mock` is its counterpart everywhere else.

use std::sync::Once;

use crate::Package;
use crate::ToolError;
use crate::bindings;
use crate::bindings::keybearer::tool::call as call_import;
use crate::bindings::keybearer::tool::http as http_import;
use crate::bindings::keybearer::tool::log as log_import;
use crate::bindings::keybearer::tool::signing as signing_import;
use crate::call::Context;
use crate::http::Delivery;
use crate::http::Error;
use crate::http::GuestFault;
use crate::http::Method;
use crate::http::Parts;
use crate::http::Response;
use crate::http::UpstreamReason;
use crate::log::Level;
use crate::signing;

/// The export `describe`.
#[must_use]
pub fn describe(package: &Package) -> Vec<bindings::Tool> {
    package
        .describe()
        .into_iter()
        .map(|tool| bindings::Tool {
            name: tool.name,
            description: tool.description,
            input_schema: tool.input_schema,
            output_schema: tool.output_schema,
            read_only: tool.read_only,
            idempotent: tool.idempotent,
        })
        .collect()
}

/// The export `invoke`.
///
/// # Errors
/// What the tool says, in the world's words.
pub fn invoke(package: &Package, tool: &str, arguments: &str) -> Result<String, bindings::ToolError> {
    // Without it a panic is a bare trap, and its author has nothing to go by.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string()))));
    package.invoke(tool, arguments).map_err(|error| match error {
        ToolError::UnknownTool => bindings::ToolError::UnknownTool,
        ToolError::InvalidArguments(why) => bindings::ToolError::InvalidArguments(why),
        ToolError::Upstream(why) => bindings::ToolError::Upstream(why),
        ToolError::Denied => bindings::ToolError::Denied,
        ToolError::Failed(why) => bindings::ToolError::Failed(why),
    })
}

pub(crate) fn send(request: Parts) -> Result<Response, Error> {
    answer(http_import::send(&say(request)))
}

pub(crate) fn send_all(requests: Vec<Parts>) -> Vec<Result<Response, Error>> {
    let requests: Vec<_> = requests.into_iter().map(say).collect();
    http_import::send_all(&requests).into_iter().map(answer).collect()
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => log_import::Level::Debug,
        Level::Info => log_import::Level::Info,
        Level::Warn => log_import::Level::Warn,
        Level::Error => log_import::Level::Error,
    };
    log_import::write(level, message);
}

pub(crate) fn current() -> Context {
    let context = call_import::current();
    Context { call_id: context.call_id, remaining_ms: context.remaining_ms, attempt: context.attempt }
}

pub(crate) fn base_url(slot: &str) -> Option<String> {
    call_import::base_url(slot)
}

pub(crate) fn mac(slot: &str, message: &[u8]) -> Result<Vec<u8>, signing::Error> {
    signing_import::mac(slot, message).map_err(unsigned)
}

pub(crate) fn jwt(slot: &str, claims: &[(&str, &str)]) -> Result<String, signing::Error> {
    let claim =
        |(name, value): &(&str, &str)| signing_import::Claim { name: (*name).to_owned(), value: (*value).to_owned() };
    let claims: Vec<_> = claims.iter().map(claim).collect();
    signing_import::jwt(slot, &claims).map_err(unsigned)
}

pub(crate) fn presign(slot: &str, method: Method, url: &str, expires_s: u32) -> Result<String, signing::Error> {
    signing_import::presign(slot, say_method(method), url, expires_s).map_err(unsigned)
}

fn unsigned(error: signing_import::Error) -> signing::Error {
    match error {
        signing_import::Error::Denied => signing::Error::Denied,
        signing_import::Error::Host => signing::Error::Host,
        signing_import::Error::Guest(fault) => signing::Error::Guest(match fault {
            signing_import::GuestFault::MessageTooLarge => signing::GuestFault::MessageTooLarge,
            signing_import::GuestFault::MalformedClaim => signing::GuestFault::MalformedClaim,
            signing_import::GuestFault::MalformedUrl => signing::GuestFault::MalformedUrl,
            signing_import::GuestFault::ExpiresOutOfRange => signing::GuestFault::ExpiresOutOfRange,
            signing_import::GuestFault::TooManyRequests => signing::GuestFault::TooManyRequests,
            signing_import::GuestFault::TooManyBytes => signing::GuestFault::TooManyBytes,
        }),
    }
}

fn say_method(method: Method) -> http_import::Method {
    match method {
        Method::Get => http_import::Method::Get,
        Method::Head => http_import::Method::Head,
        Method::Post => http_import::Method::Post,
        Method::Put => http_import::Method::Put,
        Method::Patch => http_import::Method::Patch,
        Method::Delete => http_import::Method::Delete,
        Method::Options => http_import::Method::Options,
    }
}

fn say(request: Parts) -> http_import::Request {
    http_import::Request {
        method: say_method(request.method),
        url: request.url,
        headers: request.headers.into_iter().map(|(name, value)| http_import::Header { name, value }).collect(),
        body: request.body,
    }
}

fn answer(answer: Result<http_import::Response, http_import::Error>) -> Result<Response, Error> {
    match answer {
        Ok(response) => {
            let headers = response.headers.into_iter().map(|header| (header.name, header.value)).collect();
            Ok(Response::from_parts(response.status, headers, response.body))
        }
        Err(http_import::Error::Denied) => Err(Error::Denied),
        Err(http_import::Error::Guest(fault)) => Err(Error::Guest(guest_fault(fault))),
        Err(http_import::Error::Upstream(fault)) => {
            Err(Error::Upstream(upstream_reason(fault.reason), delivery(fault.delivery)))
        }
        Err(http_import::Error::Host(fault)) => Err(Error::Host(delivery(fault.delivery))),
    }
}

fn delivery(delivery: http_import::Delivery) -> Delivery {
    match delivery {
        http_import::Delivery::NotSent => Delivery::NotSent,
        http_import::Delivery::MaybeSent => Delivery::MaybeSent,
    }
}

fn guest_fault(fault: http_import::GuestFault) -> GuestFault {
    match fault {
        http_import::GuestFault::MalformedUrl => GuestFault::MalformedUrl,
        http_import::GuestFault::MalformedHeader => GuestFault::MalformedHeader,
        http_import::GuestFault::RequestTooLarge => GuestFault::RequestTooLarge,
        http_import::GuestFault::TooManyRequests => GuestFault::TooManyRequests,
        http_import::GuestFault::TooManyBytes => GuestFault::TooManyBytes,
    }
}

fn upstream_reason(reason: http_import::UpstreamReason) -> UpstreamReason {
    match reason {
        http_import::UpstreamReason::Unresolvable => UpstreamReason::Unresolvable,
        http_import::UpstreamReason::Unreachable => UpstreamReason::Unreachable,
        http_import::UpstreamReason::Untrusted => UpstreamReason::Untrusted,
        http_import::UpstreamReason::Timeout => UpstreamReason::Timeout,
        http_import::UpstreamReason::MalformedAnswer => UpstreamReason::MalformedAnswer,
        http_import::UpstreamReason::AnswerTooLarge => UpstreamReason::AnswerTooLarge,
        http_import::UpstreamReason::PartialAnswer => UpstreamReason::PartialAnswer,
    }
}
