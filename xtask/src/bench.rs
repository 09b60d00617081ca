//! `cargo xtask bench`: builds the binary and the benches as they are released, packs the tools, and runs
//! the benches. What is measured, and against what, is in `benches/`.

use std::path::PathBuf;
use std::process::Command;

use crate::children;
use crate::place::Place;
use crate::products;
use crate::release;

/// What is measured, and how.
pub(crate) struct Asked {
    /// Within two minutes.
    pub(crate) quick: bool,
    /// Where the rows go.
    pub(crate) json: Option<PathBuf>,
    /// What `cargo build --release` makes.
    pub(crate) uncounted: bool,
}

/// Builds and measures; the run is kept in `benches/runs`.
///
/// # Errors
/// If something cannot be built, or a call that is measured fails. A target that is missed is no error:
/// the table says so.
pub(crate) async fn run(place: &Place, asked: Asked) -> anyhow::Result<()> {
    let built = if asked.uncounted { uncounted(place).await? } else { release::run(place).await?.bench };
    let mut bench = Command::new(built);
    bench.arg("run").arg("--runs").arg(place.root.join("benches/runs"));
    if asked.quick {
        bench.arg("--quick");
    }
    if let Some(json) = asked.json {
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    children::shown("measure", bench).await
}

async fn uncounted(place: &Place) -> anyhow::Result<PathBuf> {
    products::build(place, products::Extent::Shipped).await?;
    let mut cargo = place.cargo();
    cargo.args(["build", "--release", "--locked", "-p", "keybearer", "-p", "keybearer-bench"]);
    children::shown("build keybearer and the benches for release", cargo).await?;
    Ok(place.target.join("release/keybearer-bench"))
}
