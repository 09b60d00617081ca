//! The tables, and how an older file becomes one of today. Every table's primary key begins with the
//! tenant, so that a row is reached by way of its tenant and by no other; the exceptions are listed
//! in `OPERATORS_TABLES`. Columns beside `record` are those that SQL itself must see: keys, what is
//! unique, what must only grow, and sealed bytes.

use rusqlite::Connection;
use rusqlite::TransactionBehavior;

/// `KBST`: says whose file this is (SQLite file format §1.3.15).
pub(crate) const APPLICATION_ID: i32 = 0x4b42_5354;

/// Tables that belong to the operator or to the file itself, not to a tenant.
#[cfg(test)]
pub(crate) const OPERATORS_TABLES: &[&str] = &["tenants", "packages", "commits", "operator"];

/// What leads from each version to the next; the version of a file is the number of scripts that ran.
const MIGRATIONS: &[&str] = &[
    r#"
    -- A removed tenant stays as a row, so that its id is never given again.
    CREATE TABLE tenants (
        tenant   TEXT PRIMARY KEY,
        name     TEXT NOT NULL,
        removed  INTEGER,
        data_key BLOB NOT NULL,
        record   TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX tenants_living_name ON tenants (name) WHERE removed IS NULL;

    CREATE TABLE tokens (
        tenant TEXT NOT NULL REFERENCES tenants (tenant),
        id     TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE credentials (
        tenant TEXT NOT NULL REFERENCES tenants (tenant),
        id     TEXT NOT NULL UNIQUE,
        name   TEXT NOT NULL,
        epoch  INTEGER NOT NULL,
        record TEXT NOT NULL,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, name)
    ) STRICT, WITHOUT ROWID;
    -- The last wall against a revoked secret that comes back: no statement can lower an epoch.
    CREATE TRIGGER credentials_epoch_grows BEFORE UPDATE OF epoch ON credentials
    WHEN NEW.epoch < OLD.epoch BEGIN SELECT RAISE(ABORT, 'an epoch only grows'); END;

    CREATE TABLE versions (
        tenant      TEXT NOT NULL,
        credential  TEXT NOT NULL,
        version     INTEGER NOT NULL,
        state       TEXT NOT NULL CHECK (state IN ('current', 'retired', 'revoked', 'destroyed')),
        created     INTEGER NOT NULL,
        fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
        sealed      BLOB NOT NULL,
        PRIMARY KEY (tenant, credential, version),
        FOREIGN KEY (tenant, credential) REFERENCES credentials (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX versions_one_current ON versions (tenant, credential) WHERE state = 'current';

    -- The slot is '' for a grant of the package as such. The credential is one of the same tenant, or
    -- the row is refused.
    CREATE TABLE grants (
        tenant     TEXT NOT NULL REFERENCES tenants (tenant),
        package    TEXT NOT NULL,
        slot       TEXT NOT NULL,
        id         TEXT NOT NULL UNIQUE,
        credential TEXT,
        record     TEXT NOT NULL,
        PRIMARY KEY (tenant, package, slot),
        FOREIGN KEY (tenant, credential) REFERENCES credentials (tenant, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE idempotency (
        tenant  TEXT NOT NULL REFERENCES tenants (tenant),
        key     BLOB NOT NULL,
        request BLOB NOT NULL,
        call    TEXT NOT NULL,
        created INTEGER NOT NULL,
        answer  BLOB,
        PRIMARY KEY (tenant, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX idempotency_created ON idempotency (created);

    -- With a rowid: rows with megabytes in them do not belong into an index tree.
    CREATE TABLE packages (
        position  INTEGER PRIMARY KEY AUTOINCREMENT,
        digest    TEXT NOT NULL UNIQUE,
        record    TEXT NOT NULL,
        manifest  BLOB NOT NULL,
        component BLOB NOT NULL
    ) STRICT;

    -- How many changes were committed; the guard file beside the database knows how many it must be.
    CREATE TABLE commits (
        one   INTEGER PRIMARY KEY CHECK (one = 1),
        count INTEGER NOT NULL
    ) STRICT;
    INSERT INTO commits (one, count) VALUES (1, 0);
"#,
    r#"
    -- Open runs, and for a while those that ended.
    CREATE TABLE runs (
        tenant TEXT NOT NULL REFERENCES tenants (tenant),
        id     TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    CREATE TABLE hooks (
        tenant TEXT NOT NULL REFERENCES tenants (tenant),
        id     TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- What was minted at an issuer and is to be given back there.
    CREATE TABLE orphans (
        tenant     TEXT NOT NULL REFERENCES tenants (tenant),
        credential TEXT NOT NULL,
        reference  TEXT NOT NULL,
        ends       INTEGER NOT NULL,
        record     TEXT NOT NULL,
        PRIMARY KEY (tenant, credential, reference),
        FOREIGN KEY (tenant, credential) REFERENCES credentials (tenant, id)
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- What was revoked by name. The tenant is '' for what is the operator's.
    CREATE TABLE revocations (
        tenant TEXT NOT NULL,
        kind   TEXT NOT NULL CHECK (kind IN ('principal', 'tool', 'signer')),
        name   TEXT NOT NULL,
        at     INTEGER NOT NULL,
        PRIMARY KEY (tenant, kind, name)
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- What was stopped at once. The tenant is '' where it is nobody's alone.
    CREATE TABLE incidents (
        tenant TEXT NOT NULL,
        id     TEXT NOT NULL UNIQUE,
        record TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
    -- What the operator set for himself, by name.
    CREATE TABLE operator (
        name   TEXT PRIMARY KEY,
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- When things were used last; what the record holds is the executor's to say.
    CREATE TABLE uses (
        tenant  TEXT NOT NULL REFERENCES tenants (tenant),
        subject TEXT NOT NULL,
        record  TEXT NOT NULL,
        PRIMARY KEY (tenant, subject)
    ) STRICT, WITHOUT ROWID;

    -- Where a tenant wants its notices.
    CREATE TABLE notices (
        tenant TEXT PRIMARY KEY REFERENCES tenants (tenant),
        record TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- Notices that wait to be taken. The tenant is '' for what the operator is told.
    CREATE TABLE outbox (
        tenant   TEXT NOT NULL,
        id       TEXT NOT NULL,
        created  INTEGER NOT NULL,
        incident TEXT,
        body     BLOB NOT NULL,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
"#,
    r#"
    -- The highest version of a value that its source gave: none that is lower is taken.
    CREATE TABLE source_versions (
        tenant     TEXT NOT NULL REFERENCES tenants (tenant),
        credential TEXT NOT NULL,
        version    INTEGER NOT NULL,
        PRIMARY KEY (tenant, credential),
        FOREIGN KEY (tenant, credential) REFERENCES credentials (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TRIGGER source_versions_grow BEFORE UPDATE OF version ON source_versions
    WHEN NEW.version < OLD.version BEGIN SELECT RAISE(ABORT, 'a version only grows'); END;
"#,
    r#"
    -- Agents are revoked by name, too: the list of kinds is part of the table.
    CREATE TABLE revocations_by_name (
        tenant TEXT NOT NULL,
        kind   TEXT NOT NULL CHECK (kind IN ('principal', 'agent', 'tool', 'signer')),
        name   TEXT NOT NULL,
        at     INTEGER NOT NULL,
        PRIMARY KEY (tenant, kind, name)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO revocations_by_name SELECT tenant, kind, name, at FROM revocations;
    DROP TABLE revocations;
    ALTER TABLE revocations_by_name RENAME TO revocations;
"#,
];

/// The schema that this build writes.
pub(crate) fn known() -> u32 {
    u32::try_from(MIGRATIONS.len()).expect("the list of migrations is short")
}

/// Brings a file to today's schema, one version a transaction.
pub(crate) fn migrate(connection: &mut Connection, found: u32) -> rusqlite::Result<()> {
    for version in found..known() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(MIGRATIONS[usize::try_from(version).expect("an index of the list")])?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}
