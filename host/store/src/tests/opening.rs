//! Opening: what was stored is there again, and a store that is not what it was is refused and left
//! as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TokenDirectory as _;
use rusqlite::Connection;

use super::*;
use crate::Rollback;
use crate::schema;

// If it failed, a look at a store would change what the next start finds, or see nothing while a server runs.
#[test]
fn a_look_at_a_data_key_opens_nothing_and_leaves_nothing_behind() {
    let place = Place::new();
    let beside = || {
        let entries = fs::read_dir(place.folder.path()).expect("a folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort_unstable();
        names
    };
    let look = || Store::peek_data_key(&place.path());
    assert!(look().is_err() && beside().is_empty());
    let store = place.open();
    assert!(look().is_ok_and(|found| found.is_none()));
    let acme = tenant(&store, "acme");
    let is_hers = || look().is_ok_and(|found| found == Some((acme.clone(), sealed("data key of acme"))));
    assert!(is_hers(), "beside one that is open");
    drop(store);
    let before = beside();
    assert!(is_hers());
    assert_eq!(beside(), before);
    place.open().remove_tenant(&acme, UnixMillis(5)).expect("removed");
    assert!(look().is_ok_and(|found| found.is_none()));
}

#[test]
fn a_restart_keeps_everything() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    let token = store.insert_token(token(&acme)).expect("stored");
    let first = store.insert_credential(credential(&acme, "stripe")).expect("stored");
    store.add_version(&acme, &first.id, version(2), 2).expect("rotated");
    let grant = grant(&acme, &first.id);
    store.put_grant(grant.clone()).expect("granted");
    let published = store.publish(package("0.1.0"), COMPONENT, Rollback::Refused).expect("published");
    drop(store);

    let store = place.open();
    assert_eq!(store.tenant(&acme).map(|tenant| tenant.name.to_string()).as_deref(), Some("acme"));
    assert!(store.data_key(&acme) == Some(sealed("data key of acme")));
    assert_eq!(store.token(&token.id).map(|token| token.hash), Some([7; 32]));
    let record = store.credential(&acme, &first.id).expect("there");
    let states: Vec<_> = record.versions.iter().map(|version| version.state).collect();
    assert_eq!((record.epoch, states), (2, vec![VersionState::Retired, VersionState::Current]));
    assert!(record.versions[1].sealed == sealed("sealed value number 2"));
    assert_eq!(store.grants_of_package(&acme, &grant.package)[0].approved, grant.approved);
    assert_eq!(store.versions(&published.name).as_ref(), std::slice::from_ref(&published));
    assert_eq!(store.component(&published.digest).as_deref(), Ok(COMPONENT));
}

#[test]
fn a13_a_damaged_page_is_refused_and_the_file_is_left_as_it_is() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    for number in 0..50 {
        store.insert_credential(credential(&acme, &format!("c{number}"))).expect("stored");
    }
    drop(store);
    let good = fs::read(place.path()).expect("read");
    let pages = good.len() / 4096;
    assert!(pages > 5);
    let mut refused = 0;
    for page in 1..pages {
        let mut bad = good.clone();
        // The head of a page says what it is and where its cells lie.
        bad[page * 4096..page * 4096 + 16].fill(0xA5);
        fs::write(place.path(), &bad).expect("written");
        if Store::open(&place.path()).is_err() {
            refused += 1;
            assert!(fs::read(place.path()).expect("read") == bad, "page {page}");
        }
    }
    assert_eq!(refused, pages - 1);
    fs::write(place.path(), &good[..good.len() / 2]).expect("written");
    assert!(matches!(place.refused(), StoreRefused::Corrupt { .. }));
    fs::write(place.path(), &good).expect("written");
    assert_eq!(place.open().credentials(&acme).len(), 50);
}

#[test]
fn a13_a_lost_write_ahead_log_is_noticed() {
    let place = Place::new();
    let store = place.open();
    tenant(&store, "acme");
    // What a crash leaves: the file, its log, the guard; and then somebody tidies up the log.
    let crashed = Place::new();
    for suffix in ["", ".guard"] {
        fs::copy(place.file(suffix), crashed.file(suffix)).expect("copied");
    }
    let before = fs::read(crashed.path()).expect("read");
    assert!(matches!(crashed.refused(), StoreRefused::RolledBack { .. }));
    assert!(fs::read(crashed.path()).expect("read") == before);
    // With its log, it is whole.
    fs::copy(place.file("-wal"), crashed.file("-wal")).expect("copied");
    assert_eq!(crashed.open().tenants().len(), 1);
}

#[test]
fn a13_c08_an_older_copy_is_noticed() {
    let place = Place::new();
    tenant(&place.open(), "acme");
    let older = fs::read(place.path()).expect("read");
    tenant(&place.open(), "globex");
    fs::write(place.path(), older).expect("written");
    assert!(matches!(place.refused(), StoreRefused::RolledBack { found: 1, acknowledged: 2, .. }));
}

#[test]
fn a13_a_missing_file_is_not_begun_anew() {
    let place = Place::new();
    tenant(&place.open(), "acme");
    fs::remove_file(place.path()).expect("removed");
    let refused = place.refused();
    assert!(matches!(refused, StoreRefused::Missing { .. }), "{refused}");
    assert!(!place.path().exists());
}

#[test]
fn a13_a_file_of_something_else_is_refused() {
    let place = Place::new();
    fs::write(place.path(), "not a database, but longer than the head of one would be: ".repeat(100)).expect("written");
    assert!(matches!(place.refused(), StoreRefused::NotAStore { .. }));
    let other = Place::new();
    let connection = Connection::open(other.path()).expect("opened");
    connection.execute_batch("CREATE TABLE notes (text TEXT)").expect("created");
    drop(connection);
    assert!(matches!(other.refused(), StoreRefused::NotAStore { .. }));
}

#[test]
fn a13_a_row_that_does_not_parse_is_refused() {
    let place = Place::new();
    let store = place.open();
    let acme = tenant(&store, "acme");
    store.insert_credential(credential(&acme, "stripe")).expect("stored");
    drop(store);
    let connection = Connection::open(place.path()).expect("opened");
    connection.execute("UPDATE credentials SET epoch = 9", []).expect("done");
    drop(connection);
    assert!(matches!(place.refused(), StoreRefused::Corrupt { .. }));
}

#[test]
fn c07_a_later_schema_is_refused() {
    let place = Place::new();
    tenant(&place.open(), "acme");
    let connection = Connection::open(place.path()).expect("opened");
    connection.pragma_update(None, "user_version", schema::known() + 1).expect("set");
    drop(connection);
    assert!(matches!(place.refused(), StoreRefused::Newer { .. }));
}

#[test]
fn a_store_that_is_open_is_refused_to_others_until_it_is_closed() {
    let place = Place::new();
    let store = place.open();
    assert!(matches!(place.refused(), StoreRefused::InUse { .. }));
    drop(store);
    place.open();
}

#[test]
fn only_the_owner_can_read_the_files() {
    let place = Place::new();
    let store = place.open();
    tenant(&store, "acme");
    for suffix in ["", "-wal", "-shm", ".guard"] {
        let mode = fs::metadata(place.file(suffix)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{suffix}");
    }
}

#[test]
fn t07_every_tables_key_begins_with_the_tenant() {
    let place = Place::new();
    let store = place.open();
    let tables: Vec<(String, String)> = store
        .query(|connection| {
            let sql = "SELECT m.name, (SELECT i.name FROM pragma_table_info(m.name) i WHERE i.pk = 1)
                       FROM sqlite_schema m WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .expect("read");
    assert!(tables.len() > schema::OPERATORS_TABLES.len());
    for (table, first) in tables {
        assert!(first == "tenant" || schema::OPERATORS_TABLES.contains(&table.as_str()), "{table}");
    }
}
