//! The guard file beside the database: its lock keeps every other process out, and its number
//! remembers how many changes were acknowledged, so that a removed write-ahead log, an old copy or a
//! missing file is noticed instead of taken for the truth (threats A13).

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use crate::StoreRefused;

/// The guard, locked for as long as it lives.
pub(crate) struct Guard {
    file: File,
    path: PathBuf,
    acknowledged: Option<u64>,
}

/// A u64 in decimal, with zeros in front, so that every write has the same length and none tears.
const DIGITS: usize = 20;

impl Guard {
    /// Takes the lock of a store.
    ///
    /// # Errors
    /// [`StoreRefused::InUse`] if another process has it; the machine's own errors.
    pub(crate) fn lock(store: &Path) -> Result<Self, StoreRefused> {
        let mut path = store.as_os_str().to_owned();
        path.push(".guard");
        let path = PathBuf::from(path);
        let machine = |error: io::Error| StoreRefused::Unavailable {
            path: store.to_owned(),
            why: format!("its guard {}: {error}", path.display()),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(machine)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreRefused::InUse { path: store.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(machine(error)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(machine)?;
        let text = text.trim();
        let acknowledged = if text.is_empty() {
            None
        } else {
            let number = text.parse().map_err(|_| StoreRefused::Corrupt {
                path: store.to_owned(),
                why: format!("its guard {} does not hold a number", path.display()),
            })?;
            Some(number)
        };
        Ok(Self { file, path, acknowledged })
    }

    /// The guard's own path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many changes were acknowledged; none for a store that was never here.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        self.acknowledged
    }

    /// Remembers that so many changes are on the disk. Not synced: after a power cut the number may be
    /// older than the database, which is harmless; it is never newer.
    pub(crate) fn acknowledge(&mut self, count: u64) {
        if let Err(error) = self.file.write_all_at(format!("{count:0DIGITS$}").as_bytes(), 0) {
            tracing::warn!(%error, "the store's guard cannot be written: a lost write-ahead log would go unnoticed");
            return;
        }
        self.acknowledged = Some(count);
    }
}
