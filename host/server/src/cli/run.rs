//! `keybearer run`: agents' runs. A run's token is written to a file that only its owner can read, or to stdout
//! where that is not a terminal's history; it is read from a file or stdin, and never an argument.

use std::path::Path;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::once::Once;
use crate::cli::output::Output;
use crate::cli::target;
use crate::cli::token;
use crate::files::NewFile;

#[derive(Subcommand)]
pub(crate) enum Run {
    /// Open a run; its token is shown this once. With a run's token file: one within that run
    Open {
        /// What the agent is called
        #[arg(long)]
        agent: String,
        /// What it may call: PACKAGE or PACKAGE.TOOL; all that you may, if none is named
        #[arg(long, value_name = "NAME")]
        tool: Vec<String>,
        /// How long it lasts at the most: 90s, 30m, 12h
        #[arg(long, value_parser = token::seconds)]
        life: Option<u64>,
        /// Write the run's token into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tenant's runs
    List,
    /// Show one run
    Show {
        /// Its id
        id: String,
    },
    /// End a run that is done, and those within it
    End {
        /// Its id
        id: String,
    },
    /// Stop a run, and those within it; their calls are cut off
    Abort {
        /// Its id
        id: String,
    },
    /// Write a checkpoint of a run: references only, no secret
    Checkpoint {
        /// Its id
        id: String,
        /// Write it into this new file instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Go on with a run from its checkpoint; its token is another one, shown this once
    Resume {
        /// The checkpoint, or - for stdin
        #[arg(value_name = "FILE")]
        checkpoint: PathBuf,
        /// Write the run's token into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Revoke agents by their name: their runs end, and none is opened under it
    RevokeAgent {
        /// The name
        agent: String,
    },
    /// Let agents of a name open runs again that was revoked
    RestoreAgent {
        /// The name
        agent: String,
    },
}

const COLUMNS: &[&str] = &["id", "agent", "state", "tools", "parents", "deadline", "running"];
const FIELDS: &[&str] = &[
    "id",
    "agent",
    "state",
    "principal",
    "parents",
    "tools",
    "grants",
    "created",
    "deadline",
    "ended",
    "generation",
    "running",
];
const OVER: &[&str] = &["id", "agent", "state", "ended", "runs", "cancelled"];

/// More than any checkpoint has.
const CHECKPOINT_BYTES_MAX: u64 = 1 << 20;

impl Run {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.tenant()?;
        match self {
            Self::Open { agent, tool, life, out } => {
                let once = Once::into(out.as_deref())?;
                let tools = (!tool.is_empty()).then_some(tool);
                let new =
                    json!({ "agent": agent, "tools": tools, "life_ms": life.map(|life| life.saturating_mul(1000)) });
                show_token(once, client.post("/v1/runs", &new).await?, output)?;
            }
            Self::List => output.show(&client.get("/v1/runs").await?, COLUMNS),
            Self::Show { id } => output.show(&client.get(&path(id, "")?).await?, FIELDS),
            Self::End { id } => output.show(&client.act(&path(id, "/end")?).await?, OVER),
            Self::Abort { id } => output.show(&client.act(&path(id, "/abort")?).await?, OVER),
            Self::Checkpoint { id, out } => {
                let file = out.as_deref().map(NewFile::make).transpose()?;
                let checkpoint = client.act(&path(id, "/checkpoint")?).await?;
                match file {
                    Some(file) => {
                        let place = file.path().display().to_string();
                        file.write(checkpoint.to_string().as_bytes())?;
                        output.say(&format!("the checkpoint of {id} is in {place}"), &checkpoint);
                    }
                    None => output.line(&checkpoint.to_string()),
                }
            }
            Self::Resume { checkpoint, out } => {
                let once = Once::into(out.as_deref())?;
                show_token(once, resume(&client, checkpoint).await?, output)?;
            }
            Self::RevokeAgent { agent } => {
                output.show(&client.post("/v1/agents/revoke", &json!({ "agent": agent })).await?, &[]);
            }
            Self::RestoreAgent { agent } => {
                let body = json!({ "agent": agent });
                client.post("/v1/agents/restore", &body).await?;
                output.say("agents of this name may open runs again", &body);
            }
        }
        Ok(())
    }
}

async fn resume(client: &Client, checkpoint: &Path) -> anyhow::Result<Value> {
    let body = Bytes::from(target::read_input(checkpoint, CHECKPOINT_BYTES_MAX)?.to_vec());
    client.send(Method::POST, "/v1/runs/resume", "application/json", body, &[]).await
}

fn path(id: &str, act: &str) -> anyhow::Result<String> {
    Ok(format!("/v1/runs/{}{act}", target::segment(id)?))
}

/// Shows a run's token, this once.
fn show_token(once: Once, answer: Value, output: &Output) -> anyhow::Result<()> {
    let sentence = format!("{} is open", answer["id"].as_str().unwrap_or("-"));
    once.show(answer, "token", &sentence, output)
}
