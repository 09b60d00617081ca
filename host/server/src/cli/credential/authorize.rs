//! `keybearer credential authorize`: prints where an account's browser is to go, and waits until it came back. The
//! browser is the person's own to open.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use crate::cli::client::Client;
use crate::cli::credential;
use crate::cli::credential::Asking;
use crate::cli::credential::terms::Terms;
use crate::cli::output::Output;

#[derive(Args)]
pub(crate) struct Authorize {
    /// What people call it; one that must be authorized again is named so, too
    name: String,
    /// Read the recipe from this file, as the API takes it: {"kind": "oauth_refresh_token", ...}
    #[arg(long, value_name = "FILE")]
    kind_file: PathBuf,
    /// Where the account is asked; left out where the recipe names its issuer only
    #[arg(long, value_name = "URL")]
    authorize_url: Option<String>,
    /// This server's /v1/oauth/callback as the browser reaches it, and as registered with the client
    #[arg(long, value_name = "URL")]
    redirect_uri: String,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why it is here
    #[arg(long)]
    justification: String,
    /// Read the client's secret or key from this file, or from stdin with -; without, it is a public client
    #[arg(long, value_name = "FILE")]
    value_file: Option<PathBuf>,
    /// Wait so many seconds for the account; 0 does not wait
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait_s: u64,
    #[command(flatten)]
    terms: Terms,
}

/// What an authorization asks for beside what each new credential does.
#[derive(Serialize)]
struct Asked<'value> {
    #[serde(skip_serializing_if = "Option::is_none")]
    authorize_url: Option<&'value str>,
    redirect_uri: &'value str,
}

/// A person takes longer than this to do anything.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Authorize {
    pub(crate) async fn run(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let value = self.value_file.as_deref().map(credential::value).transpose()?;
        let body = Asking {
            name: &self.name,
            kind: credential::kind_of(&self.kind_file)?,
            owner: &self.owner,
            justification: &self.justification,
            terms: self.terms.fields()?,
            asked: Asked { authorize_url: self.authorize_url.as_deref(), redirect_uri: &self.redirect_uri },
            value: value.as_ref().map(|value| value.as_str()),
        };
        let begun = credential::send(client, "/v1/credentials/authorize", &body).await?;
        let url = begun["authorization_url"].as_str().context("the answer names no URL")?;
        output.say(&format!("Open this within ten minutes:\n\n{url}\n"), &begun);
        if self.wait_s == 0 {
            return Ok(());
        }
        let id = begun["credential"]["id"].as_str().context("the answer names no credential")?;
        let (path, until) = (format!("/v1/credentials/{id}"), Instant::now() + Duration::from_secs(self.wait_s));
        loop {
            let shown = client.get(&path).await?;
            match shown["state"].as_str() {
                Some("active") => {
                    output.show(&shown, credential::COLUMNS);
                    return Ok(());
                }
                Some("revoked") => bail!("the credential was revoked meanwhile"),
                _ if Instant::now() >= until => {
                    bail!("the account did not consent in {} s: run this again", self.wait_s)
                }
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}
