//! Group commit at its barest: one record for each call, written and synced together with those of all
//! calls that wait. The floor of a ledger that survives a loss of power.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Condvar;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A record about as long as a line of the ledger that ends a call.
const RECORD: &[u8] = &[b'r'; 400];

/// A file that calls are committed to.
pub(crate) struct Commit {
    waiting: Arc<(Mutex<Vec<oneshot::Sender<()>>>, Condvar)>,
}

impl Commit {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).context("the file of commits")?;
        let waiting: Arc<(Mutex<Vec<_>>, Condvar)> = Arc::default();
        let shared = Arc::clone(&waiting);
        std::thread::Builder::new().name("commit".to_owned()).spawn(move || keep(file, &shared))?;
        Ok(Self { waiting })
    }

    /// Returns when one more record is on the disk.
    ///
    /// # Errors
    /// If the disk failed.
    pub(crate) async fn record(&self) -> anyhow::Result<()> {
        let (done, committed) = oneshot::channel();
        let (waiting, bell) = &*self.waiting;
        waiting.lock().push(done);
        bell.notify_one();
        committed.await.context("the disk failed")
    }
}

fn keep(mut file: File, shared: &(Mutex<Vec<oneshot::Sender<()>>>, Condvar)) {
    let (waiting, bell) = shared;
    loop {
        let group = {
            let mut waiting = waiting.lock();
            while waiting.is_empty() {
                bell.wait(&mut waiting);
            }
            std::mem::take(&mut *waiting)
        };
        let written = file.write_all(&RECORD.repeat(group.len())).and_then(|()| file.sync_data());
        if written.is_err() {
            // Whoever waits hears it, as the senders are dropped.
            return;
        }
        for done in group {
            // A call that was given up waits no more.
            let _ = done.send(());
        }
    }
}
