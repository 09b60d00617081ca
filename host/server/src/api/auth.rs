//! Who is calling: the Authorization header or a client certificate, handed to the gate's verifiers.
//! One answer for every reason to refuse, and a count of refusals for each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use std::time::Instant;

use http::HeaderMap;
use http::header;
use keybearer_contract::Code;
use keybearer_contract::Problem;
use keybearer_gate::OperatorContext;
use keybearer_gate::RUN_TOKEN_PREFIX;
use keybearer_gate::TenantContext;
use keybearer_gate::Unauthenticated;
use keybearer_gate::authenticate_operator;
use parking_lot::Mutex;

use crate::api::App;
use crate::api::Peer;
use crate::api::input::Input;

mod verifiers;

pub(crate) use verifiers::Verifiers;
pub(crate) use verifiers::find as find_tenant;

/// The context of the tenant that this request is for.
pub(crate) fn tenant(app: &App, headers: &HeaderMap, peer: &Peer) -> Result<TenantContext, Problem> {
    let verified = match presented(headers) {
        Ok(Some(token)) if token.starts_with("kb_") || token.starts_with(RUN_TOKEN_PREFIX) => {
            app.executor.authenticate_token(token)
        }
        Ok(Some(token)) => app.verifiers.jwt(token).and_then(|principal| app.executor.enter(principal)),
        Ok(None) => match &peer.certificate {
            Some(certificate) => app.verifiers.spiffe(certificate).and_then(|principal| app.executor.enter(principal)),
            None => Err(Unauthenticated),
        },
        Err(refused) => Err(refused),
    };
    verified.map_err(|Unauthenticated| refuse(app, peer, unauthenticated()))
}

/// The operator's context.
pub(crate) fn operator(app: &App, headers: &HeaderMap, peer: &Peer) -> Result<OperatorContext, Problem> {
    let verified = match presented(headers) {
        Ok(Some(token)) => authenticate_operator(token, &app.operator),
        Ok(None) | Err(_) => Err(Unauthenticated),
    };
    verified.map_err(|Unauthenticated| refuse(app, peer, unauthenticated()))
}

/// The presented bearer token, if there is one. Another scheme, or two headers, is not nothing: it is
/// refused, and never falls back to the certificate.
fn presented(headers: &HeaderMap) -> Result<Option<&str>, Unauthenticated> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unauthenticated);
    }
    let text = value.to_str().map_err(|_| Unauthenticated)?;
    let (scheme, token) = text.split_once(' ').ok_or(Unauthenticated)?;
    if scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX {
        Ok(Some(token))
    } else {
        Err(Unauthenticated)
    }
}

/// The longest token that is looked at: a JWT with a few claims, several times over.
const TOKEN_BYTES_MAX: usize = 8 << 10;

fn unauthenticated() -> Problem {
    Problem::new(Code::Unauthenticated, "send Authorization: Bearer with a token that is valid here")
}

/// Counts a refusal of who sent nothing that is valid here: what it hears, or that there were too many of them.
pub(crate) fn refuse(app: &App, peer: &Peer, problem: Problem) -> Problem {
    app.metrics.unauthenticated();
    if let Some(wait) = app.failures.count(peer.address, Instant::now()) {
        let mut problem = Problem::new(Code::RateLimited, "too many requests of this address were refused: wait");
        problem.retry_after_s = Some(wait.as_secs().max(1));
        return problem;
    }
    problem
}

/// Headers that other systems select tenants with.
const TENANT_HEADERS: &[&str] = &["x-tenant", "x-tenant-id", "tenant", "tenant-id", "x-keybearer-tenant"];

/// Whether a field or parameter of this name would select a tenant.
pub(crate) fn names_a_tenant(name: &str) -> bool {
    matches!(name, "tenant" | "tenant_id" | "tenantId" | "tenant-id")
}

/// Refuses a request whose headers name another tenant than its token's (threats T01).
pub(crate) fn check_named_tenant(input: &Input, context: &TenantContext) -> Result<(), Problem> {
    let naming = input.headers().iter().filter(|(name, _)| TENANT_HEADERS.contains(&name.as_str()));
    for (_, value) in naming {
        check_tenant_text(value.to_str().unwrap_or_default(), context)?;
    }
    Ok(())
}

/// Refuses a text that should be the context's tenant and is not.
pub(crate) fn check_tenant_text(text: &str, context: &TenantContext) -> Result<(), Problem> {
    let record = context.record();
    if text == record.id.as_str() || text == record.name.as_str() {
        return Ok(());
    }
    tracing::warn!(tenant = %record.id, principal = %context.principal(), "a request named another tenant than its token's");
    Err(tenant_mismatch())
}

/// The one answer to a tenant that somebody names.
pub(crate) fn tenant_mismatch() -> Problem {
    Problem::new(Code::TenantMismatch, "name no tenant: the token says whose call it is")
}

/// Failed authentications by address, within a minute. Bounded: an attacker with many addresses only
/// makes it forget.
pub(crate) struct Failures {
    per_minute: u32,
    counted: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// More addresses than this are not remembered at once.
const ADDRESSES_MAX: usize = 4096;
const WINDOW: Duration = Duration::from_secs(60);

impl Failures {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, counted: Mutex::default() }
    }

    /// Counts a failure; how long to wait, if there were too many.
    fn count(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let mut counted = self.counted.lock();
        if counted.len() >= ADDRESSES_MAX {
            counted.retain(|_, (began, _)| now.duration_since(*began) < WINDOW);
            if counted.len() >= ADDRESSES_MAX {
                counted.clear();
            }
        }
        let (began, count) = counted.entry(network(address)).or_insert((now, 0));
        if now.duration_since(*began) >= WINDOW {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        (*count > self.per_minute).then(|| WINDOW.saturating_sub(now.duration_since(*began)))
    }
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits (threats H10).
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn h09_only_one_bearer_token_is_taken() {
        assert_eq!(presented(&HeaderMap::new()), Ok(None));
        assert_eq!(presented(&with(&["Bearer kb_x"])), Ok(Some("kb_x")));
        assert_eq!(presented(&with(&["bearer kb_x"])), Ok(Some("kb_x")));
        for bad in [&["Basic dTpw"][..], &["kb_x"], &["Bearer kb_x", "Bearer kb_y"], &["Digest a=b"], &[""]] {
            assert_eq!(presented(&with(bad)), Err(Unauthenticated), "{bad:?}");
        }
    }

    #[test]
    fn h09_failures_of_one_address_are_counted_for_a_minute() {
        let failures = Failures::new(3);
        let start = Instant::now();
        let address = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..3 {
            assert_eq!(failures.count(address, start), None);
        }
        assert!(failures.count(address, start).is_some());
        assert_eq!(failures.count(IpAddr::from([192, 0, 2, 2]), start), None);
        assert_eq!(failures.count(address, start + WINDOW), None);
    }

    #[test]
    fn h10_addresses_of_one_ipv6_network_count_as_one() {
        let first: IpAddr = "2001:db8::1".parse().expect("address");
        let second: IpAddr = "2001:db8::ffff:1".parse().expect("address");
        let other: IpAddr = "2001:db8:0:1::1".parse().expect("address");
        assert_eq!(network(first), network(second));
        assert_ne!(network(first), network(other));
        assert_eq!(network("::ffff:192.0.2.1".parse().expect("address")), IpAddr::from([192, 0, 2, 1]));
    }
}
