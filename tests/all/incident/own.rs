//! A tenant's own incidents: its administrator stops what is its, is told what it was exposed to, and nobody else's
//! things are touched or shown.

use keybearer_tests::Answer;
use keybearer_tests::Client;
use keybearer_tests::Holder;
use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

use super::ROOT_CAUSE;
use super::close;
use super::id;
use super::open;

const OWN: &str = "/v1/own/incidents";

async fn open_own(client: &Client, subject: Value) -> anyhow::Result<Value> {
    let opened = client.post(OWN, &subject).await?;
    anyhow::ensure!(opened.status == 201, "{}", opened.text());
    Ok(opened.json())
}

async fn close_own(client: &Client, id: &str) -> anyhow::Result<Answer> {
    client.post(&format!("{OWN}/{id}/close"), &json!({"root_cause": ROOT_CAUSE})).await
}

/// A token of this tenant, and its id.
async fn issue(holder: &Holder, label: &str, scopes: &[&str]) -> anyhow::Result<(String, String)> {
    let new = json!({"label": label, "scopes": scopes, "life_s": 600});
    let issued = holder.tenant.client.post("/v1/tokens", &new).await?.json();
    let text = |field: &str| issued[field].as_str().map(str::to_owned);
    Ok((text("id").expect("an id"), text("text").expect("a token")))
}

fn call(path: &str) -> Value {
    json!({"tool": "http-get.get", "arguments": {"path": path}})
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_t07_a_tenant_stops_whatever_is_its_own_until_it_says_how_it_came_about() -> anyhow::Result<()> {
    // If this failed, a tenant that finds its token in a public place would have to wait for the operator.
    let site = Site::start().await?;
    let bystander = site.holder("bystander").await?;
    for what in ["credential", "grant", "run", "token", "principal", "tool"] {
        let holder = site.holder(&format!("holder-{what}")).await?;
        let (token, text) = issue(&holder, "agents", &["call"]).await?;
        let agent = site.server.public().bearing(&text);
        let run = agent.post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
        let in_run = site.server.public().bearing(run["token"].as_str().expect("a token"));
        let within = in_run.post("/v1/runs", &json!({"agent": "helper"})).await?.json();
        let named = match what {
            "credential" => json!(holder.credential),
            "grant" => json!(holder.grant),
            "run" => run["id"].clone(),
            "token" => json!(token),
            "principal" => json!("agents"),
            _ => json!("http-get.get"),
        };
        let target = format!("/anything/{what}/hold");
        let held = call(&target);
        let (heard, incident) = tokio::join!(in_run.post("/v1/calls", &held), async {
            site.arrived(&target).await?;
            open_own(&holder.tenant.client, json!({what: named, "note": "seen in a paste"})).await
        });
        let (heard, incident) = (heard?, incident?);
        assert_eq!((heard.status, heard.code().as_str()), (409, "revoked"), "{what}: {}", heard.text());
        assert_eq!(incident["counts"]["calls_cancelled"], 1, "{what}: {incident}");
        assert_eq!(incident["counts"]["runs_ended"], 2, "{what}: the run and the one within it: {incident}");
        assert!(incident["own"] == true && incident["contained"].is_u64(), "{incident}");
        assert_eq!(in_run.post("/v1/calls", &call("/anything")).await?.code(), "unauthenticated", "{what}: its token");
        let shown = within["id"].as_str().expect("an id");
        let shown = holder.tenant.client.get(&format!("/v1/runs/{shown}")).await?.json();
        assert_eq!(shown["state"], "revoked", "{what}: {shown}");
        assert_eq!(bystander.get("/anything").await?.status, 200, "{what}: another tenant's goes on");
        let (held, other) = heard_while_open(what);
        assert_eq!(agent.post("/v1/calls", &call("/anything")).await?.code(), held, "{what}: its token's next call");
        assert_eq!(holder.get("/anything").await?.code(), other, "{what}: another principal's");
        assert_reported(&site, &holder, what, &incident).await?;
        assert_eq!(close(&site.server, id(&incident), "no idea").await?.code(), "malformed_request");
        let closed = close_own(&holder.tenant.client, id(&incident)).await?;
        assert_eq!((closed.status, &closed.json()["root_cause"]), (200, &json!(ROOT_CAUSE)), "{}", closed.text());
        assert_eq!(holder.get("/anything").await?.code(), heard_when_closed(what), "{what}: when it is closed");
    }
    let listed = site.server.operator().get("/v1/incidents").await?.json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(6), "the operator sees them all: {listed}");
    assert_eq!(bystander.tenant.client.get(OWN).await?.json()["items"], json!([]), "nobody else does");
    let (is_clean, audited, error) = site.server.cli(&["ledger", "audit", "--json"], b"")?;
    assert!(is_clean, "{audited} {error}");
    Ok(())
}

/// What the token of the agents hears while the incident is open, and what another of the tenant's.
fn heard_while_open(what: &str) -> (&'static str, &'static str) {
    match what {
        "credential" | "tool" => ("quarantined", "quarantined"),
        // Without the grant it is as if there never was one.
        "grant" => ("grant_missing", "grant_missing"),
        "run" => ("", ""),
        _ => ("unauthenticated", ""),
    }
}

fn heard_when_closed(what: &str) -> &'static str {
    match what {
        "credential" => "credential_unusable",
        "grant" => "grant_missing",
        _ => "",
    }
}

/// The report names the call that was stopped, and nothing that is not the tenant's.
async fn assert_reported(site: &Site, holder: &Holder, what: &str, incident: &Value) -> anyhow::Result<()> {
    let path = format!("{OWN}/{}/report", id(incident));
    let report = holder.tenant.client.get(&path).await?;
    assert_eq!(report.status, 200, "{}", report.text());
    let said = report.json();
    assert_eq!(said["uses"], 1, "{what}: {said}");
    assert_eq!(said["calls"][0]["dispatches"][0]["place"], format!("https://httpbin.org/anything/{what}/hold"));
    let all = site.server.operator().get(&format!("/v1/incidents/{}/report", id(incident))).await?.json();
    assert!(said["records"].as_u64() < all["records"].as_u64(), "how much others do is not shown: {said}");
    assert_eq!(said["calls"], all["calls"], "{what}");
    let page = holder.tenant.client.send("GET", &path, &[("accept", "text/html")], Vec::new()).await?;
    super::assert_well_formed(&page.text());
    for text in [report.text(), page.text()] {
        assert!(!text.contains(&holder.value), "no value is shown");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_t07_what_is_not_the_tenants_is_neither_stopped_nor_shown() -> anyhow::Result<()> {
    // If this failed, one tenant could stop another's tools, or lift what the operator put into quarantine.
    let site = Site::start().await?;
    let (mine, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &mine.tenant.client;
    let run = other.tenant.client.post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
    let (token, _) = issue(&other, "agents", &["call"]).await?;
    let foreign = [
        ("credential", other.credential.as_str()),
        ("grant", &other.grant),
        ("run", run["id"].as_str().expect("an id")),
        ("token", &token),
        // Published, and not granted.
        ("tool", "echo.echo"),
    ];
    site.server.publish("echo").await?;
    for (what, theirs) in foreign {
        let nobodys = match theirs.split_once('_') {
            Some((prefix, body)) => format!("{prefix}_{}", "a".repeat(body.len())),
            None => "nothing.here".to_owned(),
        };
        let answers =
            [client.post(OWN, &json!({what: theirs})).await?, client.post(OWN, &json!({what: nobodys})).await?];
        assert_eq!(answers[0].code(), "not_found", "{what}: {}", answers[0].text());
        assert_eq!(answers[0].body, answers[1].body, "{what}: as if it did not exist");
    }
    for wrong in [
        json!({}),
        json!({"package": "http-get"}),
        json!({"tenant": mine.tenant.id}),
        json!({"credential": mine.credential, "grant": mine.grant}),
        json!({"principal": " "}),
    ] {
        assert!(matches!(client.post(OWN, &wrong).await?.status, 400 | 403), "{wrong}");
    }
    assert_eq!(other.get("/anything").await?.status, 200, "nothing of it was stopped");
    for (what, named, scope) in [
        ("credential", &mine.credential, "credentials"),
        ("grant", &mine.grant, "grants"),
        ("principal", &"agents".to_owned(), "tokens"),
        ("tool", &"http-get.get".to_owned(), "grants"),
    ] {
        let others: Vec<_> = ["call", "credentials", "grants", "tokens", "audit", "runs"]
            .into_iter()
            .filter(|own| *own != scope)
            .collect();
        let (_, text) = issue(&mine, "narrow", &others).await?;
        let refused = site.server.public().bearing(&text).post(OWN, &json!({what: named})).await?;
        assert_eq!(refused.code(), "forbidden", "{what}: {}", refused.text());
    }
    let confined =
        json!({"label": "confined", "scopes": ["credentials", "audit"], "packages": ["echo"], "life_s": 600});
    let confined = client.post("/v1/tokens", &confined).await?.json();
    let confined = site.server.public().bearing(confined["text"].as_str().expect("a token"));
    assert_eq!(confined.post(OWN, &json!({"credential": mine.credential})).await?.code(), "forbidden");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_what_the_operator_opened_is_shown_to_its_tenant_and_is_not_its_to_close() -> anyhow::Result<()> {
    // If this failed, a tenant whose administrator was phished could lift what the operator put into quarantine.
    let site = Site::start().await?;
    let (mine, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &mine.tenant.client;
    let note = "the operator's own words";
    let incident = open(&site.server, json!({"credential": mine.credential, "note": note})).await?;
    let path = format!("{OWN}/{}", id(&incident));
    let shown = client.get(&path).await?;
    assert!(shown.status == 200 && !shown.text().contains(note), "{}", shown.text());
    assert_eq!(close_own(client, id(&incident)).await?.code(), "conflict", "the operator's is his to close");
    for path in [path.clone(), format!("{path}/report")] {
        assert_eq!(other.tenant.client.get(&path).await?.code(), "not_found");
    }
    assert_eq!(close_own(&other.tenant.client, id(&incident)).await?.code(), "not_found");
    assert_eq!(close(&site.server, id(&incident), ROOT_CAUSE).await?.status, 200);

    let own = open_own(&other.tenant.client, json!({"credential": other.credential})).await?;
    let taken_over = open(&site.server, json!({"credential": other.credential})).await?;
    assert_eq!((&taken_over["id"], &taken_over["own"]), (&own["id"], &json!(false)), "{taken_over}");
    assert_eq!(close_own(&other.tenant.client, id(&own)).await?.code(), "conflict", "what the operator opened as well");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_a_tenants_command_line_opens_reports_and_closes_its_own() -> anyhow::Result<()> {
    // If this failed, whoever is woken at night would have to write HTTP requests by hand.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let file = site.server.folder().join("tenant.token");
    keybearer_tests::secret_file(&file, &holder.tenant.token)?;
    let file = file.to_str().expect("a path");
    let run = |arguments: &[&str]| {
        let all = [&["incident", "own"], arguments, &["--token-file", file]].concat();
        let (is_good, out, error) = site.server.cli(&all, b"")?;
        anyhow::ensure!(is_good, "{arguments:?}: {out} {error}");
        anyhow::Ok(out)
    };
    let (token, _) = issue(&holder, "agents", &["call"]).await?;
    let opened: Value = serde_json::from_str(&run(&["open", "--api-token", &token, "--note", "lost", "--json"])?)?;
    let tool: Value = serde_json::from_str(&run(&["open", "--tool", "http-get.get", "--json"])?)?;
    let listed = run(&["list"])?;
    assert!(listed.contains(&token) && listed.contains("tool http-get.get"), "{listed}");
    assert!(run(&["show", id(&opened)])?.contains("lost"));
    let said: Value = serde_json::from_str(&run(&["report", id(&opened)])?)?;
    assert_eq!(said["uses"], 0, "{said}");
    assert_eq!(holder.get("/anything").await?.code(), "quarantined");
    run(&["close", id(&tool), "--root-cause", ROOT_CAUSE])?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    run(&["close", id(&opened), "--root-cause", ROOT_CAUSE])?;
    Ok(())
}
