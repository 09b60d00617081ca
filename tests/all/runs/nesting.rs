//! Runs within runs: a sub-agent never has more than who called it, never lasts longer, and the ledger knows
//! whose sub-agent it is.

use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

use super::of_run;
use super::open;
use super::shown;

#[tokio::test(flavor = "multi_thread")]
async fn t15_a_sub_run_is_never_wider_than_its_parent() -> anyhow::Result<()> {
    // If this failed, an agent could give a helper what it does not have itself, and use it through the helper.
    let site = Site::start().await?;
    site.server.publish("echo").await?;
    let holder = site.holder("acme").await?;
    let by = &holder.tenant.client;
    let parent =
        open(&site, by, json!({"agent": "parent", "tools": ["echo", "http-get.get"], "life_ms": 600_000})).await?;
    holder.tenant.allow("echo").await?;
    for wider in [json!(["http-get"]), json!(["echo", "stripe"]), json!(["stripe.refund"])] {
        let refused = parent.client.post("/v1/runs", &json!({"agent": "child", "tools": wider})).await?;
        assert_eq!(refused.code(), "forbidden", "{wider}: {}", refused.text());
    }
    let child = open(&site, &parent.client, json!({"agent": "child", "life_ms": 86_000_000})).await?;
    let (parent_shown, child_shown) = (shown(by, &parent.id).await?, shown(by, &child.id).await?);
    assert_eq!(child_shown["tools"], parent_shown["tools"], "what it does not narrow it has as its parent");
    assert_eq!(child_shown["deadline"], parent_shown["deadline"], "and not longer");
    assert_eq!(child_shown["grants"], json!([holder.grant]));
    assert_eq!(child_shown["parents"], json!([parent.id]));
    assert_eq!(child.get("/anything").await?.status, 200);
    assert_eq!(
        child.call("echo.echo", json!({"text": "x"})).await?.code(),
        "grant_missing",
        "its parent has it not either"
    );
    // A grant that was given after the parent was opened does not come in by a sub-run.
    let late = open(&site, &parent.client, json!({"agent": "late", "tools": ["echo.echo"]})).await?;
    assert_eq!(late.call("echo.echo", json!({"text": "x"})).await?.code(), "grant_missing");
    assert_eq!(late.get("/anything").await?.status, 404);

    // A parent sees and ends what it opened; a child neither its parent nor its siblings.
    assert_eq!(parent.client.get(&format!("/v1/runs/{}", child.id)).await?.status, 200);
    for other in [&parent.id, &late.id, "run_aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
        for path in [format!("/v1/runs/{other}"), "/v1/runs/nothing".to_owned()] {
            assert_eq!(child.client.get(&path).await?.code(), "forbidden");
        }
        let refused = child.client.post(&format!("/v1/runs/{other}/abort"), &json!({})).await?;
        assert_eq!(refused.code(), "forbidden");
    }
    let ended = parent.act("end").await?;
    assert_eq!(ended["runs"], 3, "those within it end with it");
    for run in [&parent, &child, &late] {
        assert_eq!(run.get("/anything").await?.status, 401);
    }
    assert_eq!(site.upstream.recorded().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_the_whole_chain_of_a_sub_runs_call_is_in_the_ledger() -> anyhow::Result<()> {
    // If this failed, nobody could say on whose behalf a sub-agent used a credential.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let first = open(&site, &holder.tenant.client, json!({"agent": "planner"})).await?;
    let second = open(&site, &first.client, json!({"agent": "researcher"})).await?;
    let third = open(&site, &second.client, json!({"agent": "reader"})).await?;
    assert_eq!(third.get("/anything").await?.status, 200);
    let ledger = site.ledger()?;
    let dispatch = of_run(&ledger, "dispatch_intended", &third.id)[0];
    let mut chain = vec![dispatch["run"].as_str().unwrap_or_default().to_owned()];
    // As an auditor walks: from the record of a call or a dispatch to the run's opening, and up.
    loop {
        let run = chain.last().expect("there is one").clone();
        let opened = of_run(&ledger, "run_opened", &run);
        assert_eq!(opened.len(), 1, "{run}");
        let parents = opened[0]["parents"].as_array().cloned().unwrap_or_default();
        match parents.last().and_then(Value::as_str) {
            Some(parent) => chain.push(parent.to_owned()),
            None => break,
        }
    }
    assert_eq!(chain, [third.id.clone(), second.id.clone(), first.id.clone()]);
    let opened = of_run(&ledger, "run_opened", &third.id)[0];
    assert_eq!(opened["parents"], json!([first.id, second.id]), "and at one look");
    assert_eq!(opened["grants"], json!([holder.grant]));
    assert_eq!(opened["principal"], dispatch["principal"], "who opened the first of them answers for all");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn t07_runs_of_another_tenant_are_not_there() -> anyhow::Result<()> {
    // If this failed, a tenant could stop another's agents, or read what they are called and may do.
    let site = Site::start().await?;
    let (acme, globex) = (site.holder("acme").await?, site.holder("globex").await?);
    let theirs = open(&site, &globex.tenant.client, json!({"agent": "theirs"})).await?;
    let by = &acme.tenant.client;
    for what in ["", "/end", "/abort", "/checkpoint"] {
        let ask = async |id: &str| {
            let path = format!("/v1/runs/{id}{what}");
            if what.is_empty() { by.get(&path).await } else { by.post(&path, &json!({})).await }
        };
        let (foreign, missing) = (ask(&theirs.id).await?, ask("run_aaaaaaaaaaaaaaaaaaaaaaaaaa").await?);
        assert_eq!((foreign.status, &foreign.body), (404, &missing.body), "{what}");
    }
    assert!(!by.get("/v1/runs").await?.text().contains(&theirs.id));
    let answer = theirs.get("/anything").await?;
    assert_eq!(answer.status, 200, "nothing happened to it: {}", answer.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn g09_depth_and_number_of_runs_are_bounded() -> anyhow::Result<()> {
    // If this failed, one agent in a loop could open runs until the tenant, or the server, has no room.
    let limits = "[limits.runs]\nopen = 5\nsub_runs = 3\ndepth = 2";
    let site = Site::start_with(ServerOptions::default().with(limits)).await?;
    let holder = site.holder("acme").await?;
    let other = site.holder("globex").await?;
    let by = &holder.tenant.client;
    let first = open(&site, by, json!({"agent": "1"})).await?;
    let second = open(&site, &first.client, json!({"agent": "2"})).await?;
    let third = open(&site, &second.client, json!({"agent": "3"})).await?;
    let deeper = third.client.post("/v1/runs", &json!({"agent": "4"})).await?;
    assert_eq!((deeper.code().as_str(), &deeper.json()["limit"]["name"]), ("forbidden", &json!("runs.depth")));
    open(&site, &first.client, json!({"agent": "5"})).await?;
    let more = second.client.post("/v1/runs", &json!({"agent": "6"})).await?;
    assert_eq!((more.code().as_str(), &more.json()["limit"]["name"]), ("rate_limited", &json!("runs.sub_runs")));
    let last = open(&site, by, json!({"agent": "7"})).await?;
    let more = by.post("/v1/runs", &json!({"agent": "8"})).await?;
    assert_eq!((more.code().as_str(), &more.json()["limit"]["name"]), ("rate_limited", &json!("runs.open")));
    open(&site, &other.tenant.client, json!({"agent": "anothers"})).await?;
    last.act("end").await?;
    open(&site, by, json!({"agent": "9"})).await?;
    Ok(())
}
