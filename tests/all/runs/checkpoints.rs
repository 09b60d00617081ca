//! Checkpoints: references only, good for one tenant, one run and one resumption.

use keybearer_tests::Client;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Traces;
use serde_json::Value;
use serde_json::json;

use super::of_run;
use super::open;

async fn resume(by: &Client, checkpoint: &Value) -> anyhow::Result<keybearer_tests::Answer> {
    by.post("/v1/runs/resume", checkpoint).await
}

fn call() -> Value {
    json!({"tool": "http-get.get", "arguments": {"path": "/anything"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_a_run_is_resumed_by_its_tenant_once_and_its_earlier_token_is_dead() -> anyhow::Result<()> {
    // If this failed, a checkpoint that lies around would be a second key to a run.
    let site = Site::start().await?;
    let (holder, stranger) = (site.holder("acme").await?, site.holder("globex").await?);
    let by = &holder.tenant.client;
    let run = open(&site, by, json!({"agent": "sleeper", "tools": ["http-get.get"]})).await?;
    assert_eq!(run.get("/anything").await?.status, 200);
    let (early, checkpoint) = (run.act("checkpoint").await?, run.act("checkpoint").await?);
    assert_eq!(checkpoint["checkpoint"]["run"], run.id.as_str());
    let foreign = resume(&stranger.tenant.client, &checkpoint).await?;
    assert_eq!((foreign.status, foreign.code().as_str()), (409, "checkpoint_refused"), "{}", foreign.text());
    assert_eq!(run.client.post("/v1/runs/resume", &checkpoint).await?.code(), "forbidden", "with the scope only");
    assert_eq!(run.get("/anything").await?.status, 200, "the run goes on until it is resumed");

    let resumed = resume(by, &checkpoint).await?;
    assert_eq!((resumed.status, &resumed.json()["id"]), (201, &json!(run.id)), "{}", resumed.text());
    assert_eq!((&resumed.json()["generation"], &resumed.json()["tools"]), (&json!(1), &json!(["http-get.get"])));
    let token = resumed.json()["token"].as_str().unwrap_or_default().to_owned();
    let after = site.server.public().bearing(&token);
    let answer = after.post("/v1/calls", &call()).await?;
    assert_eq!((answer.status, &answer.json()["run"]), (200, &json!(run.id)));
    assert_eq!(run.get("/anything").await?.status, 401, "the earlier token");
    for old in [&early, &checkpoint] {
        let replayed = resume(by, old).await?;
        assert_eq!((replayed.status, &replayed.body), (409, &foreign.body), "an earlier checkpoint");
    }
    let path = format!("/v1/runs/{}/checkpoint", run.id);
    let later = after.post(&path, &json!({})).await?.json();
    assert_eq!(by.post(&format!("/v1/runs/{}/end", run.id), &json!({})).await?.status, 200);
    let ended = resume(by, &later).await?;
    assert_eq!((ended.status, &ended.body), (409, &foreign.body), "a run that ended stays so");
    assert_eq!(after.post("/v1/calls", &call()).await?.status, 401);
    let ledger = site.ledger()?;
    let counts =
        ["run_opened", "run_checkpointed", "run_resumed", "run_ended"].map(|kind| of_run(&ledger, kind, &run.id).len());
    assert_eq!(counts, [1, 3, 1, 1]);
    let refused =
        ledger.iter().filter(|record| record["what"] == "access_refused" && record["subject"] == "resume_run");
    assert_eq!(refused.count(), 4, "each refusal is in the ledger");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_a_checkpoint_that_was_changed_anywhere_or_is_over_is_refused_alike() -> anyhow::Result<()> {
    // If this failed, whoever stores checkpoints could give an agent other tools, other grants or more time.
    let site = Site::start().await?;
    site.server.publish("echo").await?;
    let holder = site.holder("acme").await?;
    let by = &holder.tenant.client;
    let run = open(&site, by, json!({"agent": "sleeper", "tools": ["http-get.get"]})).await?;
    let brief = open(&site, by, json!({"agent": "brief", "life_ms": 1_200})).await?;
    let (good, over) = (run.act("checkpoint").await?, brief.act("checkpoint").await?);
    let issued = by
        .post("/v1/tokens", &json!({"label": "a", "scopes": ["call", "runs"], "packages": ["echo"], "life_s": 60}))
        .await?;
    let confined = site.server.public().bearing(issued.json()["text"].as_str().expect("a token"));
    let wider = resume(&confined, &good).await?;
    assert_eq!(wider.code(), "checkpoint_refused", "nobody gets a token that may more than his own");
    let mut changed = Vec::new();
    for (field, value) in [
        ("format", json!(2)),
        ("tenant", json!("ten_aaaaaaaaaaaaaaaaaaaaaaaaaa")),
        ("run", json!(brief.id)),
        ("parents", json!([brief.id])),
        ("agent", json!("other")),
        ("grants", json!([])),
        ("tools", json!(["http-get"])),
        ("tools", Value::Null),
        ("created", json!(1)),
        ("deadline", json!(u64::MAX >> 1)),
        ("issued", json!(1)),
        ("generation", json!(1)),
        ("generation", json!("0")),
        ("more", json!(1)),
    ] {
        let mut one = good.clone();
        one["checkpoint"][field] = value;
        changed.push(one);
    }
    let mac = good["mac"].as_str().unwrap_or_default().to_owned();
    for other in [mac.to_uppercase(), mac.chars().rev().collect(), String::new(), "0".repeat(64), format!("{mac}0")] {
        changed.push(json!({"checkpoint": good["checkpoint"], "mac": other}));
    }
    let mut without = good.clone();
    without["checkpoint"].as_object_mut().expect("an object").remove("deadline");
    changed.extend([
        without,
        json!({"checkpoint": good["checkpoint"]}),
        json!({}),
        json!({"tenant": holder.tenant.id}),
    ]);
    for one in &changed {
        let refused = resume(by, one).await?;
        assert_eq!((refused.status, &refused.body), (409, &wider.body), "{one}: {}", refused.text());
    }
    // Time itself is what is waited for.
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    let late = resume(by, &over).await?;
    assert_eq!((late.status, &late.body), (409, &wider.body), "a run past its deadline");
    assert_eq!(resume(by, &good).await?.status, 201, "and what was not changed is good");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_p7_no_form_of_a_credential_is_in_a_checkpoint() -> anyhow::Result<()> {
    // If this failed, the place where a platform keeps sleeping agents would be a store of its customers' keys.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let run = open(&site, &holder.tenant.client, json!({"agent": "sleeper"})).await?;
    // 256 bits in base64url, in which an underscore may stand.
    let secret_half = &run.token[run.token.len() - 43..];
    let traces = Traces::of(&[("the credential", &holder.value), ("the token", secret_half)])?;
    assert!(traces.find(format!("x{}x", holder.value).as_bytes()).is_some(), "it would be found");
    for path in ["/anything", "/anything/echoed"] {
        assert_eq!(run.get(path).await?.status, 200);
    }
    assert!(site.upstream.recorded()[0].header("authorization").is_some_and(|value| value.contains(&holder.value)));
    let path = format!("/v1/runs/{}/checkpoint", run.id);
    let json = run.client.post(&path, &json!({})).await?;
    let packed = run.client.send("POST", &path, &[("accept", "application/msgpack")], Vec::new()).await?;
    assert_eq!(packed.header("content-type"), Some("application/msgpack"));
    for answer in [&json, &packed] {
        assert_eq!(answer.status, 200);
        assert_eq!(traces.find(&answer.body), None);
    }
    let names: Vec<_> =
        json.json()["checkpoint"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let mut expected = [
        "format",
        "tenant",
        "run",
        "parents",
        "agent",
        "grants",
        "tools",
        "created",
        "deadline",
        "issued",
        "generation",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected, "and there is no other field");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c08_a_run_is_resumed_after_a_restart_and_on_another_machine_with_the_same_store_and_key() -> anyhow::Result<()>
{
    // If this failed, agents that sleep would not survive an update or a move.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let run = open(&site, &holder.tenant.client, json!({"agent": "sleeper"})).await?;
    let checkpoint = run.act("checkpoint").await?;
    let rotated = site.server.operator().post("/v1/master-key/rotate", &json!({})).await?;
    assert_eq!(rotated.status, 204, "{}", rotated.text());
    site.server.kill()?;
    site.server.restart()?;
    let by = site.server.public().bearing(&holder.tenant.token);
    let resumed = resume(&by, &checkpoint).await?;
    assert_eq!(resumed.status, 201, "after a crash, under another master key: {}", resumed.text());
    let checkpoint = by.post(&format!("/v1/runs/{}/checkpoint", run.id), &json!({})).await?.json();
    site.server.stop()?;

    let options = ServerOptions::default().pin("httpbin.org", &site.upstream);
    let mut other = Server::start(&site.built, &site.authority, options)?;
    // A machine of its own, with keys of its own: nothing of this tenant's is known to it.
    let stranger = other.tenant("acme").await?;
    assert_eq!(resume(&stranger.client, &checkpoint).await?.code(), "checkpoint_refused");
    other.stop()?;
    std::fs::remove_dir_all(other.home())?;
    let copied = std::process::Command::new("cp").arg("-a").arg(site.server.home()).arg(other.home()).status()?;
    anyhow::ensure!(copied.success(), "the folder is copied");
    other.restart()?;
    let by = other.public().bearing(&holder.tenant.token);
    let resumed = resume(&by, &checkpoint).await?;
    assert_eq!((resumed.status, &resumed.json()["generation"]), (201, &json!(2)), "{}", resumed.text());
    let client = other.public().bearing(resumed.json()["token"].as_str().unwrap_or_default());
    let answer = client.post("/v1/calls", &call()).await?;
    assert_eq!((answer.status, &answer.json()["run"]), (200, &json!(run.id)), "{}", answer.text());
    Ok(())
}
