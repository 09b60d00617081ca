//! Who is calling, where it is not said by an API token: JWTs of a configured issuer, and client
//! certificates with a SPIFFE id.

mod certificates;
mod issuer;
mod jwt;

use std::io::Write as _;

use keybearer_tests::Server;

/// Adds to the configuration and starts again: the table of issuers and workloads is read at the start.
fn configure(server: &mut Server, more: &str) -> anyhow::Result<()> {
    std::fs::OpenOptions::new().append(true).open(server.config_file())?.write_all(more.as_bytes())?;
    server.stop()?;
    server.restart()
}
