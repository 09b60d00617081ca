//! Names become addresses: absolute names only, no search list, A and AAAA, bounded in time and number.
//! Not for deciding whether an address may be dialled: that is `vet`.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::config::NameServerConfig;
use hickory_resolver::config::ResolveHosts;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use keybearer_contract::Host;

use crate::ConfigInvalid;
use crate::EgressConfig;

/// What a name resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Every address of both families, in the order of the answer; not empty.
    pub addresses: Vec<IpAddr>,
    /// How long the answer holds.
    pub time_to_live: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameFault {
    /// The name does not exist, or has no address.
    #[error("the name does not exist")]
    Unknown,
    /// The servers failed, or answered more than is taken.
    #[error("the name servers failed")]
    Failed,
    /// The servers did not answer in time.
    #[error("the name servers did not answer in time")]
    TimedOut,
}

/// The look-up, boxed so that the port can be an object.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Result<Answers, NameFault>> + Send + 'a>>;

/// Where names are looked up. Tests and operators' own resolvers implement it.
pub trait Names: Send + Sync + 'static {
    /// The addresses of an absolute name.
    fn look_up<'a>(&'a self, host: &'a Host) -> Looking<'a>;
}

/// A well-run service has a handful; a thousand are an attack on whoever walks them (threats N09).
const ADDRESSES_MAX: usize = 64;

/// The DNS.
pub(crate) struct Dns {
    resolver: Option<TokioResolver>,
}

impl Dns {
    pub(crate) fn new(config: &EgressConfig) -> Result<Self, ConfigInvalid> {
        let servers = if config.nameservers.is_empty() {
            match hickory_resolver::system_conf::read_system_conf() {
                // Servers only: the search list and the options of that file are for people's shells.
                Ok((system, _)) => system.name_servers().to_vec(),
                Err(_) => {
                    tracing::warn!("the system names no name servers: only pinned destinations can be reached");
                    return Ok(Self { resolver: None });
                }
            }
        } else {
            config.nameservers.iter().map(|server| name_server(server.ip(), server.port())).collect()
        };
        let config_of_names = ResolverConfig::from_name_servers(servers);
        let mut builder = Resolver::builder_with_config(config_of_names, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = if config.hosts_file { ResolveHosts::Always } else { ResolveHosts::Never };
        // `vet` has the one cache that there is.
        options.cache_size = 0;
        options.attempts = 1;
        options.timeout = config.deadlines.resolve / 2;
        let resolver = builder.build().map_err(|_| ConfigInvalid::Resolver)?;
        Ok(Self { resolver: Some(resolver) })
    }
}

fn name_server(address: IpAddr, port: u16) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = port;
        connection
    });
    NameServerConfig::new(address, true, connections.into())
}

impl Names for Dns {
    fn look_up<'a>(&'a self, host: &'a Host) -> Looking<'a> {
        Box::pin(async move {
            let resolver = self.resolver.as_ref().ok_or(NameFault::Failed)?;
            // The final dot is what keeps every search list out.
            let name = Name::from_ascii(format!("{host}.")).map_err(|_| NameFault::Unknown)?;
            let found = resolver.lookup_ip(name).await.map_err(|error| fault(&error))?;
            let addresses: Vec<IpAddr> = found.iter().take(ADDRESSES_MAX + 1).collect();
            match addresses.len() {
                0 => Err(NameFault::Unknown),
                1..=ADDRESSES_MAX => {
                    let time_to_live = found.valid_until().saturating_duration_since(std::time::Instant::now());
                    Ok(Answers { addresses, time_to_live })
                }
                _ => Err(NameFault::Failed),
            }
        })
    }
}

fn fault(error: &NetError) -> NameFault {
    if error.is_no_records_found() {
        // SERVFAIL and REFUSED come as errors of their own; this is NXDOMAIN, or a name without address.
        NameFault::Unknown
    } else if matches!(error, NetError::Timeout) {
        NameFault::TimedOut
    } else {
        NameFault::Failed
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
