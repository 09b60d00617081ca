//! The authority matrix: every route of both listeners, asked by everybody who has no business there and
//! by who has. The table is held against the served document, so that a route cannot be added without
//! saying here who may use it; what anybody may ask is a list that only gets shorter.

mod bodies;

use std::collections::BTreeMap;

use anyhow::Context as _;
use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Client;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::send_event;
use serde_json::Value;
use serde_json::json;

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Anybody,
    /// Whoever signs the request, on the public listener; no token helps.
    Signed,
    /// Whoever brings back a state, on the public listener: the cases of OAuth do; here nobody has one.
    Brought,
    /// A tenant's token with this scope, on the public listener.
    Tenant(&'static str),
    /// On the admin listener.
    Operator,
}

/// What a path's parameter stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Nothing,
    Call,
    Tool,
    Credential,
    Grant,
    Hook,
    Token,
    Run,
    Tenant,
    Package,
    Incident,
    OwnIncident,
}

use Who::Anybody;
use Who::Brought;
use Who::Operator;
use Who::Signed;

const CALL: Who = Who::Tenant("call");
const CREDENTIALS: Who = Who::Tenant("credentials");
const GRANTS: Who = Who::Tenant("grants");
const TOKENS: Who = Who::Tenant("tokens");
const AUDIT: Who = Who::Tenant("audit");
const RUNS: Who = Who::Tenant("runs");

/// One operation: who may ask it, about what, what he gets, and what a stranger gets: another tenant with
/// every scope where it is a tenant's, who is told of the owner's things as of none.
struct Row {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    who: Who,
    subject: Subject,
    right: u16,
    stranger: u16,
}

macro_rules! rows {
    ($($method:ident $path:literal $name:ident $who:expr, $subject:ident => $right:literal $stranger:literal;)*) => {
        const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            method: stringify!($method),
            path: $path,
            who: $who,
            subject: Subject::$subject,
            right: $right,
            stranger: $stranger,
        },)*];
    };
}

// In an order in which each still finds what it needs: what destroys comes last.
rows! {
    GET "/openapi.json" openapi Anybody, Nothing => 200 200;
    GET "/healthz" health Anybody, Nothing => 200 200;
    GET "/readyz" readiness Anybody, Nothing => 200 200;
    GET "/metrics" metrics Anybody, Nothing => 200 200;
    POST "/v1/calls" submit_call CALL, Nothing => 200 404;
    GET "/v1/calls/{id}/explain" explain_call AUDIT, Call => 200 404;
    POST "/v1/runs" open_run CALL, Nothing => 201 201;
    GET "/v1/runs" list_runs RUNS, Nothing => 200 200;
    GET "/v1/runs/{id}" get_run RUNS, Run => 200 404;
    POST "/v1/runs/{id}/checkpoint" checkpoint_run RUNS, Run => 200 404;
    POST "/v1/runs/resume" resume_run RUNS, Nothing => 201 409;
    POST "/v1/runs/{id}/end" end_run RUNS, Run => 200 404;
    POST "/v1/runs/{id}/abort" abort_run RUNS, Run => 200 404;
    GET "/v1/tools" list_tools CALL, Nothing => 200 200;
    GET "/v1/tools/{name}" get_tool CALL, Tool => 200 404;
    POST "/v1/agents/revoke" revoke_agent RUNS, Nothing => 200 200;
    POST "/v1/agents/restore" restore_agent RUNS, Nothing => 204 204;
    POST "/v1/credentials" store_credential CREDENTIALS, Nothing => 201 201;
    POST "/v1/credentials/authorize" authorize_credential CREDENTIALS, Nothing => 201 201;
    POST "/v1/credentials/register" register_credential CREDENTIALS, Nothing => 422 422;
    GET "/v1/credentials" list_credentials CREDENTIALS, Nothing => 200 200;
    GET "/v1/credentials/{id}" get_credential CREDENTIALS, Credential => 200 404;
    POST "/v1/credentials/{id}/terms" change_terms CREDENTIALS, Credential => 200 404;
    POST "/v1/credentials/{id}/versions" rotate_credential CREDENTIALS, Credential => 201 404;
    POST "/v1/credentials/{id}/unwrap" unwrap_credential CREDENTIALS, Credential => 409 404;
    POST "/v1/credentials/{id}/check" check_credential CREDENTIALS, Credential => 409 404;
    POST "/v1/credentials/{id}/forget-source-version" forget_source_version CREDENTIALS, Credential => 409 404;
    POST "/v1/credentials/{id}/rotate-at-source" rotate_at_source CREDENTIALS, Credential => 409 404;
    POST "/v1/credentials/{id}/rollback" rollback_credential CREDENTIALS, Credential => 201 404;
    DELETE "/v1/credentials/{id}/versions/{version}" destroy_version CREDENTIALS, Credential => 200 404;
    GET "/v1/grants" list_grants GRANTS, Nothing => 200 200;
    GET "/v1/grants/{id}/differences" grant_differences GRANTS, Grant => 200 404;
    POST "/v1/grants/{id}/approve" approve_grant GRANTS, Grant => 200 404;
    DELETE "/v1/grants/{id}" take_grant GRANTS, Grant => 200 404;
    POST "/v1/grants" give_grant GRANTS, Nothing => 201 404;
    POST "/v1/tokens" issue_token TOKENS, Nothing => 201 201;
    GET "/v1/tokens" list_tokens TOKENS, Nothing => 200 200;
    POST "/v1/principals/revoke" revoke_principal TOKENS, Nothing => 200 200;
    POST "/v1/principals/restore" restore_principal TOKENS, Nothing => 204 204;
    POST "/v1/tokens/{id}/revoke" revoke_token TOKENS, Token => 200 404;
    POST "/v1/credentials/{id}/revoke" revoke_credential CREDENTIALS, Credential => 200 404;
    PUT "/v1/notices" set_notices CREDENTIALS, Nothing => 200 200;
    GET "/v1/notices" get_notices CREDENTIALS, Nothing => 200 200;
    POST "/v1/notices/test" test_notices CREDENTIALS, Nothing => 204 204;
    DELETE "/v1/notices" remove_notices CREDENTIALS, Nothing => 204 204;
    GET "/v1/inventory" inventory AUDIT, Nothing => 200 200;
    GET "/v1/inventory/all" inventory_of_all Operator, Nothing => 200 401;
    POST "/v1/hooks" make_hook CREDENTIALS, Nothing => 201 201;
    GET "/v1/hooks" list_hooks CREDENTIALS, Nothing => 200 200;
    POST "/v1/hooks/{id}/events" receive_event Signed, Hook => 200 401;
    GET "/v1/oauth/callback" oauth_callback Brought, Nothing => 400 400;
    DELETE "/v1/hooks/{id}" remove_hook CREDENTIALS, Hook => 204 404;
    POST "/v1/tenants" create_tenant Operator, Nothing => 201 401;
    GET "/v1/tenants" list_tenants Operator, Nothing => 200 401;
    POST "/v1/tenants/{id}/tokens" issue_tenant_token Operator, Tenant => 201 401;
    POST "/v1/tenants/{id}/suspend" suspend_tenant Operator, Tenant => 200 401;
    POST "/v1/tenants/{id}/activate" activate_tenant Operator, Tenant => 200 401;
    POST "/v1/packages" publish_package Operator, Nothing => 201 401;
    GET "/v1/packages" list_packages Operator, Nothing => 200 401;
    GET "/v1/packages/{digest}" get_package Operator, Package => 200 401;
    PUT "/v1/notify" set_notify Operator, Nothing => 200 401;
    GET "/v1/notify" get_notify Operator, Nothing => 200 401;
    DELETE "/v1/notify" remove_notify Operator, Nothing => 204 401;
    POST "/v1/incidents" open_incident Operator, Nothing => 201 401;
    GET "/v1/incidents" list_incidents Operator, Nothing => 200 401;
    GET "/v1/incidents/{id}" get_incident Operator, Incident => 200 401;
    GET "/v1/incidents/{id}/report" report_incident Operator, Incident => 200 401;
    POST "/v1/incidents/{id}/close" close_incident Operator, Incident => 200 401;
    POST "/v1/own/incidents" open_own_incident AUDIT, Nothing => 201 404;
    GET "/v1/own/incidents" list_own_incidents AUDIT, Nothing => 200 200;
    GET "/v1/own/incidents/{id}" get_own_incident AUDIT, OwnIncident => 200 404;
    GET "/v1/own/incidents/{id}/report" report_own_incident AUDIT, OwnIncident => 200 404;
    POST "/v1/own/incidents/{id}/close" close_own_incident AUDIT, OwnIncident => 200 404;
    POST "/v1/tools/{name}/revoke" revoke_tool Operator, Tool => 200 401;
    POST "/v1/tools/{name}/restore" restore_tool Operator, Tool => 204 401;
    POST "/v1/signers/{key}/revoke" revoke_signer Operator, Nothing => 200 401;
    POST "/v1/packages/{digest}/withdraw" withdraw_package Operator, Package => 200 401;
    GET "/v1/shared-values" list_shared_values Operator, Nothing => 200 401;
    GET "/v1/audit" audit_ledger Operator, Nothing => 200 401;
    POST "/v1/master-key/rotate" rotate_master_key Operator, Nothing => 204 401;
    DELETE "/v1/tenants/{id}" offboard_tenant Operator, Tenant => 200 401;
}

/// What anybody who reaches the listener may ask. May get shorter; a name that is added here is a decision
/// to show something to strangers.
const OPEN: &[&str] = &["openapi", "health", "readiness", "metrics"];

const SCOPES: &[&str] = &["call", "credentials", "grants", "tokens", "audit", "runs"];

impl Row {
    fn is_on_public(&self) -> bool {
        matches!(self.who, Who::Tenant(_) | Signed | Brought) || self.name == "openapi"
    }

    fn is_on_admin(&self) -> bool {
        !matches!(self.who, Who::Tenant(_) | Signed | Brought)
    }
}

#[test]
fn h14_every_route_of_the_document_is_in_the_matrix_and_nothing_else_is() -> anyhow::Result<()> {
    // If this failed, a route could be shipped that nobody has tried as a stranger.
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let server = Server::start(&Built::find()?, &Authority::new()?, ServerOptions::default())?;
        let served = server.public().get("/openapi.json").await?;
        let on_admin = server.admin().get("/openapi.json").await?;
        assert_eq!(served.body, on_admin.body, "both listeners serve the same document");
        check_document(&served.json())
    })
}

fn check_document(document: &Value) -> anyhow::Result<()> {
    let mut documented = BTreeMap::new();
    for (path, operations) in document["paths"].as_object().context("paths")? {
        for (method, operation) in operations.as_object().context("operations")? {
            let name = operation["operationId"].as_str().context("operationId")?;
            documented.insert(name.to_owned(), (method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    for row in ROWS {
        let (method, path, operation) =
            documented.remove(row.name).with_context(|| format!("{} is in the table alone", row.name))?;
        assert_eq!((method.as_str(), path.as_str()), (row.method, row.path), "{}", row.name);
        let (scope, listener) = match row.who {
            Anybody if row.is_on_public() => (Value::Null, "both"),
            Anybody | Operator => (Value::Null, "admin"),
            Signed | Brought => (Value::Null, "public"),
            Who::Tenant(scope) => (scope.into(), "public"),
        };
        assert_eq!(operation["x-scope"], scope, "{}", row.name);
        assert_eq!(operation["x-listener"], listener, "{}", row.name);
        // What the stage's plain credential cannot do is a problem for its owner, too.
        let right = if row.right < 300 { row.right.to_string() } else { "default".to_owned() };
        assert!(operation["responses"][right].is_object(), "{}: {}", row.name, row.right);
        assert!(operation["responses"]["default"].is_object(), "{}", row.name);
        let open = operation["security"].as_array().is_some_and(Vec::is_empty);
        assert_eq!(open, OPEN.contains(&row.name), "{}: who may ask", row.name);
        assert_eq!(open, row.who == Anybody, "{}: who may ask", row.name);
    }
    assert!(documented.is_empty() && OPEN.len() <= 4, "not in the table, or open to all: {:?}", documented.keys());
    Ok(())
}

/// Everybody who asks, and what they ask about.
struct Stage {
    server: Server,
    /// Holds what the paths name.
    owner: Tenant,
    /// Every scope, in another tenant.
    stranger: Tenant,
    ids: BTreeMap<Subject, String>,
    /// Tokens of the owner's tenant that lack one scope, by the scope that they lack.
    lacking: BTreeMap<&'static str, String>,
    /// Tokens that are good for nothing, by why.
    refused: Vec<(&'static str, String)>,
    echo: Vec<u8>,
    /// Of the owner's run.
    checkpoint: Value,
    /// The secret of the owner's hook.
    hook_secret: String,
    /// The served document.
    document: Value,
    _upstream: Upstream,
}

const PACKAGE: &str = "http-get";
const TOOL: &str = "http-get.get";

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let (built, authority) = (Built::find()?, Authority::new()?);
        let value = canary("owner-");
        let upstream = Upstream::echo(&authority, &["httpbin.org"], vec![value.clone()]).await?;
        // Every route is asked by everybody who is refused, from one address.
        let guesses = "[limits]\nfailed_authentications_per_minute = 100000";
        let options = ServerOptions::default().pin("httpbin.org", &upstream).with(guesses);
        let server = Server::start(&built, &authority, options)?;
        let owner = server.tenant("owner").await?;
        let stranger = server.tenant("stranger").await?;
        let path = format!("/v1/packages?visible_to={}", owner.id);
        let octets = [("content-type", "application/octet-stream")];
        let published = server.operator().send("POST", &path, &octets, built.bundle(PACKAGE)?).await?;
        let digest = text(&published, "digest")?;
        let (credential, grant) = owner.grant(PACKAGE, "site", &value).await?;
        let called = owner.call(TOOL, json!({"path": "/anything"})).await?;
        let spare = server.tenant("spare").await?;
        let (token, revoked) = issue(&owner, SCOPES).await?;
        let doomed = issue(&owner, SCOPES).await?;
        good(owner.client.post(&format!("/v1/tokens/{}/revoke", doomed.0), &json!({})).await?)?;
        let suspended = server.tenant("suspended").await?;
        good(server.operator().post(&format!("/v1/tenants/{}/suspend", suspended.id), &json!({})).await?)?;
        let mut lacking = BTreeMap::new();
        for scope in SCOPES {
            let others: Vec<_> = SCOPES.iter().copied().filter(|other| other != scope).collect();
            lacking.insert(*scope, issue(&owner, &others).await?.1);
        }
        let hook = owner.client.post("/v1/hooks", &json!({"label": "matrix"})).await?;
        let changed = format!("{}{}", &revoked[..revoked.len() - 1], if revoked.ends_with('a') { 'b' } else { 'a' });
        let opened = owner.client.post("/v1/runs", &json!({"agent": "matrix"})).await?;
        let (run, ended) = (text(&opened, "id")?, owner.client.post("/v1/runs", &json!({"agent": "ended"})).await?);
        let checkpoint = good(owner.client.post(&format!("/v1/runs/{run}/checkpoint"), &json!({})).await?)?;
        good(owner.client.post(&format!("/v1/runs/{}/end", text(&ended, "id")?), &json!({})).await?)?;
        let breached = server.tenant("breached").await?;
        let incident = server.operator().post("/v1/incidents", &json!({"tenant": breached.id})).await?;
        let own = owner.client.post("/v1/own/incidents", &json!({"principal": "nobody"})).await?;
        let ids = [
            (Subject::OwnIncident, text(&own, "id")?),
            (Subject::Run, run),
            (Subject::Call, text(&called, "call")?),
            (Subject::Tool, TOOL.to_owned()),
            (Subject::Credential, credential),
            (Subject::Grant, grant),
            (Subject::Hook, text(&hook, "id")?),
            (Subject::Token, token),
            (Subject::Tenant, spare.id.clone()),
            (Subject::Package, digest),
            (Subject::Incident, text(&incident, "id")?),
        ];
        Ok(Self {
            ids: ids.into(),
            lacking,
            refused: vec![
                ("revoked", doomed.1),
                ("of a suspended tenant", suspended.token),
                ("changed in its last letter", changed),
                ("of a run that ended", text(&ended, "token")?),
                ("of another make", format!("kb_{}", "a".repeat(52))),
                ("empty", String::new()),
            ],
            echo: built.bundle("echo")?,
            checkpoint,
            hook_secret: text(&hook, "text")?,
            document: server.public().get("/openapi.json").await?.json(),
            server,
            owner,
            stranger,
            _upstream: upstream,
        })
    }

    /// Sends a row's request as somebody, about the owner's things or about things that do not exist.
    async fn ask(&self, row: &Row, client: &Client, about: About) -> anyhow::Result<Answer> {
        let mut path = row.path.to_owned();
        if let Some(id) = self.ids.get(&row.subject) {
            let id = if about == About::Missing { missing(id) } else { id.clone() };
            for placeholder in ["{id}", "{name}", "{digest}"] {
                path = path.replace(placeholder, &id);
            }
        }
        path = path.replace("{version}", "1").replace("{key}", &"5".repeat(64));
        if row.name == "publish_package" {
            let octets = [("content-type", "application/octet-stream")];
            return client.send("POST", &path, &octets, self.echo.clone()).await;
        }
        match self.body(row) {
            Value::Null => client.send(row.method, &path, &[], Vec::new()).await,
            body => {
                let json = [("content-type", "application/json")];
                client.send(row.method, &path, &json, body.to_string().into_bytes()).await
            }
        }
    }

    /// Holds what was sent and what came back against the document.
    fn assert_documented(&self, row: &Row, answer: &Answer) -> anyhow::Result<()> {
        let operation = &self.document["paths"][row.path][row.method.to_lowercase()];
        let body = self.body(row);
        if !body.is_null() {
            self.assert_fits(&operation["requestBody"]["content"]["application/json"]["schema"], &body, row)?;
        }
        let documented = match operation["responses"].get(answer.status.to_string()) {
            Some(response) => &response["content"]["application/json"],
            None => &operation["responses"]["default"]["content"]["application/problem+json"],
        };
        match documented.get("schema") {
            Some(schema) => self.assert_fits(schema, &answer.json(), row),
            None => Ok(()),
        }
    }

    fn assert_fits(&self, schema: &Value, value: &Value, row: &Row) -> anyhow::Result<()> {
        anyhow::ensure!(schema.is_object(), "{}: nothing is documented", row.name);
        let mut whole = schema.clone();
        whole["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&whole).map_err(|error| anyhow::anyhow!("{}: {error}", row.name))?;
        anyhow::ensure!(!validator.is_valid(&json!(5)), "{}: the schema allows anything", row.name);
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        anyhow::ensure!(errors.is_empty(), "{}: {errors:?}: {value}", row.name);
        Ok(())
    }

    /// All that the owner and the operator can list: what a refusal must not change.
    async fn state(&self) -> anyhow::Result<Vec<Value>> {
        let mut state = Vec::new();
        for path in ["/v1/credentials", "/v1/grants", "/v1/hooks", "/v1/tokens", "/v1/runs"] {
            state.push(good(self.owner.client.get(path).await?)?);
        }
        for path in ["/v1/tenants", "/v1/packages", "/v1/incidents"] {
            state.push(good(self.server.operator().get(path).await?)?);
        }
        Ok(state)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Owners,
    Missing,
}

/// An id of the same kind that nothing has.
fn missing(id: &str) -> String {
    match (id.split_once('_'), id.split_once(':')) {
        (Some((prefix, body)), _) => format!("{prefix}_{}", "a".repeat(body.len())),
        (None, Some((prefix, body))) => format!("{prefix}:{}", "0".repeat(body.len())),
        (None, None) => "nothing.here".to_owned(),
    }
}

async fn issue(tenant: &Tenant, scopes: &[&str]) -> anyhow::Result<(String, String)> {
    let new = json!({"label": "matrix", "scopes": scopes, "life_s": 600});
    let issued = tenant.client.post("/v1/tokens", &new).await?;
    Ok((text(&issued, "id")?, text(&issued, "text")?))
}

fn good(answer: Answer) -> anyhow::Result<Value> {
    anyhow::ensure!(answer.status < 300, "{} {}", answer.status, answer.text());
    Ok(answer.json())
}

fn text(answer: &Answer, field: &str) -> anyhow::Result<String> {
    let value = answer.json()[field].as_str().map(str::to_owned);
    value.with_context(|| format!("`{field}` in {} {}", answer.status, answer.text()))
}

fn assert_problem(answer: &Answer, code: &str, what: &str) {
    assert_eq!(answer.code(), code, "{what}: {} {}", answer.status, answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_h09_h14_h15_every_route_answers_only_who_may_ask() -> anyhow::Result<()> {
    // If this failed, somebody without the right could read or change what is a tenant's or the operator's.
    let stage = Stage::set().await?;
    let before = stage.state().await?;
    nobody_gets_in(&stage).await?;
    no_listener_has_the_others_routes(&stage).await?;
    a_scope_that_is_missing_is_missed(&stage).await?;
    a_stranger_learns_nothing(&stage).await?;
    assert_eq!(before, stage.state().await?, "a refusal changes nothing");
    who_may_ask_is_answered(&stage).await
}

/// No token and tokens that are no good hear one and the same 401, on either listener.
async fn nobody_gets_in(stage: &Stage) -> anyhow::Result<()> {
    let tenants_token = stage.owner.token.clone();
    for row in ROWS.iter().filter(|row| !matches!(row.who, Anybody | Brought)) {
        let listener = if row.is_on_public() { stage.server.public() } else { stage.server.admin() };
        let nobody = stage.ask(row, &listener, About::Owners).await?;
        assert_eq!(nobody.status, 401, "{}: nobody", row.name);
        assert_problem(&nobody, "unauthenticated", row.name);
        assert!(nobody.header("www-authenticate").is_some(), "{}", row.name);
        let mut bearers: Vec<(&str, Client)> =
            stage.refused.iter().map(|(why, token)| (*why, listener.bearing(token))).collect();
        match row.who {
            Operator => bearers.push(("a tenant's", listener.bearing(&tenants_token))),
            _ => bearers.push(("the operator's", listener.bearing(stage.server.operator_token()))),
        }
        for (why, client) in bearers {
            let answer = stage.ask(row, &client, About::Owners).await?;
            assert_eq!((answer.status, &answer.body), (401, &nobody.body), "{}: a token {why}", row.name);
        }
    }
    Ok(())
}

/// A route is on its own listener and nowhere else, whoever asks.
async fn no_listener_has_the_others_routes(stage: &Stage) -> anyhow::Result<()> {
    for row in ROWS {
        let everyone = |listener: Client| {
            [listener.bearing(&stage.owner.token), listener.bearing(stage.server.operator_token()), listener]
        };
        let mut elsewhere = Vec::new();
        if !row.is_on_public() {
            elsewhere.extend(everyone(stage.server.public()));
        }
        if !row.is_on_admin() {
            elsewhere.extend(everyone(stage.server.admin()));
        }
        for client in elsewhere {
            let answer = stage.ask(row, &client, About::Owners).await?;
            assert_eq!(answer.status, 404, "{} on the other listener", row.name);
            assert_problem(&answer, "not_found", row.name);
        }
    }
    Ok(())
}

/// A token of the very tenant without the route's scope is refused, whether the thing exists or not.
async fn a_scope_that_is_missing_is_missed(stage: &Stage) -> anyhow::Result<()> {
    for row in ROWS {
        let Who::Tenant(scope) = row.who else { continue };
        let client = stage.server.public().bearing(&stage.lacking[scope]);
        let answer = stage.ask(row, &client, About::Owners).await?;
        assert_eq!(answer.status, 403, "{} without `{scope}`: {}", row.name, answer.text());
        assert_problem(&answer, "forbidden", row.name);
        let of_nothing = stage.ask(row, &client, About::Missing).await?;
        assert_eq!(of_nothing.body, answer.body, "{}: a missing scope tells nothing", row.name);
    }
    let no_call = stage.server.public().bearing(&stage.lacking["call"]);
    let unknown = json!({"tool": "nothing.here", "arguments": {}});
    assert_problem(&no_call.post("/v1/calls", &unknown).await?, "forbidden", "a call of nothing without `call`");
    Ok(())
}

/// Another tenant with every scope finds nothing of the owner's, and is told so as of what never was.
async fn a_stranger_learns_nothing(stage: &Stage) -> anyhow::Result<()> {
    for row in ROWS {
        let Who::Tenant(_) = row.who else { continue };
        let answer = stage.ask(row, &stage.stranger.client, About::Owners).await?;
        assert_eq!(answer.status, row.stranger, "{}: a stranger: {}", row.name, answer.text());
        let missing = stage.ask(row, &stage.stranger.client, About::Missing).await?;
        if answer.status >= 400 {
            assert_eq!(answer.body, missing.body, "{}: as if it did not exist", row.name);
            let without_date = |answer: &Answer| -> Vec<_> {
                answer.headers.iter().filter(|(name, _)| name != "date").cloned().collect()
            };
            assert_eq!(without_date(&answer), without_date(&missing), "{}", row.name);
        }
        for id in stage.ids.values().chain([&stage.owner.id]) {
            assert!(!answer.text().contains(id.as_str()), "{}: a stranger hears of {id}", row.name);
        }
    }
    Ok(())
}

/// Who may ask gets what the document says; what does not exist is not found by him either.
async fn who_may_ask_is_answered(stage: &Stage) -> anyhow::Result<()> {
    for row in ROWS {
        let clients = match row.who {
            Who::Tenant(_) => vec![stage.owner.client.clone()],
            Operator => vec![stage.server.operator()],
            Anybody if row.is_on_public() => vec![stage.server.public(), stage.server.admin()],
            Anybody => vec![stage.server.admin()],
            Brought => {
                // One page for whoever comes without a state, token or not.
                let client = stage.server.public();
                for client in [client.bearing(&stage.owner.token), client] {
                    let answer = stage.ask(row, &client, About::Owners).await?;
                    assert_eq!(
                        (answer.status, answer.header("content-type")),
                        (row.right, Some("text/html; charset=utf-8"))
                    );
                }
                continue;
            }
            Signed => {
                let (hook, body) = (&stage.ids[&row.subject], stage.body(row));
                let client = stage.server.public();
                let answer = send_event(&client, hook, &stage.hook_secret, "msg_matrix", &body).await?;
                assert_eq!(answer.status, row.right, "{}: {}", row.name, answer.text());
                stage.assert_documented(row, &answer)?;
                let missing = send_event(&client, &missing(hook), &stage.hook_secret, "msg_matrix", &body).await?;
                assert_eq!(missing.status, row.stranger, "{}: {}", row.name, missing.text());
                continue;
            }
        };
        for client in clients {
            if row.subject != Subject::Nothing {
                let missing = stage.ask(row, &client, About::Missing).await?;
                assert_problem(&missing, "not_found", row.name);
                stage.assert_documented(row, &missing)?;
            }
            let answer = stage.ask(row, &client, About::Owners).await?;
            assert_eq!(answer.status, row.right, "{}: {}", row.name, answer.text());
            stage.assert_documented(row, &answer)?;
        }
    }
    Ok(())
}
