//! A look into a store without opening it: nothing is written, locked or checked, so that it can be done beside a server that
//! runs. Not for anything that is decided by what is found.

use std::path::Path;

use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::OptionalExtension as _;

use crate::Store;
use crate::StoreRefused;

impl Store {
    /// The wrapped data key of one of the tenants of the store at this path; none if it has no tenant.
    ///
    /// # Errors
    /// [`StoreRefused::Unavailable`] if it cannot be read.
    pub fn peek_data_key(path: &Path) -> Result<Option<(TenantId, Sealed)>, StoreRefused> {
        let found = connect(path).and_then(|connection| {
            let sql = "SELECT tenant, data_key FROM tenants WHERE removed IS NULL LIMIT 1";
            let row = connection.query_row(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)));
            row.optional()
        });
        let refused = |why: String| StoreRefused::Unavailable { path: path.to_owned(), why };
        let Some((tenant, key)) = found.map_err(|error| refused(error.to_string()))? else { return Ok(None) };
        let tenant = tenant.parse().map_err(|_| refused("a tenant's id does not parse".to_owned()))?;
        Ok(Some((tenant, Sealed(key.into()))))
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if Path::new(&log).exists() {
        return Connection::open_with_flags(path, flags);
    }
    // Nobody has it open. Without this a reader makes a log and an index of its own beside it.
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}
