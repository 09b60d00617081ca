//! Agents' runs: opened, narrowed, nested, ended, cut off at their deadline, and resumed from a checkpoint. The
//! upstream's own record says what was used, and the ledger for whom.

mod checkpoints;
mod command_line;
mod ending;
mod nesting;
mod opening;
mod rights;

use anyhow::Context as _;
use keybearer_tests::Answer;
use keybearer_tests::Client;
use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

/// A run, with a client that bears its token.
struct Run {
    id: String,
    token: String,
    client: Client,
}

/// Opens a run as somebody.
async fn open(site: &Site, by: &Client, new: Value) -> anyhow::Result<Run> {
    let opened = by.post("/v1/runs", &new).await?;
    anyhow::ensure!(opened.status == 201, "{} {}", opened.status, opened.text());
    let field = |name: &str| opened.json()[name].as_str().map(str::to_owned).with_context(|| name.to_owned());
    let (id, token) = (field("id")?, field("token")?);
    Ok(Run { id, client: site.server.public().bearing(&token), token })
}

/// A run that a person sees who may see every run of the tenant.
async fn shown(by: &Client, id: &str) -> anyhow::Result<Value> {
    let answer = by.get(&format!("/v1/runs/{id}")).await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(answer.json())
}

/// The records of one kind that name a run.
fn of_run<'ledger>(ledger: &'ledger [Value], kind: &str, run: &str) -> Vec<&'ledger Value> {
    ledger.iter().filter(|record| record["kind"] == kind && record["run"] == run).collect()
}

impl Run {
    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.call("http-get.get", json!({"path": path})).await
    }

    async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<Answer> {
        self.client.post("/v1/calls", &json!({"tool": tool, "arguments": arguments})).await
    }

    /// `end`, `abort` or `checkpoint`, with the run's own token.
    async fn act(&self, what: &str) -> anyhow::Result<Value> {
        let answer = self.client.post(&format!("/v1/runs/{}/{what}", self.id), &json!({})).await?;
        anyhow::ensure!(answer.status == 200, "{what}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }
}
