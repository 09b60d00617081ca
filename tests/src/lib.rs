//! The harness: the built `keybearer` as a child process, upstreams on loopback that record what they
//! were sent, a throw-away certificate authority, and a plain HTTP client. The cases, the demo and the
//! benches use it; the product does not.

mod authority;
mod client;
mod event;
mod forms;
mod kept;
mod moto;
mod names;
mod oidc;
mod older;
mod openbao;
mod packages;
mod peers;
mod postgres;
pub mod probe;
mod raw;
mod reserved;
mod secure;
mod server;
mod signer;
mod sigv4;
mod site;
mod telling;
mod upstream;
mod wire;
mod workload;

// The public interface is:
pub use authority::Authority;
pub use client::Answer;
pub use client::Client;
pub use event::is_signed;
pub use event::send_event;
pub use event::send_event_at;
pub use forms::Form;
pub use forms::Traces;
pub use forms::forms;
pub use kept::Kept;
pub use moto::Moto;
pub use names::NameAnswer;
pub use names::NameServer;
pub use oidc::Oidc;
pub use openbao::OpenBao;
pub use packages::Built;
pub use peers::Peer;
pub use postgres::Postgres;
pub use probe::Heard;
pub use raw::Piece;
pub use raw::RawUpstream;
pub use reserved::Reserved;
pub use secure::Secure;
pub use server::Server;
pub use server::ServerOptions;
pub use server::Tenant;
pub use signer::Signer;
pub use sigv4::Sigv4;
pub use site::Holder;
pub use site::Site;
pub use telling::Hold;
pub use telling::TellingVault;
pub use upstream::Recorded;
pub use upstream::Reply;
pub use upstream::Upstream;
pub use wire::Wire;
pub use workload::Svid;
pub use workload::Workload;

/// A random credential value that can be searched for: `prefix` and 32 hex digits.
#[must_use]
pub fn canary(prefix: &str) -> String {
    use std::hash::BuildHasher as _;
    // Two hashers with random keys of the standard library: unique, not secret.
    let word = || std::hash::RandomState::new().hash_one(std::time::Instant::now());
    format!("{prefix}{:016x}{:016x}", word(), word())
}

/// Writes a file that nobody else may read.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn secret_file(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
