//! Makes what is stored older than it is, in the store of a server that is stopped: what days would do, in no time.
//! The product has no clock that could be turned.

use anyhow::Context as _;

use crate::Server;

impl Server {
    /// Stops, lets the current value of a credential be stored so many hours ago, and starts again. Clients are to be
    /// made anew.
    ///
    /// # Errors
    /// If there is no such value, or the server does not stop and start.
    pub fn make_older(&mut self, credential: &str, hours: f64) -> anyhow::Result<()> {
        self.make_all_older(&[credential], hours)
    }

    /// The same for several at once.
    ///
    /// # Errors
    /// As there.
    pub fn make_all_older(&mut self, credentials: &[&str], hours: f64) -> anyhow::Result<()> {
        anyhow::ensure!(self.stop()?, "it did not stop: {}", self.log());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let created = (now.as_secs_f64() - hours * 3_600.0) * 1_000.0;
        {
            let store = rusqlite::Connection::open(self.home().join("store.db"))?;
            let sql = "UPDATE versions SET created = CAST(?1 AS INTEGER) WHERE credential = ?2 AND state = 'current'";
            for credential in credentials {
                let changed = store.execute(sql, (created, credential))?;
                anyhow::ensure!(changed == 1, "{credential} has no current version");
            }
            store.close().map_err(|(_, error)| error).context("the store")?;
        }
        self.restart()
    }

    /// Stops, lets every idempotency key have been used so many hours ago, and starts again. Clients are to be made
    /// anew.
    ///
    /// # Errors
    /// If there are no keys, or the server does not stop and start.
    pub fn make_keys_older(&mut self, hours: u32) -> anyhow::Result<()> {
        anyhow::ensure!(self.stop()?, "it did not stop: {}", self.log());
        {
            let store = rusqlite::Connection::open(self.home().join("store.db"))?;
            let changed = store.execute("UPDATE idempotency SET created = created - ?1 * 3600000", [hours])?;
            anyhow::ensure!(changed > 0, "there are no keys");
            store.close().map_err(|(_, error)| error).context("the store")?;
        }
        self.restart()
    }

    /// How many idempotency keys are stored.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stored_keys(&self) -> anyhow::Result<u32> {
        let store = rusqlite::Connection::open(self.home().join("store.db"))?;
        store.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(store.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0))?)
    }
}
