//! Where secrets come from: how each source is asked, and what its answers hold. A source is a file here
//! that says, step by step, what is sent and what is read, in terms of an [`keybearer_gate::Exchange`].
//!
//! Not for reading a value, and not for opening a connection: a request to a source is cleared by gate,
//! sent by whoever implements [`Transport`] (with a vetted address, an intent in the ledger and a lease,
//! as every dispatch), and its answer goes to the strongbox unread.

mod aws;
mod consent;
mod introspection;
mod mint;
mod oauth;
mod registration;
mod spiffe;
mod succession;
mod tidings;
mod vault;
mod way;

// The public interface is:
pub use consent::Redeemed;
pub use consent::redeem;
pub use introspection::Introspected;
pub use introspection::MINTED;
pub use introspection::can_be_introspected;
pub use introspection::introspect;
pub use mint::MintFault;
pub use mint::Mints;
pub use mint::UNWATCHED_S;
pub use mint::Wanted;
pub use mint::reap;
pub use oauth::farewell;
pub use registration::Registered;
pub use registration::deregister;
pub use registration::register;
pub use spiffe::WorkloadApi;
pub use spiffe::WorkloadState;
pub use succession::Successor;
pub use succession::renew;
pub use succession::retire;
pub use succession::unwrap;
pub use tidings::Listen;
pub use tidings::Messages;
pub use tidings::Tidings;
pub use tidings::subscribe;
pub use way::Keeper;
pub use way::Transport;
pub use way::undo;
