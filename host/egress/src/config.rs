//! What the operator decides about the way out. Nothing here is read from the environment: proxy
//! variables, `SSL_CERT_FILE`, `SSLKEYLOGFILE` and netrc have no effect (threats N30). Not for reading
//! files: the server reads them and hands over what was in them.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keybearer_contract::Host;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::watch::WireObserver;

/// How requests leave.
#[derive(Debug, Clone, Default)]
pub struct EgressConfig {
    /// Certificates of authorities that are trusted beside those of webpki-roots.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Name servers; none means those of the system (`/etc/resolv.conf`, without its search list).
    pub nameservers: Vec<SocketAddr>,
    /// Whether the system's hosts file is asked before the name servers.
    pub hosts_file: bool,
    /// What weakens a promise; each entry is logged at start.
    pub dangerous: Dangerous,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// How many idle connections are kept.
    pub pool: PoolLimits,
    /// Where this server and its database listen: never dialled (threats G21, N33). An unspecified address
    /// stands for every address of this machine.
    pub own_listeners: Vec<SocketAddr>,
    /// Who is told when a credential's bytes go to the kernel: for measurements alone, and in no configuration file.
    pub observer: Option<Arc<dyn WireObserver>>,
}

/// Settings that weaken a promise. For development, and for upstreams inside the operator's own network.
#[derive(Debug, Clone, Default)]
pub struct Dangerous {
    /// Ranges that are not public and may be dialled all the same.
    pub allow_ranges: Vec<IpNet>,
    /// Destinations whose address is fixed here and not resolved.
    pub pin: Vec<Pin>,
}

/// One destination's address, as a line of a hosts file would fix it. The name that TLS proves is
/// unchanged, and the address must be public or in [`Dangerous::allow_ranges`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The host that requests name.
    pub host: Host,
    /// The port that requests name.
    pub port: u16,
    /// What is dialled.
    pub address: SocketAddr,
}

/// How long each step of a request may take; a call's own deadline cuts all of them short.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// To resolve a name, both families, retries included.
    pub resolve: Duration,
    /// From SYN to an open TCP connection.
    pub connect: Duration,
    /// The TLS handshake.
    pub tls: Duration,
    /// From handing over the request to the end of the answer's head.
    pub first_byte: Duration,
    /// Between two pieces of the answer's body.
    pub idle: Duration,
}

impl Default for Deadlines {
    /// What an API client waits before it gives up: most of a default call's thirty seconds for the
    /// upstream to think, little for what a healthy network does in milliseconds.
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            first_byte: Duration::from_secs(25),
            idle: Duration::from_secs(10),
        }
    }
}

/// How many idle connections are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// For one tenant, credential and destination.
    pub idle_per_key: usize,
    /// All together; beyond it the tenant with the most gives one up.
    pub idle_total: usize,
    /// After which an idle connection is closed: less than what common servers wait (nginx 75 s, many
    /// load balancers 20–60 s), so that a request seldom meets a connection that is being closed.
    pub idle_timeout: Duration,
    /// After which a connection is not used again, so that a change of address is followed.
    pub age: Duration,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            idle_per_key: 128,
            idle_total: 1024,
            idle_timeout: Duration::from_secs(15),
            age: Duration::from_secs(300),
        }
    }
}

/// The way out cannot be built from this configuration; says which part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigInvalid {
    /// Not a certificate in PEM.
    #[error("the extra roots are not certificates in PEM, or there are none in the file")]
    RootsMalformed,
    /// A certificate that cannot be a trust anchor.
    #[error("extra root {index} cannot be a trust anchor: it must be an X.509 v3 certificate")]
    RootRefused {
        /// Which, from 0.
        index: usize,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up with the versions 1.2 and 1.3")]
    Tls,
    /// The resolver cannot be set up.
    #[error("the resolver cannot be set up: name the servers in the configuration")]
    Resolver,
    /// A pinned address is not public, and its range is not allowed.
    #[error("the pinned address {address} is not public: name its range in dangerous.allow_ranges as well")]
    PinNotAllowed {
        /// The address.
        address: IpAddr,
    },
}

/// The certificates of a PEM file.
///
/// # Errors
/// [`ConfigInvalid::RootsMalformed`] if one is broken or there is none.
pub fn roots_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigInvalid> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    roots.ok().filter(|roots| !roots.is_empty()).ok_or(ConfigInvalid::RootsMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert!(matches!(roots_from_pem(b"hello"), Err(ConfigInvalid::RootsMalformed)));
        assert!(matches!(
            roots_from_pem(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"),
            Err(ConfigInvalid::RootsMalformed)
        ));
    }
}
