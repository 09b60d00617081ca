//! What an incident of a tenant and of a tool stops, over a restart, and what it leaves alone.

use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

use super::ROOT_CAUSE;
use super::close;
use super::id;
use super::open;
use super::report;

#[tokio::test(flavor = "multi_thread")]
async fn r11_an_incident_of_a_tool_stops_it_for_every_tenant_and_over_a_restart() -> anyhow::Result<()> {
    // If this failed, a tool that was found to be hostile would go on for somebody.
    let mut site = Site::start().await?;
    let holders = [site.holder("acme").await?, site.holder("globex").await?];
    let (first, second, incident) =
        tokio::join!(holders[0].get("/anything/a/hold"), holders[1].get("/anything/b/hold"), async {
            site.arrived("/a/hold").await?;
            site.arrived("/b/hold").await?;
            open(&site.server, json!({"tool": "http-get"})).await
        });
    let incident = incident?;
    assert_eq!((first?.code(), second?.code()), ("revoked".to_owned(), "revoked".to_owned()));
    assert_eq!(incident["counts"]["calls_cancelled"], 2, "{incident}");
    assert_eq!(incident["counts"]["credentials_revoked"], 0, "its credentials were never its to know");
    let again = open(&site.server, json!({"tool": "http-get"})).await?;
    assert_eq!(again["id"], incident["id"], "once more is the same incident");
    let narrower = open(&site.server, json!({"tool": "http-get.get"})).await?;
    site.server.stop()?;
    site.server.restart()?;
    let arrived = site.upstream.recorded().len();
    for holder in &holders {
        let client = site.server.public().bearing(&holder.tenant.token);
        let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
        assert_eq!(client.post("/v1/calls", &call).await?.code(), "quarantined", "after a restart");
    }
    assert_eq!(site.upstream.recorded().len(), arrived);
    let said = report(&site.server, id(&incident)).await?;
    assert_eq!((&said["calls_total"], &said["uses"]), (&json!(2), &json!(2)), "{said}");
    let of_tenants = said["credentials"].as_array().map(Vec::len);
    assert_eq!(of_tenants, Some(2), "the credentials that it was used with: {said}");
    assert_eq!(close(&site.server, id(&incident), ROOT_CAUSE).await?.status, 200);
    let client = site.server.public().bearing(&holders[0].tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    assert_eq!(client.post("/v1/calls", &call).await?.code(), "quarantined", "another incident is open");
    assert_eq!(close(&site.server, id(&narrower), ROOT_CAUSE).await?.status, 200);
    assert_eq!(client.post("/v1/calls", &call).await?.status, 200, "with the very credential of before");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_an_incident_of_a_tenant_revokes_all_that_is_its_and_nothing_beside() -> anyhow::Result<()> {
    // If this failed, whoever stole a tenant's administrator's token would keep a way in.
    let mut site = Site::start().await?;
    let (holder, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let (held, incident) = tokio::join!(holder.get("/anything/hold"), async {
        site.arrived("/hold").await?;
        open(&site.server, json!({"tenant": holder.tenant.id})).await
    });
    let incident = incident?;
    assert_eq!(held?.code(), "revoked");
    let counts = &incident["counts"];
    assert_eq!((&counts["credentials_revoked"], &counts["tokens_revoked"]), (&json!(1), &json!(1)), "{incident}");
    assert_eq!(holder.get("/anything").await?.code(), "unauthenticated");
    assert_eq!(other.get("/anything").await?.status, 200);
    site.server.stop()?;
    site.server.restart()?;
    let operator = site.server.operator();
    let activate = format!("/v1/tenants/{}/activate", holder.tenant.id);
    assert_eq!(operator.post(&activate, &json!({})).await?.code(), "conflict", "not while the incident is open");
    assert_eq!(close(&site.server, id(&incident), ROOT_CAUSE).await?.status, 200);
    let client = site.server.public().bearing(&holder.tenant.token);
    assert_eq!(client.get("/v1/tools").await?.code(), "unauthenticated", "a revoked token stays so");
    let issue = format!("/v1/tenants/{}/tokens", holder.tenant.id);
    let new = json!({"label": "a new one", "scopes": ["call"], "life_s": 600});
    let issued = operator.post(&issue, &new).await?.json();
    let client = site.server.public().bearing(issued["text"].as_str().expect("a token"));
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    assert_eq!(client.post("/v1/calls", &call).await?.code(), "credential_unusable");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_the_command_line_opens_reports_and_closes() -> anyhow::Result<()> {
    // If this failed, whoever is woken at night would have to write HTTP requests by hand.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything/one").await?.status, 200);
    let run = |arguments: &[&str]| {
        let (is_good, out, error) = site.server.cli(arguments, b"")?;
        anyhow::ensure!(is_good, "{arguments:?}: {out} {error}");
        anyhow::Ok(out)
    };
    let opened: Value = serde_json::from_str(&run(&[
        "incident",
        "open",
        "--credential",
        &holder.credential,
        "--note",
        "<b>bold</b> & \"quoted\"",
        "--json",
    ])?)?;
    let listed = run(&["incident", "list"])?;
    assert!(listed.contains(id(&opened)) && listed.contains(&holder.credential), "{listed}");
    assert!(run(&["incident", "show", id(&opened)])?.contains("open"));
    let said: Value = serde_json::from_str(&run(&["incident", "report", id(&opened)])?)?;
    assert_eq!(said["uses"], 1, "{said}");
    let file = site.server.folder().join("report.html");
    let name = file.to_str().expect("a path");
    run(&["incident", "report", id(&opened), "--html", name])?;
    let page = std::fs::read_to_string(&file)?;
    super::assert_well_formed(page.trim_end());
    assert!(page.contains("&lt;b&gt;bold") && !page.contains("<b>"), "what was noted is text");
    let (is_good, ..) = site.server.cli(&["incident", "close", id(&opened), "--root-cause", "no idea"], b"")?;
    assert!(!is_good, "that is no root cause");
    run(&["incident", "close", id(&opened), "--root-cause", ROOT_CAUSE])?;
    assert_eq!(holder.get("/anything/two").await?.code(), "credential_unusable");
    for wrong in
        [&["incident", "open"][..], &["incident", "open", "--tool", "no-such-tool"], &["incident", "show", "inc_x"]]
    {
        assert!(!site.server.cli(wrong, b"")?.0, "{wrong:?}");
    }
    Ok(())
}
