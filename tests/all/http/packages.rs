//! Packages that are offered and are none, are not signed, or ask for what nobody offers.

use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use serde_json::json;

use super::assert_problem;

const MANIFEST: &str = "[package]\nname = \"written\"\nversion = \"0.1.0\"\ndescription = \"Written as text.\"\n";

/// A bundle as the command line would refuse to make it.
fn raw(component: &[u8], manifest: &str) -> anyhow::Result<Vec<u8>> {
    #[derive(serde::Serialize)]
    struct Bundle<'bundle> {
        component: &'bundle [u8],
        manifest: &'bundle str,
        signature: Option<()>,
    }
    let bundle = Bundle { component, manifest, signature: None };
    Ok([&b"KBPKG\x00\x00\x01"[..], &rmp_serde::to_vec_named(&bundle)?].concat())
}

/// A component made of text, signed with the key of this checkout.
fn signed(built: &Built, text: &str) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("c.wasm"), wat::parse_str(text)?)?;
    std::fs::write(path("m.toml"), MANIFEST)?;
    built.run(&[
        "tool",
        "pack",
        "--component",
        &path("c.wasm"),
        "--manifest",
        &path("m.toml"),
        "--out",
        &path("p.kbp"),
    ])?;
    let key = built.packages.join("key").display().to_string();
    built.run(&["tool", "sign", &path("p.kbp"), "--key-file", &key])?;
    Ok(std::fs::read(path("p.kbp"))?)
}

#[tokio::test]
async fn w01_w06_w10_what_is_no_package_of_ours_is_refused_by_its_name_and_leaves_nothing() -> anyhow::Result<()> {
    // If this failed, an operator could publish something that nobody checked, or not know why he cannot.
    let (built, authority) = (Built::find()?, keybearer_tests::Authority::new()?);
    let server = Server::start(&built, &authority, ServerOptions::default())?;
    let echo = built.bundle("echo")?;
    let core = std::fs::read(built.packages.join("echo.wasm"))?;
    let mut changed = echo.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for (what, bundle) in [
        ("nothing", Vec::new()),
        ("a word", b"package".to_vec()),
        ("an executable", b"\x7fELF\x02\x01\x01".to_vec()),
        ("a core module", raw(b"\0asm\x01\0\0\0", MANIFEST)?),
        ("a component without its end", raw(&core[..core.len() / 2], MANIFEST)?),
        ("a changed byte", changed),
        ("half of it", echo[..middle].to_vec()),
        ("two of it", echo.repeat(2)),
        ("a manifest that is none", raw(&core, "hello")?),
        ("a manifest with an unknown key", raw(&core, &format!("{MANIFEST}sudo = true\n"))?),
        (
            "a literal address",
            raw(&core, &format!("{MANIFEST}[[allow]]\nhost = \"10.0.0.1\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n"))?,
        ),
        (
            "every host",
            raw(&core, &format!("{MANIFEST}[[allow]]\nhost = \"*\"\nmethods = [\"GET\"]\npaths = [\"/\"]\n"))?,
        ),
    ] {
        let answer = server.offer(bundle).await?;
        let code = answer.code();
        assert!(matches!(code.as_str(), "package_invalid" | "signature_refused"), "{what}: {}", answer.text());
        assert_problem(&answer, 422, &code, what);
    }
    let unsigned = server.offer(raw(&core, MANIFEST)?).await?;
    assert_problem(&unsigned, 422, "signature_refused", "no signature");
    let folder = tempfile::tempdir()?;
    let key = folder.path().join("key");
    built.run(&["tool", "keygen", &key.display().to_string()])?;
    let stranger = server.offer(built.pack_signed("echo", MANIFEST, Some(&key))?).await?;
    assert_problem(&stranger, 422, "signature_refused", "a signer whom nobody trusts");

    let sockets = r#"(component (import "wasi:sockets/tcp@0.2.0" (instance (export "x" (func)))))"#;
    let answer = server.offer(signed(&built, sockets)?).await?;
    assert_problem(&answer, 422, "package_invalid", "an import that is not offered");
    let said = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(said.contains("wasi:sockets"), "which one is said: {said}");
    let answer = server.offer(signed(&built, "(component)")?).await?;
    assert_problem(&answer, 422, "package_invalid", "no exports");
    let octets = [("content-type", "application/json")];
    let answer = server.operator().send("POST", "/v1/packages", &octets, echo.clone()).await?;
    assert_problem(&answer, 415, "unsupported_media_type", "another type");
    for query in ["allow_rollback=yes", "visible_to=acme", "visible_to=", "hello=1"] {
        let octets = [("content-type", "application/octet-stream")];
        let path = format!("/v1/packages?{query}");
        let answer = server.operator().send("POST", &path, &octets, echo.clone()).await?;
        assert_problem(&answer, 400, "malformed_request", query);
    }
    assert_eq!(server.operator().get("/v1/packages").await?.json(), json!({"items": []}), "nothing is half-written");
    assert_eq!(server.offer(echo).await?.status, 201);
    Ok(())
}
