//! `keybearer tool new`: a crate from the SDK's template.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::ensure;
use keybearer_contract::PackageName;
use serde_json::json;

use crate::cli::output::Output;

const CARGO: &str = include_str!("../../../../../guest-sdk/template/Cargo.toml.in");
const LIB: &str = include_str!("../../../../../guest-sdk/template/lib.rs.in");
const MANIFEST: &str = include_str!("../../../../../guest-sdk/template/manifest.toml.in");

/// Writes a new crate into a folder of its name.
pub(super) fn write(name: &str, sdk: Option<&Path>, output: &Output) -> anyhow::Result<()> {
    let name: PackageName = name.parse()?;
    let sdk = match sdk {
        Some(path) => path.to_path_buf(),
        None => find_sdk().context("name the folder of the guest SDK: --sdk FOLDER (guest-sdk in a checkout)")?,
    };
    ensure!(sdk.join("Cargo.toml").is_file(), "{} is not the guest SDK: it has no Cargo.toml", sdk.display());
    let sdk = sdk.canonicalize()?;
    let folder = PathBuf::from(name.as_str());
    ensure!(!folder.exists(), "{} exists: nothing was changed", folder.display());
    std::fs::create_dir_all(folder.join("src"))?;
    for (path, template) in [("Cargo.toml", CARGO), ("src/lib.rs", LIB), ("manifest.toml", MANIFEST)] {
        std::fs::write(folder.join(path), fill(template, &name, &sdk)?)?;
    }
    std::fs::write(folder.join(".gitignore"), "/target\n*.wasm\n*.kbp\n")?;
    let sentence = format!(
        "made {name}/\nnext:\n  cd {name}\n  cargo test\n  keybearer tool build\n  keybearer tool check\n  keybearer tool pack"
    );
    output.say(&sentence, &json!({ "folder": folder.display().to_string() }));
    Ok(())
}

fn fill(template: &str, name: &PackageName, sdk: &Path) -> anyhow::Result<String> {
    let sdk = sdk.to_str().context("the SDK's path is no UTF-8")?;
    Ok(template.replace("{{name}}", name.as_str()).replace("{{sdk}}", sdk))
}

/// The SDK of the checkout in which somebody works, or in which this executable was built.
fn find_sdk() -> Option<PathBuf> {
    let here = std::env::current_dir().ok();
    let built = std::env::current_exe().ok();
    let starts = [here.as_deref(), built.as_deref()];
    let mut folders = starts.into_iter().flatten().flat_map(Path::ancestors).map(|folder| folder.join("guest-sdk"));
    folders.find(|folder| folder.join("src/lib.rs").is_file() && folder.join("Cargo.toml").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_fills_completely_and_its_manifest_parses() {
        let name: PackageName = "my-tool".parse().expect("a name");
        for template in [CARGO, LIB, MANIFEST] {
            let text = fill(template, &name, Path::new("/sdk")).expect("fills");
            assert!(!text.contains("{{name}}") && !text.contains("{{sdk}}"));
        }
        let manifest = fill(MANIFEST, &name, Path::new("/sdk")).expect("fills");
        assert_eq!(keybearer_contract::Manifest::parse(&manifest).expect("parses").package.name, name);
    }
}
