//! `keybearer call` and `keybearer explain`.

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::Global;
use crate::cli::client::Refused;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Args)]
pub(crate) struct Call {
    /// What to call: PACKAGE.TOOL
    tool: String,
    /// The arguments, a JSON object
    #[arg(long, value_name = "JSON", conflicts_with = "args_file")]
    args: Option<String>,
    /// Read the arguments from a file, or from stdin with -
    #[arg(long, value_name = "FILE")]
    args_file: Option<PathBuf>,
    /// Exactly this version of the package
    #[arg(long, value_name = "DIGEST")]
    package: Option<String>,
    /// The count of your tries, from 1
    #[arg(long)]
    attempt: Option<u32>,
    /// Milliseconds to wait at the most
    #[arg(long)]
    timeout_ms: Option<u64>,
    /// Call within the run whose token this file holds, mode 0600, or - for stdin; instead of --token-file
    #[arg(long, value_name = "FILE")]
    run_token_file: Option<PathBuf>,
    /// The same key never runs twice
    #[arg(long, value_name = "TEXT")]
    idempotency: Option<String>,
}

#[derive(Serialize)]
struct Body<'call> {
    tool: &'call str,
    arguments: &'call RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<&'call str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

/// More than any server takes by default.
const ARGUMENTS_BYTES_MAX: u64 = 16 << 20;

impl Call {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let stdin = Some(Path::new("-"));
        if self.run_token_file.as_deref() == stdin && self.args_file.as_deref() == stdin {
            bail!("stdin is either the run's token or the arguments: put one of them into a file");
        }
        let arguments = match (&self.args, &self.args_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => String::from_utf8(target::read_input(path, ARGUMENTS_BYTES_MAX)?.to_vec())?,
            (None, None) => "{}".to_owned(),
        };
        let arguments: &RawValue = serde_json::from_str(&arguments).context("the arguments are no JSON")?;
        let body = Body {
            tool: &self.tool,
            arguments,
            package: self.package.as_deref(),
            attempt: self.attempt,
            timeout_ms: self.timeout_ms,
        };
        let headers: Vec<(&str, &str)> =
            self.idempotency.as_deref().map(|key| ("idempotency-key", key)).into_iter().collect();
        let client = match &self.run_token_file {
            Some(path) => global.run_bearing(path)?,
            None => global.tenant()?,
        };
        let body = Bytes::from(serde_json::to_vec(&body)?);
        let answered = client.send(Method::POST, "/v1/calls", "application/json", body, &headers).await;
        if let Err(error) = &answered
            && let Some(Refused(problem)) = error.downcast_ref::<Refused>()
            && !output.json
        {
            // Before the sentence that says why it failed: an author finds his own lines above it.
            problem.logs.iter().for_each(|line| eprintln!("{}: {}", line.level, line.message));
        }
        let answer = answered?;
        if output.json {
            output.show(&answer, &[]);
            return Ok(());
        }
        for line in answer["logs"].as_array().into_iter().flatten() {
            eprintln!("{}: {}", line["level"].as_str().unwrap_or("-"), line["message"].as_str().unwrap_or("-"));
        }
        output.line(&serde_json::to_string_pretty(&answer["result"])?);
        let replayed = if answer["replayed"] == true { " (the kept answer of an earlier call)" } else { "" };
        eprintln!("{}{replayed}", answer["call"].as_str().unwrap_or("-"));
        Ok(())
    }
}

/// `keybearer explain CALL`
pub(crate) async fn explain(call: &str, global: &Global, output: &Output) -> anyhow::Result<()> {
    let path = format!("/v1/calls/{}/explain", target::segment(call)?);
    let explanation = global.tenant()?.get(&path).await?;
    if output.json {
        output.show(&explanation, &[]);
        return Ok(());
    }
    for sentence in explanation["sentences"].as_array().into_iter().flatten() {
        output.line(sentence.as_str().unwrap_or("-"));
    }
    Ok(())
}
