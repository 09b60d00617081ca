//! `cargo xtask test`: everything is built, the real upstreams are started, every test and every example
//! of the documentation runs. What could not run is said at the end, and is a failure.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::children;
use crate::peers::Peers;
use crate::pinned;
use crate::place::Place;
use crate::products;
use crate::products::Extent;

/// Runs all, or what the arguments for nextest choose.
///
/// # Errors
/// If something cannot be built, a test fails, or a case did not run.
pub(crate) async fn run(place: &Place, chosen: &[String]) -> anyhow::Result<()> {
    let started = Instant::now();
    products::build(place, Extent::Everything).await?;
    let nextest = pinned::nextest(place).await?;
    let peers = Peers::start(place).await?;

    // All of it runs even if the first part fails: one look at the end shows everything.
    let mut failures = Vec::new();
    failures.extend(children::shown("run the tests", tests(place, &nextest, &peers, chosen)).await.err());
    if chosen.is_empty() {
        let mut examples = place.cargo();
        examples.args(["test", "--workspace", "--doc"]);
        let log = place.log("examples");
        failures.extend(children::logged("run the examples of the documentation", examples, &log).await.err());
    }
    let mut not_run = Vec::new();
    for missing in peers.missing() {
        let count = cases(place, &nextest, missing.name).await;
        not_run.push(format!("{}: {count}, because {:#}", missing.name, missing.because));
    }
    drop(peers);

    let minutes = started.elapsed().as_secs_f64() / 60.0;
    for failure in &failures {
        eprintln!("{} {failure:#}", children::bad("FAILED"));
    }
    for line in &not_run {
        eprintln!("{} {line}", children::bad("NOT RUN"));
    }
    anyhow::ensure!(failures.is_empty() && not_run.is_empty(), "not all tests passed ({minutes:.1} min)");
    eprintln!("{} all tests passed ({minutes:.1} min)", children::good("ok"));
    Ok(())
}

fn tests(place: &Place, nextest: &Path, peers: &Peers, chosen: &[String]) -> Command {
    let mut command = Command::new(nextest);
    command.current_dir(&place.root).args(["nextest", "run", "--workspace"]).envs(peers.environment());
    let absent: Vec<_> = peers.missing().iter().map(|missing| needing(missing.name)).collect();
    if !absent.is_empty() {
        command.args(["--filterset", &format!("not ({})", absent.join(" + "))]);
    }
    command.args(chosen);
    command
}

/// The cases that need a peer: those in a module or with a name that says so.
fn needing(peer: &str) -> String {
    format!("test(/needs_{peer}/)")
}

/// How many cases need a peer, in words.
async fn cases(place: &Place, nextest: &Path, peer: &str) -> String {
    let mut list = Command::new(nextest);
    list.current_dir(&place.root).args(["nextest", "list", "--workspace", "--message-format", "oneline"]);
    list.args(["--filterset", &needing(peer)]);
    match children::printed(list).await.map(|text| text.lines().count()) {
        Some(1) => "1 case that needs it".to_owned(),
        Some(count) => format!("{count} cases that need it"),
        None => "the cases that need it".to_owned(),
    }
}
