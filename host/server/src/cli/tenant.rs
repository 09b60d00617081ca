//! `keybearer tenant`.

use clap::Subcommand;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;
use crate::cli::target;

#[derive(Subcommand)]
pub(crate) enum Tenant {
    /// Make a tenant
    Create {
        /// Its name: a-z, 0-9 and -
        name: String,
        /// Calls a second, sustained
        #[arg(long)]
        calls_per_second: Option<u32>,
        /// Calls at the same time
        #[arg(long)]
        concurrent_calls: Option<u32>,
    },
    /// List the tenants
    List,
    /// Suspend a tenant: its principals are refused; returns when its calls are stopped
    Suspend {
        /// Its name or id
        tenant: String,
    },
    /// End a tenant for good: stop it, destroy what is stored of it, search for what is left
    Offboard {
        /// Its name or id
        tenant: String,
    },
    /// Make a suspended tenant active again
    Activate {
        /// Its name or id
        tenant: String,
    },
}

const COLUMNS: &[&str] = &["id", "name", "state", "calls_per_second", "concurrent_calls"];

impl Tenant {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.operator()?;
        let answer = match self {
            Self::Create { name, calls_per_second, concurrent_calls } => {
                let new =
                    json!({ "name": name, "calls_per_second": calls_per_second, "concurrent_calls": concurrent_calls });
                client.post("/v1/tenants", &new).await?
            }
            Self::List => client.get("/v1/tenants").await?,
            Self::Suspend { tenant } => {
                let id = target::id_of(&client, "/v1/tenants", "ten_", tenant).await?;
                output.show(&client.act(&format!("/v1/tenants/{id}/suspend")).await?, &[]);
                return Ok(());
            }
            Self::Offboard { tenant } => {
                let id = target::id_of(&client, "/v1/tenants", "ten_", tenant).await?;
                output.show(&client.delete(&format!("/v1/tenants/{id}")).await?, &[]);
                return Ok(());
            }
            Self::Activate { tenant } => {
                let id = target::id_of(&client, "/v1/tenants", "ten_", tenant).await?;
                client.act(&format!("/v1/tenants/{id}/activate")).await?
            }
        };
        output.show(&answer, COLUMNS);
        Ok(())
    }
}
