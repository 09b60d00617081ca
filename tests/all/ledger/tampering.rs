//! Whoever changes the ledger: `verify` finds it, and where it is the end that was changed, or the store
//! that was put back, the server does not start.

use std::path::Path;

use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;

use super::copy;
use super::segments;

type Mutation = (&'static str, fn(&mut Vec<String>));

/// What can be done to the lines of a segment.
const MUTATIONS: &[Mutation] = &[
    ("a version is edited", |lines| edit(lines, "\"version\":1", "\"version\":2")),
    ("a tenant is edited", |lines| edit(lines, "\"tenant\":\"ten_", "\"tenant\":\"ten_a")),
    ("a time is edited", |lines| edit(lines, "\"time\":1", "\"time\":2")),
    ("a space is added", |lines| edit(lines, "{\"seq\"", "{ \"seq\"")),
    ("a record is left out", |lines| drop(lines.remove(lines.len() / 2))),
    ("a record stands twice", |lines| {
        let line = lines[lines.len() / 2].clone();
        lines.insert(lines.len() / 2, line);
    }),
    ("two records are exchanged", |lines| {
        let middle = lines.len() / 2;
        lines.swap(middle, middle + 1);
    }),
    ("the last records are cut off", |lines| lines.truncate(lines.len() - 3)),
    ("all but the first are cut off", |lines| lines.truncate(1)),
    ("a line is added", |lines| lines.push("{\"seq\":1}".to_owned())),
    ("it is emptied", Vec::clear),
];

fn edit(lines: &mut [String], from: &str, to: &str) {
    let line = lines.iter_mut().rev().find(|line| line.contains(from)).expect("a record with it");
    *line = line.replacen(from, to, 1);
}

fn mutate(path: &Path, mutation: fn(&mut Vec<String>)) -> anyhow::Result<()> {
    let mut lines: Vec<_> = std::fs::read_to_string(path)?.lines().map(str::to_owned).collect();
    mutation(&mut lines);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Ok(std::fs::write(path, text)?)
}

#[tokio::test]
async fn a09_whoever_edits_cuts_or_puts_back_the_ledger_is_found_out() -> anyhow::Result<()> {
    // If this failed, whoever misused a credential could take it out of the record afterwards.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    for count in 0..4 {
        assert_eq!(holder.get(&format!("/anything/{count}")).await?.status, 200);
    }
    site.server.stop()?;
    let (ledger, anchor) = (site.server.home().join("ledger"), site.server.home().join("ledger.anchor"));
    let (earlier, earlier_anchor) = (site.server.folder().join("earlier"), site.server.folder().join("earlier.anchor"));
    copy(&ledger, &earlier)?;
    std::fs::copy(&anchor, &earlier_anchor)?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = serde_json::json!({"tool": "http-get.get", "arguments": {"path": "/anything/later"}});
    assert_eq!(client.post("/v1/calls", &call).await?.status, 200);
    site.server.stop()?;

    let verify = |folder: &Path, anchor: &Path| -> anyhow::Result<(bool, Value)> {
        let place = [folder.display().to_string(), anchor.display().to_string()];
        let (good, out, error) =
            site.server.cli(&["--json", "ledger", "verify", "--folder", &place[0], "--anchor", &place[1]], b"")?;
        Ok((good, serde_json::from_str(&out).map_err(|_| anyhow::anyhow!("{out}{error}"))?))
    };
    let (good, told) = verify(&ledger, &anchor)?;
    assert!(good && told["holds"] == true && told["torn_bytes"] == 0, "{told}");
    let scratch = site.server.folder().join("scratch");
    for (what, mutation) in MUTATIONS {
        copy(&ledger, &scratch)?;
        mutate(segments(&scratch)?.last().expect("a segment"), *mutation)?;
        let (good, told) = verify(&scratch, &anchor)?;
        assert!(!good && told["holds"] == false && told["why"].is_string(), "{what}: {told}");
        let place = [scratch.display().to_string(), anchor.display().to_string()];
        for command in ["audit", "tail", "export"] {
            let asked = ["ledger", command, "--folder", &place[0], "--anchor", &place[1]];
            let (good, out, error) = site.server.cli(&asked, b"")?;
            let told = out + &error;
            // One that cannot be read at all says so.
            let is_warned = told.contains("LEDGER IS BROKEN") || told.contains("cannot be read");
            assert!(!good && is_warned, "{what}: {command} believes it: {told}");
        }
        std::fs::remove_dir_all(&scratch)?;
    }
    let (good, told) = verify(&earlier, &anchor)?;
    assert!(!good, "an earlier state under today's anchor: {told}");
    // Both put back, it is a whole ledger of an earlier day: only who kept a head elsewhere can tell.
    assert!(verify(&earlier, &earlier_anchor)?.0);
    let other = site.server.folder().join("other.anchor");
    assert!(
        !site
            .server
            .cli(
                &[
                    "ledger",
                    "verify",
                    "--folder",
                    &ledger.display().to_string(),
                    "--anchor",
                    &other.display().to_string()
                ],
                b""
            )?
            .0,
        "no anchor"
    );
    let foreign = "0".repeat(64);
    assert!(!site.server.cli(&["ledger", "verify", "--public-half", &foreign], b"")?.0, "another key");

    let whole = site.server.folder().join("whole");
    copy(&ledger, &whole)?;
    for (what, mutation) in MUTATIONS {
        mutate(segments(&ledger)?.last().expect("a segment"), *mutation)?;
        let refused = site.server.restart();
        assert!(refused.is_err(), "{what}: the server starts on it");
        let told = format!("{:#}", refused.expect_err("refused"));
        assert!(told.contains("ledger") && !told.contains("panicked"), "{what}: {told}");
        std::fs::remove_dir_all(&ledger)?;
        copy(&whole, &ledger)?;
    }
    std::fs::remove_dir_all(&ledger)?;
    copy(&earlier, &ledger)?;
    let refused = format!("{:#}", site.server.restart().expect_err("an earlier state was put back"));
    assert!(refused.contains("an earlier state of the folder was put back"), "{refused}");
    std::fs::remove_dir_all(&ledger)?;
    copy(&whole, &ledger)?;
    site.server.restart()
}

#[tokio::test]
async fn c08_r05_a_store_from_before_a_revocation_is_refused_and_nothing_revives() -> anyhow::Result<()> {
    // If this failed, a backup put back after a disaster would bring every revoked credential back to life.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    site.server.stop()?;
    let home = site.server.home();
    let store_files = |folder: &Path| -> anyhow::Result<Vec<String>> {
        let names = std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with("store.")).collect())
    };
    let backup = site.server.folder().join("backup");
    std::fs::create_dir(&backup)?;
    for name in store_files(&home)? {
        std::fs::copy(home.join(&name), backup.join(&name))?;
    }
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let path = format!("/v1/credentials/{}/revoke", holder.credential);
    assert_eq!(client.post(&path, &serde_json::json!({})).await?.status, 200);
    site.server.stop()?;
    let newer = site.server.folder().join("newer");
    std::fs::create_dir(&newer)?;
    for name in store_files(&home)? {
        std::fs::copy(home.join(&name), newer.join(&name))?;
        std::fs::remove_file(home.join(&name))?;
    }
    for name in store_files(&backup)? {
        std::fs::copy(backup.join(&name), home.join(&name))?;
    }
    let refused = format!("{:#}", site.server.restart().expect_err("an old store is refused"));
    assert!(
        refused.contains("the store is older than the ledger") && refused.contains(&holder.credential),
        "{refused}"
    );
    // The same with the file that counts what was acknowledged left in place.
    for name in store_files(&newer)?.iter().filter(|name| name.contains("guard")) {
        std::fs::copy(newer.join(name), home.join(name))?;
    }
    let refused = format!("{:#}", site.server.restart().expect_err("an old store is refused"));
    assert!(refused.contains("the store"), "{refused}");
    for name in store_files(&newer)? {
        std::fs::copy(newer.join(&name), home.join(&name))?;
    }
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = serde_json::json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    assert_eq!(client.post("/v1/calls", &call).await?.code(), "credential_unusable", "what is revoked stays so");
    assert_eq!(site.upstream.recorded().len(), 0);
    Ok(())
}

#[tokio::test]
async fn a11_a_second_server_on_the_same_folder_is_refused() -> anyhow::Result<()> {
    // If this failed, two writers would tear the chain apart, and the first restart would refuse both.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let (good, out, error) = site.server.cli(&["serve"], b"")?;
    assert!(!good && !out.contains("ready"), "a second one serves");
    assert!(error.contains("another process") && error.contains("stop"), "{error}");
    assert_eq!(holder.get("/anything").await?.status, 200, "the first goes on");
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "reading does not disturb it");
    let value = canary("after-");
    holder.rotate(&value).await?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    Ok(())
}
