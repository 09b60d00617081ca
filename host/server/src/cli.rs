//! The command line. A command talks to the HTTP API as anybody else would, but for those that are about
//! this machine: `init`, `serve`, `ledger`, `doctor`, and what builds packages. Secrets come from files
//! or stdin, never from an argument.

mod call;
pub(crate) mod client;
mod credential;
mod doctor;
mod failure;
mod grant;
mod hook;
mod incident;
mod init;
mod inventory;
mod ledger;
mod notices;
mod once;
mod operator;
mod output;
mod progress;
mod run;
mod target;
mod tenant;
mod terminal;
mod token;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::Parser;
use clap::Subcommand;

use crate::cli::failure::Cause;
use crate::cli::output::Output;
use crate::config::Config;

/// The subcommand that only the server starts: it is no part of the command line.
pub(crate) const COMPILE_CHILD: &str = "compile-child";

/// Runs the tool calls of AI agents for many tenants, and bears their keys.
#[derive(Parser)]
#[command(name = "keybearer", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Global {
    /// The configuration; default: keybearer.toml here, or in keybearer-data
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// The server's URL, such as `https://keybearer.example:7400`; default: the one of the configuration
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// A file with the token to use, mode 0600; for the operator's commands the configuration names it
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust the certificate authorities of this PEM file instead of the public ones
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Send the token in the clear to an http:// server beyond loopback: everybody on the way can read it
    #[arg(long, global = true)]
    dangerous_plain_http: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Make a folder, a configuration and the operator's token
    Init(init::Init),
    /// Serve until stopped
    Serve {
        /// When ready, write where it listens into this file, as JSON
        #[arg(long, value_name = "FILE")]
        ready_file: Option<PathBuf>,
    },
    /// Call a tool (tenant)
    Call(call::Call),
    /// Tell why a credential was or was not attached in a call (tenant)
    Explain {
        /// The call's id
        call: String,
    },
    /// Tenants (operator)
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// API tokens (tenant; operator with --tenant)
    #[command(subcommand)]
    Token(token::Token),
    /// Agents' runs: one sealed context with a token of its own (tenant)
    #[command(subcommand)]
    Run(run::Run),
    /// Credentials (tenant)
    #[command(subcommand)]
    Credential(credential::Credential),
    /// Grants (tenant)
    #[command(subcommand)]
    Grant(grant::Grant),
    /// Hooks: where sources outside say that something changed (tenant)
    #[command(subcommand)]
    Hook(hook::Hook),
    /// Where the tenant is told what needs its attention (tenant)
    #[command(subcommand)]
    Notices(notices::Notices),
    /// Who acts here that is no person, when it was used and rotated last, what should be looked at (tenant)
    Inventory(inventory::Inventory),
    /// Packages of tools: write, build, check, pack, sign; publish and list
    #[command(subcommand)]
    Tool(Box<tool::Tool>),
    /// Incidents: stop what is no longer trusted, at once and everywhere (operator; tenant with `own`)
    #[command(subcommand)]
    Incident(incident::Incident),
    /// Keys and values across tenants (operator)
    #[command(subcommand)]
    Operator(operator::Operator),
    /// The ledger on this machine
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Check this machine and its configuration, and say what to mend
    Doctor,
}

impl Global {
    /// Reads the configuration.
    fn read_config(&self) -> anyhow::Result<Config> {
        Config::read(&self.config.clone().unwrap_or_else(crate::config::default_path))
            .map_err(|error| Cause::ConfigurationRefused.of(error))
    }
}

/// Runs the command line: 0 done, 1 refused or failed, 2 wrongly asked.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own: help goes to stdout with 0, a usage error to stderr with 2.
            if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
                Output { json: true }.error(&failure::in_json(&Cause::Usage.says(error.to_string().trim_end())));
            } else {
                let _ = error.print();
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let output = Output { json: cli.global.json };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if output.json {
                output.error(&failure::in_json(&error));
            } else {
                eprintln!("keybearer: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    let output = Output { json: global.json };
    match command {
        Command::Init(init) => init.run(&output)?,
        Command::Serve { ready_file } => crate::serve::run(global.read_config()?, ready_file.as_deref())?,
        Command::Ledger(ledger) => return ledger.run(&global, &output),
        Command::Doctor => return doctor::run(&global, &output),
        Command::Call(call) => on_runtime(call.run(&global, &output))?,
        Command::Explain { call } => on_runtime(call::explain(&call, &global, &output))?,
        Command::Tenant(tenant) => on_runtime(tenant.run(&global, &output))?,
        Command::Token(token) => on_runtime(token.run(&global, &output))?,
        Command::Run(run) => on_runtime(run.run(&global, &output))?,
        Command::Credential(credential) => on_runtime(credential.run(&global, &output))?,
        Command::Grant(grant) => on_runtime(grant.run(&global, &output))?,
        Command::Hook(hook) => on_runtime(hook.run(&global, &output))?,
        Command::Notices(notices) => on_runtime(notices.run(&global, &output))?,
        Command::Inventory(inventory) => on_runtime(inventory.run(&global, &output))?,
        Command::Tool(tool) => return on_runtime(tool.run(&global, &output)),
        Command::Incident(incident) => on_runtime(incident.run(&global, &output))?,
        Command::Operator(operator) => on_runtime(operator.run(&global, &output))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs one command's future.
fn on_runtime<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_what_it_is_and_its_examples_can_be_copied() {
        fn look(command: &mut clap::Command, path: &str) {
            let help = command.render_long_help().to_string();
            assert!(!help.contains("<http") && !help.contains(" <https"), "{path}: {help}");
            command.get_subcommands_mut().for_each(|inner| {
                let path = format!("{path} {}", inner.get_name());
                look(inner, &path);
            });
        }
        let mut command = Cli::command();
        assert!(command.render_help().to_string().starts_with("Runs the tool calls of AI agents"));
        look(&mut command, "keybearer");
    }

    #[test]
    fn x17_no_argument_takes_a_secret() {
        fn look(command: &clap::Command, path: &str) {
            for argument in command.get_arguments() {
                let name = argument.get_id().as_str();
                let secret = ["value", "token", "secret", "password", "key"].contains(&name);
                assert!(!secret, "{path} --{name} would put a secret into the argument list");
            }
            for inner in command.get_subcommands() {
                look(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        look(&Cli::command(), "keybearer");
    }
}
