//! `/openapi.json`: OpenAPI 3.1, written from the table of routes, so that no route can be missing from
//! it. Schemas are those of the very types that are read and written.

mod known;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;

use bytes::Bytes;
use http::StatusCode;
use keybearer_contract::Problem;
use serde_json::Value;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use crate::api::App;
use crate::api::input::Input;
use crate::api::input::MESSAGE_PACK;
use crate::api::problem;
use crate::api::reply::Reply;
use crate::api::routes::ANY_QUERY;
use crate::api::routes::Handler;
use crate::api::routes::ROUTES;
use crate::api::routes::Route;
use crate::metrics;

/// The schema of a type, by its functions, so that it can stand in a table.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    name: fn() -> std::borrow::Cow<'static, str>,
    schema: fn() -> RefOr<Schema>,
    referenced: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Shape {
    pub(crate) const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, schema: T::schema, referenced: T::schemas }
    }
}

/// What a request's or an answer's body is.
#[derive(Clone, Copy)]
pub(crate) enum Body {
    Nothing,
    Json(Shape),
    /// `{"items": [...]}`
    Items(Shape),
    /// JSON or MessagePack.
    Call(Shape),
    /// JSON, or a page for people.
    Page(Shape),
    /// A page for people.
    Html,
    Octets,
    Text,
    /// What Prometheus reads.
    Metrics,
    /// A JSON document of another standard.
    Document,
}

/// GET /openapi.json
pub(crate) async fn serve(_app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    let text = TEXT.get_or_init(|| Bytes::from(document().to_string()));
    Ok(Reply::bytes(StatusCode::OK, "application/json", text.clone()))
}

/// The document.
pub(crate) fn document() -> Value {
    let mut schemas = BTreeMap::new();
    add_schema(&mut schemas, Shape::of::<problem::ProblemBody>());
    let mut paths: BTreeMap<&str, serde_json::Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let operation = operation(route, &mut schemas);
        paths.entry(route.path).or_default().insert(route.method.as_str().to_ascii_lowercase(), operation);
    }
    known::refine(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Keybearer",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs the tool calls of AI agents for many tenants, and bears their keys. Operations with `operatorToken` are on the admin listener, the others on the public one.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "An API token (`kb_…`), a run's token (`kbr_…`) or a JWT of a configured issuer." },
                "certificate": { "type": "mutualTLS", "description": "A client certificate whose SPIFFE id is configured; without an Authorization header." },
                "signature": { "type": "apiKey", "in": "header", "name": "webhook-signature", "description": "Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`, by the hook's secret." },
                "state": { "type": "apiKey", "in": "query", "name": "state", "description": "What `/v1/credentials/authorize` gave the account's browser to bring back; good once." },
                "operatorToken": { "type": "http", "scheme": "bearer", "description": "The operator's token (`kbop_…`), on the admin listener." },
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut BTreeMap<String, Value>) -> Value {
    let mut responses = serde_json::Map::new();
    responses.insert(route.status.to_string(), response(route, schemas));
    responses.insert(
        "default".to_owned(),
        json!({
            "description": "A problem (RFC 9457); `code` is stable.",
            "content": { problem::MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
        }),
    );
    let (security, listener) = match route.handler {
        Handler::Open(_) => (json!([]), "both"),
        Handler::Signed(_) if route.query == ANY_QUERY => (json!([{ "state": [] }]), "public"),
        Handler::Signed(_) => (json!([{ "signature": [] }]), "public"),
        Handler::Tenant(_) => (json!([{ "token": [] }, { "certificate": [] }]), "public"),
        Handler::Operator(_) => (json!([{ "operatorToken": [] }]), "admin"),
    };
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "responses": responses,
        "security": security,
        "x-listener": if route.name == "openapi" { "both" } else if listener == "both" { "admin" } else { listener },
    });
    if let Some(scope) = route.scope {
        operation["x-scope"] = json!(scope);
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(content) = content(route.request, schemas) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for name in route.query {
        parameters.push(json!({ "name": name, "in": "query", "required": false, "schema": { "type": "string" } }));
    }
    if route.name == "submit_call" {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key never runs twice; scoped by tenant.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 },
        }));
    }
    parameters
}

fn response(route: &Route, schemas: &mut BTreeMap<String, Value>) -> Value {
    match content(route.response, schemas) {
        Some(content) => json!({ "description": "Done.", "content": content }),
        None => json!({ "description": "Done." }),
    }
}

fn content(body: Body, schemas: &mut BTreeMap<String, Value>) -> Option<Value> {
    match body {
        Body::Nothing => None,
        Body::Json(shape) => Some(json!({ "application/json": { "schema": add_schema(schemas, shape) } })),
        Body::Items(shape) => {
            let items = add_schema(schemas, shape);
            Some(json!({ "application/json": { "schema": {
                "type": "object",
                "required": ["items"],
                "properties": { "items": { "type": "array", "items": items } },
            } } }))
        }
        Body::Call(shape) => {
            let schema = add_schema(schemas, shape);
            Some(json!({ "application/json": { "schema": schema }, MESSAGE_PACK: { "schema": schema } }))
        }
        Body::Page(shape) => Some(json!({
            "application/json": { "schema": add_schema(schemas, shape) },
            "text/html": { "schema": { "type": "string" } },
        })),
        Body::Html => Some(json!({ "text/html": { "schema": { "type": "string" } } })),
        Body::Octets => Some(json!({ "application/octet-stream": {} })),
        Body::Text => Some(json!({ "text/plain": { "schema": { "type": "string" } } })),
        Body::Metrics => {
            let media_type = metrics::MEDIA_TYPE.split(';').next().unwrap_or_default();
            Some(json!({ media_type: { "schema": { "type": "string" } } }))
        }
        Body::Document => Some(json!({ "application/json": { "schema": { "type": "object" } } })),
    }
}

/// Adds a type's schema and those that it refers to; gives a reference to it.
fn add_schema(schemas: &mut BTreeMap<String, Value>, shape: Shape) -> Value {
    let name = (shape.name)().into_owned();
    let mut referenced = vec![(name.clone(), (shape.schema)())];
    (shape.referenced)(&mut referenced);
    for (name, schema) in referenced {
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).expect("a schema is plain data"));
    }
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_in_the_document_with_its_authority() {
        let document = document();
        for route in ROUTES {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][route.path][&method];
            assert_eq!(operation["operationId"], route.name);
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(open, matches!(route.handler, Handler::Open(_)), "{}", route.name);
            assert!(operation["responses"][route.status.to_string()].is_object());
            for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let listed = operation["parameters"].as_array().expect("parameters");
                assert!(listed.iter().any(|parameter| parameter["name"] == name), "{}: {name}", route.name);
            }
        }
        let operations: usize = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .map(|path| path.as_object().map_or(0, serde_json::Map::len))
            .sum();
        assert_eq!(operations, ROUTES.len());
    }

    #[test]
    fn every_reference_in_the_document_leads_somewhere() {
        let document = document();
        let mut open = vec![&document];
        let mut seen = 0;
        while let Some(value) = open.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                        seen += 1;
                    }
                    open.extend(members.values());
                }
                Value::Array(items) => open.extend(items),
                _ => {}
            }
        }
        assert!(seen > ROUTES.len());
    }
}
