//! The way out. A destination is resolved and vetted, its vetted address is dialled, an armed request is
//! sent, and what came back is handed to the strongbox unread.
//!
//! Not for deciding whether a request may be made: gate has cleared it, the ledger has its intent, and the
//! strongbox has armed it before it comes here. No redirect is followed, no request is tried
//! twice, no proxy is used, and nothing is read from the environment.

mod address;
#[cfg(test)]
mod armed_tests;
mod budget;
mod config;
mod dial;
mod dispatch;
mod drive;
#[cfg(test)]
mod fixture;
mod messages;
mod names;
mod pool;
#[cfg(test)]
mod tls_tests;
mod turn;
mod vet;
mod watch;

// The public interface is:
pub use address::NotGlobal;
pub use address::not_global;
pub use config::ConfigInvalid;
pub use config::Dangerous;
pub use config::Deadlines;
pub use config::EgressConfig;
pub use config::Pin;
pub use config::PoolLimits;
pub use config::roots_from_pem;
pub use dispatch::Egress;
pub use dispatch::Message;
pub use dispatch::SendFault;
pub use dispatch::SendLimits;
pub use dispatch::SendReason;
pub use messages::Messages;
pub use messages::Opened;
pub use names::Answers;
pub use names::Looking;
pub use names::NameFault;
pub use names::Names;
pub use turn::at_once;
pub use vet::VetFault;
pub use vet::Vetted;
pub use watch::Carried;
pub use watch::WireObserver;
