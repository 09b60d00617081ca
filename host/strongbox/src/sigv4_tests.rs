//! Tests of the signature against what AWS publishes: its signing test suite (in its libraries' sources), and the worked
//! examples of S3's API reference. For what neither has, against what botocore 1.44 signs.

use super::*;

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SUITE: Scope<'_> = Scope { region: "us-east-1", service: "service" };
/// 2015-08-30T12:36:00Z
const SUITE_TIME: UnixMillis = UnixMillis(1_440_938_160_000);
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Case<'case> {
    scope: Scope<'case>,
    secret: &'case [u8],
    time: UnixMillis,
    method: &'case str,
    target: &'case str,
    fields: &'case [(&'case str, &'case str)],
    payload: &'case str,
}

fn suite<'case>(method: &'case str, target: &'case str, fields: &'case [(&'case str, &'case str)]) -> Case<'case> {
    Case { scope: SUITE, secret: SECRET, time: SUITE_TIME, method, target, fields, payload: EMPTY }
}

fn signature(case: &Case<'_>) -> String {
    let signed = case.fields.iter().map(|(name, value)| (*name, trimmed(value.as_bytes()))).collect();
    let (path, query) = match case.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (case.target, None),
    };
    let request = Request { method: case.method, path, query, signed: &signed, payload: case.payload };
    request.signature(case.scope, case.secret, &BasicTime::of(case.time))
}

const HOST_AND_DATE: &[(&str, &str)] = &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];

#[test]
fn p09_the_signatures_of_the_published_suite_are_reproduced() {
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let unreserved = format!("/?{unreserved}={unreserved}");
    let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    let with_token = [HOST_AND_DATE, &[("x-amz-security-token", token)]].concat();
    for (name, target, fields, expected) in [
        ("get-vanilla", "/", HOST_AND_DATE, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "get-vanilla-query-order-key-case",
            "/?Param2=value2&Param1=value1",
            HOST_AND_DATE,
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "get-vanilla-query-order-encoded",
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
            HOST_AND_DATE,
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "get-vanilla-query-unreserved",
            &unreserved,
            HOST_AND_DATE,
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "get-vanilla-utf8-query",
            "/?%E1%88%B4=bar",
            HOST_AND_DATE,
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "get-vanilla-with-session-token",
            "/",
            &with_token,
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
    ] {
        assert_eq!(signature(&suite("GET", target, fields)), expected, "{name}");
    }
    let payload = hex::encode(digest::digest(&digest::SHA256, b"Param1=value1"));
    let fields = [
        HOST_AND_DATE,
        &[
            ("content-length", "13"),
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-amz-content-sha256", &payload),
        ],
    ]
    .concat();
    let post = Case { payload: &payload, ..suite("POST", "/", &fields) };
    assert_eq!(signature(&post), "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b");
}

#[test]
fn p09_the_worked_examples_of_s3_are_reproduced() {
    const BUCKET: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");
    const TIME: (&str, &str) = ("x-amz-date", "20130524T000000Z");
    let put = hex::encode(digest::digest(&digest::SHA256, b"Welcome to Amazon S3."));
    let empty = ("x-amz-content-sha256", EMPTY);
    for (method, target, fields, expected) in [
        (
            "GET",
            "/test.txt",
            &[BUCKET, ("range", "bytes=0-9"), empty, TIME][..],
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            &[
                BUCKET,
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-content-sha256", &put),
                TIME,
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ],
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            &[BUCKET, empty, TIME],
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            &[BUCKET, empty, TIME],
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        let case = Case {
            scope: Scope { region: "us-east-1", service: "s3" },
            secret: b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            // 2013-05-24T00:00:00Z
            time: UnixMillis(1_369_353_600_000),
            method,
            target,
            fields,
            payload: if method == "PUT" { &put } else { EMPTY },
        };
        assert_eq!(signature(&case), expected, "{method} {target}");
    }
}

#[test]
fn what_botocore_signs_is_reproduced() {
    let payload = hex::encode(digest::digest(&digest::SHA256, br#"{"a":1}"#));
    let fields = [
        ("content-type", "application/json"),
        ("host", "bedrock-runtime.us-east-1.amazonaws.com"),
        ("x-amz-content-sha256", &payload),
        ("x-amz-date", "20150830T123600Z"),
        ("x-amz-target", "  A   B "),
    ];
    let target = "/model/anthropic.claude%20v2:0/invoke?b=%2F&a=x%20y";
    let scope = Scope { region: "us-east-1", service: "bedrock" };
    let case = Case { payload: &payload, scope, ..suite("POST", target, &fields) };
    assert_eq!(signature(&case), "10b6ed36ac8a4754d7ce14e3de6811bcc51edc628282d02df31ee3792ac72d88");
}

#[test]
fn a_path_is_encoded_once_more_but_for_s3() {
    assert_eq!(canonical_path("/a%20b/c:d=e/", "s3"), "/a%20b/c%3Ad%3De/");
    assert_eq!(canonical_path("/a%20b/c:d=e/", "bedrock"), "/a%2520b/c%3Ad%3De/");
    assert_eq!(canonical_path("/", "s3"), "/");
    assert_eq!(canonical_query("b=2&a=%2F&a=&c&&a=+"), "a=&a=%2B&a=%2F&b=2&c=");
}

#[test]
fn days_have_their_dates() {
    for (seconds, expected) in [
        (0, "19700101T000000Z"),
        (951_782_399, "20000228T235959Z"),
        (951_782_400, "20000229T000000Z"),
        (1_709_164_800, "20240229T000000Z"),
        (1_735_689_599, "20241231T235959Z"),
        (4_107_542_400, "21000301T000000Z"),
    ] {
        assert_eq!(BasicTime::of(UnixMillis(seconds * 1_000)).whole, expected);
    }
    assert_eq!(BasicTime::of(SUITE_TIME).day(), "20150830");
}

#[test]
fn white_space_in_a_field_counts_once() {
    assert_eq!(trimmed(b"  a   b \t c ").as_slice(), b"a b c");
}
