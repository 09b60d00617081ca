//! `keybearer credential register`: has an issuer register a client. The initial access token is read from a file or from
//! stdin, sent once, and wiped; what the client is given stays with the server.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::cli::client::Client;
use crate::cli::credential;
use crate::cli::credential::Asking;
use crate::cli::credential::terms::Terms;
use crate::cli::output::Output;

#[derive(Args)]
pub(crate) struct Register {
    /// What people call it
    name: String,
    /// Read the recipe from this file, as the API takes it, without `client_id`: {"kind": "oauth_client_credentials", ...}
    #[arg(long, value_name = "FILE")]
    kind_file: PathBuf,
    /// Where clients are registered; left out where the recipe names its issuer only
    #[arg(long, value_name = "URL")]
    registration_url: Option<String>,
    /// What the issuer is told that people call the client
    #[arg(long)]
    client_name: Option<String>,
    /// A page about the client
    #[arg(long, value_name = "URL")]
    client_uri: Option<String>,
    /// How the client's people are reached; may be given again
    #[arg(long)]
    contact: Vec<String>,
    /// Read from this file what somebody whom the issuer trusts signed about the client: a JWT
    #[arg(long, value_name = "FILE")]
    software_statement_file: Option<PathBuf>,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why it is here
    #[arg(long)]
    justification: String,
    /// Read the initial access token from this file, or from stdin with -; left out where registration is open
    #[arg(long, value_name = "FILE")]
    initial_token_file: Option<PathBuf>,
    #[command(flatten)]
    terms: Terms,
}

/// What a registration asks for beside what each new credential does.
#[derive(Serialize)]
struct Asked<'value> {
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_url: Option<&'value str>,
    client: Map<String, Value>,
}

impl Register {
    pub(crate) async fn run(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        let value = self.initial_token_file.as_deref().map(credential::value).transpose()?;
        let body = Asking {
            name: &self.name,
            kind: credential::kind_of(&self.kind_file)?,
            owner: &self.owner,
            justification: &self.justification,
            terms: self.terms.fields()?,
            asked: Asked { registration_url: self.registration_url.as_deref(), client: self.client()? },
            value: value.as_ref().map(|value| value.as_str()),
        };
        output.show(&credential::send(client, "/v1/credentials/register", &body).await?, credential::COLUMNS);
        Ok(())
    }

    fn client(&self) -> anyhow::Result<Map<String, Value>> {
        let statement = self.software_statement_file.as_deref().map(credential::value).transpose()?;
        let texts = [
            ("client_name", self.client_name.as_deref()),
            ("client_uri", self.client_uri.as_deref()),
            ("software_statement", statement.as_ref().map(|statement| statement.as_str())),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text?))));
        let mut client: Map<String, Value> = texts.collect();
        if !self.contact.is_empty() {
            client.insert("contacts".to_owned(), json!(self.contact));
        }
        Ok(client)
    }
}
