//! Where things are: the checkout, the target folder, and the folder of pinned tools. The only file of
//! the commands that reads the environment.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

/// Where things are.
pub(crate) struct Place {
    /// The checkout.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// What the commands install: nothing outside of the checkout, but what comes from the system's
    /// own package manager.
    pub(crate) tools: PathBuf,
}

impl Place {
    /// Finds out.
    ///
    /// # Errors
    /// If this program does not lie in a target folder.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = root();
        let exe = std::env::current_exe().context("where this program is")?;
        // target/<profile>/xtask
        let target = exe.ancestors().nth(2).context("this program lies in cargo's target folder")?.to_owned();
        Ok(Self { tools: root.join(".tools"), root, target })
    }

    /// The folder of logs of what is not shown.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.target.join("xtask").join(format!("{name}.log"))
    }

    /// A cargo that works in the checkout.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new("cargo");
        command.current_dir(&self.root);
        command
    }

    /// The compiler that it uses.
    pub(crate) fn rustc(&self) -> Command {
        let mut command = Command::new("rustc");
        command.current_dir(&self.root);
        command
    }
}

/// The checkout that this program was built from.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the checkout").to_owned()
}

/// Cargo's home, where the sources of dependencies lie.
#[expect(clippy::disallowed_methods, reason = "cargo itself is configured by the environment")]
pub(crate) fn cargo_home() -> anyhow::Result<PathBuf> {
    match std::env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(std::env::home_dir().context("neither CARGO_HOME nor a home folder is set")?.join(".cargo")),
    }
}
