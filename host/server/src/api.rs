//! The HTTP API: one table of routes, one way through it. Nothing is decided here about tools or
//! credentials; the executor is asked, with a context that only a verified principal has.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod calls;
mod consent;
pub(crate) mod credentials;
pub(crate) mod grants;
pub(crate) mod health;
mod hooks;
mod incidents;
pub(crate) mod input;
mod inventory;
mod kind;
pub(crate) mod msgpack;
mod notices;
pub(crate) mod openapi;
pub(crate) mod operator;
pub(crate) mod problem;
pub(crate) mod registration;
pub(crate) mod reply;
pub(crate) mod routes;
pub(crate) mod runs;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod tools;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http_body_util::Full;
use hyper::body::Incoming;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_executor::Executor;
use keybearer_gate::OperatorHash;
use tracing::Instrument as _;

use crate::api::auth::Failures;
use crate::api::auth::Verifiers;
use crate::api::input::Input;
use crate::api::reply::Reply;
use crate::api::routes::Found;
use crate::api::routes::Handler;
use crate::api::routes::Route;
use crate::config::file::LimitsSection;
use crate::metrics::Metrics;

/// What every request needs.
pub(crate) struct App {
    pub(crate) executor: Arc<Executor>,
    pub(crate) operator: OperatorHash,
    pub(crate) verifiers: Verifiers,
    pub(crate) failures: Failures,
    pub(crate) limits: LimitsSection,
    pub(crate) metrics: Metrics,
}

/// Which listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Tenants'.
    Public,
    /// The operator's.
    Admin,
}

/// The other end of a connection.
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The leaf of the client's verified certificate chain, DER.
    pub(crate) certificate: Option<Vec<u8>>,
}

/// Answers one request. There is always an answer, and a problem is one.
pub(crate) async fn answer(
    app: Arc<App>,
    side: Side,
    peer: Arc<Peer>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let began = Instant::now();
    let found = routes::find(side, request.method(), request.uri().path());
    let route = match &found {
        Found::Route(route, _) => Some(*route),
        _ => None,
    };
    let name = route.map_or("none", |route| route.name);
    let span = tracing::debug_span!("request", route = name, status = tracing::field::Empty);
    let head = check_head(&request);
    // Whoever stands in front of us may have framed this request otherwise (threats H04): nothing that follows
    // on its connection is taken for another request.
    let closes = head.is_err() || request.headers().contains_key(http::header::TRANSFER_ENCODING);
    let outcome = match head {
        Ok(()) => handle(&app, found, &peer, request).instrument(span.clone()).await,
        Err(problem) => Err(problem),
    };
    let mut response = match outcome {
        Ok(reply) => reply.into_response(),
        Err(problem) => problem::respond(&problem, side),
    };
    if closes {
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    span.record("status", response.status().as_u16());
    app.metrics.answered(name, response.status(), began.elapsed());
    response
}

async fn handle(app: &Arc<App>, found: Found, peer: &Peer, request: Request<Incoming>) -> Result<Reply, Problem> {
    let (route, parameters) = match found {
        Found::Route(route, parameters) => (route, parameters),
        Found::OtherMethods(methods) => {
            let detail = format!("use {methods}");
            return Err(Problem::new(Code::MethodNotAllowed, detail));
        }
        Found::Nothing => return Err(Problem::not_found()),
    };
    let (head, body) = request.into_parts();
    match route.handler {
        Handler::Open(handler) => {
            let input = Input::new(head, body, parameters);
            check_query(route, &input, None)?;
            handler(Arc::clone(app), input).await
        }
        Handler::Signed(handler) => {
            let input = Input::new(head, body, parameters);
            check_query(route, &input, None)?;
            let outcome = handler(Arc::clone(app), input).await;
            // A signature is a proof like any other: whoever guesses is slowed.
            outcome.map_err(|problem| match problem.code {
                Code::Unauthenticated => auth::refuse(app, peer, problem),
                _ => problem,
            })
        }
        Handler::Tenant(handler) => {
            let context = auth::tenant(app, &head.headers, peer)?;
            let (tenant, principal) = (context.tenant().clone(), context.principal().clone());
            let input = Input::new(head, body, parameters);
            let named =
                auth::check_named_tenant(&input, &context).and_then(|()| check_query(route, &input, Some(&context)));
            let outcome = match named {
                Ok(()) => handler(Arc::clone(app), context, input).await,
                Err(problem) => Err(problem),
            };
            if outcome.as_ref().is_err_and(|problem| problem.code == Code::TenantMismatch) {
                app.executor.record_mismatch(&tenant, principal, route.name).await?;
            }
            outcome
        }
        Handler::Operator(handler) => {
            let context = auth::operator(app, &head.headers, peer)?;
            let input = Input::new(head, body, parameters);
            check_query(route, &input, None)?;
            handler(Arc::clone(app), context, input).await
        }
    }
}

/// What no request may have, whoever sends it.
fn check_head(request: &Request<Incoming>) -> Result<(), Problem> {
    let headers: &HeaderMap = request.headers();
    if headers.contains_key(http::header::ORIGIN) {
        // A browser's page, perhaps after DNS rebinding (threats H06): no page has business here.
        return Err(Problem::new(Code::OriginRefused, "send no Origin header"));
    }
    if headers.contains_key(http::header::TRANSFER_ENCODING) && headers.contains_key(http::header::CONTENT_LENGTH) {
        return Err(Problem::new(Code::MalformedRequest, "send content-length or transfer-encoding, not both"));
    }
    if headers.contains_key(http::header::CONTENT_ENCODING) {
        return Err(Problem::new(Code::UnsupportedMediaType, "send the body as it is, without content-encoding"));
    }
    if headers.get_all(http::header::HOST).iter().count() != 1 {
        return Err(Problem::new(Code::MalformedRequest, "send one Host header"));
    }
    if request.uri().path().contains('%') {
        return Err(Problem::new(Code::MalformedRequest, "write the path as documented, without escapes"));
    }
    Ok(())
}

/// Parameters that the route does not have are refused: a token, a tenant or a typing error in a query
/// must not pass silently (threats H09, T01).
fn check_query(route: &Route, input: &Input, context: Option<&keybearer_gate::TenantContext>) -> Result<(), Problem> {
    if route.query == routes::ANY_QUERY {
        return Ok(());
    }
    for (name, value) in input.query() {
        if let Some(context) = context.filter(|_| auth::names_a_tenant(name)) {
            auth::check_tenant_text(value, context)?;
        }
        if !route.query.contains(&name) {
            let detail =
                "this path does not have one of these query parameters; tokens belong in the Authorization header";
            return Err(Problem::new(Code::MalformedRequest, detail));
        }
    }
    Ok(())
}
