//! `keybearer inventory`: the identities that are no person's, and what should be looked at.

use clap::Args;
use serde_json::Value;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;

#[derive(Args)]
pub(crate) struct Inventory {
    /// Of every tenant, with values that are stored more than once (operator)
    #[arg(long)]
    all: bool,
    /// Show only those of which something should be looked at
    #[arg(long)]
    findings: bool,
}

const COLUMNS: &[&str] = &["kind", "name", "owner", "age_days", "expires", "last_use", "last_rotation", "findings"];
const COLUMNS_OF_ALL: &[&str] =
    &["tenant", "kind", "name", "owner", "age_days", "expires", "last_use", "last_rotation", "findings"];

impl Inventory {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let mut answer = if self.all {
            global.operator()?.get("/v1/inventory/all").await?
        } else {
            global.tenant()?.get("/v1/inventory").await?
        };
        if let Some(items) = answer.get_mut("items").and_then(Value::as_array_mut) {
            items.retain(|item| !self.findings || item["findings"].as_array().is_some_and(|found| !found.is_empty()));
            if !output.json {
                items.iter_mut().for_each(shorten);
            }
        }
        output.show(&answer, if self.all { COLUMNS_OF_ALL } else { COLUMNS });
        Ok(())
    }
}

/// In a table the findings are told by their names; `--json` has the sentences.
fn shorten(item: &mut Value) {
    let names: Vec<Value> = item["findings"].as_array().into_iter().flatten().map(|one| one["what"].clone()).collect();
    item["findings"] = json!(names);
}
