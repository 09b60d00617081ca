//! Tests of clearing: every refusal once, and what a cleared request carries.

use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::Digest;
use keybearer_contract::PackageName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;

use super::*;
use crate::Approved;
use crate::CredentialKind;
use crate::CredentialState;
use crate::PrincipalLabel;
use crate::Sealed;
use crate::Terms;

const MANIFEST: &str = r#"
    [package]
    name = "stripe"
    version = "0.1.0"
    description = "d"
    [[slots]]
    name = "api"
    description = "d"
    placement = { kind = "bearer" }
    bindings = [{ host = "api.stripe.com", methods = ["POST"], paths = ["/v1/refunds"], headers = ["idempotency-key"] }]
    [[slots]]
    name = "site"
    description = "d"
    placement = { kind = "query", name = "key" }
    bindings = [{ host = "{grant}.example.com", methods = ["GET"], paths = ["/{rest...}"] }]
    [[allow]]
    host = "status.stripe.com"
    methods = ["GET"]
    paths = ["/"]
"#;

pub(crate) fn facts() -> Facts {
    Facts {
        tenant: TenantId::random(),
        principal: PrincipalLabel::new("token:x"),
        run: RunId::random(),
        call: CallId::random(),
        tool: "stripe.refund".parse().expect("name"),
        package: Digest::of_package(b"", b""),
    }
}

fn grant(facts: &Facts, slot: &str, base_url: Option<&str>) -> Grant {
    let manifest = Manifest::parse(MANIFEST).expect("parses");
    let slot: SlotName = slot.parse().expect("name");
    Grant {
        id: GrantId::random(),
        tenant: facts.tenant.clone(),
        package: "stripe".parse::<PackageName>().expect("name"),
        approved: Approved::of(&manifest, facts.package, "s", &[], Some(&slot)).into(),
        slot: Some(slot),
        credential: Some(CredentialId::random()),
        base_url: base_url.map(|text| text.parse().expect("base")),
        actions: None,
        created: UnixMillis(1),
    }
}

fn request(method: Method, url: &str, headers: &[(&str, &str)]) -> GuestRequest {
    let headers = headers
        .iter()
        .map(|(name, value)| GuestHeader { name: (*name).to_owned(), value: value.as_bytes().to_vec() })
        .collect();
    GuestRequest { method, url: url.to_owned(), headers, body: None }
}

/// Any credential there may be, held on these terms.
pub(crate) struct Held(pub(crate) Terms);

impl CredentialDirectory for Held {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        Some(Arc::new(CredentialRecord {
            id: id.clone(),
            tenant: tenant.clone(),
            name: "n".to_owned(),
            kind: CredentialKind::Bearer,
            owner: "o".to_owned(),
            justification: "j".to_owned(),
            expires: None,
            state: CredentialState::Active,
            epoch: 1,
            created: UnixMillis(1),
            versions: Vec::new(),
            overlaps: Vec::new(),
            renewal: None,
            registration: None,
            consent: None,
            terms: self.0.clone(),
        }))
    }

    fn data_key(&self, _tenant: &TenantId) -> Option<Sealed> {
        None
    }
}

fn outcome(grants: &[Grant], facts: &Facts, request: GuestRequest) -> Result<Cleared, Refusal> {
    held_on(Terms::default(), grants, facts, request)
}

fn held_on(terms: Terms, grants: &[Grant], facts: &Facts, request: GuestRequest) -> Result<Cleared, Refusal> {
    let rights = Rights { grants, credentials: &Held(terms) };
    clear(facts, &Manifest::parse(MANIFEST).expect("parses"), rights, request)
}

#[test]
fn a_credential_goes_where_the_slot_and_its_own_terms_both_say() {
    let facts = facts();
    let grants = [grant(&facts, "api", None)];
    let terms = |path: &str| {
        let text = format!(r#"[{{"host": "api.stripe.com", "methods": ["POST"], "paths": ["{path}"]}}]"#);
        Terms { binding: serde_json::from_str(&text).expect("parses"), ..Terms::default() }
    };
    let to = |url: &str| request(Method::Post, url, &[]);
    let bound = "https://api.stripe.com/v1/refunds";
    assert!(held_on(terms("/v1/{rest...}"), &grants, &facts, to(bound)).is_ok());
    let refusal = held_on(terms("/v1/charges"), &grants, &facts, to(bound)).err();
    assert_eq!(refusal, Some(Refusal::OutsideBinding { slot: "api".parse().expect("name") }));
    // Wider terms than the slot's open no place.
    let refusal = held_on(terms("/v1/{rest...}"), &grants, &facts, to("https://api.stripe.com/v1/charges")).err();
    assert!(matches!(refusal, Some(Refusal::NoBinding { .. })), "{refusal:?}");
}

#[test]
fn a_bound_and_granted_request_names_the_credential_to_attach() {
    let facts = facts();
    let grants = [grant(&facts, "api", None)];
    let headers = [("Idempotency-Key", "k"), ("content-type", "text/plain")];
    let cleared = outcome(&grants, &facts, request(Method::Post, "https://api.stripe.com/v1/refunds?a=b", &headers))
        .unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(cleared.attach().map(|attach| &attach.credential), grants[0].credential.as_ref());
    assert_eq!(cleared.destination().to_string(), "https://api.stripe.com");
}

#[test]
fn n01_n15_n32_p03_a_place_that_no_binding_names_is_refused() {
    let facts = facts();
    let grants = [grant(&facts, "api", None)];
    for (method, url) in [
        (Method::Post, "https://evil.test/v1/refunds"),
        (Method::Get, "https://api.stripe.com/v1/refunds"),
        (Method::Post, "https://api.stripe.com:8443/v1/refunds"),
        (Method::Post, "http://api.stripe.com/v1/refunds"),
        (Method::Post, "https://api.stripe.com/v1/refunds/x"),
        (Method::Post, "https://api.stripe.com/v1/Refunds"),
        (Method::Get, "https://a.example.com/x"),
    ] {
        let refusal = outcome(&grants, &facts, request(method, url, &[])).err();
        assert!(matches!(refusal, Some(Refusal::NoBinding { .. })), "{url}: {refusal:?}");
    }
}

#[test]
fn p04_a_slot_without_a_grant_or_with_another_tenants_or_packages_is_refused() {
    let facts = facts();
    let refund = || request(Method::Post, "https://api.stripe.com/v1/refunds", &[]);
    let expected = Some(Refusal::NoGrant { slot: "api".parse().expect("name") });
    assert_eq!(outcome(&[], &facts, refund()).err(), expected);
    let foreign = Grant { tenant: TenantId::random(), ..grant(&facts, "api", None) };
    assert_eq!(outcome(&[foreign], &facts, refund()).err(), expected);
    let other = Grant { package: "other".parse().expect("name"), ..grant(&facts, "api", None) };
    assert_eq!(outcome(&[other], &facts, refund()).err(), expected);
    let narrow = Grant { actions: Some(vec!["list".parse().expect("name")]), ..grant(&facts, "api", None) };
    assert!(matches!(outcome(&[narrow], &facts, refund()).err(), Some(Refusal::ActionNotGranted { .. })));
}

#[test]
fn n20_n21_n22_n25_n31_p14_x27_headers_that_are_not_the_guests_are_refused() {
    let facts = facts();
    let grants = [grant(&facts, "api", None)];
    for name in [
        "Host",
        "Authorization",
        "AUTHORIZATION",
        "Proxy-Authorization",
        "Cookie",
        "Connection",
        "TE",
        "Upgrade",
        "Transfer-Encoding",
        "Content-Length",
        "Expect",
        "Range",
        "If-Range",
        "Accept-Encoding",
        "X-Forwarded-For",
        "X-HTTP-Method-Override",
        "Stripe-Account",
        "x-run-id",
        "traceparent",
        "X_Api_Key",
        "a b",
        "",
    ] {
        let headers = [(name, "v")];
        assert!(
            outcome(&grants, &facts, request(Method::Post, "https://api.stripe.com/v1/refunds", &headers)).is_err(),
            "{name}"
        );
    }
}

#[test]
fn n19_p05_header_values_that_would_break_the_wire_and_doubles_are_refused() {
    let facts = facts();
    let grants = [grant(&facts, "api", None)];
    let long = "x".repeat(9 << 10);
    for headers in [
        vec![("accept", "a\r\nx: y")],
        vec![("accept", "a\nb")],
        vec![("accept", "a\0")],
        vec![("accept", " a")],
        vec![("accept", long.as_str())],
        vec![("accept", "a"), ("Accept", "b")],
        vec![("accept", "a"); 100],
    ] {
        let refusal =
            outcome(&grants, &facts, request(Method::Post, "https://api.stripe.com/v1/refunds", &headers)).err();
        assert!(matches!(refusal, Some(Refusal::MalformedHeader { .. })), "{refusal:?}");
    }
}

#[test]
fn the_grant_fixes_the_host_and_a_guest_cannot_choose_another() {
    let facts = facts();
    let grants = [grant(&facts, "site", Some("https://acme.example.com"))];
    assert!(outcome(&grants, &facts, request(Method::Get, "https://acme.example.com/x", &[])).is_ok());
    assert!(outcome(&grants, &facts, request(Method::Get, "https://evil.example.com/x", &[])).is_err());
    let wide = [grant(&facts, "site", Some("https://a.b.example.com"))];
    assert!(outcome(&wide, &facts, request(Method::Get, "https://a.b.example.com/x", &[])).is_err());
}

#[test]
fn n18_n20_a_query_parameter_that_the_slot_owns_is_refused_in_every_spelling() {
    let facts = facts();
    let grants = [grant(&facts, "site", Some("https://acme.example.com"))];
    for query in ["key=x", "a=b&key=x", "a=b;key=x", "KEY=x", "key", "k%65y=x"] {
        let url = format!("https://acme.example.com/x?{query}");
        assert!(outcome(&grants, &facts, request(Method::Get, &url, &[])).is_err(), "{query}");
    }
    assert!(outcome(&grants, &facts, request(Method::Get, "https://acme.example.com/x?a=key", &[])).is_ok());
}

// If it failed, a tool that may store an object could make it everybody's, or change who may read the bucket.
#[test]
fn p09_a_binding_of_put_does_not_change_who_may_read() {
    let facts = facts();
    let put = |placement: &str, query: &str| {
        let manifest = Manifest::parse(
            &MANIFEST
                .replace("kind = \"query\", name = \"key\"", placement)
                .replace("\"GET\"], paths = [\"/{rest", "\"PUT\"], paths = [\"/{rest"),
        );
        let manifest = manifest.expect("parses");
        let grants = [grant(&facts, "site", Some("https://acme.example.com"))];
        let rights = Rights { grants: &grants, credentials: &Held(Terms::default()) };
        clear(&facts, &manifest, rights, request(Method::Put, &format!("https://acme.example.com/key{query}"), &[]))
            .map(drop)
    };
    let plain = "kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\"";
    for query in ["", "?", "?partNumber=1&uploadId=x", "?x-id=PutObject"] {
        assert_eq!(put(plain, query), Ok(()), "{query}");
    }
    for query in
        ["?acl", "?acl=", "?a%63l", "?partNumber=1&acl", "?x-id=PutObject;policy", "?tagging", "?x-amz-acl=public-read"]
    {
        assert!(
            matches!(put(plain, query), Err(Refusal::ParameterNotAllowed { .. } | Refusal::NotCanonical { .. })),
            "{query}"
        );
    }
    assert_eq!(put(&format!("{plain}, actions = [\"s3:PutObject\", \"s3:PutObjectAcl\"]"), "?acl"), Ok(()));
}

#[test]
fn an_allowed_place_carries_no_credential_and_needs_a_grant_of_the_package() {
    let facts = facts();
    let ask = || request(Method::Get, "https://status.stripe.com/", &[]);
    let grants = [grant(&facts, "api", None)];
    assert!(outcome(&grants, &facts, ask()).is_ok_and(|cleared| cleared.attach().is_none()));
    assert!(outcome(&[], &facts, ask()).is_err());
}
