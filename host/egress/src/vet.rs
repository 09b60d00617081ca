//! Vetting: a destination's name is resolved once, every address of the answer is looked at, and one
//! of them is what will be dialled. A [`Vetted`] is made here only. Not for deciding whether a tool may
//! name the destination at all: gate has cleared that before.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use keybearer_contract::Host;
use keybearer_gate::Destination;
use keybearer_gate::Refusal;
use parking_lot::Mutex;
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::ConfigInvalid;
use crate::Dangerous;
use crate::EgressConfig;
use crate::NameFault;
use crate::Names;
use crate::Pin;
use crate::address::not_global;

/// A destination whose every address was looked at, and the one that is dialled.
#[derive(Debug, Clone)]
pub struct Vetted {
    destination: Destination,
    address: SocketAddr,
}

impl Vetted {
    /// Where to.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// What is dialled.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Why a destination was not vetted. Nothing was sent but questions to name servers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VetFault {
    /// Refused: the guest hears `denied`.
    #[error("{0}")]
    Refused(Refusal),
    /// The name servers failed.
    #[error("the name servers failed")]
    Unresolvable,
    /// The name servers did not answer in time.
    #[error("the name servers did not answer in time")]
    TimedOut,
}

/// An answer is kept no longer than this, whatever its time to live says, so that an upstream that
/// moves is followed soon.
const CACHED_MAX: Duration = Duration::from_secs(30);

/// Hosts in the cache; beyond it the cache is emptied, which costs one look-up a host.
const CACHED_HOSTS_MAX: usize = 4096;

pub(crate) struct Vetter {
    names: Arc<dyn Names>,
    allow_ranges: Vec<IpNet>,
    pins: Vec<Pin>,
    own_listeners: RwLock<Vec<SocketAddr>>,
    resolve: Duration,
    /// Answers, not verdicts: each use is vetted anew, which costs nanoseconds. That an answer is
    /// remembered opens no way for rebinding, since the address that is dialled is the one that was
    /// vetted; remembering gives an attacker fewer answers to change, not more.
    cached: Mutex<HashMap<Host, Cached>>,
}

struct Cached {
    addresses: Vec<IpAddr>,
    until: Instant,
}

impl Vetter {
    pub(crate) fn new(config: &EgressConfig, names: Arc<dyn Names>) -> Result<Self, ConfigInvalid> {
        let Dangerous { allow_ranges, pin } = config.dangerous.clone();
        for range in &allow_ranges {
            tracing::warn!(%range, "dangerous.allow_ranges: tools may reach addresses that are not public");
        }
        for Pin { host, port, address } in &pin {
            tracing::warn!(%host, port, %address, "dangerous.pin: this destination is not resolved");
            let ip = address.ip();
            if not_global(ip).is_some() && !allow_ranges.iter().any(|range| range.contains(&ip)) {
                return Err(ConfigInvalid::PinNotAllowed { address: ip });
            }
        }
        Ok(Self {
            names,
            allow_ranges,
            pins: pin,
            own_listeners: RwLock::new(config.own_listeners.clone()),
            resolve: config.deadlines.resolve,
            cached: Mutex::default(),
        })
    }

    pub(crate) fn add_own_listener(&self, listener: SocketAddr) {
        self.own_listeners.write().push(listener);
    }

    pub(crate) async fn vet(&self, destination: &Destination, deadline: Instant) -> Result<Vetted, VetFault> {
        if let Some(address) = self.pinned(destination) {
            return self.judge(destination, &[address.ip()], address.port());
        }
        if let Some(addresses) = self.remembered(destination.host()) {
            return self.judge(destination, &addresses, destination.port());
        }
        let deadline = deadline.min(Instant::now() + self.resolve);
        let answers = tokio::time::timeout_at(deadline, self.names.look_up(destination.host()))
            .await
            .unwrap_or(Err(NameFault::TimedOut))
            .map_err(|fault| match fault {
                NameFault::Unknown => VetFault::Refused(Refusal::UnknownName),
                NameFault::Failed => VetFault::Unresolvable,
                NameFault::TimedOut => VetFault::TimedOut,
            })?;
        self.judge(destination, &answers.addresses, destination.port())?;
        let addresses = self.remember(destination.host(), answers.addresses, answers.time_to_live);
        self.judge(destination, &addresses, destination.port())
    }

    /// An address did not take a connection: the next dispatch tries another of the same answer.
    pub(crate) fn demote(&self, vetted: &Vetted) {
        if let Some(cached) = self.cached.lock().get_mut(vetted.destination.host()) {
            let ip = vetted.address.ip();
            if let Some(index) = cached.addresses.iter().position(|address| *address == ip) {
                let demoted = cached.addresses.remove(index);
                cached.addresses.push(demoted);
            }
        }
    }

    /// What was really dialled, for the check after connecting.
    pub(crate) fn is_own(&self, address: SocketAddr) -> bool {
        self.own_listeners.read().iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || (own.ip().is_unspecified() && is_of_this_machine(address.ip())))
        })
    }

    fn pinned(&self, destination: &Destination) -> Option<SocketAddr> {
        let named = |pin: &&Pin| pin.host == *destination.host() && pin.port == destination.port();
        self.pins.iter().find(named).map(|pin| pin.address)
    }

    /// One address that is not public refuses the whole answer (threats N05): a name that points inside
    /// as well as outside is not a public service, and to pick from it would let its owner choose when.
    fn judge(&self, destination: &Destination, addresses: &[IpAddr], port: u16) -> Result<Vetted, VetFault> {
        for ip in addresses {
            if let Some(reason) = not_global(*ip)
                && !self.allow_ranges.iter().any(|range| range.contains(ip))
            {
                tracing::debug!(%reason, "a destination resolves to an address that is not public");
                return Err(VetFault::Refused(Refusal::PrivateAddress));
            }
            if self.is_own(SocketAddr::new(*ip, port)) {
                return Err(VetFault::Refused(Refusal::SelfConnection));
            }
        }
        let ip = addresses.first().ok_or(VetFault::Refused(Refusal::UnknownName))?;
        Ok(Vetted { destination: destination.clone(), address: SocketAddr::new(*ip, port) })
    }

    fn remembered(&self, host: &Host) -> Option<Vec<IpAddr>> {
        let cached = self.cached.lock();
        cached.get(host).filter(|cached| cached.until > Instant::now()).map(|cached| cached.addresses.clone())
    }

    fn remember(&self, host: &Host, mut addresses: Vec<IpAddr>, time_to_live: Duration) -> Vec<IpAddr> {
        let mut cached = self.cached.lock();
        if cached.len() >= CACHED_HOSTS_MAX {
            cached.clear();
        }
        // Name servers shuffle their answers; the address in use stays first while it is among them, since that
        // is where the kept connections lead.
        let first = cached.get(host).and_then(|cached| cached.addresses.first());
        if let Some(index) = first.and_then(|first| addresses.iter().position(|address| address == first)) {
            addresses.swap(0, index);
        }
        let until = Instant::now() + time_to_live.min(CACHED_MAX);
        cached.insert(host.clone(), Cached { addresses: addresses.clone(), until });
        addresses
    }
}

/// Whether the kernel would take a packet for this address as its own: only then can it be bound.
/// Nothing is sent.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
#[path = "vet_tests.rs"]
mod tests;
