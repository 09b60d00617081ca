//! Real servers that the test command has started: where they are, and the authority that proves their
//! names. Cases that ask for one have `needs_` and its name in their path, so that they are left out, and
//! counted, where it does not run.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

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

    /// oidc-provider, as `oidc.test`; what cases do with it is in [`crate::Oidc`].
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn oidc() -> anyhow::Result<Self> {
        Self::find("KEYBEARER_TEST_OIDC")
    }

    /// moto, as `moto.test` and as the services' own names: `sts.amazonaws.com`, and `sts.REGION.amazonaws.com`
    /// and `secretsmanager.REGION.amazonaws.com` for `eu-west-1` and `us-east-1`. It believes any signature.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub fn moto() -> anyhow::Result<Self> {
        Self::find("KEYBEARER_TEST_MOTO")
    }

    /// One that a case started itself.
    pub(crate) fn at(address: SocketAddr, authority: Authority) -> Self {
        Self { address, authority }
    }

    fn find(variable: &str) -> anyhow::Result<Self> {
        let address = told(variable)?.parse().with_context(|| format!("{variable} is no address"))?;
        Ok(Self { address, authority: authority()? })
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

/// The folder of the servers that run: the authority's `ca.pem`, and what each has to say to the cases.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    let certificate = told("KEYBEARER_TEST_CA")?;
    Ok(Path::new(&certificate).parent().context("KEYBEARER_TEST_CA is no file")?.to_owned())
}

/// Who proves the names of all of them: the key lies beside the certificate.
pub(crate) fn authority() -> anyhow::Result<Authority> {
    Authority::of_key(&std::fs::read_to_string(folder()?.join("ca.key"))?)
}

/// What the test command says by a variable.
#[expect(clippy::disallowed_methods, reason = "the test command tells where its servers are")]
pub(crate) fn told(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| {
        format!("{variable} is not set: `cargo xtask test` starts the servers, `cargo xtask peers` keeps them")
    })
}
