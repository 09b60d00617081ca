//! The README's five minutes, word for word: from an empty folder to a tool of one's own that was called
//! with a credential, and the record of it.

use std::process::Command;

use keybearer_tests::Authority;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::Person;
use super::ran;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_user_comes_from_an_empty_folder_to_a_recorded_call_by_the_command_line_alone() -> anyhow::Result<()> {
    // If this failed, nobody who reads the README could use the thing.
    let mut person = Person::new()?;
    let (value, next) = (canary("weather-"), canary("weather-next-"));
    let authority = Authority::new()?;
    // As httpbin answers, whose name the template has.
    let upstream = Upstream::start(&authority, &["httpbin.org"], |request: Recorded| async move {
        Reply::json(200, &json!({"url": format!("https://httpbin.org{}", request.target)}))
    })
    .await?;
    let signer = write_a_tool(&person)?;

    person.init()?;
    let doctor = person.run(&["doctor"])?.good()?;
    assert!(doctor.contains("packages.trusted_signers is empty") && !doctor.contains("MEND"), "{doctor}");
    person.edit("trusted_signers = []", &format!("trusted_signers = [\"{signer}\"]"))?;
    std::fs::write(person.path("ca.pem"), authority.pem())?;
    let ca = person.path("ca.pem").display().to_string();
    person.edit("extra_ca_files = []", &format!("extra_ca_files = [{ca:?}]"))?;
    person.edit("allow_ranges = []", "allow_ranges = [\"127.0.0.0/8\"]")?;
    person.edit("pin = {}", &format!("pin = {{ \"httpbin.org:443\" = \"{}\" }}", upstream.address()))?;
    person.serve()?;

    person.run(&["tool", "publish", "weather/weather.kbp"])?.good()?;
    let issued = person.acme("call,credentials,grants,tokens,audit")?;
    assert!(!issued.contains("kb_"), "the token is in the file alone: {issued}");
    let store = [
        "credential",
        "store",
        "weather-api",
        "--value-file",
        "-",
        "--owner",
        "you",
        "--justification",
        "a first tool",
        "--token-file",
        "acme.token",
    ];
    person.run_with(&store, &format!("{value}\n"))?.good()?;
    person.as_tenant(&["grant", "add", "weather", "--slot", "api", "--credential", "weather-api"])?.good()?;
    let call = ["call", "weather.look_up", "--args", r#"{"item": "rain"}"#];
    let called = person.as_tenant(&call)?;
    let id = called.err.split_whitespace().find(|word| word.starts_with("call_")).unwrap_or_default().to_owned();
    assert!(called.good()?.contains("rain"), "the tool's result is printed");
    let seen = upstream.recorded();
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {value}").as_str()));
    let explained = person.as_tenant(&["explain", &id])?.good()?;
    assert!(explained.contains("httpbin.org") && explained.contains("version 1"), "{explained}");

    let rotate = ["credential", "rotate", "weather-api", "--value-file", "-", "--token-file", "acme.token"];
    person.run_with(&rotate, &next)?.good()?;
    person.as_tenant(&call)?.good()?;
    assert_eq!(upstream.recorded()[1].header("authorization"), Some(format!("Bearer {next}").as_str()));
    person.as_tenant(&["credential", "revoke", "weather-api"])?.good()?;
    let refused = person.as_tenant(&call)?.refused()?;
    assert!(refused.contains("credential_unusable") && refused.contains("revoked for good"), "{refused}");
    assert_eq!(upstream.recorded().len(), 2);

    everything_prints_json(&person, &id)?;
    let held = person.run(&["ledger", "verify"])?.good()?;
    assert!(held.contains("the ledger holds"), "{held}");
    assert_eq!(person.stop()?, Some(0));
    person.run(&["ledger", "verify"])?.good()?;
    secrets_are_nowhere(&person, &[value, next])
}

/// `tool new` to `tool sign`, and the tool's own tests; the public half of the key that signed.
fn write_a_tool(person: &Person) -> anyhow::Result<String> {
    let made = person.run(&["tool", "new", "weather"])?.good()?;
    assert!(made.contains("cargo test"), "what to do next is said: {made}");
    let folder = person.path("weather");
    // Beside the workspace's own, and kept: what the crate depends on is compiled once.
    let target = person.built.packages.with_file_name("first-tool");
    let in_folder = |arguments: &[&str]| {
        let mut command = Command::new(&person.built.binary);
        command.args(arguments).current_dir(&folder).env("CARGO_TARGET_DIR", &target);
        ran(command, "")
    };
    let mut test = Command::new("cargo");
    test.arg("test").current_dir(&folder).env("CARGO_TARGET_DIR", &target);
    let tested = ran(test, "")?.good()?;
    assert!(tested.contains("test result: ok. ") && tested.contains("... ok"), "its own tests run: {tested}");
    in_folder(&["tool", "build"])?.good()?;
    let checked = in_folder(&["tool", "check", "--json"])?.json()?;
    assert_eq!(checked["tools"][0]["name"], "look_up", "{checked}");
    assert_eq!(checked["findings"], Value::Array(Vec::new()), "{checked}");
    assert!(in_folder(&["tool", "check"])?.good()?.contains("nothing to mend"));
    let packed = in_folder(&["--json", "tool", "pack"])?.json()?;
    let keygen = in_folder(&["--json", "tool", "keygen", "../publisher.key"])?.json()?;
    let unsigned = in_folder(&["--json", "tool", "inspect", "weather.kbp"])?.json()?;
    assert_eq!((&unsigned["digest"], &unsigned["signer"]), (&packed["digest"], &Value::Null));
    in_folder(&["tool", "sign", "weather.kbp", "--key-file", "../publisher.key"])?.good()?;
    let signed = in_folder(&["--json", "tool", "inspect", "weather.kbp"])?.json()?;
    assert_eq!((&signed["digest"], &signed["signer"]), (&packed["digest"], &keygen["public"]));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(person.path("publisher.key"))?.permissions().mode() & 0o777, 0o600);
    Ok(keygen["public"].as_str().unwrap_or_default().to_owned())
}

/// Every command that shows something shows it to programs too.
fn everything_prints_json(person: &Person, call: &str) -> anyhow::Result<()> {
    for (command, field) in [
        (&["tenant", "list"][..], "items"),
        (&["tool", "list"], "items"),
        (&["operator", "shared-values"], "items"),
        (&["doctor"], "items"),
        (&["ledger", "verify"], "holds"),
    ] {
        let shown = person.run(&[&["--json"], command].concat())?.json()?;
        assert!(!shown[field].is_null(), "{command:?}: {shown}");
        assert!(!person.run(command)?.good()?.trim().is_empty(), "{command:?} for people");
    }
    for (command, field) in [
        (&["tool", "list"][..], "items"),
        (&["token", "list"], "items"),
        (&["credential", "list"], "items"),
        (&["credential", "show", "weather-api"], "versions"),
        (&["grant", "list"], "items"),
        (&["explain", call], "sentences"),
    ] {
        let shown = person.as_tenant(&[command, &["--json"]].concat())?.json()?;
        assert!(!shown[field].is_null(), "{command:?}: {shown}");
        assert!(!person.as_tenant(command)?.good()?.trim().is_empty(), "{command:?} for people");
    }
    let grants = person.as_tenant(&["grant", "list", "--json"])?.json()?;
    let grant = grants["items"][0]["id"].as_str().unwrap_or_default().to_owned();
    let differs = person.as_tenant(&["grant", "differences", &grant, "--json"])?.json()?;
    assert_eq!(differs["differences"], Value::Array(Vec::new()), "{differs}");
    let tail = person.run(&["--json", "ledger", "tail", "--count", "3"])?.good()?;
    assert_eq!(tail.lines().map(serde_json::from_str::<Value>).filter(Result::is_ok).count(), 3, "{tail}");
    let of_call = person.run(&["ledger", "export", "--call", call])?.good()?;
    assert!(of_call.lines().count() >= 4 && of_call.lines().all(|line| line.contains(call)), "{of_call}");
    let refused = person.as_tenant(&["--json", "explain", "call_aaaaaaaaaaaaaaaaaaaaaaaaaa"])?.refused()?;
    assert_eq!(serde_json::from_str::<Value>(&refused)?["code"], "not_found", "errors are JSON too: {refused}");
    Ok(())
}

/// No file that the server or the command line wrote holds a value in the open.
fn secrets_are_nowhere(person: &Person, secrets: &[String]) -> anyhow::Result<()> {
    let mut folders = vec![person.path("keybearer-data")];
    let mut files = vec![person.path("server.log")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for file in &files {
        let bytes = std::fs::read(file)?;
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a credential", file.display());
        }
    }
    assert!(files.iter().any(|file| file.ends_with("store.db")), "the store was looked at");
    Ok(())
}
