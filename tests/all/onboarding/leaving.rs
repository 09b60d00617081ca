//! A tenant leaves.

use std::path::Path;

use anyhow::Context as _;
use keybearer_tests::Client;
use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

/// Every file under a folder, with its bytes.
fn files(folder: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(found)
}

fn place_of(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    bytes[from..].windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

/// So many bytes of a stored row, from some bytes after two texts that stand next to one another in it.
fn after(bytes: &[u8], texts: [&str; 2], skip: usize) -> anyhow::Result<Vec<u8>> {
    let pair = texts.map(str::as_bytes);
    let mut from = 0;
    while let Some(at) = place_of(bytes, pair[0], from) {
        let end = at + pair[0].len();
        if let Some(second) = place_of(&bytes[..bytes.len().min(end + pair[1].len() + 2)], pair[1], end) {
            let start = second + pair[1].len() + skip;
            return Ok(bytes[start..start + 24].to_vec());
        }
        from = end;
    }
    anyhow::bail!("{texts:?} do not stand in the store")
}

async fn keyed(client: &Client, key: &str, path: &str) -> anyhow::Result<keybearer_tests::Answer> {
    let call = json!({"tool": "http-get.get", "arguments": {"path": path}});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await
}

// If it failed, a customer that left would go on acting, or its keys would lie on our disks for somebody to find.
#[tokio::test(flavor = "multi_thread")]
async fn r10_p7_a_tenant_that_leaves_stops_at_once_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let (holder, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let (client, tenant) = (holder.tenant.client.clone(), holder.tenant.id.clone());
    let hook = client.post("/v1/hooks", &json!({"label": "vault"})).await?.json();
    let url = json!({"url": "https://notices.test/"}).to_string().into_bytes();
    let set = client.send("PUT", "/v1/notices", &[("content-type", "application/json")], url).await?;
    let run = client.post("/v1/runs", &json!({"agent": "leaving"})).await?;
    assert_eq!((hook["id"].is_string(), set.status, run.status), (true, 200, 201), "{}{}", set.text(), run.text());
    assert_eq!(keyed(&client, "kept", "/anything/kept").await?.status, 200);
    let running = tokio::spawn({
        let client = client.clone();
        async move { keyed(&client, "running", "/hold/leaving").await }
    });
    site.arrived("/hold/leaving").await?;

    let home = site.server.home();
    let stored: Vec<u8> =
        ["store.db", "store.db-wal"].iter().flat_map(|name| std::fs::read(home.join(name))).flatten().collect();
    // A row of `versions` goes on with the time, the fingerprint and the sealed value; one of `tenants` with the key.
    let version = format!("{}\u{1}current", holder.credential);
    let sealed =
        after(&stored, [&holder.credential, "current"], 6 + 32 + 8).or_else(|_| after(&stored, [&version, ""], 46));
    let needles = [sealed.context("sealed value")?, after(&stored, [&tenant, "acme"], 4)?];

    let answer = site.server.operator().send("DELETE", &format!("/v1/tenants/{tenant}"), &[], Vec::new()).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let left = answer.json();
    assert_eq!((&left["name"], &left["values_destroyed"]), (&json!("acme"), &json!(1)));
    assert_eq!((&left["stopped"]["calls_cancelled"], &left["stopped"]["runs_ended"]), (&json!(1), &json!(1)), "{left}");
    for (table, rows) in [("credentials", 1), ("versions", 1), ("grants", 1), ("hooks", 1), ("notices", 1), ("runs", 1)]
    {
        assert_eq!(left["rows_removed"][table], rows, "{table}: {left}");
    }
    assert!(
        left["rows_removed"]["tokens"].as_u64() >= Some(1) && left["rows_removed"]["idempotency"].as_u64() >= Some(1)
    );
    let residue = &left["residue"];
    assert_eq!(
        (&residue["rows"], &residue["unread"], &residue["found_in"]),
        (&json!(0), &json!(0), &json!([])),
        "{residue}"
    );
    assert!(residue["looked_for"].as_u64() >= Some(5) && residue["files"].as_u64() >= Some(3), "{residue}");
    let ended = running.await??;
    assert_ne!(ended.status, 200, "{}", ended.text());

    let gone = async |site: &Site| -> anyhow::Result<()> {
        let nobody = site.server.public().get("/v1/tools").await?;
        for token in [&holder.tenant.token, &run.json()["text"].as_str().unwrap_or_default().to_owned()] {
            let answer = site.server.public().bearing(token).get("/v1/tools").await?;
            assert_eq!((answer.status, &answer.body), (401, &nobody.body));
        }
        let tenants = site.server.operator().get("/v1/tenants").await?.text();
        assert!(!tenants.contains(&tenant) && !tenants.contains("acme"), "{tenants}");
        for (path, bytes) in files(&home)? {
            assert!(needles.iter().all(|needle| place_of(&bytes, needle, 0).is_none()), "{path} holds sealed bytes");
            let is_ledger = path.contains("/ledger/");
            let names = [holder.credential.as_str(), &holder.grant, hook["id"].as_str().unwrap_or_default()];
            let named = names.iter().find(|name| !is_ledger && place_of(&bytes, name.as_bytes(), 0).is_some());
            assert_eq!(named, None, "{path}");
        }
        Ok(())
    };
    gone(&site).await?;
    assert_eq!(other.get("/anything/other").await?.status, 200, "the other tenant's calls run");
    site.server.stop()?;
    site.server.restart()?;
    gone(&site).await?;

    // The same name is another tenant, which has nothing of the first.
    let again = site.server.tenant("acme").await?;
    assert_ne!(again.id, tenant);
    let credentials: Value = again.client.get("/v1/credentials").await?.json();
    assert_eq!(credentials["items"], json!([]));
    again.grant("http-get", "site", &canary("again-")).await?;
    let missing = site.server.operator().send("DELETE", &format!("/v1/tenants/{tenant}"), &[], Vec::new()).await?;
    assert_eq!(missing.code(), "not_found");
    Ok(())
}
