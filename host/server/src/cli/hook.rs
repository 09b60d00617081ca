//! `keybearer hook`: where sources outside say that something changed. A hook's secret is written to a file
//! that only its owner can read, or to stdout, once.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use crate::cli::Global;
use crate::cli::once::Once;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Hook {
    /// Make a hook; its secret is shown this once
    Make {
        /// What people call it
        #[arg(long)]
        label: String,
        /// How often it promises to be heard of, in seconds; while it is silent, fetched values are short-lived
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        heartbeat: u32,
        /// Who answers for it; default: whoever makes it
        #[arg(long)]
        owner: Option<String>,
        /// Why it is there; without one the inventory asks for it
        #[arg(long)]
        justification: Option<String>,
        /// Write the secret into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tenant's hooks
    List,
    /// Remove a hook: what it sends is refused
    Remove {
        /// Its id
        id: String,
    },
}

const COLUMNS: &[&str] = &["id", "label", "owner", "heartbeat_s", "live"];

impl Hook {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.tenant()?;
        match self {
            Self::Make { label, heartbeat, owner, justification, out } => {
                let once = Once::into(out.as_deref())?;
                let new = json!({
                    "label": label, "heartbeat_s": heartbeat, "owner": owner, "justification": justification,
                });
                let answer = client.post("/v1/hooks", &new).await?;
                let sentence = format!("events go to /v1/hooks/{}/events", answer["id"].as_str().unwrap_or("-"));
                once.show(answer, "text", &sentence, output)?;
            }
            Self::List => output.show(&client.get("/v1/hooks").await?, COLUMNS),
            Self::Remove { id } => {
                client.delete(&format!("/v1/hooks/{}", target::segment(id)?)).await?;
                output.say(&format!("{id} is removed"), &json!({ "id": id }));
            }
        }
        Ok(())
    }
}
