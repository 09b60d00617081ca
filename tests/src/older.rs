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
        anyhow::ensure!(self.stop()?, "it did not stop: {}", self.log());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let created = (now.as_secs_f64() - hours * 3_600.0) * 1_000.0;
        {
            let store = rusqlite::Connection::open(self.home().join("store.db"))?;
            let sql = "UPDATE versions SET created = CAST(?1 AS INTEGER) WHERE credential = ?2 AND state = 'current'";
            let changed = store.execute(sql, (created, credential))?;
            anyhow::ensure!(changed == 1, "{credential} has no current version");
            store.close().map_err(|(_, error)| error).context("the store")?;
        }
        self.restart()
    }
}
