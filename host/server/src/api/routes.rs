//! The table of routes: what is listened to, who may ask, and what the OpenAPI document says of it.
//! A handler's type says what it gets, so a route that needs a tenant cannot be reached without one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::Method;
use keybearer_contract::Problem;
use keybearer_executor as executor;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantContext;

use crate::api::App;
use crate::api::Side;
use crate::api::calls;
use crate::api::consent;
use crate::api::credentials;
use crate::api::grants;
use crate::api::health;
use crate::api::hooks;
use crate::api::incidents;
use crate::api::input::Input;
use crate::api::inventory;
use crate::api::notices;
use crate::api::openapi;
use crate::api::openapi::Body;
use crate::api::openapi::Shape;
use crate::api::operator;
use crate::api::registration;
use crate::api::reply::Reply;
use crate::api::runs;
use crate::api::tenants;
use crate::api::tokens;
use crate::api::tools;

/// What a handler comes to.
pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>;

/// Who may ask, and what is done.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    /// Anybody who reaches the listener.
    Open(fn(Arc<App>, Input) -> Outcome),
    /// Whoever reaches the public listener with a request that proves itself, by a signature over it.
    Signed(fn(Arc<App>, Input) -> Outcome),
    /// A verified principal of a tenant.
    Tenant(fn(Arc<App>, TenantContext, Input) -> Outcome),
    /// The operator.
    Operator(fn(Arc<App>, OperatorContext, Input) -> Outcome),
}

/// One operation on one path.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Its name: in metrics, in spans and as the document's `operationId`.
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) handler: Handler,
    /// The scope that a tenant's principal needs.
    pub(crate) scope: Option<&'static str>,
    /// Parameters that the query may have.
    pub(crate) query: &'static [&'static str],
    pub(crate) request: Body,
    pub(crate) status: u16,
    pub(crate) response: Body,
}

macro_rules! tenant {
    ($handler:path) => {
        Handler::Tenant(|app, context, input| Box::pin($handler(app, context, input)))
    };
}

macro_rules! operator {
    ($handler:path) => {
        Handler::Operator(|app, context, input| Box::pin($handler(app, context, input)))
    };
}

macro_rules! signed {
    ($handler:path) => {
        Handler::Signed(|app, input| Box::pin($handler(app, input)))
    };
}

macro_rules! open {
    ($handler:path) => {
        Handler::Open(|app, input| Box::pin($handler(app, input)))
    };
}

const fn one<T: utoipa::ToSchema>() -> Body {
    Body::Json(Shape::of::<T>())
}

const fn many<T: utoipa::ToSchema>() -> Body {
    Body::Items(Shape::of::<T>())
}

macro_rules! routes {
    ($($method:ident $path:literal $name:ident $summary:literal, $handler:expr, $scope:expr, $query:expr,
       $request:expr => $status:literal $response:expr;)*) => {
        /// Every route.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            name: stringify!($name),
            summary: $summary,
            handler: $handler,
            scope: $scope,
            query: $query,
            request: $request,
            status: $status,
            response: $response,
        },)*];
    };
}

/// An issuer adds parameters of its own to a callback, which are not looked at (RFC 6749 §4.1.2).
pub(crate) const ANY_QUERY: &[&str] = &["state", "code", "iss", "error", "error_description"];

const NO_BODY: Body = Body::Nothing;
const CALL: Option<&str> = Some("call");
const CREDENTIALS: Option<&str> = Some("credentials");
const GRANTS: Option<&str> = Some("grants");
const TOKENS: Option<&str> = Some("tokens");
const AUDIT: Option<&str> = Some("audit");
/// Of any run of the tenant; a run's own token will do for itself and for what it opened.
const RUNS: Option<&str> = Some("runs");

routes! {
    POST "/v1/calls" submit_call "Calls a tool and waits for its result. JSON or MessagePack, by content-type and accept; `Idempotency-Key` makes it happen at most once.",
        tenant!(calls::submit), CALL, &[], Body::Call(Shape::of::<calls::CallBody<'_>>()) => 200 Body::Call(Shape::of::<calls::AnswerBody<'_>>());
    GET "/v1/calls/{id}/explain" explain_call "Tells why a credential was or was not attached, request by request.",
        tenant!(calls::explain), AUDIT, &[], NO_BODY => 200 one::<executor::Explanation>();
    POST "/v1/runs" open_run "Opens a run; with a run's token, one within that run. Its token is shown this once.",
        tenant!(runs::open), CALL, &[], Body::Call(Shape::of::<executor::NewRun>()) => 201 Body::Call(Shape::of::<runs::OpenedBody>());
    GET "/v1/runs" list_runs "Lists the tenant's runs: those that are open, and for a while those that ended.",
        tenant!(runs::list), RUNS, &[], NO_BODY => 200 many::<executor::RunView>();
    GET "/v1/runs/{id}" get_run "Shows one run, without its token.",
        tenant!(runs::get), RUNS, &[], NO_BODY => 200 Body::Call(Shape::of::<executor::RunView>());
    POST "/v1/runs/{id}/end" end_run "Ends a run and those within it. Answers when their calls have ended and what was minted for them is gone.",
        tenant!(runs::end), RUNS, &[], NO_BODY => 200 Body::Call(Shape::of::<executor::RunEnded>());
    POST "/v1/runs/{id}/abort" abort_run "Stops a run and those within it; their calls are cut off and recorded so.",
        tenant!(runs::abort), RUNS, &[], NO_BODY => 200 Body::Call(Shape::of::<executor::RunEnded>());
    POST "/v1/runs/{id}/checkpoint" checkpoint_run "Writes a checkpoint of an open run: references only, under a MAC of the tenant's.",
        tenant!(runs::checkpoint), RUNS, &[], NO_BODY => 200 Body::Call(Shape::of::<runs::CheckpointBody>());
    POST "/v1/runs/resume" resume_run "Goes on with a run from its checkpoint, under another token. Its earlier token is good for nothing then.",
        tenant!(runs::resume), RUNS, &[], Body::Call(Shape::of::<runs::CheckpointBody>()) => 201 Body::Call(Shape::of::<runs::OpenedBody>());
    GET "/v1/tools" list_tools "Lists the tools that the tenant may see.",
        tenant!(tools::list), CALL, &[], NO_BODY => 200 many::<executor::ToolView>();
    GET "/v1/tools/{name}" get_tool "Shows one tool, `package.tool`.",
        tenant!(tools::get), CALL, &[], NO_BODY => 200 one::<executor::ToolView>();
    POST "/v1/credentials" store_credential "Stores a credential. The value is never shown again.",
        tenant!(credentials::store), CREDENTIALS, &[], one::<credentials::StoreBody>() => 201 one::<executor::CredentialView>();
    POST "/v1/credentials/authorize" authorize_credential "Has a credential wait until its account consents (OAuth authorization code with PKCE), and says where its browser is to go.",
        tenant!(consent::authorize), CREDENTIALS, &[], one::<consent::AuthorizeBody>() => 201 one::<executor::AuthorizationBegun>();
    POST "/v1/credentials/register" register_credential "Has an issuer register a client (OAuth dynamic client registration), and stores what it is given. None of it is shown.",
        tenant!(registration::register), CREDENTIALS, &[], one::<registration::RegisterBody>() => 201 one::<executor::CredentialView>();
    GET "/v1/oauth/callback" oauth_callback "Where an account's browser comes back to. `state` is the proof, and is good once; whatever is wrong is answered by one page.",
        signed!(consent::callback), None, ANY_QUERY, NO_BODY => 200 Body::Html;
    GET "/v1/credentials" list_credentials "Lists the tenant's credentials, without values.",
        tenant!(credentials::list), CREDENTIALS, &[], NO_BODY => 200 many::<executor::CredentialView>();
    GET "/v1/credentials/{id}" get_credential "Shows one credential, without its values.",
        tenant!(credentials::get), CREDENTIALS, &[], NO_BODY => 200 one::<executor::CredentialView>();
    POST "/v1/credentials/{id}/terms" change_terms "Changes who answers for a credential, when it ends, how often it is rotated, where it may go.",
        tenant!(credentials::change_terms), CREDENTIALS, &[], one::<executor::NewTerms>() => 200 one::<executor::CredentialView>();
    POST "/v1/credentials/{id}/versions" rotate_credential "Stores a new value. Answers when no request carries the old one any more.",
        tenant!(credentials::rotate), CREDENTIALS, &[], one::<credentials::RotateBody>() => 201 one::<executor::EpochRaised>();
    POST "/v1/credentials/{id}/unwrap" unwrap_credential "Unwraps the wrapping token that is stored in place of a secret, once.",
        tenant!(credentials::unwrap), CREDENTIALS, &[], NO_BODY => 200 one::<executor::EpochRaised>();
    POST "/v1/credentials/{id}/check" check_credential "Asks the issuer whether what is stored, or was minted, is good (OAuth introspection).",
        tenant!(credentials::check), CREDENTIALS, &[], NO_BODY => 200 one::<executor::CredentialCheck>();
    POST "/v1/credentials/{id}/rotate-at-source" rotate_at_source "Has the source make a new value of what is stored, and destroy the one before.",
        tenant!(credentials::rotate_at_source), CREDENTIALS, &[], NO_BODY => 200 one::<executor::RotatedAtSource>();
    POST "/v1/credentials/{id}/forget-source-version" forget_source_version "Forgets the highest version that its source gave: what it gives next is taken.",
        tenant!(credentials::forget_source_version), CREDENTIALS, &[], NO_BODY => 200 one::<executor::SourceVersionForgotten>();
    POST "/v1/credentials/{id}/revoke" revoke_credential "Revokes a credential for good. Answers when requests that carried it are cut off.",
        tenant!(credentials::revoke), CREDENTIALS, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/credentials/{id}/rollback" rollback_credential "Goes back to a version that was rotated out, while its overlap lasts: as a new version.",
        tenant!(credentials::rollback), CREDENTIALS, &[], one::<credentials::RollbackBody>() => 201 one::<executor::EpochRaised>();
    DELETE "/v1/credentials/{id}/versions/{version}" destroy_version "Destroys the bytes of a version that is not current.",
        tenant!(credentials::destroy), CREDENTIALS, &[], NO_BODY => 200 one::<executor::CredentialView>();
    POST "/v1/grants" give_grant "Grants a credential to a slot of a package, or leave to run a package as such.",
        tenant!(grants::give), GRANTS, &[], one::<executor::NewGrant>() => 201 one::<executor::GrantView>();
    GET "/v1/grants" list_grants "Lists the tenant's grants.",
        tenant!(grants::list), GRANTS, &[], NO_BODY => 200 many::<executor::GrantView>();
    GET "/v1/grants/{id}/differences" grant_differences "Shows what the newest version asks beyond what was approved.",
        tenant!(grants::differences), GRANTS, &[], NO_BODY => 200 one::<executor::GrantDifferences>();
    POST "/v1/grants/{id}/approve" approve_grant "Approves a version, named by its digest.",
        tenant!(grants::approve), GRANTS, &[], one::<grants::ApproveBody>() => 200 one::<executor::GrantView>();
    DELETE "/v1/grants/{id}" take_grant "Takes a grant away. Answers when requests that went by it are cut off.",
        tenant!(grants::take), GRANTS, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/tokens" issue_token "Issues an API token with no scope that the issuer lacks. It is shown this once.",
        tenant!(tokens::issue), TOKENS, &[], one::<executor::NewToken>() => 201 one::<tokens::IssuedBody>();
    GET "/v1/tokens" list_tokens "Lists the tenant's API tokens, without their secret halves.",
        tenant!(tokens::list), TOKENS, &[], NO_BODY => 200 many::<executor::TokenView>();
    POST "/v1/tokens/{id}/revoke" revoke_token "Revokes an API token. Answers when calls by it are stopped.",
        tenant!(tokens::revoke), TOKENS, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/principals/revoke" revoke_principal "Revokes a principal by its label: a JWT's subject or a SPIFFE id, and every token that was issued under it.",
        tenant!(tokens::revoke_principal), TOKENS, &[], one::<tokens::PrincipalBody>() => 200 one::<executor::Revoked>();
    POST "/v1/principals/restore" restore_principal "Lets a principal in again that was revoked by its label; revoked tokens stay so.",
        tenant!(tokens::restore_principal), TOKENS, &[], one::<tokens::PrincipalBody>() => 204 NO_BODY;
    POST "/v1/agents/revoke" revoke_agent "Revokes agents by the name that they open runs as: their runs end, with those within them, and none is opened. Answers when their calls are stopped.",
        tenant!(runs::revoke_agent), RUNS, &[], one::<runs::AgentBody>() => 200 one::<executor::Revoked>();
    POST "/v1/agents/restore" restore_agent "Lets agents of a name open runs again that was revoked; ended runs stay so.",
        tenant!(runs::restore_agent), RUNS, &[], one::<runs::AgentBody>() => 204 NO_BODY;
    POST "/v1/hooks" make_hook "Makes a hook: where a source outside says that something changed. Its secret is shown this once.",
        tenant!(hooks::make), CREDENTIALS, &[], one::<executor::NewHook>() => 201 one::<hooks::MadeBody>();
    GET "/v1/hooks" list_hooks "Lists the tenant's hooks, without their secrets.",
        tenant!(hooks::list), CREDENTIALS, &[], NO_BODY => 200 many::<executor::HookView>();
    DELETE "/v1/hooks/{id}" remove_hook "Removes a hook: what it sends is refused.",
        tenant!(hooks::remove), CREDENTIALS, &[], NO_BODY => 204 NO_BODY;
    POST "/v1/hooks/{id}/events" receive_event "Takes an event that the hook's secret signed (Standard Webhooks): what it names is fetched anew. Answers when no request carries the old value any more.",
        signed!(hooks::receive), None, &[], Body::Document => 200 one::<executor::Invalidated>();
    PUT "/v1/notices" set_notices "Sets where the tenant wants its notices, by HTTPS. The secret that signs them is shown this once.",
        tenant!(notices::set), CREDENTIALS, &[], one::<executor::NewNotices>() => 200 one::<notices::SetBody>();
    GET "/v1/notices" get_notices "Shows where the tenant wants its notices, how many wait, and what came of the last.",
        tenant!(notices::get), CREDENTIALS, &[], NO_BODY => 200 one::<executor::NoticesView>();
    POST "/v1/notices/test" test_notices "Sends a notice that says nothing, to see whether it arrives.",
        tenant!(notices::test), CREDENTIALS, &[], NO_BODY => 204 NO_BODY;
    DELETE "/v1/notices" remove_notices "Sends the tenant no more notices.",
        tenant!(notices::remove), CREDENTIALS, &[], NO_BODY => 204 NO_BODY;
    GET "/v1/inventory" inventory "Lists every identity that is no person's: who answers for it, its last use and rotation, what should be looked at.",
        tenant!(inventory::of_tenant), AUDIT, &[], NO_BODY => 200 many::<executor::Identity>();
    GET "/v1/inventory/all" inventory_of_all "Lists the identities of every tenant, with those that the configuration lets in and values that are stored more than once.",
        operator!(inventory::of_all), None, &[], NO_BODY => 200 many::<executor::Identity>();
    POST "/v1/own/incidents" open_own_incident "Opens an incident about a credential, grant, run, token, principal or tool of the tenant's own: revokes, ends runs, flushes, quarantines for the tenant, tells. Asks for the scope of what is revoked as well. Answers when everything is stopped.",
        tenant!(incidents::open_own), AUDIT, &[], one::<executor::NewOwnIncident>() => 201 one::<executor::IncidentView>();
    GET "/v1/own/incidents" list_own_incidents "Lists the incidents about what is the tenant's, newest first.",
        tenant!(incidents::list_own), AUDIT, &[], NO_BODY => 200 many::<executor::IncidentView>();
    GET "/v1/own/incidents/{id}" get_own_incident "Shows one incident about what is the tenant's.",
        tenant!(incidents::get_own), AUDIT, &[], NO_BODY => 200 one::<executor::IncidentView>();
    GET "/v1/own/incidents/{id}/report" report_own_incident "Writes the exposure report of one incident from the tenant's part of the ledger: JSON, or a page where `accept` names text/html.",
        tenant!(incidents::report_own), AUDIT, &[], NO_BODY => 200 Body::Page(Shape::of::<executor::ExposureReport>());
    POST "/v1/own/incidents/{id}/close" close_own_incident "Closes an incident that the tenant opened, with its root cause: what it quarantined runs again, what it revoked stays so.",
        tenant!(incidents::close_own), AUDIT, &[], one::<executor::CloseIncident>() => 200 one::<executor::IncidentView>();
    POST "/v1/tenants" create_tenant "Makes a tenant.",
        operator!(tenants::create), None, &[], one::<executor::NewTenant>() => 201 one::<executor::TenantView>();
    GET "/v1/tenants" list_tenants "Lists the tenants.",
        operator!(tenants::list), None, &[], NO_BODY => 200 many::<executor::TenantView>();
    POST "/v1/tenants/{id}/suspend" suspend_tenant "Suspends a tenant: its principals are refused. Answers when its calls are stopped.",
        operator!(tenants::suspend), None, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/tenants/{id}/activate" activate_tenant "Makes a suspended tenant active again.",
        operator!(tenants::activate), None, &[], NO_BODY => 200 one::<executor::TenantView>();
    DELETE "/v1/tenants/{id}" offboard_tenant "Ends a tenant for good: stops it, gives back what was minted for it, destroys what is stored, and searches for what is left.",
        operator!(tenants::offboard), None, &[], NO_BODY => 200 one::<executor::Offboarded>();
    POST "/v1/tenants/{id}/tokens" issue_tenant_token "Issues a tenant's API token. It is shown this once.",
        operator!(tenants::issue_token), None, &[], one::<executor::NewToken>() => 201 one::<tokens::IssuedBody>();
    POST "/v1/packages" publish_package "Publishes a signed package.",
        operator!(operator::publish), None, &["allow_rollback", "visible_to"], Body::Octets => 201 one::<executor::PackageView>();
    GET "/v1/packages" list_packages "Lists the published packages.",
        operator!(operator::packages), None, &[], NO_BODY => 200 many::<executor::PackageView>();
    GET "/v1/packages/{digest}" get_package "Shows one version of a package.",
        operator!(operator::package), None, &[], NO_BODY => 200 one::<executor::PackageView>();
    POST "/v1/packages/{digest}/withdraw" withdraw_package "Withdraws a version: no call runs it any more. Answers when calls of it are stopped.",
        operator!(operator::withdraw), None, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/tools/{name}/revoke" revoke_tool "Revokes a tool, of every version of its package and for every tenant. Answers when calls of it are stopped.",
        operator!(operator::revoke_tool), None, &[], NO_BODY => 200 one::<executor::Revoked>();
    POST "/v1/tools/{name}/restore" restore_tool "Lets a revoked tool run again.",
        operator!(operator::restore_tool), None, &[], NO_BODY => 204 NO_BODY;
    POST "/v1/signers/{key}/revoke" revoke_signer "Revokes a signer for good. Answers when calls of its packages are stopped.",
        operator!(operator::revoke_signer), None, &[], NO_BODY => 200 one::<executor::Revoked>();
    GET "/v1/shared-values" list_shared_values "Lists credentials that hold the same value.",
        operator!(operator::shared_values), None, &[], NO_BODY => 200 many::<executor::SharedValue>();
    POST "/v1/incidents" open_incident "Opens an incident about a credential, a tenant or a tool: revokes, ends runs, flushes, quarantines, tells the operator. Answers when everything is stopped; for what has an open incident, that one is carried out again.",
        operator!(incidents::open), None, &[], one::<executor::NewIncident>() => 201 one::<executor::IncidentView>();
    GET "/v1/incidents" list_incidents "Lists the incidents, newest first.",
        operator!(incidents::list), None, &[], NO_BODY => 200 many::<executor::IncidentView>();
    GET "/v1/incidents/{id}" get_incident "Shows one incident.",
        operator!(incidents::get), None, &[], NO_BODY => 200 one::<executor::IncidentView>();
    GET "/v1/incidents/{id}/report" report_incident "Writes the exposure report from the ledger: JSON, or a page where `accept` names text/html.",
        operator!(incidents::report), None, &[], NO_BODY => 200 Body::Page(Shape::of::<executor::ExposureReport>());
    POST "/v1/incidents/{id}/close" close_incident "Closes an incident with its root cause: what it quarantined runs again, what it revoked stays so.",
        operator!(incidents::close), None, &[], one::<executor::CloseIncident>() => 200 one::<executor::IncidentView>();
    PUT "/v1/notify" set_notify "Says where the operator is told of incidents, by signed POST. The secret that signs is made anew and shown this once.",
        operator!(notices::set_operators), None, &[], one::<executor::NewNotices>() => 200 one::<notices::SetBody>();
    GET "/v1/notify" get_notify "Shows where the operator is told of incidents, how many notices wait, and what came of the last.",
        operator!(notices::get_operators), None, &[], NO_BODY => 200 one::<executor::NoticesView>();
    DELETE "/v1/notify" remove_notify "The operator is told of nothing any more.",
        operator!(notices::remove_operators), None, &[], NO_BODY => 204 NO_BODY;
    GET "/v1/audit" audit_ledger "Walks the whole ledger and lists every use of what had been ended: a version, grant, principal, tool, signer, run or tenant, or what was in quarantine.",
        operator!(operator::audit), None, &[], NO_BODY => 200 one::<executor::AuditView>();
    POST "/v1/master-key/rotate" rotate_master_key "Makes a new master key and wraps every tenant's key anew.",
        operator!(operator::rotate_master_key), None, &[], NO_BODY => 204 NO_BODY;
    GET "/healthz" health "Says that the process answers.",
        open!(health::healthz), None, &[], NO_BODY => 200 Body::Text;
    GET "/readyz" readiness "Says whether calls can be taken.",
        open!(health::readyz), None, &[], NO_BODY => 200 Body::Text;
    GET "/metrics" metrics "Numbers for Prometheus.",
        open!(health::metrics), None, &[], NO_BODY => 200 Body::Metrics;
    GET "/openapi.json" openapi "This document.",
        open!(openapi::serve), None, &[], NO_BODY => 200 Body::Document;
}

impl Route {
    /// Whether this listener has the route.
    pub(crate) fn is_on(&self, side: Side) -> bool {
        match (self.handler, side) {
            (Handler::Tenant(_) | Handler::Signed(_), Side::Public) | (Handler::Operator(_), Side::Admin) => true,
            (Handler::Open(_), Side::Admin) => true,
            (Handler::Open(_), Side::Public) => self.path == "/openapi.json",
            _ => false,
        }
    }

    /// The parameters of a path that fits.
    fn matches(&self, path: &str) -> Option<Vec<String>> {
        let mut parameters = Vec::new();
        let mut parts = path.split('/');
        for expected in self.path.split('/') {
            let part = parts.next()?;
            if expected.starts_with('{') {
                if part.is_empty() {
                    return None;
                }
                parameters.push(part.to_owned());
            } else if part != expected {
                return None;
            }
        }
        parts.next().is_none().then_some(parameters)
    }
}

/// What a method and a path come to.
pub(crate) enum Found {
    Route(&'static Route, Vec<String>),
    /// The path has these methods only.
    OtherMethods(String),
    Nothing,
}

/// Finds the route on a listener.
pub(crate) fn find(side: Side, method: &Method, path: &str) -> Found {
    let mut others: Vec<&str> = Vec::new();
    for route in ROUTES.iter().filter(|route| route.is_on(side)) {
        let Some(parameters) = route.matches(path) else { continue };
        if route.method == *method {
            return Found::Route(route, parameters);
        }
        others.push(route.method.as_str());
    }
    // No path of ours answers these, whether it exists or not (threats H06).
    let never = *method == Method::TRACE || *method == Method::OPTIONS || *method == Method::CONNECT;
    match (others.is_empty(), never) {
        (false, _) => Found::OtherMethods(others.join(", ")),
        (true, true) => Found::OtherMethods("GET, POST, DELETE".to_owned()),
        (true, false) => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(side: Side, method: Method, path: &str) -> &'static str {
        match find(side, &method, path) {
            Found::Route(route, _) => route.name,
            Found::OtherMethods(_) => "405",
            Found::Nothing => "404",
        }
    }

    #[test]
    fn paths_and_methods_find_their_route_or_none() {
        assert_eq!(name(Side::Public, Method::POST, "/v1/calls"), "submit_call");
        assert_eq!(name(Side::Public, Method::GET, "/v1/credentials/cred_x"), "get_credential");
        assert_eq!(name(Side::Public, Method::DELETE, "/v1/credentials/cred_x/versions/2"), "destroy_version");
        for path in ["/v1/calls/", "//v1/calls", "/v1", "/", "", "/v1/credentials//versions", "/V1/calls"] {
            assert_eq!(name(Side::Public, Method::GET, path), "404", "{path}");
        }
        assert_eq!(name(Side::Public, Method::PUT, "/v1/calls"), "405");
    }

    #[test]
    fn h06_trace_and_options_are_no_method_of_any_path() {
        for path in ["/v1/calls", "/nowhere", "*"] {
            assert_eq!(name(Side::Public, Method::TRACE, path), "405");
            assert_eq!(name(Side::Public, Method::OPTIONS, path), "405");
        }
    }

    #[test]
    fn h14_the_operators_routes_are_not_on_the_public_listener() {
        for route in ROUTES {
            let publics = matches!(route.handler, Handler::Tenant(_) | Handler::Signed(_));
            assert_eq!(route.is_on(Side::Public), publics || route.name == "openapi", "{}", route.name);
            assert_eq!(route.is_on(Side::Admin), !publics, "{}", route.name);
            assert_eq!(route.scope.is_some(), matches!(route.handler, Handler::Tenant(_)), "{}", route.name);
        }
    }

    #[test]
    fn names_of_routes_are_unique() {
        let mut names: Vec<_> = ROUTES.iter().map(|route| route.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROUTES.len());
    }
}
