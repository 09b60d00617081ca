//! The sentences under "bad input": what a caller does wrong, and what goes wrong with a tool, each with
//! its code and what to do.

use keybearer_tests::Answer;
use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::assert_problem;

fn detail(answer: &Answer) -> String {
    answer.json()["detail"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn h15_a_callers_mistakes_are_told_by_code_place_and_what_to_do() -> anyhow::Result<()> {
    // If this failed, a platform could not tell its own mistake from ours, or mend it.
    let site = Site::start().await?;
    for package in ["echo", "stripe"] {
        site.server.publish(package).await?;
    }
    let holder = site.holder("acme").await?;
    let tenant = &holder.tenant;
    tenant.allow("echo").await?;
    tenant.grant("stripe", "api", &canary("stripe-")).await?;
    for (tool, arguments, pointer) in [
        ("echo.echo", json!({"text": 5}), "/text"),
        ("echo.echo", json!({"text": "x", "more": 1}), ""),
        ("echo.echo", json!({}), ""),
        ("http-get.get", json!({"path": "/x", "query": {"a": 1}}), "/query/a"),
        ("http-get.get", json!({"path": ["/x"]}), "/path"),
        ("stripe.create_refund", json!({"charge": "ch_1", "amount": "much"}), "/amount"),
    ] {
        let answer = tenant.call(tool, arguments.clone()).await?;
        assert_problem(&answer, 422, "invalid_arguments", tool);
        assert_eq!(answer.json()["pointer"].as_str().unwrap_or_default(), pointer, "{arguments}: {}", answer.text());
    }
    for arguments in [json!(null), json!([]), json!("x"), json!(1)] {
        let answer = tenant.call("echo.echo", arguments).await?;
        assert!(matches!(answer.status, 400 | 422), "{}", answer.text());
    }
    let missing = tenant.call("echo.shout", json!({})).await?;
    assert_problem(&missing, 404, "not_found", "an unknown tool");
    for (tool, package) in [("nothing.echo", Value::Null), ("echo.echo", format!("blake3:{}", "0".repeat(64)).into())] {
        let call = json!({"tool": tool, "arguments": {"text": "x"}, "package": package});
        assert_eq!(tenant.client.post("/v1/calls", &call).await?.body, missing.body, "{tool}");
    }
    let other = site.server.tenant("globex").await?;
    let no_grant = other.call("http-get.get", json!({"path": "/anything"})).await?;
    assert_problem(&no_grant, 403, "grant_missing", "no grant");
    assert!(detail(&no_grant).contains("keybearer grant add"), "{}", detail(&no_grant));
    for (what, grant, code) in [
        (
            "an unknown slot",
            json!({"package": "http-get", "slot": "other", "credential": holder.credential}),
            "malformed_request",
        ),
        ("a slot without a credential", json!({"package": "http-get", "slot": "site"}), "malformed_request"),
        (
            "an unknown credential",
            json!({"package": "http-get", "slot": "site", "credential": "cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"}),
            "not_found",
        ),
        ("an unknown package", json!({"package": "nothing"}), "not_found"),
        (
            "an unknown tool",
            json!({"package": "http-get", "slot": "site", "credential": holder.credential, "actions": ["put"]}),
            "malformed_request",
        ),
        (
            "a host that is not left open",
            json!({"package": "http-get", "slot": "site", "credential": holder.credential, "base_url": "https://evil.test"}),
            "malformed_request",
        ),
    ] {
        let answer = tenant.client.post("/v1/grants", &grant).await?;
        assert_problem(&answer, if code == "not_found" { 404 } else { 400 }, code, what);
    }
    let kind = json!({"name": "basic", "kind": {"kind": "basic"}, "owner": "o", "justification": "j", "value": "user:a-long-password-1234"});
    let basic = tenant.client.post("/v1/credentials", &kind).await?.json();
    let wrong_kind = json!({"package": "http-get", "slot": "site", "credential": basic["id"]});
    let answer = tenant.client.post("/v1/grants", &wrong_kind).await?;
    assert_problem(&answer, 400, "malformed_request", "a credential of another kind");

    holder.revoke().await?;
    let blank = holder.get("/anything").await?;
    assert_problem(&blank, 409, "credential_unusable", "a blank credential");
    for word in ["`http-get`", "`site`", "revoked for good"] {
        assert!(detail(&blank).contains(word), "package, slot and state are named: {}", detail(&blank));
    }
    let call = blank.json()["instance"].as_str().unwrap_or_default().to_owned();
    let explained = tenant.client.get(&format!("/v1/calls/{call}/explain")).await?;
    assert!(explained.text().contains("was revoked for good"), "its administrator can ask why: {}", explained.text());
    let again = json!({"package": "http-get", "slot": "site", "credential": holder.credential});
    let answer = tenant.client.post("/v1/grants", &again).await?;
    assert_problem(&answer, 409, "conflict", "a grant of what is revoked");
    assert_eq!(site.upstream.recorded().len(), 0, "nothing was sent without it");
    Ok(())
}

#[tokio::test]
async fn h15_g18_a_tools_ends_are_told_by_code_limit_and_value() -> anyhow::Result<()> {
    // If this failed, an operator could not tell a tool that loops from one that traps, or which limit to raise.
    let site = Site::start().await?;
    site.server.publish("hostile").await?;
    let holder = site.holder("acme").await?;
    let tenant = &holder.tenant;
    tenant.grant("hostile", "api", &canary("hostile-")).await?;
    for (guest, arguments, limit, value) in [
        ("spin", json!({}), "cpu_ms", 1000),
        ("big_result", json!({"bytes": 2 << 20}), "result_bytes", 1 << 20),
        ("big_result", json!({"bytes": 12 << 20}), "memory_bytes", 16 << 20),
    ] {
        let answer = tenant.call(&format!("hostile.{guest}"), arguments).await?;
        assert_problem(&answer, 502, "tool_limit", guest);
        assert_eq!(answer.json()["limit"], json!({"name": limit, "value": value}), "{}", answer.text());
        assert!(answer.json()["instance"].as_str().is_some_and(|call| call.starts_with("call_")));
    }
    let trapped = tenant.call("hostile.recurse", json!({"heavy": false})).await?;
    assert_problem(&trapped, 502, "tool_trapped", "a trap");
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/hold"}, "timeout_ms": 400});
    let late = tenant.client.post("/v1/calls", &call).await?;
    assert_problem(&late, 504, "timeout", "a timeout");
    // Each end is in the ledger under its call, with the limit.
    let id = late.json()["instance"].as_str().expect("the call").to_owned();
    let ledger = site.ledger()?;
    let ends: Vec<_> = ledger.iter().filter(|record| record["kind"] == "call_closed").collect();
    let problems: Vec<_> = ends.iter().map(|record| record["problem"].as_str().unwrap_or("-")).collect();
    assert_eq!(problems, ["tool_limit", "tool_limit", "tool_limit", "tool_trapped", "timeout"]);
    assert_eq!((&ends[0]["limit"], ends[4]["call"].as_str()), (&json!("cpu_ms"), Some(id.as_str())));
    Ok(())
}

#[tokio::test]
async fn h07_whatever_a_caller_accepts_he_gets_json_or_what_he_named_and_a_batch_is_no_call() -> anyhow::Result<()> {
    // If this failed, a client with a careless header would be refused, or a list of calls would be half done.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    let long = "application/json;q=0.1,".repeat(400);
    for accept in
        [None, Some("*/*"), Some(""), Some("text/html"), Some(";;,,/"), Some("application/*;q=0"), Some(&long)]
    {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(accept.map(|accept| ("accept", accept)));
        let answer = client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await?;
        let kind = answer.header("content-type");
        assert_eq!((answer.status, kind), (200, Some("application/json")), "{accept:?}: {}", answer.text());
    }
    let sent = site.upstream.recorded().len();
    for batch in [json!([call, call]), json!([]), json!([[call]])] {
        assert_problem(&client.post("/v1/calls", &batch).await?, 400, "malformed_body", "a batch");
    }
    assert_eq!(site.upstream.recorded().len(), sent, "none of a batch is done");
    Ok(())
}
