//! Measures keybearer against a floor: the least that the same work costs without it, on the same
//! machine, in alternating slices of one run. `run` is the benchmark; `floor` and `upstream` are the
//! processes that it starts beside the real server. Not for correctness, which `tests/` looks after.

mod breakdown;
mod calls;
mod children;
mod floor;
mod instance;
mod leases;
mod load;
mod machine;
mod ours;
mod plan;
mod report;
mod revocation;
mod stats;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use clap::Subcommand;
use keybearer_tests::Built;

use crate::plan::Plan;
use crate::report::Report;

/// The server's, so that the floor has it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "keybearer-bench", about = "Measure keybearer against the bare floor")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Measure, and print one table.
    Run {
        /// Shorter slices and fewer of them: within two minutes, and noisier.
        #[arg(long)]
        quick: bool,
        /// Write the rows here: `[{name, ours, floor, ratio, target, holds}]`.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Keep the run, every slice of it, in a folder of its own here.
        #[arg(long)]
        runs: Option<PathBuf>,
    },
    /// Keep the real server under load for a profiler, and name its process.
    Hold(calls::Held),
    /// Revoke under load, many times over: how long it takes, and that nothing is used after it.
    Revocation {
        #[arg(long, default_value_t = 10_000)]
        trials: usize,
    },
    /// The bare server: hyper, a fresh instance for each request, and nothing else.
    #[command(hide = true)]
    Floor(floor::server::Setup),
    /// The upstream of credentialed calls.
    #[command(hide = true)]
    Upstream {
        #[arg(long)]
        certificate: PathBuf,
        #[arg(long)]
        key: PathBuf,
        /// The bearer token that it demands.
        #[arg(long)]
        token_file: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().role {
        Role::Run { quick, json, runs } => run(quick, json, runs),
        Role::Hold(held) => {
            let plan = Plan { slice: Duration::from_secs(held.seconds), ..Plan::quick() };
            calls::hold(&plan, &built()?, &held)
        }
        Role::Revocation { trials } => revocation::run(&built()?, trials),
        Role::Floor(setup) => floor::server::serve(setup),
        Role::Upstream { certificate, key, token_file } => upstream::serve(&certificate, &key, &token_file),
    }
}

fn run(quick: bool, json: Option<PathBuf>, runs: Option<PathBuf>) -> anyhow::Result<()> {
    let plan = if quick { Plan::quick() } else { Plan::full() };
    let built = built()?;
    let mut report = Report::new(quick, machine::describe()?);
    eprintln!("{}", report.machine);
    instance::measure(&plan, &built, &mut report)?;
    calls::measure(&plan, &built, &mut report)?;
    report.print();
    if let Some(path) = json {
        std::fs::write(&path, report.rows_json()?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if let Some(folder) = runs {
        report.keep(&folder)?;
    }
    Ok(())
}

fn built() -> anyhow::Result<Built> {
    Built::find().context("run `cargo xtask bench`, which builds what is measured")
}

/// What a child says when it listens.
fn listening(address: SocketAddr) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // The parent waits for this line; if it is gone, so is the need to say it.
    let _ = writeln!(out, "{address}").and_then(|()| out.flush());
}
