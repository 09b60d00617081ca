//! Uses: when each credential, grant and principal was used last, and where each credential really went. For the
//! inventory; not a record of what happened, which is the ledger's. It is kept in memory, and in the store once a
//! minute: a crash forgets the uses of the last minute, and nothing that anybody relies on.

mod places;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use keybearer_contract::CredentialId;
use keybearer_contract::IdMap;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Cleared;
use keybearer_gate::ClearedSignature;
use keybearer_gate::Withheld;
use keybearer_store::UseRow;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

use crate::Executor;
use crate::rotation::Asked;

pub(crate) use places::Places;

/// What was used, of all tenants.
#[derive(Default)]
pub(crate) struct Uses {
    tenants: Mutex<IdMap<TenantId, HashMap<String, Noted>>>,
}

struct Noted {
    used: Use,
    /// Whether the store has less.
    is_new: bool,
}

/// The uses of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    /// The first one.
    pub(crate) first: UnixMillis,
    /// The last one.
    pub(crate) last: UnixMillis,
    /// Where a credential went.
    #[serde(default)]
    pub(crate) places: Places,
    /// The longest life, in seconds, of a token that was minted with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) minted_life_s: Option<u64>,
    /// When its owner was asked last to rotate a credential; under a subject of its own, since it is no use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<Asked>,
}

impl Use {
    fn at(now: UnixMillis) -> Self {
        Self { first: now, last: now, places: Places::default(), minted_life_s: None, asked: None }
    }
}

/// Things of one tenant that are remembered. Subjects of an issuer's JWTs are of somebody else's making, and could
/// be any number; of more than these, the one that was used longest ago is forgotten.
const SUBJECTS_MAX: usize = 16_384;

impl Uses {
    /// What the store has.
    pub(crate) fn load(rows: Vec<UseRow>) -> Self {
        let mut tenants: IdMap<TenantId, HashMap<String, Noted>> = IdMap::default();
        for row in rows {
            match serde_json::from_str(&row.record) {
                Ok(used) => {
                    tenants.entry(row.tenant).or_default().insert(row.subject, Noted { used, is_new: false });
                }
                Err(error) => {
                    tracing::warn!(subject = row.subject, %error, "a stored use does not parse: it is forgotten")
                }
            }
        }
        Self { tenants: Mutex::new(tenants) }
    }

    /// A principal came in.
    pub(crate) fn note_principal(&self, tenant: &TenantId, label: &str, now: UnixMillis) {
        self.note(tenant, label, now, |_| ());
    }

    /// A request is about to carry a credential.
    pub(crate) fn note_dispatch(&self, cleared: &Cleared, withheld: &dyn Withheld, now: UnixMillis) {
        let Some(attach) = cleared.attach() else { return };
        let tenant = &cleared.facts().tenant;
        if let Some(grant) = &attach.grant {
            self.note(tenant, grant.as_str(), now, |_| ());
            let path = cleared.path(withheld);
            self.note(tenant, attach.credential.as_str(), now, |used| used.places.note(cleared, &path));
        }
    }

    /// Something is about to be signed with a credential.
    pub(crate) fn note_signature(&self, cleared: &ClearedSignature, withheld: &dyn Withheld, now: UnixMillis) {
        let (tenant, attach) = (&cleared.facts().tenant, cleared.attach());
        if let Some(grant) = &attach.grant {
            self.note(tenant, grant.as_str(), now, |_| ());
            let target = cleared.target(withheld);
            self.note(tenant, attach.credential.as_str(), now, |used| used.places.note_signature(target));
        }
    }

    /// A token was minted with a credential, and lives so long.
    pub(crate) fn note_minted(&self, tenant: &TenantId, credential: &CredentialId, life_s: u64, now: UnixMillis) {
        self.note(tenant, credential.as_str(), now, |used| used.minted_life_s = used.minted_life_s.max(Some(life_s)));
    }

    /// What was asked last of a credential's owner.
    pub(crate) fn asked(&self, tenant: &TenantId, credential: &CredentialId) -> Option<Asked> {
        self.of(tenant, &rotation_of(credential))?.asked
    }

    /// A credential's owner is asked to rotate it.
    pub(crate) fn note_asked(&self, tenant: &TenantId, credential: &CredentialId, asked: Asked) {
        self.note(tenant, &rotation_of(credential), asked.at(), |used| used.asked = Some(asked));
    }

    fn note(&self, tenant: &TenantId, subject: &str, now: UnixMillis, more: impl FnOnce(&mut Use)) {
        let mut tenants = self.tenants.lock();
        if !tenants.contains_key(tenant) {
            tenants.insert(tenant.clone(), HashMap::new());
        }
        let subjects = tenants.get_mut(tenant).expect("it was put there");
        if let Some(noted) = subjects.get_mut(subject) {
            noted.used.last = noted.used.last.max(now);
            more(&mut noted.used);
            noted.is_new = true;
            return;
        }
        if subjects.len() >= SUBJECTS_MAX
            && let Some(oldest) = subjects.iter().min_by_key(|(_, noted)| noted.used.last).map(|(name, _)| name.clone())
        {
            subjects.remove(&oldest);
        }
        if let Entry::Vacant(vacant) = subjects.entry(subject.to_owned()) {
            let mut used = Use::at(now);
            more(&mut used);
            vacant.insert(Noted { used, is_new: true });
        }
    }

    /// The uses of one thing; none if it was never used.
    pub(crate) fn of(&self, tenant: &TenantId, subject: &str) -> Option<Use> {
        self.tenants.lock().get(tenant)?.get(subject).map(|noted| noted.used.clone())
    }

    /// The uses of a tenant whose subject begins so.
    pub(crate) fn beginning_with(&self, tenant: &TenantId, prefixes: &[&str]) -> Vec<(String, Use)> {
        let tenants = self.tenants.lock();
        let subjects = tenants.get(tenant).into_iter().flatten();
        let meant = subjects.filter(|(subject, _)| prefixes.iter().any(|prefix| subject.starts_with(prefix)));
        meant.map(|(subject, noted)| (subject.clone(), noted.used.clone())).collect()
    }

    /// Forgets a tenant.
    pub(crate) fn forget(&self, tenant: &TenantId) {
        self.tenants.lock().remove(tenant);
    }

    /// What the store does not have yet.
    fn take_new(&self) -> Vec<UseRow> {
        let mut tenants = self.tenants.lock();
        let mut rows = Vec::new();
        for (tenant, subjects) in tenants.iter_mut() {
            for (subject, noted) in subjects.iter_mut().filter(|(_, noted)| noted.is_new) {
                noted.is_new = false;
                let record = serde_json::to_string(&noted.used).expect("a use is plain data");
                rows.push(UseRow { tenant: tenant.clone(), subject: subject.clone(), record });
            }
        }
        rows
    }
}

fn rotation_of(credential: &CredentialId) -> String {
    format!("rotation:{credential}")
}

impl Executor {
    /// Gives the store what it does not have yet. What cannot be written is noted again with its next use.
    pub(crate) async fn keep_uses(&self) {
        let rows = self.uses.take_new();
        if rows.is_empty() {
            return;
        }
        let store = std::sync::Arc::clone(&self.store);
        if let Err(problem) = crate::blocking(move || store.put_uses(&rows)).await {
            tracing::warn!(%problem, "when credentials were used last could not be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_kept_over_a_restart_and_a_tenant_can_be_forgotten() {
        let (uses, tenant, other) = (Uses::default(), TenantId::random(), TenantId::random());
        uses.note_principal(&tenant, "token:a", UnixMillis(1));
        uses.note_principal(&tenant, "token:a", UnixMillis(9));
        uses.note_minted(&other, &CredentialId::random(), 60, UnixMillis(2));
        let rows = uses.take_new();
        assert_eq!(rows.len(), 2);
        assert!(uses.take_new().is_empty(), "nothing is written twice");
        let again = Uses::load(rows);
        let used = again.of(&tenant, "token:a").expect("used");
        assert_eq!((used.first, used.last), (UnixMillis(1), UnixMillis(9)));
        assert!(again.of(&other, "token:a").is_none());
        again.forget(&tenant);
        assert!(again.of(&tenant, "token:a").is_none());
        assert_eq!(again.beginning_with(&other, &["cred_"]).len(), 1);
    }

    #[test]
    fn strangers_subjects_are_bounded() {
        let (uses, tenant) = (Uses::default(), TenantId::random());
        uses.note_principal(&tenant, "token:a", UnixMillis(u64::MAX));
        for number in 0..SUBJECTS_MAX as u64 + 9 {
            uses.note_principal(&tenant, &format!("jwt:x#{number}"), UnixMillis(number));
        }
        assert_eq!(uses.beginning_with(&tenant, &[""]).len(), SUBJECTS_MAX);
        assert!(uses.of(&tenant, "token:a").is_some(), "what was used last is the last to be forgotten");
    }
}
