//! `keybearer operator`: what concerns every tenant.

use clap::Subcommand;
use serde_json::json;

use crate::cli::Global;
use crate::cli::output::Output;
use crate::files;

#[derive(Subcommand)]
pub(crate) enum Operator {
    /// List credentials, of any tenants, that hold the same value
    SharedValues,
    /// Make a new master key and wrap every tenant's key anew
    RotateMasterKey,
    /// Make another operator's token on this machine, in place of one that was lost or became known; asks no server
    NewToken,
}

impl Operator {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        match self {
            Self::SharedValues => output.show(&global.operator()?.get("/v1/shared-values").await?, &["places"]),
            Self::RotateMasterKey => {
                global.operator()?.act("/v1/master-key/rotate").await?;
                output
                    .say("the master key is new, and every tenant's key is wrapped by it", &json!({ "rotated": true }));
            }
            Self::NewToken => {
                let path = global.read_config()?.operator_token_file;
                files::replace_secret(&path, keybearer_gate::issue_operator_token().as_bytes())?;
                let path = path.display().to_string();
                let sentence =
                    format!("the operator's token in {path} is new: restart the server, which knows the old one");
                output.say(&sentence, &json!({ "operator_token_file": path }));
            }
        }
        Ok(())
    }
}
