//! `cargo xtask release`: the binary as it is shipped. It is built twice: once so that it counts what its
//! code does under load, then with those counts, so that what a call runs through lies together and what
//! it does not lies elsewhere. The benches are built beside it in the same way, for the floor's sake.
//!
//! Why: of a credentialed call's time more goes into fetching code than into running it; placed by counts it
//! takes three tenths less (benches/README.md).

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Context as _;

use crate::children;
use crate::place::Place;
use crate::products;

/// What is built, of both kinds.
const BINARIES: [&str; 2] = ["keybearer", "keybearer-bench"];

/// What is run for the counts: what is called, and whether the bare server is.
const LOADS: [(&str, bool); 4] = [("http-get", false), ("echo", false), ("http-get", true), ("echo", true)];

/// Seconds of each load: some ten thousand calls, even of code that counts.
const LOAD_S: &str = "10";

/// What is released.
pub(crate) struct Released {
    /// The server and its command line.
    pub(crate) keybearer: PathBuf,
    /// What measures it.
    pub(crate) bench: PathBuf,
}

/// Builds it. What has not changed is not built again, and is not counted again.
///
/// # Errors
/// If something cannot be built or run.
pub(crate) async fn run(place: &Place) -> anyhow::Result<Released> {
    products::build(place, products::Extent::Shipped).await?;
    let host = host(place).await?;
    let profdata = profdata(place, &host).await?;
    let raw = place.target.join("counting/raw");
    let counting = build(place, &host, "counting", &[format!("-Cprofile-generate={}", raw.display())]).await?;
    let counts = place.target.join("counting/counts.profdata");
    if is_older(&counts, &counting.keybearer) || is_older(&counts, &counting.bench) {
        count(&counting, &raw).await?;
        let mut merge = Command::new(profdata);
        merge.arg("merge").arg("--output").arg(&counts).arg(&raw);
        children::shown("put the counts together", merge).await?;
    }
    // Without the last one, the linker lays what is hot and what is not side by side again.
    let flags =
        [format!("-Cprofile-use={}", counts.display()), "-Clink-arg=-Wl,-z,keep-text-section-prefix".to_owned()];
    let released = build(place, &host, "released", &flags).await?;
    eprintln!("{}", children::good(&format!("the released binary: {}", released.keybearer.display())));
    Ok(released)
}

/// With the same profile in both builds: what a function is called, by which its counts are found, depends on it.
/// With a target that is named, so that what runs while building is not built so.
async fn build(place: &Place, host: &str, kind: &str, flags: &[String]) -> anyhow::Result<Released> {
    let folder = place.target.join(kind);
    let mut cargo = place.cargo();
    cargo.args(["build", "--release", "--locked", "--target", host, "--target-dir"]).arg(folder.join("cargo"));
    cargo.args(BINARIES.iter().flat_map(|binary| ["--package", binary]));
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    children::shown(&format!("build for release, {kind}"), cargo).await?;
    let made = folder.join("cargo").join(host).join("release");
    // Beside the packed tools, where a program looks for them.
    let [keybearer, bench] = BINARIES.map(|binary| (made.join(binary), folder.join(binary)));
    for (made, copy) in [&keybearer, &bench] {
        if is_older(copy, made) {
            std::fs::copy(made, copy).with_context(|| format!("{} cannot be written", copy.display()))?;
        }
    }
    Ok(Released { keybearer: keybearer.1, bench: bench.1 })
}

async fn count(counting: &Released, raw: &Path) -> anyhow::Result<()> {
    // Counts of other code would be put together with these.
    if raw.exists() {
        std::fs::remove_dir_all(raw)?;
    }
    for (called, floor) in LOADS {
        let mut hold = Command::new(&counting.bench);
        hold.args(["hold", called, "--concurrency", "8", "--seconds", LOAD_S]);
        hold.args(floor.then_some("--floor"));
        let side = if floor { "the bare server" } else { "keybearer" };
        children::shown(&format!("count what {side} does for `{called}`"), hold).await?;
    }
    Ok(())
}

/// Whether a file was last written before another, or is not there.
fn is_older(file: &Path, than: &Path) -> bool {
    let written = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    written(file) < written(than).or(Some(SystemTime::UNIX_EPOCH))
}

/// The target of this machine.
async fn host(place: &Place) -> anyhow::Result<String> {
    let mut rustc = place.rustc();
    rustc.arg("-vV");
    let text = children::printed(rustc).await.context("`rustc -vV` failed")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
    Ok(host.to_owned())
}

/// The program that puts counts together: a part of the toolchain, and of the same version as its compiler.
async fn profdata(place: &Place, host: &str) -> anyhow::Result<PathBuf> {
    let mut rustc = place.rustc();
    rustc.args(["--print", "sysroot"]);
    let sysroot = children::printed(rustc).await.context("`rustc --print sysroot` failed")?;
    let program = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-profdata");
    if !program.is_file() {
        let mut rustup = Command::new("rustup");
        rustup.current_dir(&place.root).args(["component", "add", "llvm-tools"]);
        let added = children::shown("install llvm-tools of the toolchain", rustup).await;
        anyhow::ensure!(
            added.is_ok() && program.is_file(),
            "a release is built with `llvm-profdata`: run `rustup component add llvm-tools`, or build without \
             counts by `cargo build --release -p keybearer`"
        );
    }
    Ok(program)
}
