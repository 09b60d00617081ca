//! The Vault API, as OpenBao speaks it.

mod database;
mod events;
mod faults;
mod kv;
mod logins;
mod push;
mod runs;
mod stage;
mod succession;
