//! Framing on the wire: whatever two servers could read as two requests, and what is no HTTP at all. Behind
//! each stands a second request, which must never be answered.

use keybearer_tests::Site;
use keybearer_tests::Wire;
use serde_json::json;

#[tokio::test]
async fn h04_h05_what_could_be_two_requests_is_refused_and_the_connection_closed() -> anyhow::Result<()> {
    // If this failed, behind a proxy one customer's request could begin in the middle of another's.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let smuggled = |what: &str| {
        let path = format!("/anything/{}", what.replace(' ', "-"));
        let call = json!({"tool": "http-get.get", "arguments": {"path": path}}).to_string();
        let (token, length) = (&holder.tenant.token, call.len());
        format!(
            "POST /v1/calls HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{call}"
        )
    };
    let head = "POST /v1/calls HTTP/1.1\r\nhost: k\r\ncontent-type: application/json\r\n";
    let get = "GET /v1/tools HTTP/1.1\r\nhost: k\r\n";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a length and chunks",
            format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").into(),
        ),
        (
            "chunks and a length",
            format!("{head}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n").into(),
        ),
        ("two lengths", format!("{head}content-length: 0\r\ncontent-length: 40\r\n\r\n").into()),
        ("a list of lengths", format!("{head}content-length: 0, 40\r\n\r\n").into()),
        ("a signed length", format!("{head}content-length: +0\r\n\r\n").into()),
        ("a negative length", format!("{head}content-length: -1\r\n\r\n").into()),
        ("a length in hex", format!("{head}content-length: 0x0\r\n\r\n").into()),
        ("a length beyond numbers", format!("{head}content-length: 99999999999999999999999\r\n\r\n").into()),
        ("an unknown coding", format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n").into()),
        ("chunked, but not last", format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n").into()),
        ("a folded line", format!("{get}x-a: b\r\n c: d\r\n\r\n").into()),
        ("a folded coding", format!("{head}transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n").into()),
        ("a bare CR", format!("{get}x-a: b\rtransfer-encoding: chunked\r\n\r\n").into()),
        ("a vertical tab in a name", format!("{head}transfer-encoding\x0b: chunked\r\n\r\n0\r\n\r\n").into()),
        ("a space before the colon", format!("{head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n").into()),
        ("a NUL in a value", format!("{get}x-a: b\0c\r\n\r\n").into()),
        ("a line without a colon", format!("{get}nonsense\r\n\r\n").into()),
        ("a broken chunk", format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n0\r\n\r\n").into()),
        ("a chunk beyond numbers", format!("{head}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n").into()),
        ("no host", b"GET /v1/tools HTTP/1.1\r\n\r\n".to_vec()),
        ("two hosts", format!("{get}host: other\r\n\r\n").into()),
        (
            "HTTP/1.0 with chunks",
            b"POST /v1/calls HTTP/1.0\r\nhost: k\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("HTTP/9", b"GET /v1/tools HTTP/9.9\r\nhost: k\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /v1/tools\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        ("a raw byte in the path", b"GET /v1/tools\xff\xc0\xaf HTTP/1.1\r\nhost: k\r\n\r\n".to_vec()),
        ("a space in the path", b"GET /v1/to ols HTTP/1.1\r\nhost: k\r\n\r\n".to_vec()),
        ("nothing but noise", vec![0x80; 64]),
        ("200 header fields", format!("{get}{}\r\n", "x-a: b\r\n".repeat(200)).into()),
        ("a header field of 100 KB", format!("{get}x-a: {}\r\n\r\n", "b".repeat(100_000)).into()),
        ("a path of 100 KB", format!("GET /{} HTTP/1.1\r\nhost: k\r\n\r\n", "a".repeat(100_000)).into()),
    ];
    for (what, bytes) in cases {
        let mut wire = Wire::connect(site.server.public().address()).await?;
        wire.write(&bytes).await;
        wire.write(smuggled(what).as_bytes()).await;
        wire.finish().await;
        let (answers, _) = wire.until_closed().await.map_err(|error| error.context(what))?;
        assert!(answers.len() <= 1, "{what}: the second request was answered: {answers:?}");
        assert!(answers.iter().all(|answer| (400..500).contains(&answer.status)), "{what}: {answers:?}");
    }
    let arrived: Vec<_> = site.upstream.recorded().into_iter().map(|request| request.target).collect();
    assert!(arrived.is_empty(), "smuggled through: {arrived:?}");
    assert_eq!(holder.get("/anything").await?.status, 200, "and the server goes on");
    Ok(())
}

#[tokio::test]
async fn h05_paths_that_could_be_two_paths_are_refused() -> anyhow::Result<()> {
    // If this failed, a proxy's rules for a path would not be about the path that we serve.
    let site = Site::start().await?;
    let tenant = site.server.tenant("acme").await?;
    for path in [
        "/v1/tools%00",
        "/v1/t%6fols",
        "/v1/%2e%2e/v1/tools",
        "/v1%2ftools",
        "/v1/tools/%",
        "/v1/tools;x=1",
        "/v1/tools/",
        "//v1/tools",
        "/v1/./tools",
        "/v1/x/../tools",
        "/V1/tools",
        "/v1/tools\\",
        "/v1/credentials/e\u{301}",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\n\r\n", tenant.token);
        let mut wire = Wire::connect(site.server.public().address()).await?;
        wire.write(request.as_bytes()).await;
        let answer = wire.answer().await?;
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    // The whole URL as a target is what a proxy gets: its path counts, its host selects nothing.
    let absolute = format!(
        "GET http://127.0.0.1:9/v1/tools HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\n\r\n",
        tenant.token
    );
    let mut wire = Wire::connect(site.server.public().address()).await?;
    wire.write(absolute.as_bytes()).await;
    assert!(matches!(wire.answer().await?.status, 200 | 400), "and goes nowhere else");
    let mut cased = Wire::connect(site.server.public().address()).await?;
    cased
        .write(
            format!("get /v1/tools HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\n\r\n", tenant.token).as_bytes(),
        )
        .await;
    assert_eq!(cased.answer().await?.status, 405, "methods have a case");
    Ok(())
}
