//! The tools of the toolchain that the commands use, at the versions that they were tried with: guest
//! targets by rustup, cargo-nextest from its source. Not for the servers that the cases talk to.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::children;
use crate::place::Place;

/// What tools are compiled to: the default, and the one for tools that need parts of WASI.
pub(crate) const GUEST_TARGETS: [&str; 2] = ["wasm32-unknown-unknown", "wasm32-wasip2"];

const NEXTEST: &str = "0.9.143";

/// An installed nextest of this line is good enough; one of another line may mean something else by the
/// same configuration.
const NEXTEST_LINE: &str = "cargo-nextest 0.9.";

/// Adds the guest targets to the toolchain, where they are missing.
///
/// # Errors
/// A sentence that says what to do.
pub(crate) async fn guest_targets(place: &Place) -> anyhow::Result<()> {
    let mut sysroot = Command::new("rustc");
    sysroot.args(["--print", "sysroot"]).current_dir(&place.root);
    let sysroot =
        children::printed(sysroot).await.context("`rustc` does not run: install Rust from https://rustup.rs")?;
    let libraries = PathBuf::from(sysroot.trim()).join("lib/rustlib");
    let missing: Vec<_> =
        GUEST_TARGETS.into_iter().filter(|target| !libraries.join(target).join("lib").is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add"]).args(&missing).current_dir(&place.root);
    let added = children::logged("add the guest targets", add, &place.log("rustup")).await;
    added.with_context(|| {
        let missing = missing.join(" ");
        format!("tools cannot be compiled: run `rustup target add {missing}` where there is a network, then try again")
    })
}

/// A nextest: the one that is installed, if it is of the pinned line, or one of our own.
///
/// # Errors
/// If it cannot be installed.
pub(crate) async fn nextest(place: &Place) -> anyhow::Result<PathBuf> {
    let own = place.tools.join("bin/cargo-nextest");
    for candidate in [own.clone(), "cargo-nextest".into()] {
        let mut version = Command::new(&candidate);
        version.args(["nextest", "--version"]);
        if children::printed(version).await.is_some_and(|text| text.starts_with(NEXTEST_LINE)) {
            return Ok(candidate);
        }
    }
    let mut install = place.cargo();
    install.args(["install", "--locked", "--root"]).arg(&place.tools).arg(format!("cargo-nextest@{NEXTEST}"));
    children::shown("install cargo-nextest (once; some minutes)", install).await?;
    Ok(own)
}
