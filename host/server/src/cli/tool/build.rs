//! `keybearer tool build`: cargo makes a core module, and it becomes a component here. What is built is
//! small and cannot unwind, whatever the crate's own profile says.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use keybearer_contract::Manifest;
use serde_json::Value;

use crate::cli::progress::Spinner;
use crate::cli::tool::Target;

/// The preamble of a component (layer 1).
const COMPONENT_PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";

/// What the names of the custom sections begin with in which wit-bindgen describes a module's world.
const METADATA_SECTION: &[u8] = b"component-type";

/// The stack of a guest. Small, because a fresh instance pays for the pages that it touches, and because
/// large things belong on the heap.
const STACK_BYTES: u32 = 64 << 10;

/// Builds a crate; where the component was written, and how large it is.
pub(super) fn build(folder: &Path, target: Target) -> anyhow::Result<(PathBuf, usize)> {
    let manifest_path = folder.join("manifest.toml");
    let text = std::fs::read_to_string(&manifest_path)
        .with_context(|| format!("{} cannot be read: is this a tool's folder?", manifest_path.display()))?;
    let manifest = Manifest::parse(&text)?;
    check_target(target)?;
    let spinner = Spinner::new(format!("building {} for {}", manifest.package.name, target.triple()));
    let module = cargo(folder, target)?;
    drop(spinner);
    let bytes = std::fs::read(&module).with_context(|| format!("{} cannot be read", module.display()))?;
    let component = componentise(bytes)?;
    let path = folder.join(format!("{}.wasm", manifest.package.name));
    std::fs::write(&path, &component)?;
    Ok((path, component.len()))
}

/// Says what to do if the compiler cannot build for the target.
fn check_target(target: Target) -> anyhow::Result<()> {
    let triple = target.triple();
    let found = Command::new("rustc").args(["--print", "target-libdir", "--target", triple]).output();
    let folder = match found {
        Ok(output) if output.status.success() => PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()),
        _ => bail!("rustc does not run: install Rust with rustup"),
    };
    ensure!(folder.is_dir(), "the target is not installed: rustup target add {triple}");
    Ok(())
}

/// Runs cargo; the module that it made.
fn cargo(folder: &Path, target: Target) -> anyhow::Result<PathBuf> {
    let crate_manifest = folder.join("Cargo.toml").canonicalize().context("there is no Cargo.toml here")?;
    let triple = target.triple();
    let mut child = Command::new("cargo")
        .args(["build", "--profile", "guest", "--target", triple, "--message-format=json-render-diagnostics"])
        .args(["--config", "profile.guest.inherits=\"release\"", "--config", "profile.guest.opt-level=\"s\""])
        .args(["--config", "profile.guest.lto=true", "--config", "profile.guest.codegen-units=1"])
        .args(["--config", "profile.guest.panic=\"abort\"", "--config", "profile.guest.strip=true"])
        .args(["--config", &format!("target.{triple}.rustflags={}", flags(&crate_manifest))])
        // These would take the place of the flags above.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .arg("--manifest-path")
        .arg(&crate_manifest)
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo does not run: install Rust with rustup")?;
    let mut module = None;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            if let Some(path) = artifact(&line?, &crate_manifest) {
                module = Some(path);
            }
        }
    }
    ensure!(child.wait()?.success(), "cargo could not build the crate: see above");
    module.context("the crate makes no .wasm: write crate-type = [\"cdylib\", \"rlib\"] under [lib]")
}

/// The compiler's flags, as a list in TOML. No path of this machine gets into a component: the same sources
/// make the same digest anywhere.
#[expect(clippy::disallowed_methods, reason = "where cargo keeps its sources, as cargo itself finds it")]
fn flags(crate_manifest: &Path) -> Value {
    let mut flags = vec![format!("-Clink-arg=-zstack-size={STACK_BYTES}")];
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    if let Some(cargo_home) = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home) {
        flags.push(format!("--remap-path-prefix={}=/deps", cargo_home.join("registry/src").display()));
    }
    for (name, folder) in local_crates(crate_manifest) {
        flags.push(format!("--remap-path-prefix={}=/src/{name}", folder.display()));
    }
    Value::from(flags)
}

/// The crates that come from folders of this machine: this one, and the SDK as a path dependency.
fn local_crates(crate_manifest: &Path) -> Vec<(String, PathBuf)> {
    let mut metadata = Command::new("cargo");
    metadata.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(crate_manifest);
    let Ok(output) = metadata.output() else { return Vec::new() };
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let local = packages.iter().filter(|package| package["source"].is_null());
    local
        .filter_map(|package| {
            let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
            Some((package["name"].as_str()?.to_owned(), folder.to_owned()))
        })
        .collect()
}

/// The module that a line of cargo's names, if it is this crate's.
fn artifact(line: &str, crate_manifest: &Path) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || Path::new(message["manifest_path"].as_str()?) != crate_manifest {
        return None;
    }
    let files = message["filenames"].as_array()?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
}

/// A core module becomes a component; the linker of wasm32-wasip2 has made one already.
fn componentise(module: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if module.starts_with(COMPONENT_PREAMBLE) {
        return Ok(module);
    }
    // Without our world's description the encoder would make an empty component.
    let described = module.windows(METADATA_SECTION.len()).any(|window| window == METADATA_SECTION);
    ensure!(described, "the module is no tool: call `keybearer_guest::export!` at the crate's root");
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow::anyhow!("the module does not become a component: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_crates_module_is_taken_from_what_cargo_says() {
        let own = Path::new("/t/Cargo.toml");
        let line = |manifest: &str, file: &str| {
            serde_json::json!({ "reason": "compiler-artifact", "manifest_path": manifest, "filenames": [file] })
                .to_string()
        };
        assert_eq!(artifact(&line("/t/Cargo.toml", "/x/t.wasm"), own), Some(PathBuf::from("/x/t.wasm")));
        assert_eq!(artifact(&line("/other/Cargo.toml", "/x/t.wasm"), own), None);
        assert_eq!(artifact(&line("/t/Cargo.toml", "/x/t.rlib"), own), None);
        assert_eq!(artifact("no JSON", own), None);
    }

    #[test]
    fn w01_what_is_no_module_becomes_no_component() {
        assert!(componentise(b"\0asm\x01\0\0\0".to_vec()).is_err(), "a module without our metadata");
        assert!(componentise(b"\x7fELF".to_vec()).is_err());
    }
}
