//! `keybearer credential`. A value is read from a file or from stdin, sent once, and wiped.

mod authorize;
mod register;
mod terms;

use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;
use http::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::credential::authorize::Authorize;
use crate::cli::credential::register::Register;
use crate::cli::credential::terms::Terms;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Credential {
    /// Store a credential
    Store(Store),
    /// Have an account authorize a credential (OAuth): prints where its browser is to go, and waits
    Authorize(Authorize),
    /// Have an issuer register a client (OAuth), and store what it is given
    Register(Register),
    /// List the credentials, without values
    List,
    /// Show one, with its versions
    Show {
        /// Its name or id
        credential: String,
    },
    /// Change who answers for it, when it ends, how often it is rotated, where it may go
    Change {
        /// Its name or id
        credential: String,
        /// Who answers for it
        #[arg(long)]
        owner: Option<String>,
        /// Why it is here
        #[arg(long)]
        justification: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Store a new value; returns when no request carries the old one any more
    Rotate {
        /// Its name or id
        credential: String,
        /// Read the value from this file, or from stdin with -
        #[arg(long, value_name = "FILE", required_unless_present = "at_source")]
        value_file: Option<PathBuf>,
        /// Have its source make a new value, and destroy the one before
        #[arg(long, conflicts_with_all = ["value_file", "overlap_s", "pin"])]
        at_source: bool,
        /// For so many seconds it can go back to the value before, whose bytes are destroyed then; without,
        /// there is no way back, and they stay, to be scrubbed from answers, until `destroy`
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        overlap_s: u64,
        /// Keep the bytes after the overlap, too, to be scrubbed from answers
        #[arg(long, requires = "overlap_s")]
        pin: bool,
    },
    /// Go back to a version that was rotated out, while its overlap lasts
    Rollback {
        /// Its name or id
        credential: String,
        /// Which version; default: the last one
        #[arg(long)]
        version: Option<u32>,
    },
    /// Unwrap the wrapping token that was stored in place of a secret: good once
    Unwrap {
        /// Its name or id
        credential: String,
    },
    /// Ask its issuer whether it is good (OAuth introspection)
    Check {
        /// Its name or id
        credential: String,
    },
    /// Take whatever its source gives next, also if it gave a higher version before: for one that was begun anew
    ForgetSourceVersion {
        /// Its name or id
        credential: String,
    },
    /// Revoke it for good; returns when requests that carried it are cut off
    Revoke {
        /// Its name or id
        credential: String,
    },
    /// Destroy the bytes of a version that is not current
    Destroy {
        /// Its name or id
        credential: String,
        /// Which version
        version: u32,
    },
}

#[derive(Args)]
pub(crate) struct Store {
    /// What people call it
    name: String,
    /// What kind it is
    #[arg(long, value_enum, default_value = "bearer")]
    kind: Kind,
    /// Read what kind it is from this file instead, as the API takes it: {"kind": "vault_kv", ...}
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "token_url", "client_id", "scope", "resource"])]
    kind_file: Option<PathBuf>,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why it is here
    #[arg(long)]
    justification: String,
    #[command(flatten)]
    terms: Terms,
    /// Read the value from this file, or from stdin with -; left out for a recipe that needs none
    #[arg(long, value_name = "FILE", required_unless_present = "kind_file")]
    value_file: Option<PathBuf>,
    /// OAuth: the token endpoint
    #[arg(long, required_if_eq("kind", "oauth-client-credentials"))]
    token_url: Option<String>,
    /// OAuth: `client_id`; the value is the client's secret
    #[arg(long, required_if_eq("kind", "oauth-client-credentials"))]
    client_id: Option<String>,
    /// OAuth: scopes, with spaces
    #[arg(long)]
    scope: Option<String>,
    /// OAuth: the resource or audience
    #[arg(long)]
    resource: Option<String>,
}

/// Kinds of credentials.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One token, for Authorization: Bearer
    Bearer,
    /// user:password
    Basic,
    /// The value of a header of its own
    Header,
    /// The value of a query parameter
    Query,
    /// An access key of AWS: id, secret and perhaps session token, on lines of their own
    AwsKeys,
    /// The key of a MAC over requests; its text is the key
    HmacKey,
    /// An OAuth client; the value is its secret
    OauthClientCredentials,
}

const COLUMNS: &[&str] = &["id", "name", "state", "epoch", "owner", "expires", "rotation_due"];
const RAISED: &[&str] = &["id", "version", "epoch", "overlap_until"];

/// A private key in PEM is the longest value that there is.
const VALUE_BYTES_MAX: u64 = 64 << 10;

/// A recipe is a few fields.
const KIND_BYTES_MAX: u64 = 64 << 10;

impl Credential {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.tenant()?;
        match self {
            Self::Store(store) => output.show(&store.send(&client).await?, COLUMNS),
            Self::Authorize(authorize) => authorize.run(&client, output).await?,
            Self::Register(register) => register.run(&client, output).await?,
            Self::List => output.show(&client.get("/v1/credentials").await?, COLUMNS),
            Self::Show { credential } => {
                let path = path(&client, credential).await?;
                output.show(&client.get(&path).await?, &[]);
            }
            Self::Change { credential, owner, justification, terms } => {
                let mut body = terms.fields()?;
                for (name, text) in [("owner", owner), ("justification", justification)] {
                    text.iter().for_each(|text| drop(body.insert(name.to_owned(), json!(text))));
                }
                let path = format!("{}/terms", path(&client, credential).await?);
                output.show(&client.post(&path, &Value::Object(body)).await?, &[]);
            }
            Self::Rotate { credential, value_file: None, .. } => {
                let path = format!("{}/rotate-at-source", path(&client, credential).await?);
                output.show(&client.act(&path).await?, &[]);
            }
            Self::Rotate { credential, value_file: Some(value_file), overlap_s, pin, .. } => {
                let path = format!("{}/versions", path(&client, credential).await?);
                let value = value(value_file)?;
                output.show(
                    &send(&client, &path, &Rotation { value: &value, overlap_s: *overlap_s, pinned: *pin }).await?,
                    RAISED,
                );
            }
            Self::Rollback { credential, version } => {
                let path = format!("{}/rollback", path(&client, credential).await?);
                output.show(&client.post(&path, &json!({ "version": version })).await?, RAISED);
            }
            Self::Unwrap { credential } => {
                let path = format!("{}/unwrap", path(&client, credential).await?);
                output.show(&client.act(&path).await?, RAISED);
            }
            Self::Check { credential } => {
                let path = format!("{}/check", path(&client, credential).await?);
                output.show(&client.act(&path).await?, &[]);
            }
            Self::ForgetSourceVersion { credential } => {
                let path = format!("{}/forget-source-version", path(&client, credential).await?);
                output.show(&client.act(&path).await?, &[]);
            }
            Self::Revoke { credential } => {
                let path = format!("{}/revoke", path(&client, credential).await?);
                output.show(&client.act(&path).await?, &[]);
            }
            Self::Destroy { credential, version } => {
                let path = format!("{}/versions/{version}", path(&client, credential).await?);
                output.show(&client.delete(&path).await?, COLUMNS);
            }
        }
        Ok(())
    }
}

async fn path(client: &Client, credential: &str) -> anyhow::Result<String> {
    let id = target::id_of(client, "/v1/credentials", "cred_", credential).await?;
    Ok(format!("/v1/credentials/{id}"))
}

#[derive(Serialize)]
struct Rotation<'value> {
    value: &'value str,
    overlap_s: u64,
    pinned: bool,
}

/// What each new credential asks for, and what its way to a value asks for beside.
#[derive(Serialize)]
struct Asking<'value, T> {
    name: &'value str,
    kind: Value,
    owner: &'value str,
    justification: &'value str,
    #[serde(flatten)]
    terms: serde_json::Map<String, Value>,
    #[serde(flatten)]
    asked: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'value str>,
}

impl Store {
    async fn send(&self, client: &Client) -> anyhow::Result<Value> {
        let value = self.value_file.as_deref().map(value).transpose()?.unwrap_or_default();
        let body = Asking {
            name: &self.name,
            kind: self.kind()?,
            owner: &self.owner,
            justification: &self.justification,
            terms: self.terms.fields()?,
            asked: serde_json::Map::new(),
            value: Some(&value),
        };
        send(client, "/v1/credentials", &body).await
    }

    fn kind(&self) -> anyhow::Result<Value> {
        if let Some(path) = &self.kind_file {
            return kind_of(path);
        }
        Ok(match self.kind {
            Kind::Bearer => json!({ "kind": "bearer" }),
            Kind::Basic => json!({ "kind": "basic" }),
            Kind::Header => json!({ "kind": "header" }),
            Kind::Query => json!({ "kind": "query" }),
            Kind::AwsKeys => json!({ "kind": "aws_keys" }),
            Kind::HmacKey => json!({ "kind": "hmac_key" }),
            Kind::OauthClientCredentials => {
                let mut kind = json!({
                    "kind": "oauth_client_credentials",
                    "token_url": self.token_url,
                    "client_id": self.client_id,
                });
                for (name, value) in [("scope", &self.scope), ("resource", &self.resource)] {
                    if let Some(value) = value {
                        kind[name] = json!(value);
                    }
                }
                kind
            }
        })
    }
}

/// Reads what kind a credential is.
fn kind_of(path: &Path) -> anyhow::Result<Value> {
    let bytes = target::read_input(path, KIND_BYTES_MAX)?;
    serde_json::from_slice(&bytes).context("the kind is no JSON")
}

/// Reads a value. One line end is taken off: editors and `echo` add one.
fn value(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = target::read_secret_input(path, "Value", VALUE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).context("the value is no text")?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// Sends a body that holds a value: written once, straight into what is sent, and wiped where we own it.
async fn send<T: Serialize>(client: &Client, path: &str, body: &T) -> anyhow::Result<Value> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    serde_json::to_writer(&mut *bytes, body)?;
    let body = Bytes::from_owner(bytes);
    client.send(Method::POST, path, "application/json", body, &[]).await
}
