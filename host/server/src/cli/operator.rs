//! `keybearer operator`: what concerns every tenant.

use clap::Subcommand;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;

#[derive(Subcommand)]
pub(crate) enum Operator {
    /// List credentials, of any tenants, that hold the same value
    SharedValues,
    /// Make a new master key and wrap every tenant's key anew
    RotateMasterKey,
}

impl Operator {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.operator()?;
        match self {
            Self::SharedValues => output.show(&client.get("/v1/shared-values").await?, &["places"]),
            Self::RotateMasterKey => {
                client.act("/v1/master-key/rotate").await?;
                output
                    .say("the master key is new, and every tenant's key is wrapped by it", &json!({ "rotated": true }));
            }
        }
        Ok(())
    }
}
