//! G16: looks around for what a process has, and finds nothing; asks for the time, and is stopped.

use std::io::Read as _;

use keybearer_guest::prelude::*;

/// What there is.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// Environment variables.
    variables: usize,
    /// Arguments.
    arguments: usize,
    /// Bytes on standard input.
    input: usize,
    /// Why the root folder cannot be read.
    root: Option<String>,
    /// Why this file cannot be read.
    file: Option<String>,
    /// What a new hash map is seeded with, hashed.
    seeded: u64,
}

// Shown by: environment::g16_a_guest_finds_no_environment_no_files_and_no_clock
/// Looks around.
#[tool(read_only)]
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "it looks for what should not be there")]
pub(crate) fn environment() -> Result<Out, ToolError> {
    use std::hash::BuildHasher as _;
    println!("a line on standard output");
    eprintln!("a line on standard error");
    let mut input = Vec::new();
    let read = std::io::stdin().read_to_end(&mut input).unwrap_or(0);
    Ok(Out {
        variables: std::env::vars_os().count(),
        arguments: std::env::args_os().count(),
        input: read,
        root: std::fs::read_dir("/").err().map(|error| error.to_string()),
        file: std::fs::read("/etc/passwd").err().map(|error| error.to_string()),
        seeded: std::hash::RandomState::new().hash_one("same"),
    })
}

// Shown by: environment::g16_a_guest_finds_no_environment_no_files_and_no_clock
/// Asks for the time.
#[tool(read_only)]
pub(crate) fn clock() -> Result<u64, ToolError> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(since.map_or(0, |since| since.as_secs()))
}

// Shown by: environment::g16_a_guest_finds_no_environment_no_files_and_no_clock
/// Leaves by the door that a process has.
#[tool(read_only)]
pub(crate) fn leave() -> Result<u64, ToolError> {
    std::process::exit(0)
}
