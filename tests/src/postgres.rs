//! The PostgreSQL that the test command keeps: who its superuser is, and what an account may do there. For
//! accounts that OpenBao makes; it has no TLS, for nothing of ours connects to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;

use crate::peers;

/// The database server.
pub struct Postgres {
    address: SocketAddr,
    password: String,
    psql: PathBuf,
    libraries: String,
}

impl Postgres {
    /// Its superuser.
    pub const SUPERUSER: &'static str = "keybearer";

    /// The one that runs.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn find() -> anyhow::Result<Self> {
        let address = peers::told("KEYBEARER_TEST_POSTGRES")?.parse()?;
        let state: Value = serde_json::from_slice(&std::fs::read(peers::folder()?.join("postgres.json"))?)?;
        let text = |name: &str| state[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        Ok(Self { address, password: text("password")?, psql: text("psql")?.into(), libraries: text("libraries")? })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Statements as the superuser: what they print, a line for each row, `|` between columns.
    ///
    /// # Errors
    /// If one fails.
    pub fn sql(&self, statements: &str) -> anyhow::Result<String> {
        self.sql_as(Self::SUPERUSER, &self.password, statements)
    }

    /// Statements as an account.
    ///
    /// # Errors
    /// If it is not let in, or one fails; what PostgreSQL says is in the error.
    pub fn sql_as(&self, account: &str, password: &str, statements: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(&self.psql);
        psql.env_clear().env("LC_ALL", "C").env("LD_LIBRARY_PATH", &self.libraries).env("PGPASSWORD", password);
        psql.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--dbname", "postgres"]);
        psql.args(["--set", "ON_ERROR_STOP=1", "--host", &self.address.ip().to_string()]);
        psql.args(["--port", &self.address.port().to_string(), "--username", account, "--command", statements]);
        let output = psql.stdin(Stdio::null()).output().context("psql cannot be started")?;
        anyhow::ensure!(output.status.success(), "PostgreSQL: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether an account with this password is let in.
    #[must_use]
    pub fn lets_in(&self, account: &str, password: &str) -> bool {
        self.sql_as(account, password, "SELECT 1").is_ok()
    }
}
