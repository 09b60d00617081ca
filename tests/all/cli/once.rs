//! What is shown only once goes into a file, or else nothing is asked for that would show it.

use serde_json::Value;

use super::Person;

#[test]
fn what_cannot_be_kept_is_not_asked_for() -> anyhow::Result<()> {
    // If this failed, a file that is there already would cost a secret that nobody has any more: a live token that
    // nobody can use, an alarm channel signed with what nobody knows, a run that no agent reaches again.
    let mut person = Person::new()?;
    person.init()?;
    person.serve()?;
    let scopes = "call,credentials,grants,tokens,audit,runs";
    let issue = ["token", "issue", "--tenant", "acme", "--label", "admin", "--scope", scopes, "--out"];
    let issued = person.acme(scopes)?;
    assert!(issued.starts_with("tok_") && issued.contains("acme.token") && !issued.contains("kb_"), "{issued}");
    person.as_tenant(&["run", "open", "--agent", "bot", "--out", "run.token"])?.good()?;
    let runs = person.as_tenant(&["--json", "run", "list"])?.json()?;
    let run = runs["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    person.as_tenant(&["run", "checkpoint", &run, "--out", "run.checkpoint"])?.good()?;
    person.as_tenant(&["notices", "set", "https://acme.example/first", "--out", "notices.secret"])?.good()?;
    person.run(&["incident", "notify", "set", "https://ops.example/first", "--out", "notify.secret"])?.good()?;
    let hook = person.as_tenant(&["hook", "make", "--label", "first", "--out", "hook.secret"])?.good()?;
    assert!(hook.contains("/v1/hooks/hook_") && hook.contains("hook.secret"), "{hook}");
    let before = state(&person)?;

    for file in ["taken", "nowhere/new"] {
        std::fs::write(person.path("taken"), "mine")?;
        let again: &[&[&str]] = &[
            &issue,
            &["token", "issue", "--label", "own", "--scope", "call", "--token-file", "acme.token", "--out"],
            &["run", "open", "--agent", "other", "--token-file", "acme.token", "--out"],
            &["run", "resume", "run.checkpoint", "--token-file", "acme.token", "--out"],
            &["notices", "set", "https://acme.example/other", "--token-file", "acme.token", "--out"],
            &["incident", "notify", "set", "https://ops.example/other", "--out"],
            &["hook", "make", "--label", "other", "--token-file", "acme.token", "--out"],
        ];
        for command in again {
            let refused = person.run(&[command, &[file][..]].concat())?.refused()?;
            assert!(refused.contains("nothing was asked of the server") && refused.contains(file), "{refused}");
            assert_eq!(state(&person)?, before, "{command:?} {file}");
        }
        assert_eq!(std::fs::read_to_string(person.path("taken"))?, "mine");
    }

    // And of what the server refuses no file stays, which would be in the way of the next try.
    let refused = ["notices", "set", "http://acme.example/plain", "--out", "plain.secret"];
    person.as_tenant(&refused)?.refused()?;
    person.run(&["ledger", "export", "--tenant", "acme", "--out", "records"])?.refused()?;
    assert!(!person.path("plain.secret").exists() && !person.path("records").exists());
    person.as_tenant(&["run", "resume", "run.checkpoint", "--out", "resumed.token"])?.good()?;
    person.run(&["ledger", "export", "--out", "records"])?.good()?;

    // Without a file the secret alone is on stdout, for a pipe; what was made is said beside it.
    let made = person.as_tenant(&["hook", "make", "--label", "piped"])?;
    assert!(made.err.contains("/v1/hooks/hook_"), "{made:?}");
    assert_eq!(made.good()?.lines().count(), 1);
    Ok(())
}

/// Everything that one of the refused commands could have made or replaced.
fn state(person: &Person) -> anyhow::Result<Vec<Value>> {
    let mut state = Vec::new();
    for list in [&["token", "list"][..], &["run", "list"], &["notices", "show"], &["hook", "list"]] {
        state.push(person.as_tenant(&[list, &["--json"]].concat())?.json()?);
    }
    state.push(person.run(&["--json", "incident", "notify", "show"])?.json()?);
    // Tokens and runs tell when they were used last.
    for item in state.iter_mut().filter_map(|list| list["items"].as_array_mut()).flatten() {
        item.as_object_mut().into_iter().for_each(|item| drop(item.remove("last_use")));
    }
    Ok(state)
}
