//! The append-only, hash-chained record of calls, dispatches and administrative acts (P6).
//!
//! What is handed out here is proof: an [`Intent`] says that a dispatch stands in the ledger before its
//! first byte leaves, a [`Receipt`] that a call's end does before its answer leaves. Neither can be made
//! elsewhere. The records are one JSON object a line, in segments named by their first sequence number,
//! so that an auditor needs nothing of ours to read them; they name things and never hold a value.
//!
//! Not for deciding anything, and not a database: reading is by streaming files ([`Reader`]).
//!
//! A folder of a ledger:
//!
//! ```text
//! 00000000000000000001.jsonl   segments, by first sequence number; each begins with the previous head
//! checkpoint.key               ed25519 seed, hex, 0600; made when the folder is first opened
//! checkpoint.pub               its public key, hex, for auditors
//! ```
//!
//! The anchor is a file *outside* that folder, best on another disk: it holds signed heads, so that a
//! folder that was put back to an earlier state is found out. The ledger owns its files' names. It does
//! not reopen them on a signal, and other programs must not rotate them: segments roll by themselves,
//! every record carries on the chain, and a segment that someone moved or cut while it was being written
//! makes [`Ledger::healthy`] say so.

mod audit;
mod checkpoint;
mod entry;
mod line;
mod purpose;
mod read;
mod record;
mod recover;
mod run;
mod standing;
mod sync;
mod verify;
mod writer;

#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod testing;

// The public interface is:
pub use audit::Audit;
pub use audit::EVERY_TOOL;
pub use audit::Finding;
pub use audit::Misuse;
pub use audit::audit;
pub use checkpoint::Checkpoint;
pub use checkpoint::PublicKey;
pub use checkpoint::PublicKeyMalformed;
pub use checkpoint::Signature;
pub use entry::ActReceipt;
pub use entry::CallEntry;
pub use entry::DispatchEntry;
pub use entry::Intent;
pub use entry::IntentDetails;
pub use entry::Receipt;
pub use entry::SignatureDetails;
pub use line::ChainHash;
pub use line::Head;
pub use purpose::Purpose;
pub use read::Filter;
pub use read::Reader;
pub use read::Visitor;
pub use record::Act;
pub use record::ActKind;
pub use record::Body;
pub use record::CallOutcome;
pub use record::DispatchFacts;
pub use record::DispatchOutcome;
pub use record::EpochSeen;
pub use record::Fault;
pub use record::Record;
pub use recover::LedgerRefused;
pub use recover::Recovery;
pub use recover::UnknownOutcome;
pub use run::RunEvent;
pub use run::RunFacts;
pub use run::RunOutcome;
pub use verify::Broken;
pub use verify::Verified;
pub use verify::Why;
pub use verify::verify;
pub use writer::Durability;
pub use writer::Ledger;
pub use writer::LedgerConfig;
pub use writer::LedgerUnavailable;
