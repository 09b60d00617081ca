//! What should be looked at: a function of what is known and of the time, and of nothing else.

use keybearer_contract::Binding;
use keybearer_contract::Method;
use keybearer_contract::PathPattern;
use keybearer_contract::UnixMillis;
use keybearer_gate::Onboarding;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use super::Identity;
use crate::uses::Use;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Unused or unrotated for so long is worth a look (CIS Controls 5.3 has 45 days, ISO and PCI practice 90).
const STALE_MS: u64 = 90 * DAY_MS;

/// What was never used since it was made: by then it was needed, or was not.
const NEVER_USED_MS: u64 = 7 * DAY_MS;

/// A binding is compared with what was used of it when it was watched for so long.
const OBSERVED_MS: u64 = 7 * DAY_MS;

/// The longest life of an access token that is not worth a look.
const ACCESS_TOKEN_S: u64 = 15 * 60;

/// The longest life of a refresh token that is not worth a look.
const REFRESH_TOKEN_MS: u64 = 30 * DAY_MS;

/// Why an identity should be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Never used since it was made, for a week or longer.
    NeverUsed,
    /// Not used for 90 days.
    Unused,
    /// The same value for 90 days or longer.
    Unrotated,
    /// Its own rotation policy is overdue.
    RotationOverdue,
    /// Its time is over, and it is still stored.
    Expired,
    /// It may go to places where it was not used in a week or longer.
    WideBinding,
    /// Access tokens that are minted with it live longer than 15 minutes.
    LongAccessToken,
    /// It holds a refresh token, which lives longer than 30 days.
    LongRefreshToken,
    /// The same value is stored elsewhere.
    SharedValue,
    /// It never ends.
    NoExpiry,
    /// Nobody said why it is there.
    Unexplained,
}

/// One thing that should be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// Which.
    pub what: FindingKind,
    /// A sentence that says what to do.
    pub detail: String,
}

/// What is known of a credential beside its identity.
pub(crate) struct OfCredential {
    /// Where it may go.
    pub(crate) allowed: Vec<Binding>,
    /// Whether what is stored is a refresh token.
    pub(crate) holds_refresh_token: bool,
    /// Whether access tokens are minted with it.
    pub(crate) mints: bool,
}

impl Finding {
    fn new(what: FindingKind, detail: impl Into<String>) -> Self {
        Self { what, detail: detail.into() }
    }

    /// The same value is stored so many times elsewhere.
    pub(crate) fn shared(others: usize) -> Self {
        Self::new(FindingKind::SharedValue, format!("{others} more have this value: have one issued for each"))
    }
}

/// An API token or a hook: of our own making, so that somebody can say who answers for it and why it is there.
pub(crate) fn of_ours(identity: Identity, said: &Onboarding, used: Option<&Use>, now: UnixMillis) -> Identity {
    let mut identity = of_plain(identity, used, now);
    // Rows from before this was asked go by their label.
    if !said.owner.is_empty() {
        identity.owner.clone_from(&said.owner);
    }
    identity.justification.clone_from(&said.justification);
    if said.justification.is_empty() {
        let detail = "nobody said why it is there: make another one with a justification, and revoke this one";
        identity.findings.push(Finding::new(FindingKind::Unexplained, detail));
    }
    identity
}

/// Somebody whom another vouches for, and what all have in common.
pub(crate) fn of_plain(mut identity: Identity, used: Option<&Use>, now: UnixMillis) -> Identity {
    identity.last_use = used.map(|used| used.last);
    identity.created = identity.created.or(used.map(|used| used.first));
    identity.age_days = identity.created.map(|made| now.0.saturating_sub(made.0) / DAY_MS);
    identity.findings.extend(unused(&identity, now));
    identity.findings.extend(unrotated(&identity, now));
    identity
}

/// A credential.
pub(crate) fn of_credential(identity: Identity, facts: &OfCredential, used: Option<&Use>, now: UnixMillis) -> Identity {
    let mut identity = of_plain(identity, used, now);
    identity.used_binding = used.and_then(|used| used.places.binding());
    if identity.rotation_due.is_some_and(|due| due < now) {
        let detail = "its own policy asks for a rotation: store a new value with `keybearer credential rotate`";
        identity.findings.push(Finding::new(FindingKind::RotationOverdue, detail));
    }
    if identity.expires.is_some_and(|end| end <= now) {
        let detail = "its time is over: revoke it, or renew it with `keybearer credential change`";
        identity.findings.push(Finding::new(FindingKind::Expired, detail));
    }
    if identity.expires.is_none() {
        let detail = "it never ends: say when with `keybearer credential change --expires-ms`";
        identity.findings.push(Finding::new(FindingKind::NoExpiry, detail));
    }
    let observed = used.is_some_and(|used| is_older(used.first, OBSERVED_MS, now));
    if let Some(narrower) = identity.used_binding.as_ref().filter(|_| observed)
        && facts.allowed.iter().any(|place| !is_used(narrower, place))
    {
        let detail = "it may go where it was not used: look at `used_binding`, and narrow it with \
                      `keybearer credential change --only`";
        identity.findings.push(Finding::new(FindingKind::WideBinding, detail));
    }
    if let Some(life_s) = used.and_then(|used| used.minted_life_s).filter(|life| facts.mints && *life > ACCESS_TOKEN_S)
    {
        let detail = format!("tokens minted with it live {} minutes: ask the issuer for 15", life_s / 60);
        identity.findings.push(Finding::new(FindingKind::LongAccessToken, detail));
    }
    let life = identity.created.zip(identity.expires).map_or(u64::MAX, |(made, end)| end.0.saturating_sub(made.0));
    if facts.holds_refresh_token && life > REFRESH_TOKEN_MS {
        let detail = "let it end within 30 days, or have the user authorise again";
        identity.findings.push(Finding::new(FindingKind::LongRefreshToken, detail));
    }
    identity
}

fn unused(identity: &Identity, now: UnixMillis) -> Option<Finding> {
    match (identity.last_use, identity.created) {
        (Some(last), _) if is_older(last, STALE_MS, now) => {
            Some(Finding::new(FindingKind::Unused, "not used for 90 days: revoke it if nobody misses it"))
        }
        (None, Some(made)) if is_older(made, NEVER_USED_MS, now) => {
            Some(Finding::new(FindingKind::NeverUsed, "never used since it was made: revoke it if nobody needs it"))
        }
        _ => None,
    }
}

fn unrotated(identity: &Identity, now: UnixMillis) -> Option<Finding> {
    let last = identity.last_rotation?;
    is_older(last, STALE_MS, now)
        .then(|| Finding::new(FindingKind::Unrotated, "the same value for 90 days: have a new one issued"))
}

fn is_older(than: UnixMillis, ms: u64, now: UnixMillis) -> bool {
    now.0.saturating_sub(than.0) >= ms
}

/// Whether everything that a place names was used.
fn is_used(used: &[Binding], place: &Binding) -> bool {
    let covered = |method: Method, path: &PathPattern| {
        used.iter().any(|used| {
            used.host == place.host
                && used.port == place.port
                && used.methods.contains(&method)
                && used.paths.iter().any(|pattern| pattern.covers(path))
        })
    };
    place.methods.iter().all(|method| place.paths.iter().all(|path| covered(*method, path)))
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
