//! From a body's bytes to a value: strict JSON first, then the shape. What is wrong is said without
//! quoting the body, which may hold a credential.

mod shape;

use std::collections::HashMap;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_contract::strict_json;
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::shape::Shape;

/// Parses a body of one type; unknown fields are the type's to refuse.
pub(crate) fn parse<'body, T: Deserialize<'body>>(bytes: &'body [u8], depth_max: usize) -> Result<T, Problem> {
    check(bytes, depth_max)?;
    require_object(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().clone();
        shape_problem(bytes, &Shape::of(&path, &error.into_inner()))
    })
}

/// What is wrong with a body that a faster parser has refused.
pub(crate) fn refusal<'body, T: Deserialize<'body>>(bytes: &'body [u8], depth_max: usize) -> Problem {
    let unnamed = || Problem::new(Code::MalformedBody, "send the documented fields");
    parse::<T>(bytes, depth_max).err().unwrap_or_else(unnamed)
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
fn shape_problem(bytes: &[u8], shape: &Shape) -> Problem {
    let names_tenant = serde_json::from_slice::<HashMap<String, IgnoredAny>>(bytes)
        .is_ok_and(|members| members.keys().any(|name| super::auth::names_a_tenant(name)));
    if names_tenant {
        return super::auth::tenant_mismatch();
    }
    match &shape.pointer {
        Some(pointer) => {
            Problem::new(Code::MalformedBody, format!("mend `{pointer}`: {}", shape.said)).at_pointer(pointer)
        }
        None => Problem::new(Code::MalformedBody, format!("send the documented fields: {}", shape.said)),
    }
}

#[cfg(test)]
mod tests;
