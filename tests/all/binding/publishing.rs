//! Who may publish what: signed by a signer whom the operator trusts, whole, and without what the linter
//! finds.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::upstream;

/// A bundle as it is written: behind eight bytes of its own.
#[derive(Serialize, Deserialize)]
struct Bundle {
    component: Vec<u8>,
    manifest: String,
    signature: Option<Signature>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Signature {
    signer: String,
    signature: String,
}

fn read(bytes: &[u8]) -> anyhow::Result<Bundle> {
    Ok(rmp_serde::from_slice(&bytes[8..])?)
}

fn write(bytes: &[u8], bundle: &Bundle) -> anyhow::Result<Vec<u8>> {
    Ok([&bytes[..8], &rmp_serde::to_vec_named(bundle)?].concat())
}

fn manifest(version: &str) -> String {
    probe::manifest("probe", version, &probe::slot("api", "{ kind = \"bearer\" }", &["api.test"]))
}

/// Changes the lists of signers and starts the server again.
fn set_signers(server: &mut Server, trusted: &[&str], revoked: &[&str]) -> anyhow::Result<()> {
    server.stop()?;
    let text = std::fs::read_to_string(server.config_file())?;
    let lines = text.lines().filter(|line| !line.starts_with("revoked_signers")).map(|line| {
        if line.starts_with("trusted_signers") {
            format!("trusted_signers = {trusted:?}\nrevoked_signers = {revoked:?}")
        } else {
            line.to_owned()
        }
    });
    std::fs::write(server.config_file(), lines.collect::<Vec<_>>().join("\n"))?;
    server.restart()
}

// If it failed, whoever reaches the operator's listener, or the file on its way there, would decide what runs.
#[tokio::test]
async fn w10_what_is_not_signed_whole_by_a_trusted_signer_is_refused() -> anyhow::Result<()> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let server = Server::start(&built, &authority, ServerOptions::default())?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    built.run(&["tool", "keygen", &key.display().to_string()])?;
    let good = built.pack("echo", &echo("1.0.0"))?;
    let refused = async |bytes: Vec<u8>, code: &str, what: &str| {
        let answer = server.offer(bytes).await?;
        assert_eq!((answer.status, answer.code().as_str()), (422, code), "{what}: {}", answer.text());
        anyhow::Ok(())
    };
    refused(built.pack_signed("echo", &echo("1.0.0"), None)?, "signature_refused", "unsigned").await?;
    refused(built.pack_signed("echo", &echo("1.0.0"), Some(&key))?, "signature_refused", "another's key").await?;

    let signature = read(&good)?.signature;
    let changed = |change: &dyn Fn(&mut Bundle)| -> anyhow::Result<Vec<u8>> {
        let mut bundle = read(&good)?;
        change(&mut bundle);
        write(&good, &bundle)
    };
    let other = read(&built.pack("echo", &echo("1.0.1"))?)?;
    let trusted = signature.clone().map(|signature| signature.signer).unwrap_or_default();
    let foreign = read(&built.pack_signed("echo", &echo("1.0.0"), Some(&key))?)?.signature;
    let changes: [(&str, Vec<u8>); 7] = [
        ("a byte of the component", changed(&|bundle| *bundle.component.last_mut().expect("bytes") ^= 1)?),
        ("a byte after the component", changed(&|bundle| bundle.component.extend([0, 1, 0]))?),
        ("the manifest", changed(&|bundle| bundle.manifest = bundle.manifest.replace("16777216", "33554432"))?),
        ("another manifest's signature", changed(&|bundle| bundle.signature.clone_from(&other.signature))?),
        (
            "another's signature under the trusted name",
            changed(&|bundle| {
                bundle.signature = foreign.clone();
                bundle.signature.as_mut().expect("signed").signer.clone_from(&trusted);
            })?,
        ),
        (
            "an empty signature",
            changed(&|bundle| bundle.signature.as_mut().expect("signed").signature = String::new())?,
        ),
        ("no hex", changed(&|bundle| bundle.signature.as_mut().expect("signed").signer = "z".repeat(64))?),
    ];
    for (what, bytes) in changes {
        refused(bytes, "signature_refused", what).await?;
    }
    for end in [0, 4, 8, 9, 100, good.len() / 2, good.len() - 1] {
        refused(good[..end].to_vec(), "package_invalid", "cut").await?;
    }
    assert_eq!(super::items(&server.operator().get("/v1/packages").await?), Vec::<Value>::new());
    assert_eq!(server.offer(good).await?.status, 201);
    // Nothing of a tenant's publishes.
    let tenant = server.tenant("acme").await?;
    let headers = [("content-type", "application/octet-stream")];
    let answer = tenant.client.send("POST", "/v1/packages", &headers, Vec::new()).await?;
    assert_eq!(answer.status, 404);
    let answer = server.admin().bearing(&tenant.token).send("POST", "/v1/packages", &headers, Vec::new()).await?;
    assert_eq!(answer.status, 401);
    Ok(())
}

fn echo(version: &str) -> String {
    format!(
        "[package]\nname = \"echo\"\nversion = \"{version}\"\ndescription = \"d\"\n\n[limits]\nmemory_bytes = 16777216\n"
    )
}

// If it failed, what a signer signed whose key was stolen would run on, or the next version of a tool would
// be another signer's without anybody noticing.
#[tokio::test]
async fn w10_p08_packages_of_a_revoked_signer_run_no_more_and_another_signer_needs_approval() -> anyhow::Result<()> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let upstream = upstream(&authority, &["api.test"]).await?;
    let mut server = Server::start(&built, &authority, ServerOptions::default().pin("api.test", &upstream))?;
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    let made: Value = serde_json::from_str(&built.run(&["--json", "tool", "keygen", &key.display().to_string()])?)?;
    let second = made["public"].as_str().unwrap_or_default().to_owned();
    let first = built.signer.clone();
    set_signers(&mut server, &[&first, &second], &[])?;
    server.offer(built.pack("hostile", &manifest("1.0.0"))?).await?;
    let tenant = server.tenant("acme").await?;
    let (_, grant) = tenant.grant("probe", "api", &canary("api_")).await?;
    let url = "https://api.test/";
    assert_eq!(tenant.hear_get("probe", url).await?.outcome, "200");

    // The same manifest but for its version, by another signer whom the operator trusts too.
    let published = server.offer(built.pack_signed("hostile", &manifest("1.1.0"), Some(&key))?).await?;
    assert_eq!(published.status, 201, "{}", published.text());
    let differences = tenant.client.get(&format!("/v1/grants/{grant}/differences")).await?.json();
    let places: Vec<_> = differences["differences"].as_array().into_iter().flatten().map(|one| &one["place"]).collect();
    assert_eq!(places, [&json!("signer")]);
    let package = |answer: &keybearer_tests::Answer| answer.json()["package"].clone();
    let digest = published.json()["digest"].clone();
    let answer = tenant.call("probe.echo_back", json!({"url": url})).await?;
    assert_ne!(package(&answer), digest);

    // Revoked: what the first signer signed runs no more, though it is published and approved.
    set_signers(&mut server, &[&first, &second], &[&first])?;
    upstream.forget();
    let client = server.public().bearing(&tenant.token);
    let body = json!({"tool": "probe.echo_back", "arguments": {"url": url}});
    let answer = client.post("/v1/calls", &body).await?;
    assert_eq!((answer.status, upstream.recorded().len()), (403, 0), "{}", answer.text());
    let refused = server.offer(built.pack("hostile", &manifest("1.2.0"))?).await?;
    assert_eq!(refused.code(), "signature_refused");
    // The other signer's version is there to be approved.
    let path = format!("/v1/grants/{grant}/approve");
    let approved = client.post(&path, &json!({"digest": digest})).await?;
    assert_eq!(approved.status, 200, "{}", approved.text());
    assert_eq!(package(&client.post("/v1/calls", &body).await?), digest);
    // Trusted no more, without being revoked: it may not publish; what is published was trusted when it was.
    set_signers(&mut server, &[&second], &[])?;
    let answer = server.public().bearing(&tenant.token).post("/v1/calls", &body).await?;
    assert_eq!(package(&answer), digest, "{}", answer.text());
    Ok(())
}

// If it failed, a manifest could ask for every host, and a tool for a credential as an argument.
#[tokio::test]
async fn p07_p14_manifests_and_descriptions_that_ask_for_too_much_are_refused_by_pack_check_and_publish()
-> anyhow::Result<()> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let server = Server::start(&built, &authority, ServerOptions::default())?;
    let good = built.pack("hostile", &manifest("1.0.0"))?;
    let unlike = |from: &str, to: &str| -> anyhow::Result<(String, Vec<u8>)> {
        let mut bundle = read(&good)?;
        assert!(bundle.manifest.contains(from), "{from}");
        bundle.manifest = bundle.manifest.replace(from, to);
        Ok((bundle.manifest.clone(), write(&good, &bundle)?))
    };
    for (from, to) in [
        ("api.test", "*"),
        ("api.test", "*.api.test"),
        ("api.test", ".*\\\\.api\\\\.test$"),
        ("api.test", "127.0.0.1"),
        ("api.test", "169.254.169.254"),
        ("api.test", "[::1]"),
        ("api.test", "2130706433"),
        ("api.test", "localhost"),
        ("api.test", "{grant}"),
        ("api.test", "{grant}.test"),
        ("api.test", "API.test"),
        ("/{rest...}", "/*"),
        ("/{rest...}", "/v1/.*"),
        ("/{rest...}", "/../x"),
        ("/{rest...}", "v1"),
        ("\"GET\"", "\"CONNECT\""),
        ("\"GET\"", "\"*\""),
        ("kind = \"bearer\"", "kind = \"header\", name = \"host\""),
        ("kind = \"bearer\"", "kind = \"header\", name = \"transfer-encoding\""),
        ("kind = \"bearer\"", "kind = \"body\""),
        ("methods", "scheme = \"http\"\nmethods"),
        ("methods", "surprise = 1\nmethods"),
        ("methods", "headers = [\"authorization\"]\nmethods"),
    ] {
        let (text, bytes) = unlike(from, to)?;
        assert!(built.pack("hostile", &text).is_err(), "pack takes {to}");
        let answer = server.offer(bytes).await?;
        assert_eq!((answer.status, answer.code().as_str()), (422, "package_invalid"), "{to}: {}", answer.text());
    }

    // What only a linter sees: a credential's value where words should stand.
    let text = echo("1.0.0").replace("\"d\"", "\"Try sk_live_51H8abcdefgh12345 first.\"");
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("manifest.toml"), &text)?;
    std::fs::copy(built.packages.join("echo.wasm"), folder.path().join("echo.wasm"))?;
    let checked = built.run(&["tool", "check", &folder.path().display().to_string()]);
    let said = checked.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("looks like a credential's value"), "{said}");
    let answer = server.offer(built.pack("echo", &text)?).await?;
    assert_eq!((answer.status, answer.code().as_str()), (422, "package_invalid"), "{}", answer.text());
    assert!(!answer.text().contains("sk_live_51H8"), "{}", answer.text());
    assert_eq!(server.offer(good).await?.status, 201);
    Ok(())
}
