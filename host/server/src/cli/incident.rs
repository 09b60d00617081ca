//! `keybearer incident`: stop what is no longer trusted, say what it was exposed to, and let it run again when it is
//! known how it came about.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use clap::Subcommand;
use http::Method;
use serde_json::Value;
use serde_json::json;

use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::once::Once;
use crate::cli::output::Output;
use crate::cli::target;
use crate::files;

#[derive(Subcommand)]
pub(crate) enum Incident {
    /// Revoke, end runs, flush, quarantine and tell: returns when everything is stopped
    Open {
        #[command(flatten)]
        subject: Subject,
        /// What is known by now
        #[arg(long, default_value = "")]
        note: String,
    },
    #[command(flatten)]
    Known(Known),
    /// A tenant's own, about what is the tenant's (tenant)
    #[command(subcommand)]
    Own(Own),
    /// Where the operator is told of incidents, by signed POST
    #[command(subcommand)]
    Notify(Notify),
}

#[derive(Subcommand)]
pub(crate) enum Own {
    /// Revoke, end runs, flush, quarantine for the tenant and tell: returns when everything is stopped
    Open {
        #[command(flatten)]
        subject: OwnSubject,
        /// What is known by now
        #[arg(long, default_value = "")]
        note: String,
    },
    #[command(flatten)]
    Known(Known),
}

/// What is done with incidents that are there, whoever's they are.
#[derive(Subcommand)]
pub(crate) enum Known {
    /// List the incidents, newest first
    List,
    /// Show an incident
    Show {
        /// Its id
        id: String,
    },
    /// Write the exposure report from the ledger
    Report {
        /// Its id
        id: String,
        /// Write a page for people into this new file instead of printing JSON
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Close an incident: what it quarantined runs again, what it revoked stays so
    Close {
        /// Its id
        id: String,
        /// How it came about, in 20 characters or more
        #[arg(long, value_name = "TEXT")]
        root_cause: String,
    },
}

/// What a tenant's own incident is about.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OwnSubject {
    /// A credential's name or id: revoked for good; its packages are quarantined for the tenant
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,
    /// A grant's id: taken for good; its package is quarantined for the tenant
    #[arg(long, value_name = "ID")]
    grant: Option<String>,
    /// A run's id: ends, with those within it
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The id of an API token: revoked for good; the runs that it opened end
    #[arg(long, value_name = "ID")]
    api_token: Option<String>,
    /// A principal's label: refused; its tokens are revoked for good, its runs end
    #[arg(long, value_name = "LABEL")]
    principal: Option<String>,
    /// PACKAGE.TOOL: its grants are good for nothing until the incident is closed
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
}

/// What an incident is about.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Subject {
    /// A credential's id: revoked for good; its tools are quarantined for its tenant
    #[arg(long, value_name = "ID")]
    credential: Option<String>,
    /// A tenant's name or id: suspended, all of its credentials and tokens revoked for good
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// A package, or PACKAGE.TOOL: quarantined for everybody
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Notify {
    /// Set it; the secret that signs is made anew and shown this once
    Set {
        /// `https://host/path`
        url: String,
        /// Write the secret into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show it
    Show,
    /// Tell nobody any more
    Remove,
}

const COLUMNS: &[&str] = &["id", "state", "about", "opened", "contained", "closed", "root_cause"];

/// Where the operator's are, and where a tenant's own are.
const ALL: &str = "/v1/incidents";
const OWN: &str = "/v1/own/incidents";

impl Incident {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Open { subject, note } => {
                let client = global.operator()?;
                let tenant = match &subject.tenant {
                    Some(tenant) => Some(target::id_of(&client, "/v1/tenants", "ten_", tenant).await?),
                    None => None,
                };
                let new =
                    json!({ "credential": subject.credential, "tenant": tenant, "tool": subject.tool, "note": note });
                output.show(&client.post(ALL, &new).await?, &[]);
                Ok(())
            }
            Self::Known(known) => known.run(&global.operator()?, ALL, output).await,
            Self::Own(own) => own.run(&global.tenant()?, output).await,
            Self::Notify(notify) => notify.run(&global.operator()?, output).await,
        }
    }
}

impl Own {
    async fn run(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Open { subject, note } => {
                let credential = match &subject.credential {
                    Some(name) => Some(target::id_of(client, "/v1/credentials", "cred_", name).await?),
                    None => None,
                };
                let new = json!({
                    "credential": credential, "grant": subject.grant, "run": subject.run,
                    "token": subject.api_token, "principal": subject.principal, "tool": subject.tool, "note": note,
                });
                output.show(&client.post(OWN, &new).await?, &[]);
                Ok(())
            }
            Self::Known(known) => known.run(client, OWN, output).await,
        }
    }
}

impl Known {
    async fn run(&self, client: &Client, base: &str, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::List => list(client, base, output).await,
            Self::Show { id } => show(client, base, id, output).await,
            Self::Report { id, html } => report(client, base, id, html.as_ref(), output).await,
            Self::Close { id, root_cause } => close(client, base, id, root_cause, output).await,
        }
    }
}

async fn list(client: &Client, base: &str, output: &Output) -> anyhow::Result<()> {
    let mut list = client.get(base).await?;
    if !output.json {
        list["items"].as_array_mut().into_iter().flatten().for_each(name_subject);
    }
    output.show(&list, COLUMNS);
    Ok(())
}

async fn show(client: &Client, base: &str, id: &str, output: &Output) -> anyhow::Result<()> {
    output.show(&client.get(&format!("{base}/{}", target::segment(id)?)).await?, &[]);
    Ok(())
}

async fn close(client: &Client, base: &str, id: &str, root_cause: &str, output: &Output) -> anyhow::Result<()> {
    let path = format!("{base}/{}/close", target::segment(id)?);
    output.show(&client.post(&path, &json!({ "root_cause": root_cause })).await?, &[]);
    Ok(())
}

/// One word for what it is about, for the table.
fn name_subject(incident: &mut Value) {
    let subject = &incident["subject"];
    // A tool's of one tenant is an `own_tool`, and is a tool all the same.
    let kind = subject["kind"].as_str().unwrap_or_default().trim_start_matches("own_");
    let about = format!("{kind} {}", subject[kind].as_str().unwrap_or_default());
    incident["about"] = about.into();
}

async fn report(client: &Client, base: &str, id: &str, html: Option<&PathBuf>, output: &Output) -> anyhow::Result<()> {
    let path = format!("{base}/{}/report", target::segment(id)?);
    let Some(file) = html else {
        // As JSON in any case: a table of it would be the page.
        output.line(&serde_json::to_string_pretty(&client.get(&path).await?)?);
        return Ok(());
    };
    let page = client.fetch(Method::GET, &path, "", Bytes::new(), &[("accept", "text/html")]).await?;
    // Who was called by whom is not for everybody on this machine.
    files::write_secret(file, &page)?;
    output.say(&format!("the report is in {}", file.display()), &json!({ "id": id, "file": file }));
    Ok(())
}

impl Notify {
    async fn run(&self, client: &Client, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Set { url, out } => {
                let once = Once::into(out.as_deref())?;
                let body = Bytes::from(json!({ "url": url }).to_string());
                let answer = client.send(Method::PUT, "/v1/notify", "application/json", body, &[]).await?;
                once.show(answer, "text", &format!("notices go to {url}"), output)?;
            }
            Self::Show => output.show(&client.get("/v1/notify").await?, &[]),
            Self::Remove => {
                client.delete("/v1/notify").await?;
                output.say("nobody is told any more", &json!({}));
            }
        }
        Ok(())
    }
}
