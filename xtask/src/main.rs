//! `cargo xtask`: the two commands of the README, and the chores. It builds, installs, starts and stops
//! what they need, and says what it does and how long that took. It tests nothing by itself: the cases
//! are in `tests/`.

mod bench;
mod children;
mod demo;
mod peers;
mod pinned;
mod place;
mod products;
mod release;
mod test;
#[cfg(test)]
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::Subcommand;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::place::Place;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Keybearer's commands: demo, test, and the chores")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Two tenants, one tool, two credentials: what everybody saw, checked.
    Demo,
    /// Build everything, start the real upstreams, run every test.
    Test {
        /// Handed to `cargo nextest run`; with any, the documentation's examples are left out.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        nextest: Vec<String>,
    },
    /// Measure against the bare floor, and print one table.
    Bench {
        /// Within two minutes, building not counted; noisier.
        #[arg(long)]
        quick: bool,
        /// Write the rows here: `[{name, ours, floor, ratio, target, holds}]`.
        #[arg(long)]
        json: Option<PathBuf>,
        /// What `cargo build --release` makes, in place of what `cargo xtask release` does: built in half the time.
        #[arg(long)]
        uncounted: bool,
    },
    /// Build the binary as it is shipped: twice, the second time by what the first has counted under load.
    Release,
    /// Build the binary and pack the tools into target/packages, and stop there.
    Build,
    /// Start the real upstreams for cases run by hand, until interrupted.
    Peers,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be started");
    let outcome = runtime.block_on(async {
        // What a command has started is stopped when its future is dropped.
        tokio::select! {
            outcome = run(arguments.command) => outcome,
            name = interrupted() => Err(anyhow::anyhow!("stopped by {name}")),
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", children::bad("FAILED:"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let place = Place::find()?;
    match command {
        Command::Bench { quick, json, uncounted } => bench::run(&place, bench::Asked { quick, json, uncounted }).await,
        Command::Release => release::run(&place).await.map(drop),
        Command::Demo => demo::run(&place, &products::build(&place, products::Extent::Shipped).await?).await,
        Command::Test { nextest } => test::run(&place, &nextest).await,
        Command::Peers => peers::hold(&place).await,
        Command::Build => products::build(&place, products::Extent::Shipped).await.map(drop),
    }
}

async fn interrupted() -> &'static str {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be waited for");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be waited for");
    tokio::select! {
        _ = interrupt.recv() => "an interrupt",
        _ = terminate.recv() => "a request to terminate",
    }
}
