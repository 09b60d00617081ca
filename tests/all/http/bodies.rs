//! Bodies that are too long, too deep, in another form, or that two parsers would read in two ways.

use std::time::Duration;

use keybearer_tests::Client;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Tenant;
use keybearer_tests::Wire;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::assert_problem;

const JSON: (&str, &str) = ("content-type", "application/json");
const MESSAGE_PACK: (&str, &str) = ("content-type", "application/msgpack");

/// A server whose bodies may have 64 KiB, and a tenant that may call `echo`.
async fn stage() -> anyhow::Result<(Server, Tenant)> {
    let (built, authority) = (keybearer_tests::Built::find()?, keybearer_tests::Authority::new()?);
    let options = ServerOptions::default().with("[limits]\nbody_bytes = 65536");
    let server = Server::start(&built, &authority, options)?;
    server.publish("echo").await?;
    let tenant = server.tenant("acme").await?;
    tenant.allow("echo").await?;
    Ok((server, tenant))
}

async fn calm(tenant: &Tenant) -> anyhow::Result<()> {
    let answer = tenant.call("echo.echo", json!({"text": "calm"})).await?;
    anyhow::ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn h01_a_body_that_is_too_long_is_refused_before_it_is_read() -> anyhow::Result<()> {
    // If this failed, a few senders of endless bodies would take the memory of everybody.
    let (server, tenant) = stage().await?;
    let address = server.public().address();
    let head = |rest: &str| {
        format!(
            "POST /v1/calls HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{rest}\r\n",
            tenant.token
        )
    };
    let mut announced = Wire::connect(address).await?;
    announced.write(head("content-length: 10000000000\r\n").as_bytes()).await;
    let answer = announced.answer().await?;
    assert_problem(&answer, 413, "body_too_large", "a length that is announced");
    assert_eq!(answer.json()["limit"], json!({"name": "body_bytes", "value": 65536}));

    let mut endless = Wire::connect(address).await?;
    endless.write(head("transfer-encoding: chunked\r\n").as_bytes()).await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    let mut chunks = 0;
    while chunks < 10_000 && endless.write(chunk.as_bytes()).await {
        chunks += 1;
    }
    assert!(chunks < 10_000, "it went on reading");
    let mut brief = Wire::connect(address).await?;
    brief.write(head("transfer-encoding: chunked\r\n").as_bytes()).await;
    for _ in 0..17 {
        brief.write(chunk.as_bytes()).await;
    }
    assert_problem(&brief.answer().await?, 413, "body_too_large", "chunks without end");

    let call = br#"{"tool":"echo.echo","arguments":{"text":"x"}}"#;
    for coding in ["gzip", "deflate", "br", "identity", "x-unknown"] {
        let headers = [JSON, ("content-encoding", coding)];
        let answer = tenant.client.send("POST", "/v1/calls", &headers, call.to_vec()).await?;
        assert_problem(&answer, 415, "unsupported_media_type", coding);
    }
    calm(&tenant).await
}

#[tokio::test]
async fn h02_h05_json_that_could_mean_two_things_is_refused() -> anyhow::Result<()> {
    // If this failed, a proxy's policy and our own would read two different calls out of one body.
    let (server, tenant) = stage().await?;
    let around = |arguments: &str| format!(r#"{{"tool":"echo.echo","arguments":{arguments}}}"#).into_bytes();
    let deep = |open: &str, close: &str, depth| format!("{{\"text\":{}1{}}}", open.repeat(depth), close.repeat(depth));
    let mut bodies = vec![
        ("nothing", Vec::new()),
        ("a word", b"call".to_vec()),
        ("null", b"null".to_vec()),
        ("a list", br#"["echo.echo",{"text":"x"}]"#.to_vec()),
        ("a cut object", br#"{"tool":"echo.echo","arguments":{"#.to_vec()),
        ("lists in lists", around(&deep("[", "]", 30_000))),
        ("objects in objects", around(&deep("{\"a\":", "}", 9_000))),
        ("just too deep", around(&deep("[", "]", 63))),
        ("a key twice", around(r#"{"text":"x","text":"y"}"#)),
        ("a key twice, escaped", around(r#"{"text":"x","t\u0065xt":"y"}"#)),
        ("a key twice, deep", around(r#"{"text":[{"a":{"b":1,"b":2}}]}"#)),
        ("a field twice", br#"{"tool":"echo.echo","tool":"echo.other","arguments":{"text":"x"}}"#.to_vec()),
        ("a number beyond numbers", around(r#"{"text":1e400}"#)),
        ("NaN", around(r#"{"text":NaN}"#)),
        ("Infinity", around(r#"{"text":-Infinity}"#)),
        ("a leading zero", around(r#"{"text":01}"#)),
        ("a lone surrogate", around(r#"{"text":"\ud800"}"#)),
        ("surrogates the wrong way", around(r#"{"text":"\udc00\ud800"}"#)),
        ("a control character", around("{\"text\":\"a\u{1}b\"}")),
        ("a comment", around(r#"{"text":"x"/* hello */}"#)),
        ("a trailing comma", around(r#"{"text":"x",}"#)),
        ("single quotes", around("{'text':'x'}")),
        ("something after it", [around(r#"{"text":"x"}"#), b"{}".to_vec()].concat()),
        ("a NUL after it", [around(r#"{"text":"x"}"#), vec![0]].concat()),
        ("a mark before it", [b"\xef\xbb\xbf".to_vec(), around(r#"{"text":"x"}"#)].concat()),
        ("UTF-16", around(r#"{"text":"x"}"#).iter().flat_map(|byte| [*byte, 0]).collect()),
        ("no UTF-8", around("{\"text\":\"@\"}").iter().map(|byte| if *byte == b'@' { 0xff } else { *byte }).collect()),
        ("an unknown field", br#"{"tool":"echo.echo","arguments":{"text":"x"},"hello":1}"#.to_vec()),
        ("a field of another type", br#"{"tool":5,"arguments":{"text":"x"}}"#.to_vec()),
        ("attempt 0", br#"{"tool":"echo.echo","arguments":{"text":"x"},"attempt":0}"#.to_vec()),
    ];
    let overlong = around("{\"text\":\"@@\"}");
    let at = overlong.iter().position(|byte| *byte == b'@').expect("there");
    bodies.push(("an overlong slash", [&overlong[..at], &[0xc0, 0xaf], &overlong[at + 2..]].concat()));
    for (what, body) in bodies {
        let answer = tenant.client.send("POST", "/v1/calls", &[JSON], body).await?;
        assert_problem(&answer, 400, "malformed_body", what);
    }
    // A million keys, a long string: within the limit it is only wrong for the tool.
    let keys: Vec<_> = (0..4000).map(|key| format!("\"k{key}\":1")).collect();
    let many = around(&format!("{{\"text\":\"x\",{}}}", keys.join(",")));
    assert_problem(&tenant.client.send("POST", "/v1/calls", &[JSON], many).await?, 422, "invalid_arguments", "keys");
    let long = around(&format!("{{\"text\":\"{}\"}}", "x".repeat(10 << 20)));
    // Who is still writing when he is refused may hear no more than that the connection is closed.
    if let Ok(answer) = tenant.client.send("POST", "/v1/calls", &[JSON], long).await {
        assert_problem(&answer, 413, "body_too_large", "a string of 10 MB");
    }
    // What means one thing only is taken, and comes back as it was.
    for text in ["-0", "ünï\u{301}", "\u{1f680}", "</script>", "\\u0000 is no NUL", "a\u{0}b"] {
        let answer = tenant.call("echo.echo", json!({"text": text})).await?;
        assert_eq!(answer.json()["result"]["text"], text, "{}", answer.text());
    }
    // No part of a body that may hold a credential is repeated.
    let secret = canary("typo-");
    let typo = format!(r#"{{"name":"x","kind":{{"kind":"{secret}"}},"value":{{"{secret}":1}},"vlaue":"{secret}"}}"#);
    let answer = tenant.client.send("POST", "/v1/credentials", &[JSON], typo.into_bytes()).await?;
    assert_problem(&answer, 400, "malformed_body", "a typing error");
    assert!(!answer.text().contains(&secret) && !server.log().contains(&secret), "{}", answer.text());
    calm(&tenant).await
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_hears_which_field_and_what_may_stand_there() -> anyhow::Result<()> {
    // If this failed, people would guess, and ask the operator, who cannot see it either.
    let (server, tenant) = stage().await?;
    let secret = canary("typo-");
    let operator = server.admin().bearing(server.operator_token());
    let digest = json!({"package": "echo", "digest": secret});
    let scope = json!({"label": "x", "scopes": ["call", secret]});
    let kind = json!({"name": "x", "kind": {"kind": secret}, "owner": "o", "justification": "j", "value": secret});
    let call = json!({"tool": secret, "arguments": {}});
    for (client, path, body, pointer, said) in [
        (&operator, "/v1/tenants", json!({"name": secret.to_uppercase()}), "/name", "1 to 63 of a-z, 0-9 and `-`"),
        (
            &tenant.client,
            "/v1/tokens",
            scope,
            "/scopes/1",
            "`call`, `credentials`, `grants`, `tokens`, `audit`, `runs`",
        ),
        (&tenant.client, "/v1/grants", digest, "/digest", "`blake3:` and 64 lower-case hex digits"),
        (&tenant.client, "/v1/credentials", kind, "/kind", "`bearer`, `basic`, `header`"),
        (&tenant.client, "/v1/runs", json!({"agent": [secret]}), "/agent", "expected a string"),
        (&tenant.client, "/v1/calls", call, "/tool", "`package.tool`"),
    ] {
        let answer = client.post(path, &body).await?;
        assert_problem(&answer, 400, "malformed_body", path);
        let problem = answer.json();
        assert_eq!(problem["pointer"], pointer, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{problem}");
        let text = answer.text().to_lowercase();
        assert!(!text.contains(&secret) && !server.log().to_lowercase().contains(&secret), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn messagepack_calls_and_answers_are_those_of_json() -> anyhow::Result<()> {
    // If this failed, one tool would get two different arguments, or give two results, by how one speaks to it.
    let (_server, tenant) = stage().await?;
    for text in ["plain", "ünï\u{301}\u{1f680}", "", "quotes \" and \\ and \n"] {
        let call = json!({"tool": "echo.echo", "arguments": {"text": text}, "attempt": 2});
        let in_json = tenant.client.post("/v1/calls", &call).await?.json();
        let packed = rmp_serde::to_vec_named(&call)?;
        let both = [MESSAGE_PACK, ("accept", "application/msgpack")];
        let answer = tenant.client.send("POST", "/v1/calls", &both, packed.clone()).await?;
        assert_eq!(answer.header("content-type"), Some("application/msgpack"), "{}", answer.text());
        let in_message_pack: Value = rmp_serde::from_slice(&answer.body)?;
        for field in ["tool", "package", "result", "logs", "replayed"] {
            assert_eq!(in_json[field], in_message_pack[field], "{field}");
        }
        let asked = tenant.client.send("POST", "/v1/calls", &[MESSAGE_PACK], packed).await?;
        assert_eq!(asked.json()["result"], in_json["result"], "packed in, JSON out");
        let accept = [JSON, ("accept", "text/html, application/msgpack;q=0.9")];
        let out = tenant.client.send("POST", "/v1/calls", &accept, call.to_string().into_bytes()).await?;
        assert_eq!(rmp_serde::from_slice::<Value>(&out.body)?["result"], in_json["result"], "JSON in, packed out");
    }
    let good = rmp_serde::to_vec_named(&json!({"tool": "echo.echo", "arguments": {"text": "x"}}))?;
    let twice = [&b"\x82\xa4tool\xa9echo.echo\xa9arguments\x82\xa4text\xa1x"[..], b"\xa4text\xa1y"].concat();
    let nested = [&b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\xa4text"[..], &[0x91; 20_000], b"\x01"].concat();
    for (what, bad) in [
        ("nothing", Vec::new()),
        ("a list", b"\x92\xa9echo.echo\x80".to_vec()),
        ("cut", good[..good.len() - 1].to_vec()),
        ("something after it", [&good[..], b"\xc0"].concat()),
        ("a key twice", twice),
        ("deep", nested),
        ("a length beyond the body", b"\x82\xa4tool\xdb\xff\xff\xff\xffecho".to_vec()),
        ("four milliard members", b"\xdf\xff\xff\xff\xff\xa4tool".to_vec()),
        ("NaN", b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\xa4text\xcb\x7f\xf8\0\0\0\0\0\0".to_vec()),
        ("bytes", b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\xa4text\xc4\x01x".to_vec()),
        ("an extension", b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\xa4text\xd4\x01x".to_vec()),
        ("a number as key", b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\x01\xa1x".to_vec()),
        ("no UTF-8", b"\x82\xa4tool\xa9echo.echo\xa9arguments\x81\xa4text\xa1\xff".to_vec()),
        ("an unused marker", b"\xc1".to_vec()),
        ("JSON", br#"{"tool":"echo.echo","arguments":{"text":"x"}}"#.to_vec()),
    ] {
        let headers = [MESSAGE_PACK, ("accept", "application/msgpack")];
        let answer = tenant.client.send("POST", "/v1/calls", &headers, bad).await?;
        assert_problem(&answer, 400, "malformed_body", what);
    }
    let stored = tenant.client.send("POST", "/v1/credentials", &[MESSAGE_PACK], good).await?;
    assert_problem(&stored, 415, "unsupported_media_type", "MessagePack is for calls");
    Ok(())
}

#[tokio::test]
async fn h06_h17_other_forms_methods_and_origins_are_refused_before_any_effect() -> anyhow::Result<()> {
    // If this failed, a page in an operator's browser could call tools, or a form could.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}}).to_string().into_bytes();
    let send = |client: &Client, headers: Vec<(&'static str, String)>| {
        let (client, call) = (client.clone(), call.clone());
        async move {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.send("POST", "/v1/calls", &headers, call).await
        }
    };
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", ""]
    {
        let answer = send(client, vec![("content-type", kind.into())]).await?;
        assert_problem(&answer, 415, "unsupported_media_type", kind);
    }
    let answer = client.send("POST", "/v1/calls", &[JSON, ("content-type", "text/plain")], call.clone()).await?;
    assert_problem(&answer, 415, "unsupported_media_type", "two types");
    assert_problem(
        &client.send("POST", "/v1/calls", &[], call.clone()).await?,
        415,
        "unsupported_media_type",
        "no type",
    );
    for origin in ["null", "http://localhost:7400", "https://evil.test"] {
        let answer = send(client, vec![("content-type", JSON.1.into()), ("origin", origin.into())]).await?;
        assert_problem(&answer, 403, "origin_refused", origin);
        assert!(answer.header("access-control-allow-origin").is_none());
    }
    for method in ["TRACE", "OPTIONS", "PUT", "PATCH", "DELETE", "HEAD", "GET", "PROPFIND"] {
        let answer = client.send(method, "/v1/calls", &[], Vec::new()).await?;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}: {}", answer.text());
        let side = site.server.operator().send(method, "/v1/master-key/rotate", &[], Vec::new()).await?;
        assert_eq!(side.status, 405, "{method}");
    }
    let mut wire = Wire::connect(client.address()).await?;
    wire.write(b"OPTIONS * HTTP/1.1\r\nhost: k\r\n\r\n").await;
    assert_problem(&wire.answer().await?, 405, "method_not_allowed", "OPTIONS *");
    for (what, key) in
        [("10 KB", "k".repeat(10_000)), ("256", "k".repeat(256)), ("empty", String::new()), ("spaces", "a b".into())]
    {
        let answer = send(client, vec![("content-type", JSON.1.into()), ("idempotency-key", key)]).await?;
        assert_problem(&answer, 400, "malformed_request", what);
    }
    let two = vec![("content-type", JSON.1.into()), ("idempotency-key", "a".into()), ("idempotency-key", "b".into())];
    assert_problem(&send(client, two).await?, 400, "malformed_request", "two keys");
    let mut binary = Wire::connect(client.address()).await?;
    let head = format!(
        "POST /v1/calls HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nidempotency-key: ",
        holder.tenant.token,
        call.len()
    );
    binary.write(&[head.as_bytes(), b"\xff\xfe\x80", b"\r\n\r\n", &call].concat()).await;
    assert_problem(&binary.answer().await?, 400, "malformed_request", "a binary key");
    assert_eq!(site.upstream.recorded().len(), 0, "nothing had an effect");
    assert_eq!(holder.get("/anything").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn h09_a_token_is_taken_from_one_header_in_one_form_and_guesses_are_slowed() -> anyhow::Result<()> {
    // If this failed, tokens would end up in logs of proxies, or could be guessed at leisure.
    let (built, authority) = (keybearer_tests::Built::find()?, keybearer_tests::Authority::new()?);
    let options = ServerOptions::default().with("[limits]\nfailed_authentications_per_minute = 30");
    let server = Server::start(&built, &authority, options)?;
    let tenant = server.tenant("acme").await?;
    let public = server.public();
    let token = &tenant.token;
    let in_query = public.get(&format!("/v1/tools?token={token}")).await?;
    assert_problem(&in_query, 401, "unauthenticated", "in the query");
    let both = tenant.client.get(&format!("/v1/tools?access_token={token}")).await?;
    assert_problem(&both, 400, "malformed_request", "in the query too");
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("acme:{token}"));
    for header in [
        format!("Basic {basic}"),
        token.clone(),
        format!("Token {token}"),
        format!("Bearer  {token}"),
        "Bearer".into(),
        format!("Bearer {token} x"),
    ] {
        let answer = public.send("GET", "/v1/tools", &[("authorization", &header)], Vec::new()).await?;
        assert_problem(&answer, 401, "unauthenticated", "another form");
    }
    for other in ["x-api-key", "cookie", "x-auth-token", "proxy-authorization"] {
        let answer = public.send("GET", "/v1/tools", &[(other, &format!("Bearer {token}"))], Vec::new()).await?;
        assert_problem(&answer, 401, "unauthenticated", other);
    }
    let mut guesses = 0;
    let slowed = loop {
        let answer = public.bearing(&format!("kb_{guesses:052}")).get("/v1/tools").await?;
        guesses += 1;
        if answer.status == 429 || guesses > 100 {
            break answer;
        }
    };
    assert_problem(&slowed, 429, "rate_limited", "guesses");
    assert!(!slowed.text().contains("tenant"), "who guesses is nobody's tenant: {}", slowed.text());
    assert!(slowed.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait <= 60)));
    assert_eq!(tenant.client.get("/v1/tools").await?.status, 200, "who has a good token is not slowed");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let log = server.log();
    assert!(!log.contains(token.as_str()) && !log.contains(&basic), "a token in the log");
    Ok(())
}
