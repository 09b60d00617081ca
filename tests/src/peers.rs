//! Real servers that the test command has started: where they are, and the authority that proves their
//! names. Cases that ask for one have `needs_` and its name in their path, so that they are left out, and
//! counted, where it does not run.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;

use crate::Authority;

/// A server as it is, behind TLS.
pub struct Peer {
    address: SocketAddr,
    authority: Authority,
}

impl Peer {
    /// httpbin, as `httpbin.org`.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn httpbin() -> anyhow::Result<Self> {
        Self::find("KEYBEARER_TEST_HTTPBIN")
    }

    /// nginx with the places of `xtask/peers/nginx.conf`, as `nginx.test` and as `httpbin.org`.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn nginx() -> anyhow::Result<Self> {
        Self::find("KEYBEARER_TEST_NGINX")
    }

    fn find(variable: &str) -> anyhow::Result<Self> {
        let address = told(variable)?.parse().with_context(|| format!("{variable} is no address"))?;
        // The authority's key lies beside its certificate.
        let key = std::fs::read_to_string(Path::new(&told("KEYBEARER_TEST_CA")?).with_extension("key"))?;
        Ok(Self { address, authority: Authority::of_key(&key)? })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who proves its names.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

#[expect(clippy::disallowed_methods, reason = "the test command tells where its servers are")]
fn told(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| {
        format!("{variable} is not set: `cargo xtask test` starts the servers, `cargo xtask peers` keeps them")
    })
}
