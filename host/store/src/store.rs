//! The store itself: opening with every check, one writer, and the image that answers reads. The
//! operations are in the files named for what they are about.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::CredentialId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_gate::CredentialDirectory;
use keybearer_gate::CredentialRecord;
use keybearer_gate::RunDirectory;
use keybearer_gate::RunRecord;
use keybearer_gate::Sealed;
use keybearer_gate::TenantDirectory;
use keybearer_gate::TenantRecord;
use keybearer_gate::TokenDirectory;
use keybearer_gate::TokenRecord;
use parking_lot::Mutex;
use parking_lot::RwLock;
use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StoreError;
use crate::StoreRefused;
use crate::guard::Guard;
use crate::idempotency::Running;
use crate::image::Damage;
use crate::image::Image;
use crate::schema;

/// The database of one node. Reads are answered from memory; writes are serialised and return when
/// the disk has them.
pub struct Store {
    writer: Mutex<Writer>,
    image: RwLock<Image>,
    pub(crate) running: Mutex<Running>,
}

struct Writer {
    connection: Connection,
    // Dropped after the connection: the lock is given back when the last byte is written.
    guard: Guard,
    /// How many changes were committed in the store's life.
    count: u64,
}

/// Only a backup tool that reads the file can hold its lock; it does so for moments.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl Store {
    /// Opens the store, or makes an empty one where none ever was. The folder must exist.
    ///
    /// # Errors
    /// [`StoreRefused`] says what is wrong and what to do; the file is left as it was.
    pub fn open(path: &Path) -> Result<Arc<Self>, StoreRefused> {
        let mut guard = Guard::lock(path)?;
        require_file(path, &guard)?;
        let (connection, image, count) = open_checked(path, &guard)?;
        guard.acknowledge(count);
        Ok(Arc::new(Self {
            writer: Mutex::new(Writer { connection, guard, count }),
            image: RwLock::new(image),
            running: Mutex::default(),
        }))
    }

    /// Does one transaction and then, with what it made, changes the image. Readers see nothing of it
    /// before it is on the disk, and nothing at all if it fails. The image does not change while `work`
    /// runs: only who holds the writer changes it.
    pub(crate) fn commit<T, R>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
        show: impl FnOnce(&mut Image, T) -> R,
    ) -> Result<R, StoreError> {
        let mut writer = self.writer.lock();
        let transaction = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let made = work(&transaction)?;
        let count: i64 =
            transaction.query_row("UPDATE commits SET count = count + 1 RETURNING count", [], |row| row.get(0))?;
        transaction.commit()?;
        writer.count = count.unsigned_abs();
        let count = writer.count;
        writer.guard.acknowledge(count);
        Ok(show(&mut self.image.write(), made))
    }

    /// How many changes were committed and acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.writer.lock().count
    }

    /// Reads what is not in the image.
    pub(crate) fn query<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.writer.lock().connection)
    }

    /// The image, for as long as a look-up takes.
    pub(crate) fn image(&self) -> parking_lot::RwLockReadGuard<'_, Image> {
        self.image.read()
    }
}

impl TenantDirectory for Store {
    fn tenant(&self, id: &TenantId) -> Option<Arc<TenantRecord>> {
        self.image().tenant(id).map(|tenant| Arc::clone(&tenant.record))
    }
}

impl TokenDirectory for Store {
    fn token(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
        self.image().tokens.get(id).cloned()
    }
}

impl RunDirectory for Store {
    fn run_of_token(&self, id: &RunId) -> Option<Arc<RunRecord>> {
        self.image().run_of_token(id).cloned()
    }
}

impl CredentialDirectory for Store {
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>> {
        self.image().tenant(tenant)?.credentials.get(id).cloned()
    }

    fn data_key(&self, tenant: &TenantId) -> Option<Sealed> {
        self.image().tenant(tenant).map(|tenant| tenant.data_key.clone())
    }
}

/// Makes the file where none ever was; refuses where there was one (threats A13: no silent reset).
fn require_file(path: &Path, guard: &Guard) -> Result<(), StoreRefused> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let machine = |error: std::io::Error| StoreRefused::Unavailable { path: path.to_owned(), why: error.to_string() };
    if path.try_exists().map_err(machine)? {
        return Ok(());
    }
    if guard.acknowledged().is_some() || PathBuf::from(log).try_exists().map_err(machine)? {
        return Err(StoreRefused::Missing { path: path.to_owned(), guard: guard.path().to_owned() });
    }
    // Made here and not by SQLite, for its mode; the log and its index inherit that.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(machine)?;
    Ok(())
}

fn open_checked(path: &Path, guard: &Guard) -> Result<(Connection, Image, u64), StoreRefused> {
    let refuse = |error: rusqlite::Error| refused(path, &error);
    // Without OPEN_URI: a path is a path, whatever it looks like.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(refuse)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(refuse)?;
    let found = check_header(path, &connection)?;
    check_pages(path, &connection)?;
    // Before anything is written: a store that lost its log looks like a new one.
    let count = if found == 0 { 0 } else { commits(&connection).map_err(refuse)? };
    if let Some(acknowledged) = guard.acknowledged().filter(|acknowledged| *acknowledged > count || found == 0) {
        let (path, guard) = (path.to_owned(), guard.path().to_owned());
        return Err(StoreRefused::RolledBack { path, guard, found: count, acknowledged });
    }
    configure(path, &connection)?;
    schema::migrate(&mut connection, found).map_err(refuse)?;
    let image = Image::load(&connection).map_err(|damage| match damage {
        Damage::Sql(error) => refuse(error),
        Damage::Row(why) => StoreRefused::Corrupt { path: path.to_owned(), why },
    })?;
    Ok((connection, image, count))
}

fn commits(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT count FROM commits WHERE one = 1", [], |row| row.get(0)).map(i64::unsigned_abs)
}

/// Whose file it is, and of which version; 0 for one that is still empty.
fn check_header(path: &Path, connection: &Connection) -> Result<u32, StoreRefused> {
    let refuse = |error: rusqlite::Error| refused(path, &error);
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(refuse)?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(refuse)?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(refuse)?;
    if objects == 0 && application == 0 && found == 0 {
        return Ok(0);
    }
    if application != schema::APPLICATION_ID {
        return Err(StoreRefused::NotAStore { path: path.to_owned() });
    }
    if found > schema::known() {
        return Err(StoreRefused::Newer { path: path.to_owned(), found, known: schema::known() });
    }
    Ok(found)
}

fn check_pages(path: &Path, connection: &Connection) -> Result<(), StoreRefused> {
    let corrupt = |why: String| StoreRefused::Corrupt { path: path.to_owned(), why };
    let refuse = |error: rusqlite::Error| refused(path, &error);
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(refuse)?;
    if verdict != "ok" {
        return Err(corrupt(verdict));
    }
    let mut dangling = connection.prepare("PRAGMA foreign_key_check").map_err(refuse)?;
    if dangling.exists([]).map_err(refuse)? {
        return Err(corrupt("a row refers to one that is not there".to_owned()));
    }
    Ok(())
}

fn configure(path: &Path, connection: &Connection) -> Result<(), StoreRefused> {
    let refuse = |error: rusqlite::Error| refused(path, &error);
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(refuse)?;
    if mode != "wal" {
        let why = format!("its file system has no write-ahead log (SQLite answered `{mode}`)");
        return Err(StoreRefused::Unavailable { path: path.to_owned(), why });
    }
    for (name, value) in [
        // An acknowledged revocation must survive the power.
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        // What was destroyed is overwritten with zeros.
        ("secure_delete", "ON"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        // No file beside those that the guard knows.
        ("temp_store", "MEMORY"),
    ] {
        connection.pragma_update(None, name, value).map_err(refuse)?;
    }
    Ok(())
}

fn refused(path: &Path, error: &rusqlite::Error) -> StoreRefused {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreRefused::NotAStore { path },
        Some(ErrorCode::DatabaseCorrupt) => StoreRefused::Corrupt { path, why: error.to_string() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreRefused::InUse { path },
        // Not SQLite's own complaint, then: a column does not hold what it should.
        None => StoreRefused::Corrupt { path, why: error.to_string() },
        _ => StoreRefused::Unavailable { path, why: error.to_string() },
    }
}

/// A record as its column holds it.
pub(crate) fn to_json<T: Serialize>(record: &T) -> String {
    serde_json::to_string(record).expect("records have text keys only and hold no map that could fail")
}

/// A record out of its column.
pub(crate) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// A number as SQLite holds it.
pub(crate) fn to_sql(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Conflict("a number is beyond what can be stored"))
}
