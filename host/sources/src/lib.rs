//! Where secrets come from. For now: OAuth token endpoints, asked with a client's own credentials
//! (RFC 6749 §4.4).
//!
//! Not for reading a value, and not for opening a connection: a token request is cleared by gate, sent by
//! whoever implements [`Transport`] (with a vetted address, an intent in the ledger and a lease, as every
//! dispatch), and its answer goes to the strongbox unread.

mod mint;

// The public interface is:
pub use mint::MintFault;
pub use mint::Mints;
pub use mint::Transport;
pub use mint::Wanted;
