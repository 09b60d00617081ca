//! The one room that reads a secret: master key, sealing, accepting, use guards, leases, placing on a
//! request, reading what sources answer, scrubbing answers.
//!
//! Not for talking to anybody: no socket is opened here, and no record is stored. Sealed bytes come
//! from and go to the store through the gate's [`keybearer_gate::CredentialDirectory`]; what is placed
//! on a request goes out through egress, which opens an [`Armed`] in one file; what comes back is a
//! [`Raw`], which can only be scrubbed.
//!
//! The order of a dispatch is in the types: [`Strongbox::select`] opens nothing and names version and
//! epoch for the ledger; the ledger's `Intent` is needed for [`Strongbox::lease`]; [`place()`] spends
//! cleared request, intent and lease, and makes the one thing that can be sent. [`fn@sign`] spends them for what a guest
//! asked to have signed, which is the one thing made of a credential that a guest may hold.

mod accept;
mod answer;
mod authorization;
mod carry;
mod function;
mod guards;
#[cfg(test)]
mod guards_model;
#[cfg(test)]
mod guards_tests;
mod identity;
mod keys;
mod lease;
mod made;
mod master;
mod minted;
mod place;
mod proof;
mod raw;
mod registration;
mod scrub;
mod seal;
mod secret;
mod sign;
mod sigv4;
mod strongbox;
mod successor;
mod svid;
mod sync;
mod vessel;
mod webhook;
mod xml;

#[cfg(test)]
mod fixture;

// The public interface is:
pub use accept::Accepted;
pub use accept::SecretInput;
pub use accept::ValueRefused;
pub use answer::AnswerRefused;
pub use answer::Told;
pub use answer::read_facts;
pub use authorization::Authorization;
pub use authorization::CLIENT_KEY;
pub use authorization::CODE;
pub use authorization::VERIFIER;
pub use authorization::state_name;
pub use authorization::waits;
pub use function::sign;
pub use guards::Flight;
pub use guards::UseGuard;
pub use identity::ClientIdentity;
pub use identity::IdentityRefused;
pub use lease::CredentialUnusable;
pub use lease::Lease;
pub use lease::LeaseRefused;
pub use lease::Selected;
pub use made::Made;
pub use made::MadeInCall;
pub use made::Signature;
pub use master::MasterKey;
pub use master::MasterKeyRefused;
pub use minted::KeepRefused;
pub use minted::Minted;
pub use minted::Undo;
pub use minted::Yield;
pub use place::Armed;
pub use place::OpenArmed;
pub use place::PlaceRefused;
pub use place::place;
pub use place::plain;
pub use raw::Derived;
pub use raw::Raw;
pub use raw::Reply;
pub use registration::ClientKey;
pub use registration::INITIAL_TOKEN;
pub use registration::REGISTRATION_TOKEN;
pub use scrub::REDACTED;
pub use scrub::Reflected;
pub use scrub::ScrubFault;
pub use scrub::ScrubLimits;
pub use scrub::ScrubSet;
pub use scrub::scrub;
pub use scrub::scrub_bytes;
pub use scrub::scrub_text;
pub use seal::SealBroken;
pub use strongbox::Strongbox;
pub use svid::SvidFacts;
pub use svid::SvidMessage;
pub use svid::SvidRefused;
pub use svid::SvidReplaced;
pub use svid::SvidsChanged;
pub use vessel::Vessel;
pub use webhook::Webhook;
