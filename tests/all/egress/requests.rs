//! What a guest may say to an upstream, and what the upstream may say of ours.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Piece;
use keybearer_tests::RawUpstream;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

use super::API;
use super::PACKAGE;
use super::Stage;

/// Fields that are the host's or a slot's, in every spelling that a server may take for them.
const HEADERS: &[(&str, &str)] = &[
    // N20
    ("host", "evil.test"),
    ("Host", "evil.test"),
    (":authority", "evil.test"),
    ("authorization", "Bearer x"),
    ("Authorization", "Bearer x"),
    ("AUTHORIZATION", "Basic eA=="),
    ("authorization ", "x"),
    (" authorization", "x"),
    ("authori\u{200b}zation", "x"),
    ("proxy-authorization", "x"),
    ("cookie", "a=b"),
    ("x-api-key", "x"),
    ("x_api_key", "x"),
    ("x-note_", "x"),
    // N21
    ("connection", "authorization"),
    ("Connection", "close, authorization"),
    ("keep-alive", "timeout=5"),
    ("te", "trailers"),
    ("trailer", "authorization"),
    ("proxy-connection", "keep-alive"),
    // N22
    ("transfer-encoding", "chunked"),
    ("Transfer-Encoding", "xchunked"),
    ("content-length", "0"),
    ("Content-Length", "999"),
    ("content-encoding", "gzip"),
    // N25
    ("expect", "100-continue"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
    // N31
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-proto", "http"),
    ("forwarded", "for=127.0.0.1"),
    ("via", "1.1 x"),
    ("x-real-ip", "127.0.0.1"),
    ("x-http-method-override", "DELETE"),
    ("x-http-method", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("referer", "https://x.test/"),
    ("origin", "https://x.test"),
    ("traceparent", "00-0-0-00"),
    ("baggage", "a=b"),
    ("idempotency-key", "x"),
    ("stripe-account", "acct_other"),
    // N19
    ("accept", "a\r\nx: y"),
    ("accept", "a\n b"),
    ("accept", "a\u{0}b"),
    ("accept", " a"),
    ("accept", "a "),
    ("", "x"),
    ("a b", "x"),
    ("a\r\nb", "x"),
    ("accept:", "x"),
    ("accept\u{0}", "x"),
];

// If it failed, a guest could choose the account, the framing, or what the next hop takes for the credential.
#[tokio::test]
async fn n19_n20_n21_n22_n25_n31_p05_p14_headers_that_are_not_a_guests_are_refused() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = Upstream::start(&authority, &[API], |_: Recorded| async { Reply::json(200, &json!({})) }).await?;
    let stage = Stage::new(&authority, &[API], ServerOptions::default().pin(API, &upstream)).await?;
    let mut requests: Vec<Value> = HEADERS.iter().map(|field| json!([field])).collect();
    // The same field twice, once more in another case, too long, too many.
    requests.push(json!([["accept", "a"], ["accept", "b"]]));
    requests.push(json!([["accept", "a"], ["Accept", "b"]]));
    requests.push(json!([["accept", "a".repeat(9000)]]));
    requests.push(Value::from(vec![json!(["accept", "a"]); 1000]));
    for chunk in requests.chunks(24) {
        let arguments = json!({"url": format!("https://{API}/"), "requests": chunk});
        let answer = stage.tenant.call(&format!("{PACKAGE}.header_tricks"), arguments).await?;
        let outcomes = answer.json()["result"].clone();
        let outcomes = outcomes.as_array().unwrap_or_else(|| panic!("{}", answer.text()));
        for (request, outcome) in chunk.iter().zip(outcomes) {
            let refused = outcome == "denied" || outcome == "malformed header";
            assert!(refused, "{}: {outcome}", request.to_string().chars().take(200).collect::<String>());
        }
    }
    assert_eq!(upstream.recorded().len(), 0);

    // Nor can a manifest hand them over.
    let built = Built::find()?;
    for (name, _) in HEADERS.iter().filter(|(name, _)| !["stripe-account", "idempotency-key", "accept"].contains(name))
    {
        if *name == "x-api-key" {
            continue;
        }
        let slot = probe::slot("api", "{ kind = \"bearer\" }", &[API]);
        let slot = slot.replace("paths =", &format!("headers = [{}]\npaths =", Value::from(*name)));
        assert!(built.pack("hostile", &probe::manifest("p", "1.0.0", &slot)).is_err(), "{name:?}");
    }

    // What any guest may say, goes out as it is said.
    let said = json!({"method": "POST", "url": format!("https://{API}/"), "body": "x=1",
                      "headers": [["Accept", "text/plain"], ["content-type", "text/x"], ["user-agent", "me/1"]]});
    assert_eq!(stage.tenant.hear(PACKAGE, said).await?.outcome, "200");
    let request = &upstream.recorded()[0];
    assert_eq!((request.header("accept"), request.header("user-agent")), (Some("text/plain"), Some("me/1")));
    assert_eq!((request.header("content-length"), request.body.as_slice()), (Some("3"), &b"x=1"[..]));
    Ok(())
}

// If it failed, the caller's token for this server would be sent to an upstream, or anything else of the caller.
#[tokio::test]
async fn p13_n32_a_request_on_the_wire_is_the_guests_words_and_the_credential_and_nothing_of_the_caller()
-> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = RawUpstream::start(Some(authority.server(&[API])?), |_| {
        vec![Piece::text("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")]
    })
    .await?;
    let options = ServerOptions::default().pin_at(API, 443, upstream.address());
    let stage = Stage::new(&authority, &[API], options).await?;
    let body = json!({"tool": format!("{PACKAGE}.echo_back"), "arguments": {"url": format!("https://{API}/v1?q=1")}});
    let caller = [
        ("content-type", "application/json"),
        ("cookie", "session=of-the-caller-0123456789"),
        ("x-forwarded-for", "192.0.2.77"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("idempotency-key", "key-of-the-caller"),
        ("user-agent", "agent-of-the-caller"),
    ];
    let answer = stage.tenant.client.send("POST", "/v1/calls", &caller, body.to_string().into_bytes()).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = json!({"method": "POST", "url": format!("https://{API}/v1"), "body": "a body"});
    assert_eq!(stage.tenant.hear(PACKAGE, said).await?.outcome, "200");

    let expected = format!(
        "GET /v1?q=1 HTTP/1.1\r\nhost: {API}\r\naccept-encoding: gzip, deflate, br, zstd\r\n\
         authorization: Bearer {}\r\n\r\n",
        stage.token
    );
    let received = upstream.received();
    assert_eq!(String::from_utf8_lossy(&received[0]), expected);
    for request in &received {
        let text = String::from_utf8_lossy(request);
        for foreign in [stage.tenant.token.as_str(), stage.server.operator_token(), "of-the-caller", "192.0.2.77"] {
            assert!(!text.contains(foreign), "{text}");
        }
        assert!(!text.contains("0af7651916cd43dd8448eb211c80319c"), "{text}");
    }
    Ok(())
}

// If it failed, an upstream could pose as this server towards the guest or the caller.
#[tokio::test]
async fn n34_names_that_are_ours_are_not_an_upstreams_to_say() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = Upstream::start(&authority, &[API], |_: Recorded| async {
        let names = [
            "x-run-id",
            "traceparent",
            "tracestate",
            "baggage",
            "x-keybearer-call",
            "X-Keybearer-Error",
            "alt-svc",
            "proxy-authenticate",
            "keep-alive",
            "x-hop",
        ];
        let headers = names.iter().map(|name| ((*name).to_owned(), "of the upstream".to_owned()));
        let mut headers: Vec<_> = headers.collect();
        headers.push(("connection".to_owned(), "x-hop".to_owned()));
        headers.push(("x-other".to_owned(), "kept".to_owned()));
        Reply {
            status: 200,
            headers,
            body: b"{\"code\":\"denied\",\"type\":\"urn:keybearer:problem:denied\"}".to_vec(),
        }
    })
    .await?;
    let stage = Stage::new(&authority, &[API], ServerOptions::default().pin(API, &upstream)).await?;
    let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{API}/")).await?;
    assert_eq!((heard.outcome.as_str(), heard.header("x-other").as_deref()), ("200", Some("kept")));
    assert!(!heard.text().contains("of the upstream"), "{}", heard.text());
    Ok(())
}
