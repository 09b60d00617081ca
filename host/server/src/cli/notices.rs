//! `keybearer notices`: where a tenant wants its notices. The secret that signs them is written to a file that only
//! its owner can read, or to stdout, once.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use serde_json::json;

use crate::cli::Global;
use crate::cli::once::Once;
use crate::cli::output::Output;

#[derive(Subcommand)]
pub(crate) enum Notices {
    /// Set where notices go; the secret that signs them is shown this once
    Set {
        /// An https:// URL
        url: String,
        /// Write the secret into this new file, mode 0600, instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show where notices go, how many wait, and what came of the last
    Show,
    /// Send a notice that says nothing, to see whether it arrives
    Test,
    /// Send no more notices
    Remove,
}

const PATH: &str = "/v1/notices";

impl Notices {
    pub(crate) async fn run(&self, global: &Global, output: &Output) -> anyhow::Result<()> {
        let client = global.tenant()?;
        match self {
            Self::Set { url, out } => {
                let once = Once::into(out.as_deref())?;
                let body = Bytes::from(json!({ "url": url }).to_string());
                let answer = client.send(Method::PUT, PATH, "application/json", body, &[]).await?;
                once.show(answer, "text", &format!("notices go to {url}"), output)?;
            }
            Self::Show => output.show(&client.get(PATH).await?, &[]),
            Self::Test => {
                client.act("/v1/notices/test").await?;
                output.say("a notice of the type `test` is on its way", &json!({ "sent": true }));
            }
            Self::Remove => {
                client.delete(PATH).await?;
                output.say("no notices are sent any more", &json!({ "removed": true }));
            }
        }
        Ok(())
    }
}
