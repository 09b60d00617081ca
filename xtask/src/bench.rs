//! `cargo xtask bench`: builds the binary and the benches for release, packs the tools, and runs the
//! benches. What is measured, and against what, is in `benches/`.

use std::path::PathBuf;
use std::process::Command;

use crate::children;
use crate::place::Place;
use crate::products;

/// Builds and measures; the run is kept in `benches/runs`.
///
/// # Errors
/// If something cannot be built, or a call that is measured fails. A target that is missed is no error:
/// the table says so.
pub(crate) async fn run(place: &Place, quick: bool, json: Option<PathBuf>) -> anyhow::Result<()> {
    products::build(place, products::Extent::Shipped).await?;
    let mut cargo = place.cargo();
    cargo.args(["build", "--release", "-p", "keybearer", "-p", "keybearer-bench"]);
    children::shown("build keybearer and the benches for release", cargo).await?;
    let mut bench = Command::new(place.target.join("release/keybearer-bench"));
    bench.arg("run").arg("--runs").arg(place.root.join("benches/runs"));
    if quick {
        bench.arg("--quick");
    }
    if let Some(json) = json {
        bench.arg("--json").arg(std::path::absolute(json)?);
    }
    children::shown("measure", bench).await
}
