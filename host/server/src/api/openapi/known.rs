//! What a schema's member may be, where its Rust type says more than "a string": the lists of codes, scopes and kinds, and
//! the patterns of names and ids. Merged into the schemas that are derived. Nothing is checked by it: types do that.

use std::collections::BTreeMap;

use keybearer_contract::Code;
use keybearer_contract::Party;
use keybearer_gate::CredentialKind;
use keybearer_gate::Scope;
use keybearer_gate::Standing;
use keybearer_gate::TenantState;
use keybearer_gate::VersionState;
use serde_json::Value;
use serde_json::json;

/// Names of tenants and packages.
const NAME: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
/// Names of tools and slots.
const WORD: &str = "^[a-z]([a-z0-9_]{0,61}[a-z0-9])?$";
/// `package.tool`.
const TOOL: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?\\.[a-z]([a-z0-9_]{0,61}[a-z0-9])?$";
/// `package` or `package.tool`.
const TOOLS: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?(\\.[a-z]([a-z0-9_]{0,61}[a-z0-9])?)?$";
const AGENT: &str = "^[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,62}$";
const DIGEST: &str = "^blake3:[0-9a-f]{64}$";
const CREDENTIAL: &str = "^cred_[a-z2-7]{26}$";
const GRANT: &str = "^grant_[a-z2-7]{26}$";
const RUN: &str = "^run_[a-z2-7]{26}$";
const TENANT: &str = "^ten_[a-z2-7]{26}$";
const TOKEN: &str = "^tok_[a-z2-7]{26}$";

/// Where a text has a pattern: schema, its member, the pattern. A list's is that of its items.
const PATTERNS: &[(&str, &str, &str)] = &[
    ("ApproveGrant", "digest", DIGEST),
    ("CallRequest", "package", DIGEST),
    ("CallRequest", "tool", TOOL),
    ("NamedAgent", "agent", AGENT),
    ("NewGrant", "actions", WORD),
    ("NewGrant", "credential", CREDENTIAL),
    ("NewGrant", "digest", DIGEST),
    ("NewGrant", "package", NAME),
    ("NewGrant", "slot", WORD),
    ("NewIncident", "credential", CREDENTIAL),
    ("NewIncident", "tenant", TENANT),
    ("NewOwnIncident", "credential", CREDENTIAL),
    ("NewOwnIncident", "grant", GRANT),
    ("NewOwnIncident", "run", RUN),
    ("NewOwnIncident", "token", TOKEN),
    ("NewOwnIncident", "tool", TOOL),
    ("NewRun", "agent", AGENT),
    ("NewRun", "tools", TOOLS),
    ("NewTenant", "name", NAME),
    ("NewToken", "packages", NAME),
];

/// Where a text is one of a list.
fn lists() -> [(&'static str, &'static str, Value); 7] {
    let parties = [Party::Caller, Party::Guest, Party::Upstream, Party::Host];
    let standings = [Standing::Active, Standing::Expired, Standing::Revoked, Standing::Pending, Standing::Reauthorise];
    let versions = [VersionState::Current, VersionState::Retired, VersionState::Revoked, VersionState::Destroyed];
    [
        ("Problem", "code", json!(Code::ALL)),
        ("Problem", "party", json!(parties)),
        ("NewToken", "scopes", json!(Scope::ALL)),
        ("TokenView", "scopes", json!(Scope::ALL)),
        ("CredentialView", "state", json!(standings)),
        ("VersionView", "state", json!(versions)),
        ("TenantView", "state", json!([TenantState::Active, TenantState::Suspended])),
    ]
}

/// The schemas with a credential's kind.
const KINDS: [&str; 4] = ["AuthorizeCredential", "CredentialView", "RegisterCredential", "StoreCredential"];

/// Says in the schemas what is known beyond their types.
pub(super) fn refine(schemas: &mut BTreeMap<String, Value>) {
    for (schema, member, pattern) in PATTERNS {
        text(schemas, schema, member)["pattern"] = json!(pattern);
    }
    for (schema, member, values) in lists() {
        text(schemas, schema, member)["enum"] = values;
    }
    for schema in KINDS {
        let kind = member(schemas, schema, "kind");
        kind["required"] = json!(["kind"]);
        kind["properties"] = json!({ "kind": { "type": "string", "enum": CredentialKind::NAMES } });
    }
}

fn member<'schemas>(schemas: &'schemas mut BTreeMap<String, Value>, schema: &str, member: &str) -> &'schemas mut Value {
    let known = schemas.get_mut(schema).and_then(|schema| schema.pointer_mut(&format!("/properties/{member}")));
    known.expect("the lists here name schemas and members of the document")
}

/// The text that a member is, or that its items are.
fn text<'schemas>(schemas: &'schemas mut BTreeMap<String, Value>, schema: &str, name: &str) -> &'schemas mut Value {
    let member = member(schemas, schema, name);
    if member.get("items").is_some() { &mut member["items"] } else { member }
}

#[cfg(test)]
mod tests {
    use keybearer_contract::AgentName;
    use keybearer_contract::CredentialId;
    use keybearer_contract::Digest;
    use keybearer_contract::PackageName;
    use keybearer_contract::TenantId;
    use keybearer_contract::TenantName;
    use keybearer_contract::ToolName;
    use keybearer_contract::ToolRef;
    use keybearer_gate::ToolScope;

    use super::*;

    #[test]
    fn a_pattern_takes_what_its_type_takes_and_nothing_else() {
        let long = "a".repeat(64);
        let ids = [CredentialId::random().to_string(), TenantId::random().to_string()];
        let digest = Digest::of_package(b"", b"").to_string();
        let mut samples = vec!["", "a", "A", "1", "a-b", "a_b", "a-", "a_", "-a", "a.b", "a.b.c", "a-b.c_d", "a_b.c-d"];
        samples.extend(["a b", "a\n", "ä", "a/b@c:d", "blake3:00", &long[1..], &long, &ids[0], &ids[1], &digest]);
        samples.extend(["cred_", "blake3:", ".", "a.", ".a"]);
        let upper = digest.to_uppercase();
        samples.push(&upper);
        for sample in samples {
            for (pattern, taken) in [
                (NAME, sample.parse::<TenantName>().is_ok()),
                (NAME, sample.parse::<PackageName>().is_ok()),
                (WORD, sample.parse::<ToolName>().is_ok()),
                (TOOL, sample.parse::<ToolRef>().is_ok()),
                (TOOLS, sample.parse::<ToolScope>().is_ok()),
                (AGENT, sample.parse::<AgentName>().is_ok()),
                (DIGEST, sample.parse::<Digest>().is_ok()),
                (CREDENTIAL, sample.parse::<CredentialId>().is_ok()),
                (TENANT, sample.parse::<TenantId>().is_ok()),
            ] {
                let fits = jsonschema::is_valid(&json!({ "pattern": pattern }), &json!(sample));
                assert_eq!(fits, taken, "{sample:?} {pattern}");
            }
        }
    }

    #[test]
    fn codes_scopes_and_kinds_are_lists_in_the_document() {
        let document = super::super::document();
        let schema = |path: &str| document.pointer(&format!("/components/schemas/{path}")).cloned().unwrap_or_default();
        let codes = schema("Problem/properties/code/enum");
        assert_eq!(codes.as_array().map(Vec::len), Some(Code::ALL.len()));
        assert!(codes.as_array().is_some_and(|codes| codes.contains(&json!("tool_trapped"))));
        assert!(
            schema("NewToken/properties/scopes/items/enum").as_array().is_some_and(|all| all.contains(&json!("runs")))
        );
        let kinds = schema("StoreCredential/properties/kind/properties/kind/enum");
        assert!(kinds.as_array().is_some_and(|kinds| kinds.contains(&json!("vault_kv"))), "{kinds}");
        assert_eq!(schema("NewGrant/properties/digest/pattern"), DIGEST);
        let metrics = &document["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
        assert!(metrics.get("application/openmetrics-text").is_some(), "{metrics}");
    }
}
