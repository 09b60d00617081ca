//! What goes wrong here: a store that is not opened, and an operation that is not done. The first is
//! read by the operator and says what to do; the second becomes a caller's problem and says no more
//! than he need know.

use std::path::PathBuf;

use keybearer_contract::Code;
use keybearer_contract::Problem;

/// A store was not opened. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreRefused {
    /// Another process has it open.
    #[error("the store {path} is in use by another process: stop that one first")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{path} is not a Keybearer store: name another file")]
    NotAStore {
        /// Which.
        path: PathBuf,
    },
    /// A later Keybearer wrote it.
    #[error("the store {path} has schema {found} and this Keybearer knows {known}: use the later Keybearer")]
    Newer {
        /// Which.
        path: PathBuf,
        /// What the file says.
        found: u32,
        /// What this build knows.
        known: u32,
    },
    /// It is damaged. It is never repaired or begun anew by itself.
    #[error("the store {path} is damaged ({why}): restore it from a backup; it was left as it is")]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Its file is gone, though it was here.
    #[error(
        "the store {path} is gone, though it was here before: restore it; to begin with an empty one instead, remove {guard}"
    )]
    Missing {
        /// Which.
        path: PathBuf,
        /// The file that remembers it.
        guard: PathBuf,
    },
    /// It holds less than was once acknowledged: its write-ahead log was removed, or it is an old copy.
    #[error(
        "the store {path} has lost acknowledged changes (it holds {found} of {acknowledged}): its write-ahead log was removed or it is an old copy; restore the newest one, or accept the loss by removing {guard}"
    )]
    RolledBack {
        /// Which.
        path: PathBuf,
        /// The file that remembers it.
        guard: PathBuf,
        /// Committed changes that it holds.
        found: u64,
        /// Committed changes that were acknowledged.
        acknowledged: u64,
    },
    /// The machine says no.
    #[error("the store {path} cannot be opened: {why}")]
    Unavailable {
        /// Which.
        path: PathBuf,
        /// What the machine said.
        why: String,
    },
}

/// The database cannot be used now: full, read-only, failing. What was asked was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be used now; nothing was changed")]
pub struct StoreUnavailable;

/// Why an operation was not done; nothing of it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
    /// The state of the thing does not allow it; says why.
    #[error("{0}")]
    Conflict(&'static str),
    /// There is no such thing, or it is another tenant's: the same answer (P10).
    #[error("there is no such thing here")]
    NotFound,
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                Self::new(Code::StoreUnavailable, "try again later; nothing was changed by this request")
            }
            StoreError::Conflict(why) => Self::new(Code::Conflict, why),
            StoreError::NotFound => Self::not_found(),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) {
            return Self::Conflict("it would contradict what is stored");
        }
        // SQLite's texts name tables and files, never a bound value.
        tracing::error!(%error, "the store failed");
        Self::Unavailable(StoreUnavailable)
    }
}
