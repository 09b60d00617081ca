//! The binary: configuration, listeners, HTTP API, command line. What is decided about tools and
//! credentials is decided in the executor and the rooms below it.

mod api;
mod cli;
mod config;
mod files;
mod harden;
mod listen;
mod metrics;
mod serve;
mod telemetry;
mod tls;

/// A call makes some two hundred small allocations on whichever thread it is; the C library's allocator takes a tenth of
/// its instructions for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The compile child limits itself, first thing and by rules of its own.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == cli::COMPILE_CHILD) {
        return keybearer_sandbox::compile_child_main();
    }
    harden::harden();
    cli::main()
}
