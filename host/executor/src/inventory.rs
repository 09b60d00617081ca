//! The inventory: every identity that is no person's, who answers for it, when it was used and rotated last, and
//! what should be looked at. It tells; it changes nothing.

mod findings;

use keybearer_contract::Binding;
use keybearer_contract::HostRule;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::Grant;
use keybearer_gate::OperatorContext;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TokenRecord;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Executor;

pub use findings::Finding;
pub use findings::FindingKind;

/// What kind of identity one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdentityKind {
    /// A credential, which tools' requests carry.
    Credential,
    /// An API token, with which somebody calls us.
    ApiToken,
    /// A hook, by which a source tells us something.
    Hook,
    /// A subject of a JWT issuer, or the issuer itself as the operator configured it.
    Jwt,
    /// A workload with a SPIFFE id.
    Spiffe,
}

/// One identity that is no person's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// Whose it is; shown to the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// What kind it is.
    pub kind: IdentityKind,
    /// Its id; for one that is not ours, what it calls itself.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Who answers for it: as its record says, else as its label says.
    pub owner: String,
    /// Why it is there, where that was said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub justification: String,
    /// For how long it has been there, in days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_days: Option<u64>,
    /// When it was made, or seen first, in milliseconds since 1970.
    #[schema(value_type = Option<u64>)]
    pub created: Option<UnixMillis>,
    /// When it ends.
    #[schema(value_type = Option<u64>)]
    pub expires: Option<UnixMillis>,
    /// When it was used last, to the minute.
    #[schema(value_type = Option<u64>)]
    pub last_use: Option<UnixMillis>,
    /// When its value was replaced or set last.
    #[schema(value_type = Option<u64>)]
    pub last_rotation: Option<UnixMillis>,
    /// When it is to be rotated at the latest.
    #[schema(value_type = Option<u64>)]
    pub rotation_due: Option<UnixMillis>,
    /// The narrowest binding that names every place where a credential was used; look at it before you take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub used_binding: Option<Vec<Binding>>,
    /// What should be looked at.
    pub findings: Vec<Finding>,
}

/// Who may come in by the operator's configuration, used or not.
#[derive(Debug, Clone)]
pub struct Configured {
    /// For whom.
    pub tenant: TenantId,
    /// What kind it is.
    pub kind: IdentityKind,
    /// What it calls itself; uses of it begin so.
    pub id: String,
}

/// Subjects of issuers that one tenant's inventory shows: those that were used last.
const SUBJECTS_SHOWN: usize = 1_000;

/// How the labels of principals begin that others vouch for.
const FOREIGN: &[&str] = &["jwt:", "spiffe://"];

impl Executor {
    /// Every identity of the tenant that is no person's.
    ///
    /// # Errors
    /// [`keybearer_contract::Code::Forbidden`] without the scope.
    pub fn inventory(&self, context: &TenantContext) -> Result<Vec<Identity>, Problem> {
        context.require(Scope::Audit)?;
        Ok(self.identities(context.tenant(), UnixMillis::now()))
    }

    /// Every identity of every tenant that is no person's, and values that more than one of them has: for the
    /// operator alone, since a tenant must not learn what others hold.
    #[must_use]
    pub fn inventory_of_all(&self, _operator: &OperatorContext, configured: &[Configured]) -> Vec<Identity> {
        let (now, shared) = (UnixMillis::now(), self.store.shared_fingerprints());
        let mut all = Vec::new();
        for tenant in self.store.tenants() {
            let mut identities = self.identities(&tenant.id, now);
            for entry in configured.iter().filter(|entry| entry.tenant == tenant.id) {
                if !identities.iter().any(|known| known.id == entry.id) {
                    identities.push(self.configured(entry, now));
                }
            }
            for identity in &mut identities {
                identity.tenant = Some(tenant.id.clone());
                let here = |place: &(TenantId, _)| place.0 == tenant.id && is_named(&place.1, identity);
                let others =
                    shared.iter().filter(|places| places.iter().any(here)).map(|places| places.len() - 1).sum();
                if others > 0 {
                    identity.findings.push(Finding::shared(others));
                }
            }
            all.append(&mut identities);
        }
        all
    }

    fn identities(&self, tenant: &TenantId, now: UnixMillis) -> Vec<Identity> {
        let grants = self.store.grants(tenant);
        let credentials = self.store.credentials(tenant);
        let credentials = credentials.iter().filter(|record| record.state != CredentialState::Revoked);
        let tokens = self.store.tokens(tenant);
        let tokens = tokens.iter().filter(|token| token.revoked.is_none() && now < token.expires);
        let hooks = self.store.hooks(tenant);
        let hooks = hooks.iter().map(|hook| {
            let used = self.uses.of(tenant, hook.id.as_str());
            let made = Identity {
                created: Some(hook.created),
                last_rotation: Some(hook.created),
                ..plain(IdentityKind::Hook, hook.id.as_str(), &hook.label)
            };
            findings::of_ours(made, &hook.onboarding, used.as_ref(), now)
        });
        let mut foreign = self.uses.beginning_with(tenant, FOREIGN);
        foreign.sort_unstable_by_key(|(_, used)| std::cmp::Reverse(used.last));
        foreign.truncate(SUBJECTS_SHOWN);
        let foreign = foreign.iter().map(|(label, used)| {
            let kind = if label.starts_with("jwt:") { IdentityKind::Jwt } else { IdentityKind::Spiffe };
            findings::of_plain(plain(kind, label, label), Some(used), now)
        });
        let credentials = credentials.map(|record| self.credential_identity(record, &grants, now));
        credentials.chain(tokens.map(|token| self.token_identity(token, now))).chain(hooks).chain(foreign).collect()
    }

    fn credential_identity(&self, record: &CredentialRecord, grants: &[Grant], now: UnixMillis) -> Identity {
        let used = self.uses.of(&record.tenant, record.id.as_str());
        let identity = Identity {
            owner: record.owner.clone(),
            justification: record.justification.clone(),
            created: Some(record.created),
            expires: record.expires,
            last_rotation: record.versions.iter().map(|version| version.created).max(),
            rotation_due: record.rotation_due(),
            ..plain(IdentityKind::Credential, record.id.as_str(), &record.name)
        };
        let facts = findings::OfCredential {
            allowed: allowed(record, grants),
            holds_refresh_token: record.kind.holds_refresh_token(),
            mints: record.kind.is_recipe() && !record.kind.changes_unseen(),
        };
        findings::of_credential(identity, &facts, used.as_ref(), now)
    }

    fn token_identity(&self, token: &TokenRecord, now: UnixMillis) -> Identity {
        let used = self.uses.of(&token.tenant, &format!("token:{}", token.id));
        let identity = Identity {
            created: Some(token.issued),
            expires: Some(token.expires),
            last_rotation: Some(token.issued),
            ..plain(IdentityKind::ApiToken, token.id.as_str(), &token.label)
        };
        findings::of_ours(identity, &token.onboarding, used.as_ref(), now)
    }

    fn configured(&self, entry: &Configured, now: UnixMillis) -> Identity {
        let prefix = [entry.id.as_str()];
        let used = self.uses.beginning_with(&entry.tenant, &prefix).into_iter().map(|(_, used)| used);
        let last = used.max_by_key(|used| used.last);
        findings::of_plain(plain(entry.kind, &entry.id, &entry.id), last.as_ref(), now)
    }
}

fn is_named(credential: &keybearer_contract::CredentialId, identity: &Identity) -> bool {
    identity.kind == IdentityKind::Credential && identity.id == credential.as_str()
}

fn plain(kind: IdentityKind, id: &str, name: &str) -> Identity {
    Identity {
        tenant: None,
        kind,
        id: id.to_owned(),
        name: name.to_owned(),
        owner: name.to_owned(),
        justification: String::new(),
        age_days: None,
        created: None,
        expires: None,
        last_use: None,
        last_rotation: None,
        rotation_due: None,
        used_binding: None,
        findings: Vec::new(),
    }
}

/// Where a credential may go: as its own terms say, else as the slots say that it is granted to.
fn allowed(record: &CredentialRecord, grants: &[Grant]) -> Vec<Binding> {
    if !record.terms.binding.is_empty() {
        return record.terms.binding.clone();
    }
    let of_grant = |grant: &Grant| {
        let base = grant.base_url.as_ref().map(|base| base.destination().host().clone());
        let slot = grant.approved.slot.clone().into_iter().flat_map(|slot| slot.bindings);
        let fixed = slot.map(move |binding| match (&binding.host, &base) {
            (HostRule::FromGrant { .. }, Some(host)) => Binding { host: HostRule::Exact(host.clone()), ..binding },
            _ => binding,
        });
        fixed.collect::<Vec<_>>()
    };
    grants.iter().filter(|grant| grant.credential.as_ref() == Some(&record.id)).flat_map(of_grant).collect()
}
