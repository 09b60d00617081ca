//! Packages as files: check, pack, sign, inspect, publish. The bundle's form and its rules are the
//! executor's.

use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use http::Method;
use keybearer_contract::Manifest;
use keybearer_contract::Problem;
use keybearer_executor::bundle::Bundle;
use keybearer_executor::bundle::COMPONENT_BYTES_MAX;
use keybearer_executor::bundle::SigningKey;
use keybearer_executor::check_component;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::output::Output;
use crate::cli::progress::Spinner;
use crate::cli::target;
use crate::files;

/// Where component and manifest lie.
#[derive(Args)]
pub(crate) struct Source {
    /// The tool's folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The component; default: NAME.wasm in the folder
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// The manifest; default: manifest.toml in the folder
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

/// A package has a component, a manifest and a signature.
const PACKAGE_BYTES_MAX: u64 = COMPONENT_BYTES_MAX as u64 + (1 << 20);

impl Source {
    fn read(&self) -> anyhow::Result<Bundle> {
        let path = self.manifest.clone().unwrap_or_else(|| self.folder.join("manifest.toml"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let manifest = Manifest::parse(&text)?;
        let component =
            self.component.clone().unwrap_or_else(|| self.folder.join(format!("{}.wasm", manifest.package.name)));
        ensure!(component.exists(), "{} is not there: run `keybearer tool build` first", component.display());
        let component = target::read_input(&component, PACKAGE_BYTES_MAX)?.to_vec();
        Bundle::unsigned(component, text).map_err(sentence)
    }
}

/// A problem of a file on this machine, as an error for people.
fn sentence(problem: Problem) -> anyhow::Error {
    anyhow::anyhow!("{}", problem.detail)
}

fn read(file: &Path) -> anyhow::Result<Bundle> {
    Bundle::from_bytes(&target::read_input(file, PACKAGE_BYTES_MAX)?).map_err(sentence)
}

/// `tool check`: 1 if there is a finding.
pub(super) async fn check(source: &Source, output: &Output) -> anyhow::Result<ExitCode> {
    let bundle = source.read()?;
    let spinner = Spinner::new(format!("compiling {}", bundle.manifest().package.name));
    let (tools, findings) = check_component(&bundle).await.map_err(sentence)?;
    drop(spinner);
    let value = json!({ "digest": bundle.digest(), "tools": tools, "findings": findings });
    if output.json {
        output.show(&value, &[]);
    } else {
        for tool in &tools {
            output.line(&format!("{}.{}: {}", bundle.manifest().package.name, tool.name, tool.description));
        }
        for finding in &findings {
            output.line(&format!("TO MEND {}: {}", finding.place, finding.message));
        }
        if findings.is_empty() {
            output.line("nothing to mend");
        }
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `tool pack`
pub(super) fn pack(source: &Source, out: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    let bundle = source.read()?;
    let path = match out {
        Some(path) => path.to_path_buf(),
        None => source.folder.join(format!("{}.kbp", bundle.manifest().package.name)),
    };
    files::replace(&path, &bundle.to_bytes())?;
    let value = json!({ "file": path.display().to_string(), "digest": bundle.digest() });
    output.say(&format!("packed {} as {}", bundle.digest(), path.display()), &value);
    Ok(())
}

/// `tool keygen`
pub(super) fn keygen(file: &Path, output: &Output) -> anyhow::Result<()> {
    ensure!(!file.exists(), "{} exists: it is not overwritten", file.display());
    let key = SigningKey::generate(file).with_context(|| format!("{} cannot be made", file.display()))?;
    let sentence = format!(
        "made {}\nits public half, for the operator's packages.trusted_signers:\n{}",
        file.display(),
        key.public()
    );
    output.say(&sentence, &json!({ "file": file.display().to_string(), "public": key.public() }));
    Ok(())
}

/// `tool sign`
pub(super) fn sign(file: &Path, key_file: &Path, output: &Output) -> anyhow::Result<()> {
    let mut bundle = read(file)?;
    // Whoever can read it can publish in its owner's name.
    drop(files::read_secret(key_file)?);
    let key = SigningKey::from_file(key_file).with_context(|| format!("{} is no signing key", key_file.display()))?;
    bundle.sign(&key);
    files::replace(file, &bundle.to_bytes())?;
    let sentence = format!("signed {} as {}", bundle.digest(), key.public());
    output.say(&sentence, &json!({ "digest": bundle.digest(), "signer": key.public() }));
    Ok(())
}

/// `tool inspect`
pub(super) fn inspect(file: &Path, output: &Output) -> anyhow::Result<()> {
    let bundle = read(file)?;
    let signer = bundle.signature().map(|signature| signature.signer.clone());
    let value = json!({
        "name": bundle.manifest().package.name,
        "version": bundle.manifest().package.version,
        "digest": bundle.digest(),
        "signer": signer,
        "component_bytes": bundle.component().len(),
        "manifest": bundle.manifest_text(),
    });
    if output.json {
        output.show(&value, &[]);
        return Ok(());
    }
    output.show(&value, &["name", "version", "digest", "signer", "component_bytes"]);
    output.line("");
    for line in bundle.manifest_text().lines() {
        output.line(&line.chars().filter(|character| !character.is_control()).collect::<String>());
    }
    Ok(())
}

/// `tool publish`
pub(super) async fn publish(
    client: &Client,
    file: &Path,
    allow_rollback: bool,
    visible_to: &[String],
) -> anyhow::Result<Value> {
    let bytes = target::read_input(file, PACKAGE_BYTES_MAX)?.to_vec();
    // What is damaged is found out here, with a better sentence than an upload deserves.
    let bundle = Bundle::from_bytes(&bytes).map_err(sentence)?;
    let mut path = format!("/v1/packages?allow_rollback={allow_rollback}");
    let mut ids = Vec::new();
    for tenant in visible_to {
        ids.push(target::id_of(client, "/v1/tenants", "ten_", tenant).await?);
    }
    if !ids.is_empty() {
        path.push_str(&format!("&visible_to={}", ids.join(",")));
    }
    let _spinner = Spinner::new(format!("publishing {}", bundle.manifest().package.name));
    client.send(Method::POST, &path, "application/octet-stream", Bytes::from(bytes), &[]).await
}
