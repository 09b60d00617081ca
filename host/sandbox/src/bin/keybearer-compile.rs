//! The compiling child as a program of its own: reads one component, compiles it, ends. For those who
//! embed the sandbox without a binary that has a subcommand for it. Not for people to run.

use std::process::ExitCode;

fn main() -> ExitCode {
    keybearer_sandbox::compile_child_main()
}
