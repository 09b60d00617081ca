//! Tests of placing: the credential is on the request once, where the slot says, and nowhere else.

use keybearer_gate::Auth;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Ingredient;
use keybearer_gate::clear_exchange;

use super::*;
use crate::fixture::House;
use crate::fixture::NOW;
use crate::fixture::cleared;
use crate::fixture::facts;
use crate::fixture::oauth;

const VALUE: &str = "canary+0123456789/canary?&=";

fn armed(kind: CredentialKind, slot: &str, value: &str, path_and_query: &str) -> OpenArmed {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, kind, value);
    let request = cleared(&tenant, slot, &credential, path_and_query);
    arm(request, house.lease(&tenant, &credential)).unwrap_or_else(|refused| panic!("{refused}"))
}

fn header(open: &OpenArmed, name: &str) -> String {
    let values: Vec<_> = open.headers.get_all(name).iter().collect();
    assert_eq!(values.len(), 1, "{name}");
    String::from_utf8(values[0].as_bytes().to_vec()).expect("text")
}

#[test]
fn a_bearer_is_in_the_authorization_header_and_marked_as_sensitive() {
    let open = armed(CredentialKind::Bearer, "bearer", VALUE, "/v1?a=b");
    assert_eq!(header(&open, "authorization"), format!("Bearer {VALUE}"));
    assert!(open.headers["authorization"].is_sensitive());
    assert!(!format!("{:?}", open.headers).contains("canary"));
    assert_eq!(open.path_and_query.as_str(), "/v1?a=b");
    assert_eq!(open.headers.iter().next().map(|(name, _)| name.as_str()), Some("host"));
    assert_eq!(header(&open, "host"), "bearer.example.com");
    assert!(open.guard.is_some() && open.credential.is_some() && !open.has_body);
}

#[test]
fn basic_header_and_query_credentials_are_where_their_slots_say() {
    let open = armed(CredentialKind::Basic, "basic", "user:0123456789:canary", "/x");
    assert_eq!(header(&open, "authorization"), "Basic dXNlcjowMTIzNDU2Nzg5OmNhbmFyeQ==");
    assert_eq!(header(&open, "host"), "basic.example.com:8443");
    let open = armed(CredentialKind::Header, "header", VALUE, "/x");
    assert_eq!(header(&open, "x-api-key"), VALUE);
    assert!(open.headers["x-api-key"].is_sensitive() && !open.headers.contains_key("authorization"));
    let encoded = "canary%2B0123456789%2Fcanary%3F%26%3D";
    let open = armed(CredentialKind::Query, "query", VALUE, "/v1");
    assert_eq!(open.path_and_query.as_str(), format!("/v1?key={encoded}"));
    let open = armed(CredentialKind::Query, "query", VALUE, "/v1?a=b");
    assert_eq!(open.path_and_query.as_str(), format!("/v1?a=b&key={encoded}"));
    assert!(!format!("{:?}", open.headers).contains("canary"));
}

#[test]
fn p09_an_access_key_signs_and_is_itself_not_on_the_request() {
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let value = format!("ASIAIOSFODNN7EXAMPLE\n{secret}\nsession-token-0123456789");
    let open = armed(CredentialKind::AwsKeys, "signed", &value, "/bucket/key?list-type=2");
    let proof = header(&open, "authorization");
    let day = &header(&open, "x-amz-date")[..8];
    let scope = format!("AWS4-HMAC-SHA256 Credential=ASIAIOSFODNN7EXAMPLE/{day}/eu-west-1/s3/aws4_request, ");
    assert!(proof.starts_with(&scope), "{proof}");
    assert!(proof.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, "), "{proof}");
    assert_eq!(header(&open, "x-amz-security-token"), "session-token-0123456789");
    assert!(open.headers["authorization"].is_sensitive() && open.headers["x-amz-security-token"].is_sensitive());
    let signature = open.derived.secret().map(Secret::expose).expect("to be looked for");
    assert!(proof.as_bytes().ends_with(signature) && signature.len() == 64);
    for (name, value) in &open.headers {
        assert!(!String::from_utf8_lossy(value.as_bytes()).contains(secret), "{name}");
    }
    let without = armed(CredentialKind::AwsKeys, "signed", &format!("AKIAIOSFODNN7EXAMPLE\n{secret}"), "/bucket/");
    assert!(!without.headers.contains_key("x-amz-security-token"));
}

#[test]
fn x27_the_codings_that_the_scrubber_knows_are_asked_for_on_every_request() {
    let open = armed(CredentialKind::Bearer, "bearer", VALUE, "/x");
    assert_eq!(header(&open, "accept-encoding"), "gzip, deflate, br, zstd");
    let house = House::new();
    let tenant = house.tenant();
    let open = arm_plain(cleared(&tenant, "open", &CredentialId::random(), "/x")).unwrap_or_else(|_| panic!("plain"));
    assert_eq!(header(&open, "accept-encoding"), "gzip, deflate, br, zstd");
    assert!(open.guard.is_none() && open.credential.is_none());
}

#[test]
fn t05_a_lease_of_another_tenant_or_credential_is_not_placed() {
    let house = House::new();
    let (tenant, other) = (house.tenant(), house.tenant());
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let sibling = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let foreign = house.credential(&other, CredentialKind::Bearer, VALUE);
    let request = || cleared(&tenant, "bearer", &credential, "/x");
    assert_eq!(arm(request(), house.lease(&tenant, &sibling)).err(), Some(PlaceRefused::Mismatch));
    assert_eq!(arm(request(), house.lease(&other, &foreign)).err(), Some(PlaceRefused::Mismatch));
    let theirs = cleared(&other, "bearer", &credential, "/x");
    assert_eq!(arm(theirs, house.lease(&tenant, &credential)).err(), Some(PlaceRefused::Mismatch));
}

#[test]
fn a_credential_of_another_kind_than_the_slot_places_is_not_placed() {
    let house = House::new();
    let tenant = house.tenant();
    let value = "user:0123456789-canary";
    let keys = house.credential(&tenant, CredentialKind::AwsKeys, "AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG");
    for slot in ["bearer", "basic", "header", "query"] {
        let outcome = arm(cleared(&tenant, slot, &keys, "/x"), house.lease(&tenant, &keys));
        assert_eq!(outcome.err(), Some(PlaceRefused::WrongKind), "a secret that signs is never sent");
    }
    let kinds = [CredentialKind::Bearer, CredentialKind::Basic, CredentialKind::Header, CredentialKind::Query];
    for (index, kind) in kinds.into_iter().enumerate() {
        let credential = house.credential(&tenant, kind, value);
        for (other, slot) in ["bearer", "basic", "header", "query"].into_iter().enumerate() {
            let outcome = arm(cleared(&tenant, slot, &credential, "/x"), house.lease(&tenant, &credential));
            assert_eq!(outcome.err(), (index != other).then_some(PlaceRefused::WrongKind));
        }
    }
}

#[test]
fn a_request_that_names_a_credential_never_goes_out_without_and_one_that_names_none_never_with() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let named = cleared(&tenant, "bearer", &credential, "/x");
    assert_eq!(arm_plain(named).err(), Some(PlaceRefused::NeedsLease));
    let open = cleared(&tenant, "open", &credential, "/x");
    assert_eq!(arm(open, house.lease(&tenant, &credential)).err(), Some(PlaceRefused::NothingToPlace));
}

#[test]
fn x10_the_client_of_a_recipe_goes_to_its_token_endpoint_and_nowhere_else() {
    let house = House::new();
    let tenant = house.tenant();
    let recipe = house.credential(&tenant, oauth("a client"), "secret 0123456789:%");
    let client = || {
        let selected = house.selected(&tenant, &recipe);
        house
            .strongbox
            .lease_source_recorded(selected, &crate::Vessel::default(), NOW)
            .unwrap_or_else(|refused| panic!("{refused}"))
    };
    let record = house.strongbox.record(&tenant, &recipe).expect("stored");
    let mint = || {
        let url = "https://login.example.com/token".parse().expect("canonical");
        let exchange = Exchange::new(Method::Post, url)
            .auth(Auth::Client { id: "a client".to_owned(), secret: Ingredient::Stored })
            .body(ExchangeBody::Form(vec![("grant_type", "client_credentials".into())]));
        clear_exchange(&facts(&tenant), &record, exchange).unwrap_or_else(|refusal| panic!("{refusal}"))
    };
    let open = arm(mint(), client()).unwrap_or_else(|refused| panic!("{refused}"));
    // RFC 6749 §2.3.1: both are form-encoded before they are joined.
    let expected = STANDARD.encode("a+client:secret+0123456789%3A%25");
    assert_eq!(header(&open, "authorization"), format!("Basic {expected}"));
    assert_eq!(header(&open, "host"), "login.example.com");
    assert!(open.has_body && !open.body.windows(6).any(|window| window == b"secret"));
    for slot in ["basic", "bearer"] {
        assert_eq!(arm(cleared(&tenant, slot, &recipe, "/x"), client()).err(), Some(PlaceRefused::WrongKind));
    }
    let basic = house.credential(&tenant, CredentialKind::Basic, "user:0123456789-canary");
    let lease = Lease { credential: recipe.clone(), ..house.lease(&tenant, &basic) };
    assert_eq!(arm(mint(), lease).err(), Some(PlaceRefused::WrongKind), "nor does anything else go there");
}

#[tokio::test]
async fn p6_an_intent_of_another_call_credential_or_version_arms_nothing() {
    let house = House::new();
    let tenant = house.tenant();
    let credential = house.credential(&tenant, CredentialKind::Bearer, VALUE);
    let selected = house.selected(&tenant, &credential);
    let request = || cleared(&tenant, "bearer", &credential, "/x");
    let other_call = house.intent(&request(), Some(&selected)).await;
    let outcome = place(request(), other_call, house.lease(&tenant, &credential));
    assert_eq!(outcome.err(), Some(PlaceRefused::Mismatch));
    let this = request();
    let unnamed = house.intent(&this, None).await;
    assert_eq!(place(this, unnamed, house.lease(&tenant, &credential)).err(), Some(PlaceRefused::Mismatch));
    let this = request();
    let older = house.intent(&this, Some(&selected)).await;
    house.rotate(&tenant, &credential, "rotated-0123456789-canary");
    assert_eq!(place(this, older, house.lease(&tenant, &credential)).err(), Some(PlaceRefused::Mismatch));

    let this = request();
    let selected = house.selected(&tenant, &credential);
    let intent = house.intent(&this, Some(&selected)).await;
    let dispatch = intent.dispatch().clone();
    let lease = house.strongbox.lease(selected, &intent, NOW).unwrap_or_else(|refused| panic!("{refused}"));
    let armed = place(this, intent, lease).unwrap_or_else(|refused| panic!("{refused}"));
    assert!(armed.is_credentialed() && armed.dispatch() == &dispatch && armed.credential() == Some(&credential));

    let this = cleared(&tenant, "open", &credential, "/x");
    let other_call = house.intent(&cleared(&tenant, "open", &credential, "/x"), None).await;
    assert_eq!(plain(this, other_call).err(), Some(PlaceRefused::Mismatch));
    let this = cleared(&tenant, "open", &credential, "/x");
    let intent = house.intent(&this, None).await;
    assert!(plain(this, intent).is_ok_and(|armed| !armed.is_credentialed()));
}

/// The pair of the gate's own check: were it to let one of these through, it would stop here.
#[test]
fn n20_n21_p05_what_the_host_or_the_slot_sets_is_not_on_the_request_already() {
    let house = House::new();
    let tenant = house.tenant();
    let assembled = |name: &str, query: Option<&str>, injection: Option<Injection>| {
        let (facts, mut parts, _) = cleared(&tenant, "open", &CredentialId::random(), "/x").into_parts();
        parts.headers.push((name.to_owned(), b"guest".to_vec()));
        parts.query = query.map(str::to_owned);
        assemble(facts, parts, injection).err()
    };
    for name in ["host", "Host", "accept-encoding", "range", "if-range", "connection", "transfer-encoding"] {
        assert_eq!(assembled(name, None, None), Some(PlaceRefused::AlreadyPresent), "{name}");
    }
    let bearer = || {
        let field = (header::AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        Some(Injection { header: Some(field), ..Injection::default() })
    };
    assert_eq!(assembled("Authorization", None, bearer()), Some(PlaceRefused::AlreadyPresent));
    assert_eq!(assembled("accept", None, bearer()), None);
    let key = || {
        let query = Some(("key".to_owned(), Zeroizing::new("x".to_owned())));
        Some(Injection { query, ..Injection::default() })
    };
    for query in ["key=g", "a=b&key", "a;KEY=g", "%6bey=g", "k%65y"] {
        assert_eq!(assembled("accept", Some(query), key()), Some(PlaceRefused::AlreadyPresent), "{query}");
    }
    assert_eq!(assembled("accept", Some("a=key&keys=b"), key()), None);
    assert_eq!(assembled("accept", Some("a=b#c"), None), Some(PlaceRefused::Malformed));
}
