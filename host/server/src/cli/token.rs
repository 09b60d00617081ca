//! `keybearer token`: a tenant's API tokens. A token is written to a file that only its owner can read,
//! or to stdout where that is not a terminal's history.

use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use clap::Subcommand;
use serde_json::json;

use crate::cli::Global;
use crate::cli::once::Once;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Token {
    /// Issue a token; it is shown this once
    Issue {
        /// What people call it
        #[arg(long)]
        label: String,
        /// What it is good for, with commas between
        #[arg(long, value_delimiter = ',', required = true, value_parser = SCOPES)]
        scope: Vec<String>,
        /// The packages that it may call; every one, if none is named
        #[arg(long, value_name = "NAME")]
        package: Vec<String>,
        /// How long it lives: 90m, 12h, 30d
        #[arg(long, default_value = "30d", value_parser = seconds)]
        life: u64,
        /// Who answers for it; default: whoever issues it
        #[arg(long)]
        owner: Option<String>,
        /// Why it is there; without one the inventory asks for it
        #[arg(long)]
        justification: Option<String>,
        /// As the operator, for this tenant
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Write the token into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tenant's tokens
    List,
    /// Revoke a token; returns when calls by it are stopped
    Revoke {
        /// Its id
        id: String,
    },
    /// Revoke a principal: a JWT's `jwt:ISSUER#SUBJECT` or a SPIFFE id, and every token with this label
    RevokePrincipal {
        /// Its label, as `explain` and the ledger name it
        principal: String,
    },
    /// Let a principal in again that was revoked; its revoked tokens stay so
    RestorePrincipal {
        /// Its label
        principal: String,
    },
}

const SCOPES: [&str; 6] = ["call", "credentials", "grants", "tokens", "audit", "runs"];

const COLUMNS: &[&str] = &["id", "label", "owner", "scopes", "packages", "expires", "revoked"];

impl Token {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::Issue { label, scope, package, life, owner, justification, tenant, out } => {
                let once = Once::into(out.as_deref())?;
                let packages = (!package.is_empty()).then_some(package);
                let new = json!({
                    "label": label, "scopes": scope, "packages": packages, "life_s": life, "owner": owner,
                    "justification": justification,
                });
                let answer = match tenant {
                    Some(tenant) => {
                        let client = global.operator()?;
                        let id = target::id_of(&client, "/v1/tenants", "ten_", tenant).await?;
                        client.post(&format!("/v1/tenants/{id}/tokens"), &new).await?
                    }
                    None => global.tenant()?.post("/v1/tokens", &new).await?,
                };
                let sentence = format!("{} is issued", answer["id"].as_str().unwrap_or("-"));
                once.show(answer, "text", &sentence, output)?;
            }
            Self::List => output.show(&global.tenant()?.get("/v1/tokens").await?, COLUMNS),
            Self::Revoke { id } => {
                let path = format!("/v1/tokens/{}/revoke", target::segment(id)?);
                output.show(&global.tenant()?.act(&path).await?, &[]);
            }
            Self::RevokePrincipal { principal } => {
                let body = json!({ "principal": principal });
                output.show(&global.tenant()?.post("/v1/principals/revoke", &body).await?, &[]);
            }
            Self::RestorePrincipal { principal } => {
                let body = json!({ "principal": principal });
                global.tenant()?.post("/v1/principals/restore", &body).await?;
                output.say("the principal is let in again", &body);
            }
        }
        Ok(())
    }
}

/// A span of time in seconds: `90m`, `12h`, `30d`, `3600s`.
pub(crate) fn seconds(text: &str) -> anyhow::Result<u64> {
    let (number, unit) = text.split_at(text.len() - usize::from(text.ends_with(|c: char| c.is_ascii_alphabetic())));
    let factor = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => bail!("write 90m, 12h or 30d"),
    };
    let number: u64 = number.parse().context("write 90m, 12h or 30d")?;
    number.checked_mul(factor).context("that is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_can_be_asked_for() {
        let all: Vec<_> = keybearer_gate::Scope::ALL.iter().map(|scope| json!(scope)).collect();
        assert_eq!(json!(SCOPES), json!(all));
    }

    #[test]
    fn spans_of_time_are_read() {
        assert_eq!(seconds("90m").expect("reads"), 5_400);
        assert_eq!(seconds("30d").expect("reads"), 2_592_000);
        assert_eq!(seconds("60").expect("reads"), 60);
        for bad in ["", "d", "1w", "-1d", "1.5h", "99999999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
