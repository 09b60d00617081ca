//! What the demo and the cases need, built: the `keybearer` binary, and every tool and hostile guest of
//! the checkout as a signed bundle in `target/packages`. A guest is a crate with a `manifest.toml` beside
//! its `Cargo.toml`; one that asks for WASI says so under `[package.metadata.keybearer]`.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use keybearer_tests::Built;
use serde_json::Value;

use crate::children;
use crate::pinned;
use crate::pinned::GUEST_TARGETS;
use crate::place;
use crate::place::Place;

/// How much is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The binary and the bundles.
    Shipped,
    /// The tests too: with the features that they are run with, so that nothing is built twice.
    Everything,
}

/// The stack of a guest. Small, because a fresh instance pays for the pages that it touches.
const STACK_BYTES: u32 = 64 << 10;

/// The preamble of a component; a core module has another version in it.
const COMPONENT_PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";

struct Guest {
    /// The crate.
    package: String,
    /// The name in its manifest, and of its bundle.
    name: String,
    manifest: PathBuf,
    target: String,
    module: String,
}

/// Builds it.
///
/// # Errors
/// If something cannot be built; cargo has said why.
pub(crate) async fn build(place: &Place, extent: Extent) -> anyhow::Result<Built> {
    pinned::guest_targets(place).await?;
    let (what, arguments): (_, &[_]) = match extent {
        Extent::Shipped => ("build keybearer", &["build", "-p", "keybearer"]),
        Extent::Everything => ("build keybearer and its tests", &["build", "--workspace", "--all-targets"]),
    };
    let mut cargo = place.cargo();
    cargo.args(arguments);
    children::shown(what, cargo).await?;
    let guests = guests(place).await?;
    for target in GUEST_TARGETS {
        compile(place, target, &guests).await?;
    }
    let binary = place.target.join("debug/keybearer");
    let packages = place.target.join("packages");
    pack(place, &binary, &packages, &guests).await?;
    Built::at(&binary, &packages)
}

/// The guests of the workspace.
async fn guests(place: &Place) -> anyhow::Result<Vec<Guest>> {
    let mut metadata = place.cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = children::printed(metadata).await.context("`cargo metadata` failed")?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo names the packages")?;
    let mut guests = Vec::new();
    for package in packages {
        guests.extend(guest(package)?);
    }
    anyhow::ensure!(!guests.is_empty(), "no crate of the workspace has a manifest.toml");
    Ok(guests)
}

fn guest(package: &Value) -> anyhow::Result<Option<Guest>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let manifest = Path::new(package["manifest_path"].as_str().context("a path")?).with_file_name("manifest.toml");
    if !manifest.is_file() {
        return Ok(None);
    }
    let content: toml::Table = std::fs::read_to_string(&manifest)?.parse()?;
    let name = content.get("package").and_then(|head| head.get("name")).and_then(toml::Value::as_str);
    let targets = package["targets"].as_array().context("cargo names the targets")?;
    let library = targets
        .iter()
        .find(|target| target["crate_types"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib")))
        .with_context(|| format!("{} is no cdylib", package["name"]))?;
    let target = package["metadata"]["keybearer"]["target"].as_str().unwrap_or(GUEST_TARGETS[0]);
    anyhow::ensure!(GUEST_TARGETS.contains(&target), "{}: guests are not built for {target}", package["name"]);
    Ok(Some(Guest {
        package: text(&package["name"]),
        name: name.with_context(|| format!("{}: no package.name", manifest.display()))?.to_owned(),
        manifest,
        target: target.to_owned(),
        module: format!("{}.wasm", text(&library["name"]).replace('-', "_")),
    }))
}

/// Compiles the guests of one target in one go.
async fn compile(place: &Place, target: &str, guests: &[Guest]) -> anyhow::Result<()> {
    let chosen: Vec<_> = guests.iter().filter(|guest| guest.target == target).collect();
    if chosen.is_empty() {
        return Ok(());
    }
    // No path of this machine gets into a package: the same sources make the same digest anywhere.
    let flags = serde_json::json!([
        format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
        format!("--remap-path-prefix={}=/deps", place::cargo_home()?.join("registry/src").display()),
        format!("--remap-path-prefix={}=/src", place.root.display()),
    ]);
    let mut cargo = place.cargo();
    cargo.args(["build", "--profile", "guest", "--target", target]);
    cargo.args(["--config", &format!("target.{target}.rustflags={flags}")]);
    // These would take the place of the flags above.
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    for guest in &chosen {
        cargo.args(["-p", &guest.package]);
    }
    children::shown(&format!("compile {} guests for {target}", chosen.len()), cargo).await
}

/// Packs and signs them with a key of this checkout's own.
async fn pack(place: &Place, binary: &Path, packages: &Path, guests: &[Guest]) -> anyhow::Result<()> {
    children::begin("pack and sign the guests");
    std::fs::create_dir_all(packages)?;
    // Another of these commands may run in the same checkout; the lock goes with the file.
    let lock = std::fs::File::create(packages.join("lock"))?;
    lock.lock()?;
    let key = packages.join("key");
    signer(binary, packages, &key).await?;
    let expected: Vec<_> = guests.iter().map(|guest| packages.join(format!("{}.kbp", guest.name))).collect();
    for entry in std::fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "kbp") && !expected.contains(&path) {
            std::fs::remove_file(path)?;
        }
    }
    for (guest, bundle) in guests.iter().zip(&expected) {
        let module = place.target.join(&guest.target).join("guest").join(&guest.module);
        let component = packages.join(format!("{}.wasm", guest.name));
        let bytes = std::fs::read(&module).with_context(|| format!("{} is not built", module.display()))?;
        std::fs::write(&component, componentise(bytes).with_context(|| format!("the guest `{}`", guest.name))?)?;
        let mut pack = Command::new(binary);
        pack.args(["tool", "pack", "--component"]).arg(&component).arg("--manifest").arg(&guest.manifest);
        pack.arg("--out").arg(bundle);
        said(pack, &format!("pack `{}`", guest.name)).await?;
        let mut sign = Command::new(binary);
        sign.args(["tool", "sign"]).arg(bundle).arg("--key-file").arg(&key);
        said(sign, &format!("sign `{}`", guest.name)).await?;
    }
    Ok(())
}

/// Makes the signing key of this checkout, once.
async fn signer(binary: &Path, packages: &Path, key: &Path) -> anyhow::Result<()> {
    let public = packages.join("signer");
    if key.is_file() && public.is_file() {
        return Ok(());
    }
    if key.is_file() {
        std::fs::remove_file(key)?;
    }
    let mut keygen = Command::new(binary);
    keygen.args(["--json", "tool", "keygen"]).arg(key);
    let made: Value = serde_json::from_str(&said(keygen, "make a signing key").await?)?;
    std::fs::write(public, made["public"].as_str().context("keygen names the public key")?)?;
    Ok(())
}

/// Runs `keybearer` for what it says.
async fn said(command: Command, what: &str) -> anyhow::Result<String> {
    let output = tokio::process::Command::from(command).output().await?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{what}: {}", error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A core module becomes a component; the linker of wasm32-wasip2 has made one already.
fn componentise(module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if module.starts_with(COMPONENT_PREAMBLE) {
        return Ok(module);
    }
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(&module)?;
    encoder.encode()
}
