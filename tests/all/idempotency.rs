//! Idempotency keys: the same key never runs twice, whatever happens in between, and what is kept of an
//! answer is sealed.

use keybearer_tests::Answer;
use keybearer_tests::Client;
use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

async fn call(client: &Client, key: &str, arguments: &Value) -> anyhow::Result<Answer> {
    let call = json!({"tool": "http-get.get", "arguments": arguments});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await
}

fn sent(site: &Site, part: &str) -> usize {
    site.upstream.recorded().iter().filter(|request| request.target.contains(part)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_x26_the_same_key_is_answered_again_and_runs_once_for_its_tenant_alone() -> anyhow::Result<()> {
    // If this failed, a refund would be paid twice because a connection broke, or one tenant would get another's answer.
    let mut site = Site::start().await?;
    let (acme, globex) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &acme.tenant.client;
    let marker = canary("answer-");
    let arguments = json!({"path": "/anything/once", "query": {"marker": marker}});
    let first = call(client, "key-1", &arguments).await?;
    assert_eq!((first.status, &first.json()["replayed"]), (200, &json!(false)), "{}", first.text());
    let again = call(client, "key-1", &arguments).await?;
    assert_eq!((again.status, &again.json()["replayed"]), (200, &json!(true)), "{}", again.text());
    for field in ["call", "run", "tool", "package", "result", "logs"] {
        assert_eq!(first.json()[field], again.json()[field], "{field}");
    }
    assert!(first.text().contains(&marker) && !first.text().contains(&acme.value));
    assert_eq!(sent(&site, "once"), 1);

    // The same arguments, written otherwise: JSON's own freedoms make no other request.
    let written = format!(
        r#"{{ "arguments": {{ "query": {{"marker" : "{marker}"}},
        "path": "\u002fanything\/once" }}, "tool": "http-get.get" }}"#
    );
    let headers = [("content-type", "application/json"), ("idempotency-key", "key-1")];
    let otherwise = client.send("POST", "/v1/calls", &headers, written.into_bytes()).await?;
    assert_eq!((otherwise.status, &otherwise.json()["replayed"]), (200, &json!(true)), "{}", otherwise.text());
    assert_eq!(sent(&site, "once"), 1);

    for (what, other) in [
        ("another path", json!({"path": "/anything/other"})),
        ("more arguments", json!({"path": "/anything/once", "query": {"marker": marker, "more": "1"}})),
    ] {
        let mismatch = call(client, "key-1", &other).await?;
        assert_eq!((mismatch.status, mismatch.code().as_str()), (422, "idempotency_mismatch"), "{what}");
    }
    let other = call(&globex.tenant.client, "key-1", &json!({"path": "/anything/globex"})).await?;
    assert_eq!((other.status, &other.json()["replayed"]), (200, &json!(false)), "another tenant's key is another");
    assert_eq!(call(client, "KEY-1", &json!({"path": "/anything/cased"})).await?.json()["replayed"], false);

    // A call that fails is answered again as well, and not tried again.
    let failing = json!({"path": "/anything/../climbs"});
    let failed = call(client, "key-2", &failing).await?;
    assert!(failed.status >= 400, "{}", failed.text());
    assert_eq!(call(client, "key-2", &failing).await?.body, failed.body);

    // Two at once: one runs, the other is told so or gets its answer.
    let held = json!({"path": "/anything/hold-both"});
    let (one, other) = tokio::join!(call(client, "key-3", &held), async {
        site.arrived("hold-both").await?;
        let other = call(client, "key-3", &held).await;
        site.let_go();
        other
    });
    let (one, other) = (one?, other?);
    assert_eq!((one.status, other.code().as_str()), (200, "idempotency_in_flight"), "{}", other.text());
    assert_eq!(call(client, "key-3", &held).await?.json()["call"], one.json()["call"]);
    assert_eq!(sent(&site, "hold-both"), 1);

    site.server.stop()?;
    for name in std::fs::read_dir(site.server.home())? {
        let path = name?.path();
        let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
        assert!(!path.is_file() || !holds(&std::fs::read(&path)?), "{} holds an answer in the open", path.display());
    }
    site.server.restart()?;
    let client = site.server.public().bearing(&acme.tenant.token);
    let kept = call(&client, "key-1", &arguments).await?;
    assert_eq!(
        (&kept.json()["replayed"], &kept.json()["result"]),
        (&json!(true), &first.json()["result"]),
        "over a restart"
    );
    assert_eq!(sent(&site, "once"), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_key_whose_call_was_killed_is_never_run_again() -> anyhow::Result<()> {
    // If this failed, the retry after a crash would do a second time what had been done.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let held = json!({"path": "/anything/hold-killed"});
    let pid = site.server.pid();
    let (cut, killed) = tokio::join!(call(&holder.tenant.client, "key", &held), async {
        site.arrived("hold-killed").await?;
        anyhow::Ok(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status()?.success())
    });
    assert!(cut.is_err() && killed?);
    site.server.kill()?;
    site.let_go();
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    for _ in 0..3 {
        let unknown = call(&client, "key", &held).await?;
        assert_eq!((unknown.status, unknown.code().as_str()), (409, "outcome_unknown"), "{}", unknown.text());
        assert!(unknown.text().contains("find out at the upstream"), "{}", unknown.text());
    }
    assert_eq!(sent(&site, "hold-killed"), 1, "it is never run again");
    assert_eq!(call(&client, "another", &held).await?.status, 200, "under a new key it is");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_its_answer_leave_the_store_after_a_day() -> anyhow::Result<()> {
    // If this failed, the store would grow by up to 4 MiB with every call that has a key, for good.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let arguments = json!({"path": "/anything/aged"});
    assert_eq!(call(&holder.tenant.client, "key", &arguments).await?.status, 200);
    site.server.make_keys_older(23)?;
    let client = site.server.public().bearing(&holder.tenant.token);
    assert_eq!(call(&client, "key", &arguments).await?.json()["replayed"], true, "within its day it stays");
    site.server.make_keys_older(2)?;
    tokio::time::timeout(std::time::Duration::from_secs(20), async {
        while site.server.stored_keys()? > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    })
    .await??;
    let client = site.server.public().bearing(&holder.tenant.token);
    assert_eq!(call(&client, "key", &arguments).await?.json()["replayed"], false);
    assert_eq!(sent(&site, "aged"), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_a_caller_who_hangs_up_finds_the_answer_under_his_key() -> anyhow::Result<()> {
    // If this failed, a caller whose connection broke could never learn what became of his call.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let held = json!({"path": "/anything/hold-gone"});
    {
        let gone = call(&holder.tenant.client, "key", &held);
        tokio::select! {
            answer = gone => anyhow::bail!("it was not held: {:?}", answer?),
            arrived = site.arrived("hold-gone") => arrived?,
        }
    }
    let while_running = call(&holder.tenant.client, "key", &held).await?;
    assert_eq!(while_running.code(), "idempotency_in_flight", "{}", while_running.text());
    site.let_go();
    let answer = loop {
        let answer = call(&holder.tenant.client, "key", &held).await?;
        if answer.code() != "idempotency_in_flight" {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((answer.status, &answer.json()["replayed"]), (200, &json!(true)), "{}", answer.text());
    assert_eq!(sent(&site, "hold-gone"), 1);
    Ok(())
}
