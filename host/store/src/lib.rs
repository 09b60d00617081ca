//! The database: tenants, tokens, runs, credentials (sealed), grants, packages, idempotency. SQLite in one
//! file, used by one process.
//!
//! What is asked on the way of a call is answered from memory: an image of the tables that is loaded
//! at open and changed only after a transaction is on the disk, so a reader never waits for SQLite and
//! never sees what was not committed. Every function that writes blocks until the disk has it: from
//! asynchronous code, call it on a thread that may block.
//!
//! Not for secrets: values arrive sealed and leave sealed. Not for deciding: whether somebody may ask
//! is the gate's to say, before this room is reached.

mod awaiting;
mod credentials;
mod error;
mod grants;
mod guard;
mod hooks;
mod idempotency;
mod image;
mod incidents;
mod notices;
mod orphans;
mod packages;
mod peek;
mod removal;
mod revocations;
mod runs;
mod schema;
mod sources;
mod store;
mod tenants;
mod tokens;
mod uses;

#[cfg(test)]
mod tests;

// The public interface is:
pub use awaiting::RegisteredClient;
pub use credentials::EpochRow;
pub use credentials::TermsChange;
pub use error::StoreError;
pub use error::StoreRefused;
pub use error::StoreUnavailable;
pub use idempotency::Begun;
pub use idempotency::IDEMPOTENCY_LIFE_MS;
pub use idempotency::IdempotencyKey;
pub use idempotency::IdempotentCall;
pub use idempotency::PURGED_AT_ONCE;
pub use packages::PackageRecord;
pub use packages::Rollback;
pub use revocations::Named;
pub use runs::RunBounds;
pub use store::Store;
pub use tenants::TenantLimits;
pub use uses::UseRow;
