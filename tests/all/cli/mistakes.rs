//! Mistakes that people make, one after the other: each is refused with a sentence that says what to do,
//! and nothing is half-done.

use std::os::unix::fs::PermissionsExt as _;

use keybearer_tests::Reserved;
use keybearer_tests::canary;
use serde_json::Value;

use super::Person;

/// A refusal that must hold all of these words.
fn says(refused: &str, words: &[&str]) {
    for word in words {
        assert!(refused.contains(word), "`{word}` is missing: {refused}");
    }
    assert!(!refused.contains("panicked") && !refused.contains("RUST_BACKTRACE"), "{refused}");
}

#[test]
fn mistakes_before_a_server_runs_are_told_with_what_to_do() -> anyhow::Result<()> {
    // If this failed, whoever mistypes would be left alone with it, or would find half of a thing made.
    let person = Person::new()?;
    says(&person.run(&["serve"])?.refused()?, &["keybearer.toml", "init"]);
    says(&person.run(&["tenant", "list"])?.refused()?, &["keybearer.toml", "init"]);
    person.init()?;
    says(&person.run(&["ledger", "verify"])?.refused()?, &["checkpoint.pub"]);
    let token = std::fs::read(person.path("keybearer-data/operator.token"))?;
    says(&person.run(&["init"])?.refused()?, &["exists", "nothing was changed"]);
    assert_eq!(std::fs::read(person.path("keybearer-data/operator.token"))?, token);
    person.edit("[server]", "[server]\nlisten_on = \"x\"")?;
    says(&person.run(&["serve"])?.refused()?, &["listen_on", "keybearer.toml"]);
    let doctor = person.run(&["doctor"])?.out;
    says(&doctor, &["MEND", "listen_on = \"x\"", "unknown field `listen_on`"]);
    assert!(!doctor.contains('\u{fffd}'), "its lines are lines: {doctor}");
    person.edit("[server]\nlisten_on = \"x\"", "[server]")?;
    what_serve_refuses_doctor_does_not_pass(&person)?;
    person.edit("listen = \"127.0.0.1:0\"", "listen = \"0.0.0.0:0\"")?;
    says(&person.run(&["serve"])?.refused()?, &["server.listen", "beyond loopback", "[server.tls]"]);
    person.edit("listen = \"0.0.0.0:0\"", "listen = \"127.0.0.1:0\"")?;
    let nobody = Reserved::new()?;
    person.edit("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", nobody.address()))?;
    std::fs::write(person.path("acme.token"), "kb_none")?;
    std::fs::set_permissions(person.path("acme.token"), std::fs::Permissions::from_mode(0o644))?;
    says(&person.as_tenant(&["tool", "list"])?.refused()?, &["chmod 600"]);
    std::fs::set_permissions(person.path("acme.token"), std::fs::Permissions::from_mode(0o600))?;
    says(&person.as_tenant(&["tool", "list"])?.refused()?, &["does not answer", "is the server running"]);
    says(&person.run(&["credential", "list"])?.refused()?, &["--token-file", "keybearer token issue"]);

    std::fs::write(person.path("acme.token.pem"), "no key")?;
    says(&person.run(&["tool", "new", "Bad Name"])?.refused()?, &["a-z"]);
    std::fs::create_dir(person.path("taken"))?;
    says(&person.run(&["tool", "new", "taken"])?.refused()?, &["exists", "nothing was changed"]);
    says(&person.run(&["tool", "new", "x", "--sdk", "/nowhere"])?.refused()?, &["guest SDK"]);
    assert!(!person.path("x").exists(), "nothing is half-made");
    says(&person.run(&["tool", "build", "taken"])?.refused()?, &["manifest.toml", "tool's folder"]);
    says(&person.run(&["tool", "inspect", "acme.token"])?.refused()?, &["not a"]);
    says(&person.run(&["tool", "sign", "acme.token", "--key-file", "acme.token.pem"])?.refused()?, &[]);
    says(&person.run(&["tool", "keygen", "acme.token"])?.refused()?, &["acme.token exists: it is not overwritten"]);
    for wrong in [&["credential", "store", "x", "kb_in_argv"][..], &["nonsense"], &["call"], &["token", "issue"]] {
        assert_eq!(person.run(wrong)?.status, Some(2), "{wrong:?} is wrongly asked");
    }
    let json = person.as_tenant(&["--json", "tool", "list"])?.refused()?;
    let json = serde_json::from_str::<Value>(&json)?;
    assert!(json["code"] == "server_unreachable" && json["detail"].is_string(), "{json}");
    for (code, arguments) in [
        ("file_unreadable", &["--json", "--token-file", "nowhere", "tool", "list"][..]),
        ("cli_usage", &["--json", "credential", "list"]),
        ("cli_usage", &["--json", "--token-file", "acme.token", "--server", "ftp://x", "tool", "list"]),
        ("configuration_refused", &["--json", "--config", "nowhere", "tenant", "list"]),
    ] {
        let json: Value = serde_json::from_str(&person.run(arguments)?.refused()?)?;
        assert!(json["code"] == code && json["detail"].is_string(), "{json}");
    }
    let usage = person.run(&["--json", "token", "issue"])?;
    assert_eq!((usage.status, &serde_json::from_str::<Value>(&usage.err)?["code"]), (Some(2), &"cli_usage".into()));
    Ok(())
}

/// Faults of the configuration that a look at the file alone does not find.
fn what_serve_refuses_doctor_does_not_pass(person: &Person) -> anyhow::Result<()> {
    let path = person.path("keybearer-data/keybearer.toml");
    let whole = std::fs::read_to_string(&path)?;
    std::fs::write(person.path("keybearer-data/keys.json"), "{}")?;
    let issuer = "\n[[jwt]]\nissuer = \"https://id.example\"\naudience = \"kb\"\njwks_file = \"keys.json\"\n\
        tenant_claim = \"org\"\ntenants = { acme = \"acme\" }\nscopes = [\"call\"]\n";
    let twice = whole.replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:27499\"");
    for (text, words) in [
        (format!("{whole}{issuer}algorithms = [\"ES256\"]\n"), "jwks_file"),
        (format!("{whole}{issuer}algorithms = [\"HS256\"]\n"), "HS256"),
        (twice, "server.listen and admin.listen"),
    ] {
        std::fs::write(&path, text)?;
        says(&person.run(&["serve"])?.refused()?, &[words]);
        let doctor = person.run(&["doctor"])?;
        assert_eq!(doctor.status, Some(1), "{doctor:?}");
        says(&doctor.out, &["MEND", words]);
    }
    Ok(std::fs::write(&path, whole)?)
}

#[test]
fn w10_mistakes_with_a_server_are_told_with_what_to_do() -> anyhow::Result<()> {
    // If this failed, a wrong argument, an unsigned package or a blank credential would be met with silence or worse.
    let mut person = Person::new()?;
    person.init()?;
    person.serve()?;
    let echo = person.built.packages.join("echo.kbp").display().to_string();
    says(&person.run(&["tool", "publish", &echo])?.refused()?, &["signature_refused", "packages.trusted_signers"]);
    let manifest = "[package]\nname = \"echo\"\nversion = \"0.1.0\"\ndescription = \"d\"\n";
    std::fs::write(person.path("unsigned.kbp"), person.built.pack_signed("echo", manifest, None)?)?;
    says(&person.run(&["tool", "publish", "unsigned.kbp"])?.refused()?, &["not signed", "keybearer tool sign"]);
    std::fs::write(person.path("garbage.kbp"), "garbage")?;
    says(&person.run(&["tool", "publish", "garbage.kbp"])?.refused()?, &[]);
    assert_eq!(person.run(&["--json", "tool", "list"])?.json()?["items"], Value::Array(Vec::new()));
    person.stop()?;
    let signer = person.built.signer.clone();
    person.edit("trusted_signers = []", &format!("trusted_signers = [\"{signer}\"]"))?;
    person.serve()?;
    person.run(&["tool", "publish", &echo])?.good()?;
    person.run(&["tool", "publish", &echo])?.good()?;
    let older = manifest.replace("0.1.0", "0.0.9");
    std::fs::write(person.path("older.kbp"), person.built.pack("echo", &older)?)?;
    says(&person.run(&["tool", "publish", "older.kbp"])?.refused()?, &["conflict"]);
    let listed = person.run(&["--json", "tool", "list"])?.json()?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "twice the same is once: {listed}");
    person.run(&["tenant", "create", "acme"])?.good()?;
    says(&person.run(&["tenant", "create", "acme"])?.refused()?, &["conflict"]);
    says(&person.run(&["tenant", "suspend", "nobody"])?.refused()?, &["there is no `nobody`"]);
    let issue = |scope: &str| {
        let out = if scope == "call" { "caller.token" } else { "acme.token" };
        person.run(&["token", "issue", "--tenant", "acme", "--label", "x", "--scope", scope, "--out", out])
    };
    issue("call,credentials,grants,tokens,audit")?.good()?;
    says(&issue("call,credentials,grants,tokens,audit")?.refused()?, &["exist"]);
    issue("call")?.good()?;
    let caller = |arguments: &[&str]| person.run(&[arguments, &["--token-file", "caller.token"]].concat());
    says(&caller(&["credential", "list"])?.refused()?, &["forbidden", "credentials"]);

    let echo = |arguments: &str| person.as_tenant(&["call", "echo.echo", "--args", arguments]);
    says(&echo(r#"{"text": "x"}"#)?.refused()?, &["grant_missing", "keybearer grant add"]);
    person.as_tenant(&["grant", "add", "echo"])?.good()?;
    echo(r#"{"text": "x"}"#)?.good()?;
    says(&echo("{text: x}")?.refused()?, &["no JSON"]);
    says(&echo(r#"{"text": 5}"#)?.refused()?, &["invalid_arguments", "/text"]);
    says(&person.as_tenant(&["call", "echo.shout"])?.refused()?, &["not_found"]);
    let store = |name: &str, value: &str| {
        let arguments = [
            "credential",
            "store",
            name,
            "--value-file",
            "-",
            "--owner",
            "o",
            "--justification",
            "j",
            "--token-file",
            "acme.token",
        ];
        person.run_with(&arguments, value)
    };
    says(&store("blank", "")?.refused()?, &["credential_refused", "16 bytes"]);
    let secret = canary("kept-");
    let broken = store("broken", &format!("{secret}\nsecond line"))?.refused()?;
    says(&broken, &["credential_refused"]);
    assert!(!broken.contains(&secret), "{broken}");
    store("kept", &secret)?.good()?;
    says(&person.as_tenant(&["grant", "add", "echo", "--slot", "api", "--credential", "kept"])?.refused()?, &["slot"]);
    says(
        &person.as_tenant(&["grant", "add", "echo", "--slot", "api", "--credential", "lost"])?.refused()?,
        &["`lost`"],
    );
    says(&person.as_tenant(&["grant", "add", "nothing"])?.refused()?, &["not_found"]);
    says(&person.as_tenant(&["credential", "destroy", "kept", "1"])?.refused()?, &["conflict", "rotate or revoke"]);
    says(&person.as_tenant(&["explain", "../x"])?.refused()?, &["no id"]);
    tokens_in_the_wrong_place(&person)?;
    the_rest_of_the_commands(&person)
}

/// What a command sees of a token before the server does.
fn tokens_in_the_wrong_place(person: &Person) -> anyhow::Result<()> {
    let operators = ["--token-file", "keybearer-data/operator.token"];
    let with = |command: &[&str], more: &[&str]| person.run(&[command, more].concat())?.refused();
    says(&with(&["credential", "list"], &operators)?, &["holds the operator's token", "token issue --tenant"]);
    says(&with(&["tenant", "list"], &["--token-file", "acme.token"])?, &["acme.token holds no operator's token"]);
    std::fs::write(person.path("empty.token"), "\n")?;
    std::fs::set_permissions(person.path("empty.token"), std::fs::Permissions::from_mode(0o600))?;
    says(&with(&["credential", "list"], &["--token-file", "empty.token"])?, &["empty.token holds no token"]);
    // The tenant's own would call outside of the run that was meant.
    let call = ["call", "echo.echo", "--args", r#"{"text": "x"}"#, "--run-token-file", "acme.token"];
    says(&with(&call, &[])?, &["no token of a run", "kbr_"]);
    says(&with(&call, &["--token-file", "acme.token"])?, &["exclude each other"]);
    let issue = ["token", "issue", "--label", "x", "--scope", "cal", "--token-file", "acme.token"];
    says(&with(&issue, &[])?, &["'cal'", "call, credentials, grants, tokens, audit, runs"]);
    let open = ["incident", "own", "open", "--credential", "lost", "--token-file", "acme.token"];
    says(&with(&open, &[])?, &["there is no `lost`"]);
    let store = ["credential", "store", "x", "--value-file", "-", "--owner", "o", "--justification", "j"];
    let seconds = ["--expires-ms", "1795335413", "--token-file", "acme.token"];
    says(&with(&store, &seconds)?, &["1970-01-21", "milliseconds", "--life"]);
    let tail = person.run(&["ledger", "tail", "--count", "1"])?.good()?;
    assert!(tail.split_whitespace().any(|word| word.ends_with('Z') && word.contains(':')), "it has its time: {tail}");
    Ok(())
}

/// Commands that no other case needs: each does what it says.
fn the_rest_of_the_commands(person: &Person) -> anyhow::Result<()> {
    std::fs::write(person.path("args.json"), r#"{"text": "from a file"}"#)?;
    let call =
        ["--json", "call", "echo.echo", "--args-file", "args.json", "--idempotency", "k", "--timeout-ms", "9000"];
    assert_eq!(person.as_tenant(&call)?.json()?["replayed"], false);
    let again = person.as_tenant(&call)?.json()?;
    assert_eq!((&again["replayed"], &again["result"]["text"]), (&true.into(), &"from a file".into()));
    let rotated = person.run(&["--json", "operator", "rotate-master-key"])?.json()?;
    assert_eq!(rotated["rotated"], true);
    let tokens = person.as_tenant(&["--json", "token", "list"])?.json()?;
    let caller = tokens["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|token| token["scopes"].as_array().map(Vec::len) == Some(1));
    let id = caller.and_then(|token| token["id"].as_str()).unwrap_or_default().to_owned();
    person.as_tenant(&["token", "revoke", &id])?.good()?;
    let refused = person.run(&["tool", "list", "--token-file", "caller.token"])?.refused()?;
    says(&refused, &["does not take this token", "--token-file"]);
    person.run(&["tenant", "suspend", "acme"])?.good()?;
    says(&person.as_tenant(&["tool", "list"])?.refused()?, &["does not take this token"]);
    person.run(&["tenant", "activate", "acme"])?.good()?;
    let listed = person.run(&["--json", "tool", "list"])?.json()?;
    let digest = listed["items"][0]["digest"].as_str().unwrap_or_default().to_owned();
    person.run(&["tool", "withdraw", &digest])?.good()?;
    says(&person.as_tenant(&["call", "echo.echo", "--args", r#"{"text": "x"}"#])?.refused()?, &["not_found"]);
    let grants = person.as_tenant(&["--json", "grant", "list"])?.json()?;
    let grant = grants["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    person.as_tenant(&["grant", "remove", &grant])?.good()?;
    let left = person.as_tenant(&["--json", "grant", "list"])?.json()?;
    assert_eq!(left["items"], Value::Array(Vec::new()), "{left}");
    Ok(())
}
