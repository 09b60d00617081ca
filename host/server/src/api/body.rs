//! From a body's bytes to a value: strict JSON first, then the shape. What is wrong is said without
//! quoting the body, which may hold a credential.

use std::collections::HashMap;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::strict_json;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Parses a body of one type; unknown fields are the type's to refuse.
pub(crate) fn parse<'body, T: Deserialize<'body>>(bytes: &'body [u8], depth_max: usize) -> Result<T, Problem> {
    check(bytes, depth_max)?;
    require_object(bytes)?;
    serde_json::from_slice(bytes).map_err(|error| shape_problem(bytes, &error))
}

/// Every body here is an object. (A derived parser would take an array of its fields' values too.)
pub(crate) fn require_object(bytes: &[u8]) -> Result<(), Problem> {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Problem::new(Code::MalformedBody, "send the documented fields: expected an object")),
    }
}

/// Checks that it is strict JSON.
pub(crate) fn check(bytes: &[u8], depth_max: usize) -> Result<(), Problem> {
    strict_json::check(bytes, depth_max)
        .map_err(|error| Problem::new(Code::MalformedBody, format!("mend the JSON: {error}")))
}

/// The body is JSON of another shape. A field that would select a tenant has an answer of its own.
pub(crate) fn shape_problem(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let names_tenant = serde_json::from_slice::<HashMap<String, IgnoredAny>>(bytes)
        .is_ok_and(|members| members.keys().any(|name| super::auth::names_a_tenant(name)));
    if names_tenant {
        return super::auth::tenant_mismatch();
    }
    Problem::new(Code::MalformedBody, format!("send the documented fields: {}", quoteless(error)))
}

/// The message of a shape error without the values that serde quotes: names of fields and types stay,
/// values do not.
fn quoteless(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!("line {} column {}", error.line(), error.column());
    let known = ["missing field `", "unknown field `", "duplicate field `"];
    match known.iter().find(|start| text.starts_with(**start)) {
        // An unknown field's name is the caller's word; it is cut like one.
        Some(start) => {
            let name: String = text[start.len()..].chars().take_while(|c| *c != '`').take(64).collect();
            let clean = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let name = if clean { name } else { "…".to_owned() };
            format!("{start}{name}` at {position}")
        }
        None => {
            let expected = text.rsplit_once("expected ").map(|(_, rest)| rest.split(" at line").next().unwrap_or(""));
            match expected {
                // What was expected is ours to say; what was found is not repeated.
                Some(expected) if !text.contains("unknown variant") => format!("expected {expected} at {position}"),
                _ => format!("a value is not one of those that are understood, at {position}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        #[expect(dead_code, reason = "only its type matters")]
        count: u32,
    }

    fn detail(text: &str) -> Problem {
        parse::<Shape>(text.as_bytes(), 64).expect_err("refused")
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
            ("{\"count\":\"sk_live_canary\"}", "expected u32"),
            ("{}", "missing field `count`"),
            ("{\"count\":1,\"cuont\":\"sk_live_canary\"}", "unknown field `cuont`"),
            ("{\"count\":1,\"sk_live canary\":1}", "unknown field `…`"),
            ("[\"sk_live_canary\"]", "expected"),
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
}
