//! What is said of bodies that are refused, and what is not.

use keybearer_contract::Binding;
use keybearer_executor::NewGrant;
use keybearer_executor::NewOwnIncident;
use keybearer_executor::NewRun;
use keybearer_executor::NewTenant;
use keybearer_executor::NewTerms;
use keybearer_executor::NewToken;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::api::calls::CallBody;
use crate::api::consent::AuthorizeBody;
use crate::api::credentials::RotateBody;
use crate::api::credentials::StoreBody;
use crate::api::registration::RegisterBody;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Counted {
    #[expect(dead_code, reason = "only its type matters")]
    count: u32,
}

fn refused<'body, T: Deserialize<'body>>(text: &'body str) -> Option<Problem> {
    parse::<T>(text.as_bytes(), 64).err()
}

fn detail(text: &str) -> Problem {
    refused::<Counted>(text).expect("refused")
}

#[test]
fn h02_malformed_json_is_refused_with_the_place() {
    for bad in [
        "{\"count\":1,\"count\":2}",
        "{\"count\":1} x",
        "\u{feff}{\"count\":1}",
        "{\"count\":NaN}",
        "{\"count\":1e400}",
    ] {
        let problem = detail(bad);
        assert_eq!(problem.code, Code::MalformedBody, "{bad}");
        assert!(problem.detail.contains("at byte"), "{}", problem.detail);
    }
    let deep = format!("{{\"count\":{}1{}}}", "[".repeat(64), "]".repeat(64));
    assert!(detail(&deep).detail.contains("too deep"));
}

#[test]
fn x11_what_was_found_is_not_repeated() {
    for (bad, said) in [
        ("{\"count\":\"sk_live_canary\"}", "mend `/count`: expected a whole number from 0 to 4294967295"),
        ("{}", "missing field `count`"),
        ("{\"count\":1,\"cuont\":\"sk_live_canary\"}", "unknown field `cuont`, expected `count`"),
        ("{\"count\":1,\"sk_live canary\":1}", "unknown field at line 1 column 27, expected `count`"),
        ("[\"sk_live_canary\"]", "expected an object"),
    ] {
        let problem = detail(bad);
        assert!(problem.detail.contains(said), "{bad}: {}", problem.detail);
        assert!(!problem.detail.contains("canary"), "{bad}: {}", problem.detail);
    }
}

#[test]
fn t01_a_field_that_names_a_tenant_has_its_own_code() {
    assert_eq!(detail("{\"count\":1,\"tenant\":\"other\"}").code, Code::TenantMismatch);
    assert_eq!(detail("{\"count\":1,\"tenant_id\":\"other\"}").code, Code::TenantMismatch);
}

#[test]
fn the_field_is_named_with_what_may_stand_there() {
    let token = |scopes: Value| json!({"label": "x", "scopes": scopes}).to_string();
    let binding = |host: &str, path: &str| {
        json!({"binding": [{"host": host, "methods": ["GET"], "paths": ["/v1/x", path]}]}).to_string()
    };
    let kind = |kind: Value| json!({"name": "x", "kind": kind, "owner": "o", "justification": "j"}).to_string();
    let name = "1 to 63 of a-z, 0-9 and `-`, beginning with a letter";
    for (problem, pointer, said) in [
        (refused::<NewTenant>(r#"{"name":"Bad Name!"}"#), "/name", name),
        (refused::<NewTenant>(r#"{"name":5}"#), "/name", "expected a string"),
        (
            refused::<NewTenant>(r#"{"name":"x","limits":{"wall_ms":"5"}}"#),
            "/limits/wall_ms",
            "expected a whole number",
        ),
        (refused::<NewToken>(&token(json!(["call", "cal"]))), "/scopes/1", "expected one of `call`, `credentials`, "),
        (refused::<NewToken>(&token(json!([5]))), "/scopes/0", "expected a string"),
        (refused::<NewToken>(&token(json!("call"))), "/scopes", "expected a list"),
        (
            refused::<NewGrant>(r#"{"package":"echo","digest":"blake3:00"}"#),
            "/digest",
            "`blake3:` and 64 lower-case hex",
        ),
        (
            refused::<NewGrant>(r#"{"package":"echo","base_url":"127.0.0.1"}"#),
            "/base_url",
            "it must begin with `https://`",
        ),
        (refused::<NewRun>(r#"{"agent":"a","tools":["a.b.c"]}"#), "/tools/0", "not a tool name: it must be 1 to 63"),
        (refused::<NewRun>(r#"{"agent":""}"#), "/agent", "not a name of an agent: it must be 1 to 63"),
        (refused::<NewOwnIncident>(r#"{"credential":"api"}"#), "/credential", "`cred_` and 26 characters"),
        (refused::<CallBody<'_>>(r#"{"tool":"echo","arguments":{}}"#), "/tool", "it must be `package.tool`"),
        (
            refused::<CallBody<'_>>(r#"{"tool":"a.b","arguments":{},"attempt":-1}"#),
            "/attempt",
            "expected a whole number",
        ),
        (refused::<NewTerms>(&binding("*.x.test", "/")), "/binding/0/host", "write `{grant}.suffix.example`"),
        (refused::<NewTerms>(&binding("127.0.0.1", "/")), "/binding/0/host", "addresses have no place here"),
        (refused::<NewTerms>(&binding("a.test", "v1")), "/binding/0/paths/1", "it must begin with `/`"),
        (refused::<StoreBody>(&kind(json!({"kind": "nonsense"}))), "/kind", "expected one of `bearer`, `basic`"),
        (refused::<StoreBody>(&kind(json!({"kind": "jwt_key", "alg": "HS256"}))), "/kind", "expected one of `ES256`"),
        (refused::<StoreBody>(&kind(json!({"kind": "jwt_key"}))), "/kind", "missing field `alg`"),
        (refused::<StoreBody>(&kind(json!({"kind": "jwt_key", "more": 1}))), "/kind", "unknown field `more`, expected"),
        (refused::<StoreBody>(&kind(json!("bearer"))), "/kind", "expected an object"),
        (refused::<RotateBody>(r#"{"value":["x"]}"#), "/value", "expected a string"),
    ] {
        let problem = problem.expect(said);
        assert_eq!(problem.pointer.as_deref(), Some(pointer), "{}", problem.detail);
        assert!(problem.detail.contains(said), "{}", problem.detail);
    }
}

/// Every way to put a value where another thing belongs: of them all, none is repeated.
#[test]
fn x11_no_value_of_any_wrong_shape_is_repeated_in_any_place() {
    let binding: Binding =
        serde_json::from_value(json!({"host": "a.test", "methods": ["GET"], "paths": ["/"]})).unwrap();
    let rotation = json!({"every_h": 5, "sensitive": true});
    let oauth = json!({"kind": "oauth_refresh_token", "token_url": "https://a.test/t", "client_id": "c",
        "client_auth": {"method": "client_secret_post"}, "scope": "s"});
    let discovered = json!({"kind": "oauth_client_credentials", "issuer": "https://a.test", "client_id": "c",
        "endpoint_hosts": ["b.test"]});
    let vault = json!({"kind": "vault_kv", "server": {"address": "https://v.test", "login": {"method": "app_role"}},
        "mount": "kv", "path": "a/b", "field": "f"});
    let terms = json!({"owner": "o", "justification": "j", "expires": 5, "rotation": rotation, "binding": [binding]});
    let with = |more: Value| {
        let mut body = terms.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let mut tried = 0;
    for kind in
        [json!({"kind": "bearer"}), json!({"kind": "jwt_key", "alg": "ES256", "kid": "k"}), oauth, discovered, vault]
    {
        tried += misplace(|text| refused::<StoreBody>(text), &with(json!({"name": "n", "kind": kind, "value": "v"})));
        tried += misplace(
            |text| refused::<RegisterBody>(text),
            &with(json!({"name": "n", "kind": kind, "value": "v",
            "registration_url": "https://a.test/r", "client": {"client_name": "c", "contacts": ["x"]}})),
        );
        tried += misplace(
            |text| refused::<AuthorizeBody>(text),
            &with(json!({"name": "n", "kind": kind, "value": "v",
            "authorize_url": "https://a.test/r", "redirect_uri": "https://b.test/v1/oauth/callback"})),
        );
    }
    tried += misplace(|text| refused::<NewTerms>(text), &terms);
    tried += misplace(|text| refused::<RotateBody>(text), &json!({"value": "v", "overlap_s": 5, "pinned": true}));
    tried += misplace(
        |text| refused::<NewToken>(text),
        &json!({"label": "l", "scopes": ["call"], "packages": ["p"], "life_s": 5}),
    );
    tried += misplace(
        |text| refused::<NewGrant>(text),
        &json!({"package": "p", "slot": "s", "base_url": "https://a.test", "actions": ["a"]}),
    );
    tried += misplace(
        |text| refused::<NewTenant>(text),
        &json!({"name": "n", "calls_per_second": 5, "limits": {"wall_ms": 5}}),
    );
    tried += misplace(|text| refused::<NewRun>(text), &json!({"agent": "a", "tools": ["p.t"], "life_ms": 5}));
    tried += misplace(|text| refused::<NewOwnIncident>(text), &json!({"principal": "p", "tool": "p.t", "note": "n"}));
    tried += misplace(
        |text| refused::<CallBody<'_>>(text),
        &json!({"tool": "p.t", "arguments": {"a": 1}, "attempt": 1, "timeout_ms": 5}),
    );
    assert!(tried > 2000, "{tried} were refused");
}

const SECRET: &str = "sk_live_4eC39HqLyjWDarjtT1zdp7dc";
const NUMBER: u64 = 4_242_424_242_424_242_424;

/// Reads a body of one type; the problem, if there is one.
type Reader = fn(&str) -> Option<Problem>;

/// Puts wrong things at every place of a body; how many of them were refused.
fn misplace(read: Reader, body: &Value) -> usize {
    let mut places = Vec::new();
    collect("", body, &mut places);
    let mut count = 0;
    for place in &places {
        for wrong in wrong() {
            let mut beside = body.clone();
            let mut instead = body.clone();
            *instead.pointer_mut(place).unwrap() = wrong.clone();
            count += usize::from(is_mute(read, &instead));
            match beside.pointer_mut(place).unwrap() {
                Value::Object(members) => {
                    members.insert(SECRET.to_owned(), wrong);
                }
                Value::Array(items) => items.push(wrong),
                _ => continue,
            }
            count += usize::from(is_mute(read, &beside));
        }
    }
    count
}

fn wrong() -> Vec<Value> {
    vec![
        json!(SECRET),
        json!(format!("x`, expected {SECRET}")),
        json!(format!("not a {SECRET}")),
        json!(format!("*.{SECRET}")),
        json!(format!("https://{SECRET}")),
        json!(format!("{SECRET} there are no fields")),
        json!([SECRET]),
        json!({ SECRET: SECRET }),
        json!({ "kind": SECRET, "method": SECRET }),
        json!(NUMBER),
        json!(-424_242_424_242_i64),
        json!(0.424_242_424_242),
    ]
}

fn collect(place: &str, value: &Value, places: &mut Vec<String>) {
    places.push(place.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, member)| collect(&format!("{place}/{name}"), member, places));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| collect(&format!("{place}/{index}"), item, places));
        }
        _ => {}
    }
}

/// Whether it is refused; what is said of it holds nothing of what was sent.
fn is_mute(read: Reader, body: &Value) -> bool {
    let text = body.to_string();
    let Some(problem) = read(&text) else { return false };
    let said = format!("{} {:?}", problem.detail, problem.pointer);
    for piece in ["4eC39Hq", "sk_live", "LyjWDarj", "zdp7dc", "42424242"] {
        assert!(!said.contains(piece), "{text}: {said}");
    }
    true
}
