//! Lints of what a package says of itself: findings that a publisher should mend before somebody
//! has to approve them. Rules without which a dispatch would not be safe are in `manifest`, and
//! refuse.

use serde::Deserialize;
use serde::Serialize;

use crate::Function;
use crate::Manifest;
use crate::Placement;
use crate::Signs;
use crate::ToolDescription;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where: `manifest.slots.api`, `tool.search.input_schema`, …
    pub place: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Words in a parameter's name by which a tool asks the model for a credential.
const CREDENTIAL_WORDS: &[&str] = &[
    "api_key",
    "apikey",
    "api_token",
    "access_token",
    "auth_token",
    "bearer",
    "authorization",
    "client_secret",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "refresh_token",
    "secret",
    "secret_key",
    "session_token",
    "access_key",
];

/// Beginnings by which well-known credential values give themselves away.
const VALUE_PREFIXES: &[&str] = &[
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "AIza",
    "ya29.",
    "eyJhbGciOi",
    "glpat-",
    "hvs.",
    "-----BEGIN",
];

/// How much must follow a prefix before it is taken for a value and not for a word about one.
const VALUE_TAIL_CHARS: usize = 12;

/// Checks the manifest and the described tools together.
#[must_use]
pub fn check_description(manifest: &Manifest, tools: &[ToolDescription]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if tools.is_empty() {
        findings.push(Finding { place: "describe".to_owned(), message: "it names no tool".to_owned() });
    }
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tool.{}", tool.name);
        if tools[..index].iter().any(|other| other.name == tool.name) {
            findings.push(Finding { place: place.clone(), message: "it is described twice".to_owned() });
        }
        if tool.description.trim().is_empty() {
            findings.push(Finding {
                place: place.clone(),
                message: "it has no description: a model cannot choose it, a person cannot approve it".to_owned(),
            });
        }
        if tool.input_schema.get("type").and_then(|kind| kind.as_str()) != Some("object") {
            findings.push(Finding {
                place: format!("{place}.input_schema"),
                message: "arguments are an object: write `\"type\": \"object\"` at the top".to_owned(),
            });
        }
        check_properties(&format!("{place}.input_schema"), &tool.input_schema, &mut findings);
    }
    check_functions(manifest, &mut findings);
    let mut texts = vec![("manifest".to_owned(), serde_json::to_value(manifest).unwrap_or_default())];
    for tool in tools {
        texts.push((format!("tool.{}", tool.name), serde_json::to_value(tool).unwrap_or_default()));
    }
    for (place, value) in &texts {
        check_values(place, value, &mut findings);
    }
    findings
}

/// A JWT that a tool holds and that names nobody is good wherever its key is known.
fn check_functions(manifest: &Manifest, findings: &mut Vec<Finding>) {
    for slot in &manifest.slots {
        if let Placement::Function(Function { signs: Signs::Jwt(jwt), .. }) = &slot.placement
            && !jwt.claims.contains_key("aud")
        {
            findings.push(Finding {
                place: format!("manifest.slots.{}.placement.signs.claims", slot.name),
                message: "what it signs is for nobody in particular: fix `aud` to the one who is to take it".to_owned(),
            });
        }
    }
}

/// A parameter that asks the model for a credential: the model must never hold one.
fn check_properties(place: &str, schema: &serde_json::Value, findings: &mut Vec<Finding>) {
    match schema {
        serde_json::Value::Object(members) => {
            if let Some(serde_json::Value::Object(properties)) = members.get("properties") {
                for name in properties.keys().filter(|name| asks_for_credential(name)) {
                    findings.push(Finding {
                        place: format!("{place}.properties.{name}"),
                        message: "a parameter must not ask the model for a credential: declare a slot in the manifest"
                            .to_owned(),
                    });
                }
            }
            for (key, value) in members {
                check_properties(&format!("{place}.{key}"), value, findings);
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                check_properties(place, item, findings);
            }
        }
        _ => {}
    }
}

fn asks_for_credential(name: &str) -> bool {
    let mut folded = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() && !folded.is_empty() && !folded.ends_with('_') {
            folded.push('_');
        }
        folded.push(if character == '-' { '_' } else { character.to_ascii_lowercase() });
    }
    CREDENTIAL_WORDS
        .iter()
        .any(|word| folded == *word || folded.ends_with(&format!("_{word}")) || folded.starts_with(&format!("{word}_")))
}

fn check_values(place: &str, value: &serde_json::Value, findings: &mut Vec<Finding>) {
    match value {
        serde_json::Value::String(text) if text.split_whitespace().any(looks_like_value) => {
            let message = "this text holds what looks like a credential's value: remove it, and rotate it".to_owned();
            findings.push(Finding { place: place.to_owned(), message });
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| check_values(place, item, findings)),
        serde_json::Value::Object(members) => {
            for (key, member) in members {
                check_values(&format!("{place}.{key}"), member, findings);
            }
        }
        _ => {}
    }
}

fn looks_like_value(word: &str) -> bool {
    let word = word.trim_matches(|character: char| "\"'`,;()<>".contains(character));
    VALUE_PREFIXES.iter().any(|prefix| {
        word.strip_prefix(prefix).is_some_and(|tail| {
            tail.len() >= VALUE_TAIL_CHARS && tail.chars().any(|character| character.is_ascii_digit())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings_of(schema: serde_json::Value, description: &str) -> Vec<Finding> {
        let manifest =
            Manifest::parse("[package]\nname = \"a\"\nversion = \"1.0.0\"\ndescription = \"d\"\n").expect("parses");
        let tool = ToolDescription {
            name: "do_it".parse().expect("name"),
            description: description.to_owned(),
            input_schema: schema,
            output_schema: None,
            read_only: true,
            idempotent: true,
        };
        check_description(&manifest, &[tool])
    }

    #[test]
    fn a_parameter_that_asks_the_model_for_a_credential_is_found() {
        for name in ["api_key", "apiKey", "stripe-api-key", "password", "clientSecret", "github_access_token"] {
            let schema = serde_json::json!({"type": "object", "properties": {"in": {"properties": {name: {}}}}});
            assert_eq!(findings_of(schema, "d").len(), 1, "{name}");
        }
        let schema =
            serde_json::json!({"type": "object", "properties": {"max_tokens": {}, "secretary": {}, "key": {}}});
        assert_eq!(findings_of(schema, "d"), vec![]);
    }

    #[test]
    fn a_credentials_value_is_found_wherever_it_stands() {
        let schema =
            serde_json::json!({"type": "object", "examples": [{"x": "ghp_0123456789abcdefABCDEF0123456789abcd"}]});
        assert_eq!(findings_of(schema, "d").len(), 1);
        assert_eq!(findings_of(serde_json::json!({"type": "object"}), "try sk_live_51H8abcdefgh12345").len(), 1);
        assert_eq!(findings_of(serde_json::json!({"type": "object"}), "keys begin with sk_live_").len(), 0);
    }
}
