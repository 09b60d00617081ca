//! The tool against a mock of an instance: the grant's host, the manifest's binding, its errors.

use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;

use super::*;

const QUERY: &str = "https://acme.my.salesforce.com/services/data/v62.0/query";

fn instance() -> Host {
    Host::new().base_url("api", "https://acme.my.salesforce.com")
}

fn args() -> Args {
    Args { soql: "SELECT Id FROM Account WHERE Name = 'R&D'".to_owned() }
}

#[test]
fn a_query_goes_to_the_instance_that_the_grant_names_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = instance().on(Method::Get, QUERY, |_| {
        Response::new(200).with_json(&json!({
            "totalSize": 1, "done": true,
            "records": [{"attributes": {"type": "Account", "url": "/services/data/v62.0/sobjects/Account/1"}, "Id": "1"}]
        }))
    });
    let out = host.run(|| query(args())).expect("a result");
    assert_eq!((out.total, out.complete, json!(out.records)), (1, true, json!([{"Id": "1"}])));
    let [request] = &host.requests()[..] else { panic!("one request") };
    assert_eq!(request.query(), [("q".to_owned(), args().soql)]);
    assert!(keybearer_tool_check::admits(&manifest, "api", request));
}

#[test]
fn without_a_grant_there_is_nowhere_to_ask_and_nothing_is_sent() {
    let host = Host::new();
    assert_eq!(host.run(|| query(args())), Err(ToolError::Denied));
    assert_eq!(host.requests(), vec![]);
}

#[test]
fn p03_the_binding_admits_no_other_instance() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    for base in
        ["https://acme.my.salesforce.com.evil.test", "https://a.b.my.salesforce.com", "https://my.salesforce.com"]
    {
        let host = Host::new().base_url("api", base);
        assert_eq!(host.run(|| query(args())), Err(ToolError::Denied));
        assert!(!keybearer_tool_check::admits(&manifest, "api", &host.requests()[0]), "{base}");
    }
}

#[test]
fn salesforces_own_word_reaches_the_caller() {
    let host = instance().on(Method::Get, QUERY, |_| {
        Response::new(400).with_json(&json!([{"message": "unexpected token: SELCT", "errorCode": "MALFORMED_QUERY"}]))
    });
    assert_eq!(
        host.run(|| query(args())),
        Err(ToolError::upstream("Salesforce answered 400 (MALFORMED_QUERY): unexpected token: SELCT"))
    );
    let host = instance().on(Method::Get, QUERY, |_| Response::new(503));
    assert_eq!(host.run(|| query(args())), Err(ToolError::upstream("Salesforce answered 503")));
}
