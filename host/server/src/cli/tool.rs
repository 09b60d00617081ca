//! `keybearer tool`: from an empty folder to a published package.

mod build;
mod package;
mod scaffold;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use clap::ValueEnum;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Tool {
    /// Write a new tool's crate, with a manifest and tests
    New {
        /// The package's name: a-z, 0-9 and -
        name: String,
        /// The folder of the guest SDK; default: the one of the checkout around this folder
        #[arg(long, value_name = "FOLDER")]
        sdk: Option<PathBuf>,
    },
    /// Build a tool's crate into NAME.wasm, a component
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// For what it is built
        #[arg(long, value_enum, default_value = "wasm32-unknown-unknown")]
        target: Target,
    },
    /// Check manifest, descriptions and schemas, and compile the component
    Check(package::Source),
    /// Pack component and manifest into NAME.kbp
    Pack {
        #[command(flatten)]
        source: package::Source,
        /// Write here
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Make a publisher's signing key, mode 0600, and print its public half
    Keygen {
        /// The new file
        file: PathBuf,
    },
    /// Sign a package, in place
    Sign {
        /// The package
        file: PathBuf,
        /// The signing key's file
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
    /// Show what is in a package, and who signed it
    Inspect {
        /// The package
        file: PathBuf,
    },
    /// Publish a signed package (operator)
    Publish {
        /// The package
        file: PathBuf,
        /// Publish a version that is older than the newest one
        #[arg(long)]
        allow_rollback: bool,
        /// Only these tenants see it, by name or id; every one, if none is named
        #[arg(long, value_name = "TENANT")]
        visible_to: Vec<String>,
    },
    /// List the tools that the tenant may call (with --token-file), or the published packages (operator)
    List,
    /// Withdraw a version: no call runs it any more (operator)
    Withdraw {
        /// Its digest
        digest: String,
    },
    /// Revoke one tool, of every version and for every tenant; returns when calls of it are stopped (operator)
    Revoke {
        /// Its name, `package.tool`
        tool: String,
    },
    /// Let a revoked tool run again (operator)
    Restore {
        /// Its name, `package.tool`
        tool: String,
    },
    /// Revoke a signer for good: none of its packages runs any more (operator)
    RevokeSigner {
        /// Its public key, 64 hex digits
        signer: String,
    },
}

/// What a tool is built for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Imports nothing but Keybearer's world
    #[value(name = "wasm32-unknown-unknown")]
    Unknown,
    /// For tools whose manifest asks for parts of WASI
    #[value(name = "wasm32-wasip2")]
    WasiP2,
}

impl Target {
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Unknown => "wasm32-unknown-unknown",
            Self::WasiP2 => "wasm32-wasip2",
        }
    }
}

const PACKAGES: &[&str] = &["name", "version", "digest", "signer", "withdrawn"];
const TOOLS: &[&str] = &["name", "version", "granted", "read_only", "slots", "description"];

impl Tool {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::New { name, sdk } => scaffold::write(name, sdk.as_deref(), output)?,
            Self::Build { folder, target } => {
                let (path, bytes) = build::build(folder, *target)?;
                let value = json!({ "component": path.display().to_string(), "bytes": bytes });
                output.say(&format!("built {} ({bytes} bytes)", path.display()), &value);
            }
            Self::Check(source) => return package::check(source, output).await,
            Self::Pack { source, out } => package::pack(source, out.as_deref(), output)?,
            Self::Keygen { file } => package::keygen(file, output)?,
            Self::Sign { file, key_file } => package::sign(file, key_file, output)?,
            Self::Inspect { file } => package::inspect(file, output)?,
            Self::Publish { file, allow_rollback, visible_to } => {
                let answer = package::publish(&global.operator()?, file, *allow_rollback, visible_to).await?;
                output.show(&answer, PACKAGES);
            }
            Self::List if global.token_file.is_some() => {
                output.show(&global.tenant()?.get("/v1/tools").await?, TOOLS);
            }
            Self::List => output.show(&global.operator()?.get("/v1/packages").await?, PACKAGES),
            Self::Withdraw { digest } => {
                let path = format!("/v1/packages/{}/withdraw", target::segment(digest)?);
                output.show(&global.operator()?.act(&path).await?, &[]);
            }
            Self::Revoke { tool } => {
                let path = format!("/v1/tools/{}/revoke", target::segment(tool)?);
                output.show(&global.operator()?.act(&path).await?, &[]);
            }
            Self::Restore { tool } => {
                global.operator()?.act(&format!("/v1/tools/{}/restore", target::segment(tool)?)).await?;
                output.say("the tool runs again", &serde_json::json!({ "id": tool }));
            }
            Self::RevokeSigner { signer } => {
                let path = format!("/v1/signers/{}/revoke", target::segment(signer)?);
                output.show(&global.operator()?.act(&path).await?, &[]);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
