//! The tool against a mock host: what it sends fits its manifest, and no argument leaves it.

use keybearer_guest::http::Delivery;
use keybearer_guest::http::Error;
use keybearer_guest::http::Method;
use keybearer_guest::http::Response;
use keybearer_guest::http::UpstreamReason;
use keybearer_guest::mock::Host;

use super::*;

fn args(path: &str, query: &[(&str, &str)]) -> Args {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Args { path: path.to_owned(), query: query.iter().map(pair).collect() }
}

#[test]
fn a_path_and_a_query_are_encoded_and_sent_within_the_binding() {
    let manifest = keybearer_tool_check::manifest(include_str!("../manifest.toml"), &PACKAGE);
    let host = Host::new().on(Method::Get, "https://httpbin.org/anything/a%20b", |_| {
        Response::new(200).with_header("Content-Type", "text/plain").with_body("found")
    });
    let out = host.run(|| get(args("/anything/a b", &[("q", "1&x=2")]))).expect("a result");
    assert_eq!((out.status, out.content_type.as_deref(), out.body.as_str()), (200, Some("text/plain"), "found"));
    let requests = host.requests();
    assert_eq!(requests[0].url, "https://httpbin.org/anything/a%20b?q=1%26x%3D2");
    assert_eq!(requests[0].headers, vec![], "the credential is the host's to attach");
    assert!(keybearer_tool_check::admits(&manifest, "site", &requests[0]));
}

#[test]
fn a_status_of_the_upstream_is_a_result() {
    let host = Host::new().on(Method::Get, "https://httpbin.org/status/404", |_| Response::new(404));
    let out = host.run(|| get(args("status/404", &[]))).expect("a result");
    assert_eq!((out.status, out.content_type), (404, None));
}

#[test]
fn n17_a_path_that_climbs_or_splits_is_an_invalid_argument_and_nothing_is_sent() {
    let host = Host::new();
    for bad in ["/../admin", "/a/./b", "/a//b", "/", "", "/a%2fb", "/a\\b", "//evil.test/"] {
        let answer = host.run(|| get(args(bad, &[])));
        assert!(matches!(answer, Err(ToolError::InvalidArguments(_))), "{bad}");
    }
    assert_eq!(host.requests(), vec![]);
}

#[test]
fn failures_of_host_and_upstream_keep_their_party() {
    let run = |error: fn() -> Error| {
        let host = Host::new().on(Method::Get, "https://httpbin.org/get", move |_| Err(error()));
        host.run(|| get(args("/get", &[]))).err()
    };
    assert_eq!(run(|| Error::Denied), Some(ToolError::Denied));
    let timeout = run(|| Error::Upstream(UpstreamReason::Timeout, Delivery::MaybeSent));
    assert_eq!(timeout, Some(ToolError::upstream("the upstream failed: it did not answer in time; it may have acted")));
    assert!(matches!(run(|| Error::Host(Delivery::NotSent)), Some(ToolError::Failed(_))));
}
