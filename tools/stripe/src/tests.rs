//! The tools against a mock of Stripe: the wire's shapes, the manifest's bindings, Stripe's errors.

use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;

use super::*;

const REFUNDS: &str = "https://api.stripe.com/v1/refunds";
const CHARGES: &str = "https://api.stripe.com/v1/charges";

fn refunding_host() -> Host {
    Host::new().on(Method::Post, REFUNDS, |_| {
        Response::new(200).with_json(&json!({
            "id": "re_1", "object": "refund", "amount": 500, "currency": "eur", "charge": "ch_1",
            "status": "succeeded", "created": 1, "metadata": {}, "payment_intent": null
        }))
    })
}

#[test]
fn a_refund_is_a_form_with_an_idempotency_key_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = refunding_host();
    let arguments = json!({
        "charge": "ch_1", "amount": 500, "reason": "requested_by_customer",
        "metadata": { "order": "4711 & more" }, "idempotency_key": "order-4711"
    });
    let result = host.run(|| PACKAGE.invoke("create_refund", &arguments.to_string())).expect("a result");
    let result: Value = keybearer_guest::serde_json::from_str(&result).expect("JSON");
    assert_eq!(result["id"], "re_1");
    let [request] = &host.requests()[..] else { panic!("one request") };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let form = [
        pair("charge", "ch_1"),
        pair("amount", "500"),
        pair("reason", "requested_by_customer"),
        pair("metadata[order]", "4711 & more"),
    ];
    assert_eq!(request.form(), form);
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.header("idempotency-key"), Some("order-4711"));
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn without_a_key_of_the_callers_the_calls_id_keeps_a_repeat_from_refunding_twice() {
    let host = refunding_host();
    let args = || CreateRefund { payment_intent: Some("pi_1".to_owned()), ..CreateRefund::default() };
    host.run(|| create_refund(args()).and_then(|_| create_refund(args()))).expect("a result");
    let requests = host.requests();
    assert_eq!(requests[0].header("idempotency-key"), Some("call_mock"));
    assert_eq!(requests[0], requests[1]);
}

#[test]
fn a_refund_of_nothing_or_of_two_things_is_refused_and_nothing_is_sent() {
    let host = refunding_host();
    let both =
        || CreateRefund { charge: Some("ch_1".into()), payment_intent: Some("pi_1".into()), ..CreateRefund::default() };
    for args in [CreateRefund::default(), both()] {
        assert!(matches!(host.run(|| create_refund(args)), Err(ToolError::InvalidArguments(_))));
    }
    assert_eq!(host.requests(), vec![]);
}

#[test]
fn charges_are_listed_with_the_query_that_was_asked_for() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().on(Method::Get, CHARGES, |_| {
        Response::new(200).with_json(&json!({
            "object": "list", "url": "/v1/charges", "has_more": true,
            "data": [{
                "id": "ch_1", "object": "charge", "amount": 700, "amount_refunded": 200, "currency": "usd",
                "status": "succeeded", "created": 1_700_000_000, "customer": "cus_1", "description": null
            }]
        }))
    });
    let args = ListCharges { customer: Some("cus_1&limit=100".to_owned()), limit: Some(3), starting_after: None };
    let page = host.run(|| list_charges(args)).expect("a result");
    assert!(page.has_more);
    assert_eq!((page.charges[0].amount, page.charges[0].amount_refunded), (700, 200));
    let [request] = &host.requests()[..] else { panic!("one request") };
    assert_eq!(request.url, "https://api.stripe.com/v1/charges?limit=3&customer=cus_1%26limit%3D100");
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn stripes_own_word_reaches_the_caller_and_a_refusal_of_the_host_stays_denied() {
    let host = Host::new().on(Method::Post, REFUNDS, |_| {
        Response::new(400).with_json(&json!({"error": {
            "type": "invalid_request_error", "code": "charge_already_refunded", "message": "Charge ch_1 has already been refunded."
        }}))
    });
    let args = || CreateRefund { charge: Some("ch_1".to_owned()), ..CreateRefund::default() };
    assert_eq!(
        host.run(|| create_refund(args())),
        Err(ToolError::upstream(
            "Stripe answered 400 (charge_already_refunded): Charge ch_1 has already been refunded."
        ))
    );
    assert_eq!(Host::new().run(|| create_refund(args())), Err(ToolError::Denied));
    let broken = Host::new().on(Method::Post, REFUNDS, |_| Response::new(502).with_body("<html>"));
    assert_eq!(broken.run(|| create_refund(args())), Err(ToolError::upstream("Stripe answered 502")));
}
