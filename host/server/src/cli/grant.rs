//! `keybearer grant`.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Grant {
    /// Grant a credential to a slot of a package, or leave to run a package that needs none
    Add(Add),
    /// List the grants
    List,
    /// Show what the newest version asks beyond what was approved
    Differences {
        /// The grant's id
        id: String,
    },
    /// Approve the version of this digest
    Approve {
        /// The grant's id
        id: String,
        /// The digest that `differences` named
        #[arg(long)]
        digest: String,
    },
    /// Take a grant away; returns when requests that went by it are cut off
    Remove {
        /// The grant's id
        id: String,
    },
}

#[derive(Args)]
pub(crate) struct Add {
    /// The package's name
    package: String,
    /// The slot to fill
    #[arg(long, requires = "credential")]
    slot: Option<String>,
    /// What fills it: a credential's name or id
    #[arg(long, requires = "slot")]
    credential: Option<String>,
    /// Where the binding leaves its host to the grant: `https://host`
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// The tools that may use it; every one of the package, if none is named
    #[arg(long, value_name = "TOOL")]
    action: Vec<String>,
    /// The version that was looked at; the newest, if none is named
    #[arg(long)]
    digest: Option<String>,
}

const COLUMNS: &[&str] = &["id", "package", "slot", "credential", "base_url", "actions", "signs", "covers_newest"];

impl Grant {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.tenant()?;
        match self {
            Self::Add(add) => {
                let credential = match &add.credential {
                    Some(name) => Some(target::id_of(&client, "/v1/credentials", "cred_", name).await?),
                    None => None,
                };
                output.show(&client.post("/v1/grants", &add.body(credential)).await?, COLUMNS);
            }
            Self::List => output.show(&client.get("/v1/grants").await?, COLUMNS),
            Self::Differences { id } => {
                let path = format!("/v1/grants/{}/differences", target::segment(id)?);
                show_differences(&client.get(&path).await?, output);
            }
            Self::Approve { id, digest } => {
                let path = format!("/v1/grants/{}/approve", target::segment(id)?);
                output.show(&client.post(&path, &json!({ "digest": digest })).await?, COLUMNS);
            }
            Self::Remove { id } => {
                output.show(&client.delete(&format!("/v1/grants/{}", target::segment(id)?)).await?, &[]);
            }
        }
        Ok(())
    }
}

impl Add {
    fn body(&self, credential: Option<String>) -> Value {
        json!({
            "package": self.package,
            "slot": self.slot,
            "credential": credential,
            "base_url": self.base_url,
            "actions": (!self.action.is_empty()).then_some(&self.action),
            "digest": self.digest,
        })
    }
}

fn show_differences(answer: &Value, output: &Output) {
    if output.json {
        output.show(answer, &[]);
        return;
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    output.line(&format!("newest  {}", text(&answer["digest"])));
    let differences = answer["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    if differences.is_empty() {
        output.line("nothing differs from what was approved");
    }
    for difference in differences {
        let mark = if difference["widens"] == true { "needs approval" } else { "narrower" };
        output.line(&format!("\n{} ({mark})", text(&difference["place"])));
        output.line(&format!("  approved  {}", text(&difference["approved"])));
        output.line(&format!("  asked     {}", text(&difference["asked"])));
    }
}
