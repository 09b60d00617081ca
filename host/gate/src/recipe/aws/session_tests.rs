//! Policies of sessions, read back by a small reading of IAM: what is denied is denied, what is not allowed is not.

use keybearer_contract::Manifest;
use serde_json::Value;
use serde_json::json;

use super::*;
use crate::CredentialKind;

fn slot(placement: &str, bindings: &str) -> Slot {
    let text = format!(
        "[package]\nname = \"p\"\nversion = \"1.0.0\"\ndescription = \"d\"\n[[slots]]\nname = \"s\"\ndescription = \"d\"\n\
         placement = {{ kind = \"sigv4\", region = \"eu-west-1\", {placement} }}\nbindings = [{bindings}]\n"
    );
    let manifest = Manifest::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    manifest.slots.into_iter().next().expect("a slot")
}

fn bound(host: &str, methods: &str, paths: &str) -> String {
    format!("{{ host = \"{host}\", methods = [{methods}], paths = [{paths}] }}")
}

fn role(policy: Option<Value>) -> AwsRole {
    let mut kind =
        json!({"kind": "aws_role", "region": "eu-west-1", "role_arn": "arn:aws:iam::123456789012:role/reader"});
    policy.into_iter().for_each(|policy| kind["policy"] = policy);
    match serde_json::from_value(kind) {
        Ok(CredentialKind::AwsRole(recipe)) => recipe,
        other => panic!("{other:?}"),
    }
}

fn said(role: &AwsRole, slot: &Slot, base: Option<&str>) -> Result<Policy, SessionUnsayable> {
    let (tenant, tool) = (TenantId::random(), "p.read".parse().expect("a tool"));
    let base = base.map(|base| base.parse::<BaseUrl>().expect("canonical"));
    let of = SessionOf { slot, base_url: base.as_ref(), tenant: &tenant, tool: &tool, run: None };
    role.session_policy(of).map(|text| Policy(serde_json::from_str(&text).expect("JSON")))
}

/// A policy, and what IAM makes of it.
struct Policy(Value);

impl Policy {
    fn allows(&self, action: &str, resource: &str) -> bool {
        self.allows_in("eu-west-1", action, resource)
    }

    fn allows_in(&self, region: &str, action: &str, resource: &str) -> bool {
        let statements = self.0["Statement"].as_array().expect("statements");
        let of = |effect| {
            let mut of = statements.iter().filter(move |statement| statement["Effect"] == effect);
            of.any(|statement| applies(statement, region, action, resource))
        };
        of("Allow") && !of("Deny")
    }
}

fn applies(statement: &Value, region: &str, action: &str, resource: &str) -> bool {
    let any = |name: &str, text: &str| match &statement[name] {
        Value::Null => None,
        Value::Array(patterns) => Some(patterns.iter().any(|pattern| like(pattern.as_str().expect("text"), text))),
        pattern => Some(like(pattern.as_str().expect("text"), text)),
    };
    let named = |name: &str, inverse: &str, text: &str| {
        any(name, text).or_else(|| any(inverse, text).map(|named| !named)).expect("one of the two")
    };
    let condition = &statement["Condition"];
    let here = condition["StringEquals"]["aws:RequestedRegion"].as_str().is_none_or(|wanted| wanted == region);
    let elsewhere = condition["StringNotEquals"]["aws:RequestedRegion"].as_str().is_none_or(|wanted| wanted != region);
    named("Action", "NotAction", action) && named("Resource", "NotResource", resource) && here && elsewhere
}

/// `*` stands for any text.
fn like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, rest)) => text
            .strip_prefix(front)
            .is_some_and(|text| (0..=text.len()).filter_map(|at| text.get(at..)).any(|text| like(rest, text))),
    }
}

const STORE: &str = "reports.s3.eu-west-1.amazonaws.com";

// If it failed, a session would be good for more than its slot's requests: other buckets, writing, other services.
#[test]
fn p09_what_a_slot_binds_of_a_store_is_what_its_session_may_do() {
    let read = slot("service = \"s3\"", &bound(STORE, "\"GET\"", "\"/\", \"/2026/{key...}\""));
    let policy = said(&role(None), &read, None).expect("said");
    assert!(policy.allows("s3:GetObject", "arn:aws:s3:::reports/2026/11/a.csv"));
    assert!(policy.allows("s3:ListBucket", "arn:aws:s3:::reports"));
    for (action, resource) in [
        ("s3:GetObject", "arn:aws:s3:::reports/2025/a.csv"),
        ("s3:GetObject", "arn:aws:s3:::others/2026/a.csv"),
        ("s3:PutObject", "arn:aws:s3:::reports/2026/a.csv"),
        ("s3:DeleteObject", "arn:aws:s3:::reports/2026/a.csv"),
        ("iam:CreateUser", "*"),
        ("dynamodb:GetItem", "arn:aws:dynamodb:eu-west-1:1:table/t"),
    ] {
        assert!(!policy.allows(action, resource), "{action} {resource}");
    }
    assert!(!policy.allows_in("us-east-1", "s3:GetObject", "arn:aws:s3:::reports/2026/11/a.csv"));

    let both = [bound(STORE, "\"GET\"", "\"/out/{key}\""), bound(STORE, "\"PUT\"", "\"/in/{key}\"")].join(", ");
    let policy = said(&role(None), &slot("service = \"s3\"", &both), None).expect("said");
    assert!(policy.allows("s3:GetObject", "arn:aws:s3:::reports/out/a"));
    assert!(policy.allows("s3:PutObject", "arn:aws:s3:::reports/in/a"));
    assert!(!policy.allows("s3:PutObject", "arn:aws:s3:::reports/out/a"));
    assert!(!policy.allows("s3:GetObject", "arn:aws:s3:::reports/in/a"));

    // Where the grant names the bucket, it is that one.
    let open = slot("service = \"s3\"", &bound("{grant}.s3.eu-west-1.amazonaws.com", "\"GET\"", "\"/{key...}\""));
    let policy = said(&role(None), &open, Some("https://acme.s3.eu-west-1.amazonaws.com")).expect("said");
    assert!(policy.allows("s3:GetObject", "arn:aws:s3:::acme/a") && !policy.allows("s3:GetObject", "arn:aws:s3:::b/a"));
    // Where the path does, it is what the path says.
    let by_path = slot("service = \"s3\"", &bound("s3.eu-west-1.amazonaws.com", "\"GET\"", "\"/acme/in/{key}\""));
    let policy = said(&role(None), &by_path, None).expect("said");
    assert!(policy.allows("s3:GetObject", "arn:aws:s3:::acme/in/a"));
    assert!(!policy.allows("s3:GetObject", "arn:aws:s3:::acme/out/a"));
}

// If it failed, a tool that may store an object could open it, or the bucket, to everybody; and one that may delete an
// object could delete what versions are kept for.
#[test]
fn p09_a_binding_of_put_does_not_change_who_may_read() {
    let all = bound(STORE, "\"GET\", \"HEAD\", \"PUT\", \"POST\", \"DELETE\"", "\"/\", \"/{key...}\"");
    let policy = said(&role(None), &slot("service = \"s3\"", &all), None).expect("said");
    let actions = policy.0["Statement"].as_array().expect("statements").iter();
    let mut actions: Vec<_> = actions.flat_map(|one| one["Action"].as_array().expect("actions").clone()).collect();
    actions.sort_by_key(Value::to_string);
    let exact = ["AbortMultipartUpload", "DeleteObject", "GetObject", "ListBucket", "PutObject"];
    assert_eq!(actions, exact.map(|name| json!(format!("s3:{name}"))), "no wildcard, and nothing else");
    let (bucket, object) = ("arn:aws:s3:::reports", "arn:aws:s3:::reports/a");
    for name in exact {
        assert!(policy.allows(&format!("s3:{name}"), if name == "ListBucket" { bucket } else { object }), "{name}");
    }
    for name in
        ["PutObjectAcl", "PutBucketPolicy", "PutBucketAcl", "DeleteObjectVersion", "GetObjectVersion", "DeleteBucket"]
    {
        assert!(
            !policy.allows(&format!("s3:{name}"), bucket) && !policy.allows(&format!("s3:{name}"), object),
            "{name}"
        );
    }
    // The list of all buckets is no object of any: that is an action to be named.
    let buckets = slot("service = \"s3\"", &bound("s3.eu-west-1.amazonaws.com", "\"GET\"", "\"/\""));
    assert_eq!(said(&role(None), &buckets, None).err(), Some(SessionUnsayable::NoAction));
}

#[test]
fn p09_what_a_slot_binds_of_an_api_is_what_its_session_may_call() {
    let host = "a1b2c3.execute-api.eu-west-1.amazonaws.com";
    let api = slot("service = \"execute-api\"", &bound(host, "\"GET\", \"POST\"", "\"/prod/items/{id}\""));
    let policy = said(&role(None), &api, None).expect("said");
    let arn = |rest: &str| format!("arn:aws:execute-api:eu-west-1:123456789012:{rest}");
    assert!(policy.allows("execute-api:Invoke", &arn("a1b2c3/prod/GET/items/7")));
    for other in
        ["a1b2c3/prod/DELETE/items/7", "a1b2c3/dev/GET/items/7", "z9/prod/GET/items/7", "a1b2c3/prod/GET/users"]
    {
        assert!(!policy.allows("execute-api:Invoke", &arn(other)), "{other}");
    }
    let all = slot("service = \"execute-api\"", &bound(host, "\"GET\"", "\"/{rest...}\""));
    let policy = said(&role(None), &all, None).expect("said");
    assert!(policy.allows("execute-api:Invoke", &arn("a1b2c3/prod/GET/")));
    assert!(!policy.allows("execute-api:Invoke", &arn("a1b2c3/prod/POST/")));
}

#[test]
fn p09_actions_that_a_manifest_names_are_all_that_its_session_may_do() {
    let host = "dynamodb.eu-west-1.amazonaws.com";
    let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";
    let named = format!("service = \"dynamodb\", actions = [\"dynamodb:GetItem\"], resources = [\"{table}\"]");
    let policy = said(&role(None), &slot(&named, &bound(host, "\"POST\"", "\"/\"")), None).expect("said");
    assert!(policy.allows("dynamodb:GetItem", table));
    assert!(!policy.allows("dynamodb:PutItem", table) && !policy.allows("dynamodb:GetItem", "arn:aws:dynamodb:x"));
    // Nothing named: nothing but the one service in the one region.
    let policy = said(&role(None), &slot("service = \"dynamodb\"", &bound(host, "\"POST\"", "\"/\"")), None);
    let policy = policy.expect("said");
    assert!(policy.allows("dynamodb:PutItem", table) && !policy.allows("s3:GetObject", "arn:aws:s3:::a/b"));
    assert!(!policy.allows_in("us-east-1", "dynamodb:PutItem", table));
}

// If it failed, the wider of the two would hold: the package's author could reach what the tenant had kept back, or the
// tenant's own policy would give a tool what its package did not ask for.
#[test]
fn p09_a_recipes_policy_and_the_slot_both_hold_whatever_the_policy_says() {
    let read = slot("service = \"s3\"", &bound(STORE, "\"GET\"", "\"/2026/{key...}\""));
    let asked = [
        ("s3:GetObject", "arn:aws:s3:::reports/2026/a"),
        ("s3:GetObject", "arn:aws:s3:::reports/2026/kept/a"),
        ("s3:GetObjectAcl", "arn:aws:s3:::reports/2026/a"),
        ("s3:GetObject", "arn:aws:s3:::reports/2025/a"),
        ("s3:PutObject", "arn:aws:s3:::reports/2026/a"),
        ("iam:CreateUser", "*"),
    ];
    let slots = said(&role(None), &read, None).expect("said");
    for own in [
        json!({"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}),
        json!({"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::reports/*"}]}),
        json!({"Statement": [{"Effect": "Allow", "NotAction": "s3:PutObject", "NotResource": "arn:aws:s3:::reports/2025/*"}]}),
        json!({"Statement": [
            {"Effect": "Allow", "Action": ["s3:*", "iam:*"], "Resource": "*"},
            {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::reports/2026/kept/*"},
        ]}),
        json!({"Statement": []}),
    ] {
        let both = said(&role(Some(own.clone())), &read, None).expect("said");
        let mut alone = own.clone();
        if alone["Statement"].is_object() {
            alone["Statement"] = json!([alone["Statement"]]);
        }
        let alone = Policy(alone);
        for (action, resource) in asked {
            let expected = alone.allows(action, resource) && slots.allows(action, resource);
            assert_eq!(both.allows(action, resource), expected, "{action} {resource} under {own}");
        }
        assert!(!both.allows_in("us-east-1", asked[0].0, asked[0].1), "{own}");
    }
}

#[test]
fn p09_a_recipes_policy_is_filled_in_for_its_call() {
    let read = slot("service = \"s3\"", &bound(STORE, "\"GET\"", "\"/{key...}\""));
    let resource = "arn:aws:s3:::reports/{tenant}/{tool}/{run}/*";
    let own = json!({"Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": [resource]}]});
    let (tenant, tool) = (TenantId::random(), "p.read".parse().expect("a tool"));
    let of = SessionOf { slot: &read, base_url: None, tenant: &tenant, tool: &tool, run: None };
    let text = role(Some(own)).session_policy(of).expect("said");
    assert!(text.contains(&format!("arn:aws:s3:::reports/{tenant}/p.read/none/*")), "{text}");
}

#[test]
fn p09_what_cannot_be_said_gives_no_session() {
    let unsaid = |slot: &Slot| said(&role(None), slot, None).err();
    assert_eq!(
        unsaid(&slot("service = \"s3\"", &bound(STORE, "\"OPTIONS\"", "\"/\""))),
        Some(SessionUnsayable::NoAction)
    );
    let paths: Vec<_> = (0..80).map(|n| format!("\"/a-folder-with-a-long-name-{n}/{{key...}}\"")).collect();
    assert_eq!(
        unsaid(&slot("service = \"s3\"", &bound(STORE, "\"GET\"", &paths.join(", ")))),
        Some(SessionUnsayable::TooLong)
    );
    let mut bearer = slot("service = \"s3\"", &bound(STORE, "\"GET\"", "\"/\""));
    bearer.placement = Placement::Bearer;
    assert_eq!(unsaid(&bearer), Some(SessionUnsayable::NoSignature));
}
