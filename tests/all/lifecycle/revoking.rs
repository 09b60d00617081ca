//! Revoking anything while a call that holds it waits for its upstream: the call is stopped, the answer says so,
//! nothing of it comes back, not over a restart and not out of an older backup.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Client;
use keybearer_tests::Holder;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::assert_audited;

/// What is revoked, who may, and what a caller hears afterwards.
struct Case {
    what: &'static str,
    path: String,
    body: Value,
    by_operator: bool,
    /// What the call hears that was under way, and the next one.
    heard: [&'static str; 2],
}

fn case(what: &'static str, by_operator: bool, path: &str, heard: [&'static str; 2]) -> Case {
    Case { what, path: path.to_owned(), body: json!({}), by_operator, heard }
}

async fn revoke(site: &Site, administrator: &Client, case: &Case) -> anyhow::Result<Answer> {
    let client = if case.by_operator { site.server.operator() } else { administrator.clone() };
    match case.what {
        "grant" => client.send("DELETE", &case.path, &[], Vec::new()).await,
        _ => client.post(&case.path, &case.body).await,
    }
}

async fn issue(holder: &Holder, label: &str) -> anyhow::Result<(String, String)> {
    let new = json!({"label": label, "scopes": ["call"], "life_s": 600});
    let issued = holder.tenant.client.post("/v1/tokens", &new).await?.json();
    let text = |field: &str| issued[field].as_str().map(str::to_owned);
    Ok((text("id").expect("an id"), text("text").expect("a token")))
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_r11_whatever_is_revoked_stops_the_calls_that_hold_it_and_says_how_many() -> anyhow::Result<()> {
    // If this failed, an operator who pulls a switch would not know whether anything still runs.
    let mut site = Site::start().await?;
    let digest = site.server.operator().get("/v1/packages").await?.json()["items"][0].clone();
    let (digest, signer) = (digest["digest"].as_str().expect("a digest"), digest["signer"].as_str().expect("a key"));
    let bystander = site.holder("bystander").await?;
    let mut gone = Vec::new();
    for (round, what) in
        ["credential", "grant", "token", "principal", "tenant", "tool", "package", "signer"].into_iter().enumerate()
    {
        let holder = site.holder(&format!("holder-{round}")).await?;
        let (token, text) = issue(&holder, "agents").await?;
        let agent = site.server.public().bearing(&text);
        let case = match what {
            "credential" => {
                let path = format!("/v1/credentials/{}/revoke", holder.credential);
                case(what, false, &path, ["denied", "credential_unusable"])
            }
            "grant" => case(what, false, &format!("/v1/grants/{}", holder.grant), ["denied", "grant_missing"]),
            "token" => case(what, false, &format!("/v1/tokens/{token}/revoke"), ["revoked", "unauthenticated"]),
            "principal" => Case {
                body: json!({"principal": "agents"}),
                ..case(what, false, "/v1/principals/revoke", ["revoked", "unauthenticated"])
            },
            "tenant" => {
                let path = format!("/v1/tenants/{}/suspend", holder.tenant.id);
                case(what, true, &path, ["revoked", "unauthenticated"])
            }
            "tool" => case(what, true, "/v1/tools/http-get.get/revoke", ["revoked", "not_found"]),
            "package" => case(what, true, &format!("/v1/packages/{digest}/withdraw"), ["revoked", "not_found"]),
            _ => case(what, true, &format!("/v1/signers/{signer}/revoke"), ["revoked", "not_found"]),
        };
        let target = format!("/anything/{what}/hold");
        let call = json!({"tool": "http-get.get", "arguments": {"path": target}});
        let (heard, revoked) = tokio::join!(agent.post("/v1/calls", &call), async {
            site.arrived(&target).await?;
            revoke(&site, &holder.tenant.client, &case).await
        });
        let (heard, revoked) = (heard?, revoked?);
        assert_eq!(revoked.status, 200, "{what}: {}", revoked.text());
        let said = revoked.json();
        let calls = u64::from(!matches!(what, "credential" | "grant"));
        assert_eq!(said["what"], what, "{said}");
        assert_eq!(said["calls_cancelled"], calls, "{said}");
        assert_eq!(said["dispatches_cancelled"], 1, "{said}");
        assert_eq!(heard.code(), case.heard[0], "{what}: {}", heard.text());
        let arrived = site.upstream.recorded().len();
        assert_eq!(agent.post("/v1/calls", &call).await?.code(), case.heard[1], "{what}: the next call");
        assert_eq!(site.upstream.recorded().len(), arrived, "{what}: nothing is sent afterwards");
        if what == "tool" {
            // The others need it back.
            let restored = site.server.operator().post("/v1/tools/http-get.get/restore", &json!({})).await?;
            assert_eq!(restored.status, 204, "{}", restored.text());
        } else if what == "package" {
            let bundle = site.built.bundle("http-get")?;
            let octets = [("content-type", "application/octet-stream")];
            let again =
                site.server.operator().send("POST", "/v1/packages?allow_rollback=true", &octets, bundle).await?;
            assert_eq!(again.status, 201, "{}", again.text());
        } else {
            gone.push((what, text, case.heard[1]));
        }
        if what != "signer" {
            assert_eq!(bystander.get("/anything").await?.status, 200, "{what}: another tenant's goes on");
        }
    }
    assert_audited(&site)?;
    site.server.stop()?;
    site.server.restart()?;
    for (what, text, code) in gone {
        let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/later"}});
        // The signer's revocation hides every package by now.
        let expected = if code == "unauthenticated" { code } else { "not_found" };
        let heard = site.server.public().bearing(&text).post("/v1/calls", &call).await?;
        assert_eq!(heard.code(), expected, "{what}: after a restart: {}", heard.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_whatever_opened_a_run_takes_it_along_with_what_is_within_it_and_says_how_many() -> anyhow::Result<()> {
    // If this failed, an agent that was thrown out would go on by the runs that it had opened before.
    let site = Site::start().await?;
    let bystander = site.holder("bystander").await?;
    for what in ["token", "principal", "agent"] {
        let holder = site.holder(&format!("holder-{what}")).await?;
        let (token, text) = issue(&holder, "agents").await?;
        let agent = site.server.public().bearing(&text);
        let run = agent.post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
        let in_run = site.server.public().bearing(run["token"].as_str().expect("a token"));
        let within = in_run.post("/v1/runs", &json!({"agent": "helper"})).await?.json();
        let in_sub_run = site.server.public().bearing(within["token"].as_str().expect("a token"));
        let other = holder.tenant.client.post("/v1/runs", &json!({"agent": "other"})).await?.json();
        let target = format!("/anything/{what}/hold");
        let call = json!({"tool": "http-get.get", "arguments": {"path": target}});
        let (heard, revoked) = tokio::join!(in_sub_run.post("/v1/calls", &call), async {
            site.arrived(&target).await?;
            let (path, body) = match what {
                "token" => (format!("/v1/tokens/{token}/revoke"), json!({})),
                "principal" => ("/v1/principals/revoke".to_owned(), json!({"principal": "agents"})),
                _ => ("/v1/agents/revoke".to_owned(), json!({"agent": "clerk"})),
            };
            holder.tenant.client.post(&path, &body).await
        });
        let (heard, said) = (heard?, revoked?.json());
        assert_eq!((heard.status, heard.code().as_str()), (409, "revoked"), "{what}: {}", heard.text());
        let counts = ["runs_ended", "calls_cancelled", "dispatches_cancelled"].map(|count| said[count].as_u64());
        assert_eq!(counts, [Some(2), Some(1), Some(1)], "{what}: {said}");
        for (run, state) in [(&run, "revoked"), (&within, "revoked"), (&other, "open")] {
            let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
            assert_eq!(holder.tenant.client.get(&path).await?.json()["state"], state, "{what}");
        }
        let again = agent.post("/v1/runs", &json!({"agent": "clerk"})).await?;
        let expected = if what == "agent" { "revoked" } else { "unauthenticated" };
        assert_eq!(again.code(), expected, "{what}: none is opened afterwards: {}", again.text());
        let theirs = bystander.tenant.client.post("/v1/runs", &json!({"agent": "clerk"})).await?;
        assert_eq!(theirs.status, 201, "{what}: another tenant's of the same name: {}", theirs.text());
        if what == "agent" {
            assert_eq!(agent.post("/v1/runs", &json!({"agent": "helper"})).await?.status, 201, "another agent");
            let restored = holder.tenant.client.post("/v1/agents/restore", &json!({"agent": "clerk"})).await?;
            assert_eq!(restored.status, 204, "{}", restored.text());
            assert_eq!(agent.post("/v1/runs", &json!({"agent": "clerk"})).await?.status, 201);
        }
    }
    assert_audited(&site)
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_what_was_minted_for_a_revoked_tokens_run_is_given_back_before_the_answer_that_counts_it()
-> anyhow::Result<()> {
    // If this failed, an access token would outlive whoever had it minted, and the answer would not say so.
    let authority = Authority::new()?;
    let minted = canary("minted-");
    let answer = minted.clone();
    let login = Upstream::start(&authority, &["login.example.com"], move |request: Recorded| {
        let token = json!({"access_token": answer, "token_type": "Bearer", "expires_in": 600});
        let reply = if request.target == "/oauth/revoke" { json!({}) } else { token };
        std::future::ready(Reply::json(200, &reply))
    })
    .await?;
    let site = Site::start_by(authority, ServerOptions::default().pin("login.example.com", &login)).await?;
    let tenant = site.server.tenant("acme").await?;
    let kind = json!({
        "kind": "oauth_client_credentials", "token_url": "https://login.example.com/oauth/token",
        "revocation_url": "https://login.example.com/oauth/revoke", "client_id": "acme-client",
    });
    let grant = json!({"package": "http-get", "slot": "site"});
    tenant.grant_as(kind, &canary("client-secret-"), grant).await?;
    let issued = tenant.client.post("/v1/tokens", &json!({"label": "agents", "scopes": ["call"]})).await?.json();
    let (token, text) = (issued["id"].as_str().expect("an id"), issued["text"].as_str().expect("a token"));
    let run = site.server.public().bearing(text).post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
    let in_run = site.server.public().bearing(run["token"].as_str().expect("a token"));
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    assert_eq!(in_run.post("/v1/calls", &call).await?.status, 200);
    let said = tenant.client.post(&format!("/v1/tokens/{token}/revoke"), &json!({})).await?.json();
    assert_eq!((&said["runs_ended"], &said["minted_revoked"]), (&json!(1), &json!(1)), "{said}");
    let given_back: Vec<_> = login.recorded().into_iter().filter(|request| request.target == "/oauth/revoke").collect();
    assert_eq!(given_back.len(), 1, "once");
    assert!(String::from_utf8_lossy(&given_back[0].body).contains(&minted), "the very token");
    Ok(())
}

#[tokio::test]
async fn c08_a_store_from_before_a_token_or_a_grant_was_revoked_is_refused() -> anyhow::Result<()> {
    // If this failed, restoring a backup would bring a stolen token back to life.
    for what in ["token", "grant", "principal"] {
        let mut site = Site::start().await?;
        let holder = site.holder("acme").await?;
        let (token, _) = issue(&holder, "stolen").await?;
        site.server.stop()?;
        let home = site.server.home();
        let files = ["store.db", "store.db.guard"].map(|name| home.join(name));
        let backup: Vec<_> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
        site.server.restart()?;
        let client = site.server.public().bearing(&holder.tenant.token);
        let revoked = match what {
            "token" => client.post(&format!("/v1/tokens/{token}/revoke"), &json!({})).await?,
            "grant" => client.send("DELETE", &format!("/v1/grants/{}", holder.grant), &[], Vec::new()).await?,
            _ => client.post("/v1/principals/revoke", &json!({"principal": "spiffe://acme/agent"})).await?,
        };
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        site.server.stop()?;
        let newer: Vec<_> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
        for (file, bytes) in files.iter().zip(&backup) {
            std::fs::write(file, bytes)?;
        }
        let refused = site.server.restart().err().ok_or_else(|| anyhow::anyhow!("{what}: an older store starts"))?;
        assert!(format!("{refused:#}").contains("older than the ledger"), "{what}: {refused:#}");
        for (file, bytes) in files.iter().zip(&newer) {
            std::fs::write(file, bytes)?;
        }
        site.server.restart()?;
    }
    Ok(())
}

#[tokio::test]
async fn r15_the_audit_fails_on_a_use_that_was_planted() -> anyhow::Result<()> {
    // If this failed, the detector would be quiet whatever happens.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    holder.rotate(&canary("next-")).await?;
    assert_audited(&site)?;
    let ledger = site.ledger()?;
    let of_the_old = |record: &&Value| {
        let kind = record["kind"].as_str();
        record["epoch"] == 1 && matches!(kind, Some("dispatch_intended" | "dispatch_closed"))
    };
    let planted: Vec<_> = ledger.iter().chain(ledger.iter().filter(of_the_old)).map(Value::to_string).collect();
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("00000000000000000001.jsonl"), planted.join("\n") + "\n")?;
    let folder = folder.path().to_str().expect("a path");
    let arguments = ["ledger", "audit", "--folder", folder, "--anchor", folder, "--json"];
    let (is_clean, audited, error) = site.server.cli(&arguments, b"")?;
    assert!(!is_clean, "{audited} {error}");
    let audited: Value = serde_json::from_str(&audited)?;
    assert_eq!(audited["findings"][0]["misuse"], "stale_version", "{audited}");
    assert_eq!(audited["findings"].as_array().map(Vec::len), Some(1), "{audited}");
    Ok(())
}
