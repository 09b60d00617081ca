//! The Vault API, as OpenBao speaks it.

mod kv;
mod logins;
mod stage;
