//! What the client puts on the wire, and what the mock host lets pass. If these fail, a tool's own
//! tests pass and its calls do not.

use std::cell::Cell;

use keybearer_guest::call;
use keybearer_guest::http;
use keybearer_guest::http::Error;
use keybearer_guest::http::GuestFault;
use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::mock::Host;
use keybearer_guest::serde_json::Value;
use keybearer_guest::serde_json::json;

const THINGS: &str = "https://api.example.com/things";

#[test]
fn paths_queries_forms_and_json_are_encoded_once() {
    let host = Host::new().on(Method::Get, "https://api.example.com/things/a%20b/%C3%BC", |_| Response::new(204)).on(
        Method::Post,
        THINGS,
        |_| Response::new(201),
    );
    host.run(|| {
        let get = http::get("https://api.example.com/").path(["things", "a b", "ü"]);
        get.query("q", "1&2=3+4").query("n", 5).query_opt("none", None::<u8>).send()?;
        http::post(THINGS).form([("a[b]", "c d"), ("e", "f&g")]).send()?;
        http::post(THINGS).header("Content-Type", "text/plain").json(&json!({ "a": 1 })).send()
    })
    .expect("answers");
    let requests = host.requests();
    assert_eq!(requests[0].url, "https://api.example.com/things/a%20b/%C3%BC?q=1%262%3D3%2B4&n=5");
    assert_eq!(requests[0].query()[0], ("q".to_owned(), "1&2=3+4".to_owned()));
    assert_eq!(requests[1].body.as_deref(), Some(&b"a%5Bb%5D=c%20d&e=f%26g"[..]));
    assert_eq!(requests[2].json::<Value>(), json!({ "a": 1 }));
    assert_eq!(requests[2].headers, [("content-type".to_owned(), b"application/json".to_vec())]);
}

#[test]
fn many_requests_keep_their_order_and_one_that_cannot_be_built_is_not_sent() {
    let host = Host::new()
        .on(Method::Get, THINGS, |request| Response::new(if request.url.ends_with('1') { 201 } else { 202 }));
    let answers = host.run(|| {
        http::send_all(vec![
            http::get(THINGS).query("n", 1),
            http::get(THINGS).path([".."]),
            http::get("https://other.example.com/"),
            http::get(THINGS).query("n", 2),
        ])
    });
    assert_eq!(answers[0].as_ref().ok().map(Response::status), Some(201));
    assert!(matches!(&answers[1], Err(Error::Segment(text)) if text == ".."));
    assert!(matches!(&answers[2], Err(Error::Denied)));
    assert_eq!(answers[3].as_ref().ok().map(Response::status), Some(202));
    assert_eq!(host.requests().len(), 3);
}

#[test]
fn n19_n20_what_the_host_would_refuse_the_mock_refuses_too() {
    let host = Host::new().on(Method::Get, THINGS, |_| Response::new(200));
    let send = |request: http::Request| host.run(|| request.send());
    assert!(matches!(send(http::get("HTTPS://api.example.com/things")), Err(Error::Guest(GuestFault::MalformedUrl))));
    let split = http::get(THINGS).header("x-a", "b\r\nauthorization: c");
    assert!(matches!(send(split), Err(Error::Guest(GuestFault::MalformedHeader))));
    for name in ["Authorization", "Host", "cookie", "Range", "Transfer-Encoding"] {
        assert!(matches!(send(http::get(THINGS).header(name, "x")), Err(Error::Denied)), "{name}");
    }
    assert!(matches!(send(http::post(THINGS)), Err(Error::Denied)), "another method");
    assert!(send(http::get(THINGS)).is_ok());
}

#[test]
fn an_answer_is_read_as_json_or_refused_with_the_reason() {
    let calls = Cell::new(0);
    let host = Host::new().on(Method::Get, THINGS, move |_| {
        calls.set(calls.get() + 1);
        Response::new(200).with_json(&json!({ "calls": calls.get() })).with_header("X-Page", "2")
    });
    let answer = host.run(|| http::get(THINGS).send()).expect("an answer");
    assert_eq!((answer.header("x-page"), answer.text().ok()), (Some("2"), Some(r#"{"calls":1}"#)));
    assert_eq!(answer.json::<Value>().ok(), Some(json!({ "calls": 1 })));
    assert!(matches!(answer.json::<Vec<u8>>(), Err(Error::Answer(_))));
    assert!(matches!(Response::new(404).error_for_status(), Err(Error::Status(answer)) if answer.status() == 404));
}

#[test]
fn a_base_url_is_the_grants_and_hosts_of_one_thread_do_not_mix() {
    let outer = Host::new().base_url("api", "https://acme.example.com/");
    let inner = Host::new();
    outer.run(|| {
        assert_eq!(call::base_url("api").as_deref(), Some("https://acme.example.com"));
        assert_eq!(inner.run(|| call::base_url("api")), None);
        assert!(call::require_base_url("other").is_err());
        assert_eq!(call::current().attempt, 1);
    });
}
