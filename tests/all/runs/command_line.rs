//! `keybearer run`: a person's way through the same.

use keybearer_tests::Site;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn x17_a_person_opens_uses_keeps_resumes_and_ends_a_run_by_files_and_stdin() -> anyhow::Result<()> {
    // If this failed, people would put run tokens into arguments, where every process of the machine can read them.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let path = |name: &str| site.server.folder().join(name).display().to_string();
    let own = path("acme.token");
    std::fs::write(&own, &holder.tenant.token)?;
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let ran = |arguments: &[&str], input: &str| {
        let (good, out, error) = site.server.cli(arguments, input.as_bytes())?;
        anyhow::ensure!(good, "{arguments:?}: {error}");
        anyhow::Ok(out)
    };
    let as_tenant = |arguments: &[&str]| ran(&[arguments, &["--json", "--token-file", &own]].concat(), "");
    let value = |text: String| anyhow::Ok(serde_json::from_str::<Value>(&text)?);
    let token = path("run.token");
    let opened =
        value(as_tenant(&["run", "open", "--agent", "bot", "--tool", "http-get", "--life", "10m", "--out", &token])?)?;
    let id = opened["id"].as_str().unwrap_or_default().to_owned();
    assert!(opened["token"].is_null(), "what is in a file is not printed: {opened}");
    let text = std::fs::read_to_string(&token)?;
    assert!(text.starts_with(&format!("kbr_{id}_")));
    let call = ["--json", "call", "http-get.get", "--args", "{\"path\": \"/anything\"}", "--run-token-file"];
    assert_eq!(value(ran(&[&call[..], &[&token]].concat(), "")?)?["run"], id.as_str());
    assert_eq!(value(ran(&[&call[..], &["-"]].concat(), &text)?)?["run"], id.as_str(), "from stdin");
    let sub = ran(&["run", "open", "--agent", "sub", "--token-file", &token], "")?;
    assert!(sub.starts_with("kbr_run_"), "without a file it is what is printed: {sub}");
    assert_eq!(value(as_tenant(&["run", "show", &id])?)?["agent"], "bot");
    let listed = value(as_tenant(&["run", "list"])?)?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
    let table = ran(&["run", "list", "--token-file", &own], "")?;
    assert!(table.contains(&id) && table.contains("sub") && !table.contains("kbr_"), "{table}");

    let kept = path("run.checkpoint");
    as_tenant(&["run", "checkpoint", &id, "--out", &kept])?;
    let resumed = path("resumed.token");
    assert_eq!(value(as_tenant(&["run", "resume", &kept, "--out", &resumed])?)?["id"], id.as_str());
    let (good, _, error) = site.server.cli(&[&call[..], &[&token]].concat(), b"")?;
    assert!(!good && error.contains("unauthenticated"), "the earlier token: {error}");
    assert_eq!(value(ran(&[&call[..], &[&resumed]].concat(), "")?)?["run"], id.as_str());
    let (good, _, error) = site.server.cli(&["run", "resume", &kept, "--token-file", &own], b"")?;
    assert!(!good && error.contains("checkpoint_refused"), "once only: {error}");
    let ended = value(as_tenant(&["run", "abort", &id])?)?;
    assert_eq!((&ended["state"], &ended["runs"]), (&"aborted".into(), &2.into()));
    assert_eq!(value(as_tenant(&["run", "end", &id])?)?["state"], "aborted", "what has ended stays as it ended");
    Ok(())
}
