//! Real servers for the cases, as they are: httpbin and moto, nginx before them and beside them, OpenBao,
//! an authorization server and PostgreSQL. They are installed into the checkout, started on loopback with a
//! throw-away authority's certificates, and stopped at the end. One that cannot be had is missing, and said
//! to be.

pub(crate) mod install;
mod issuers;
mod postgres;
mod web;
mod yard;

use crate::children;
use crate::children::Child;
use crate::peers::web::Nginx;
use crate::peers::yard::Yard;
use crate::place::Place;

/// The servers that run.
pub(crate) struct Peers {
    running: Vec<Running>,
    missing: Vec<Missing>,
    certificate: String,
    yard: Yard,
}

/// A server that runs, until this is dropped.
struct Running {
    child: Child,
    /// What tells the cases where it is.
    environment: Vec<(&'static str, String)>,
    /// A folder apart from the others', if it needs one.
    _folder: Option<tempfile::TempDir>,
}

impl Running {
    fn new(child: Child, environment: Vec<(&'static str, String)>) -> Self {
        Self { child, environment, _folder: None }
    }
}

/// A server that does not run.
pub(crate) struct Missing {
    /// Which; cases that need it have `needs_` and this in their name.
    pub(crate) name: &'static str,
    /// Why.
    pub(crate) because: anyhow::Error,
}

impl Peers {
    /// Installs and starts what can be had, all at once.
    ///
    /// # Errors
    /// If no temporary folder can be made; a server that is missing is none.
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Self> {
        let yard = Yard::new(place)?;
        let (nginx, httpbin, moto, openbao, oidc, postgres) = {
            let _alone = install::alone(place)?;
            tokio::join!(
                install::nginx(place),
                install::httpbin(place),
                install::moto(place),
                install::openbao(place),
                install::oidc(place),
                install::postgres(place),
            )
        };
        let started = children::begin("start nginx, httpbin, moto, OpenBao, oidc-provider, PostgreSQL");
        let (web, openbao, oidc, postgres) = tokio::join!(
            async {
                let nginx = Nginx::start(&yard, &nginx?).await?;
                let (httpbin, moto) = tokio::join!(async { nginx.httpbin(&yard, &httpbin?).await }, async {
                    nginx.moto(&yard, &moto?).await
                });
                anyhow::Ok((nginx.running(), httpbin, moto))
            },
            async { issuers::openbao(&yard, &openbao?).await },
            async {
                let (node, modules) = oidc?;
                issuers::oidc(&yard, &node, &modules).await
            },
            async { postgres::start(&yard, &postgres?).await },
        );
        let certificate = yard.folder().join("ca.pem").display().to_string();
        let mut peers = Self { running: Vec::new(), missing: Vec::new(), certificate, yard };
        match web {
            Ok((nginx, httpbin, moto)) => {
                peers.note("nginx", Ok(nginx));
                peers.note("httpbin", httpbin);
                peers.note("moto", moto);
            }
            Err(because) => {
                peers.note("nginx", Err(because));
                for behind in ["httpbin", "moto"] {
                    let alone = "nginx, through which it is reached, does not run";
                    peers.note(behind, Err(anyhow::anyhow!(alone)));
                }
            }
        }
        peers.note("openbao", openbao);
        peers.note("oidc", oidc);
        peers.note("postgres", postgres);
        children::done("start them", started);
        Ok(peers)
    }

    fn note(&mut self, name: &'static str, started: anyhow::Result<Running>) {
        match started {
            Ok(running) => self.running.push(running),
            Err(because) => self.missing.push(Missing { name, because }),
        }
    }

    /// What tells the cases where the servers are.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let told = self.running.iter().flat_map(|running| &running.environment);
        let told = told.map(|(name, value)| (*name, value.as_str()));
        told.chain([("KEYBEARER_TEST_CA", self.certificate.as_str())])
    }

    /// The servers that do not run.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // All are asked to stop before any is waited for.
        for running in &self.running {
            running.child.ask_to_stop();
        }
        self.running.clear();
        self.yard.forget();
    }
}

/// Starts them and says where they are, until the command is interrupted.
pub(crate) async fn hold(place: &Place) -> anyhow::Result<()> {
    let peers = Peers::start(place).await?;
    for missing in peers.missing() {
        eprintln!("{} {}: {:#}", children::bad("NOT RUN"), missing.name, missing.because);
    }
    for (name, value) in peers.environment() {
        eprintln!("export {name}={value}");
    }
    std::future::pending().await
}
