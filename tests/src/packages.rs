//! Where the test command has put what the cases need: the built binary, the packed tools, the signing
//! key's public half. The cases build nothing by themselves.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

/// What `cargo xtask test` has built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The `keybearer` binary.
    pub binary: PathBuf,
    /// The folder with the signed bundles, `NAME.kbp`.
    pub packages: PathBuf,
    /// The public key, hex, that signed them.
    pub signer: String,
}

impl Built {
    /// Finds it beside the test binary, in the target folder.
    ///
    /// # Errors
    /// A sentence that says which command builds it.
    pub fn find() -> anyhow::Result<Self> {
        let exe = std::env::current_exe().context("where this program is")?;
        // target/<profile>/deps/all-… or target/<profile>/xtask
        let profile = exe
            .ancestors()
            .find(|folder| folder.parent().is_some_and(|parent| parent.join("packages").is_dir()))
            .context("nothing is built yet: run `cargo xtask test`, which builds what the cases need")?;
        let target = profile.parent().context("the profile's folder is in the target folder")?;
        Self::at(&profile.join("keybearer"), &target.join("packages"))
    }

    /// What is at these places.
    ///
    /// # Errors
    /// A sentence that names what is missing.
    pub fn at(binary: &Path, packages: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(binary.is_file(), "`keybearer` is not built: run `cargo xtask test`");
        let signer = std::fs::read_to_string(packages.join("signer"))
            .context("the tools are not packed: run `cargo xtask test`")?;
        Ok(Self { binary: binary.to_owned(), packages: packages.to_owned(), signer: signer.trim().to_owned() })
    }

    /// The signed bundle of a tool.
    ///
    /// # Errors
    /// If there is none.
    pub fn bundle(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.packages.join(format!("{name}.kbp"));
        std::fs::read(&path).with_context(|| format!("`{name}` is not packed: run `cargo xtask test`"))
    }

    /// The component of a packed tool under another manifest, signed with this checkout's key.
    ///
    /// # Errors
    /// If the manifest is refused.
    pub fn pack(&self, component: &str, manifest: &str) -> anyhow::Result<Vec<u8>> {
        self.pack_signed(component, manifest, Some(&self.packages.join("key")))
    }

    /// The same, signed with another key, or not signed.
    ///
    /// # Errors
    /// If the manifest is refused.
    pub fn pack_signed(&self, component: &str, manifest: &str, key: Option<&Path>) -> anyhow::Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        let (text, bundle) = (folder.path().join("manifest.toml"), folder.path().join("bundle.kbp"));
        std::fs::write(&text, manifest)?;
        let component = self.packages.join(format!("{component}.wasm"));
        let path = |path: &Path| path.display().to_string();
        self.run(&[
            "tool",
            "pack",
            "--component",
            &path(&component),
            "--manifest",
            &path(&text),
            "--out",
            &path(&bundle),
        ])?;
        if let Some(key) = key {
            self.run(&["tool", "sign", &path(&bundle), "--key-file", &path(key)])?;
        }
        Ok(std::fs::read(&bundle)?)
    }

    /// Runs the command line where no server is needed: what it printed.
    ///
    /// # Errors
    /// What it said, if it did not go well.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary).args(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        anyhow::ensure!(output.status.success(), "{} {}", text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }
}
