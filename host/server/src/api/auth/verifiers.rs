//! The verifiers of JWTs and client certificates, made from the configuration at start. A tenant may
//! stand there by name; it is looked up once, so that a tenant which is made under that name later is
//! not let in by an entry that meant another one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::ensure;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_executor::Configured;
use keybearer_executor::IdentityKind;
use keybearer_gate::JwkSet;
use keybearer_gate::JwtAlgorithm;
use keybearer_gate::JwtIssuer;
use keybearer_gate::JwtKeys;
use keybearer_gate::Principal;
use keybearer_gate::SpiffeEntry;
use keybearer_gate::SpiffeTable;
use keybearer_gate::TenantRecord;
use keybearer_gate::Unauthenticated;
use keybearer_gate::VerifyingKey;
use keybearer_gate::authenticate_jwt;
use keybearer_gate::authenticate_spiffe;
use parking_lot::RwLock;

use crate::config::Issuer;
use crate::config::TenantKey;
use crate::config::Workload;

/// What is verified beside API tokens.
pub(crate) struct Verifiers {
    issuers: Vec<JwtIssuer>,
    keys: Keys,
    workloads: SpiffeTable,
}

/// Key sets by issuer, as last read from their files.
struct Keys {
    sets: RwLock<HashMap<String, JwkSet>>,
    files: Vec<(String, PathBuf)>,
}

impl JwtKeys for Keys {
    fn key(&self, issuer: &str, kid: &str) -> Option<Arc<VerifyingKey>> {
        self.sets.read().get(issuer)?.key(kid)
    }
}

impl Verifiers {
    /// The verifiers of a configuration, for the tenants that there are now.
    ///
    /// # Errors
    /// A sentence that names the entry.
    pub(crate) fn new(
        issuers: &[Issuer],
        workloads: &[Workload],
        tenants: &[Arc<TenantRecord>],
    ) -> anyhow::Result<Self> {
        let keys = Keys { sets: RwLock::new(HashMap::new()), files: Vec::new() };
        let mut verifiers = Self { issuers: Vec::new(), keys, workloads: SpiffeTable::default() };
        for issuer in issuers {
            let known = find_all(tenants, &issuer.tenants);
            verifiers.issuers.push(JwtIssuer {
                issuer: issuer.issuer.clone(),
                audience: issuer.audience.clone(),
                algorithms: algorithms(&issuer.algorithms)?,
                tenant_claim: issuer.tenant_claim.clone(),
                tenants: known,
                scopes: issuer.scopes.clone(),
            });
            let keys = JwkSet::parse(issuer.jwks.as_bytes())
                .with_context(|| format!("jwt.jwks_file of the issuer `{}`", issuer.issuer))?;
            verifiers.keys.sets.get_mut().insert(issuer.issuer.clone(), keys);
            verifiers.keys.files.push((issuer.issuer.clone(), issuer.jwks_file.clone()));
        }
        let added = UnixMillis::now();
        for workload in workloads {
            let id = workload.id.parse().with_context(|| format!("spiffe.id: `{}`", workload.id))?;
            let Some(tenant) = find(tenants, &workload.tenant) else { continue };
            let entry = SpiffeEntry { tenant, scopes: workload.scopes.clone(), added };
            ensure!(verifiers.workloads.0.insert(id, entry).is_none(), "spiffe.id: `{}` stands twice", workload.id);
        }
        Ok(verifiers)
    }

    /// Reads the issuers' keys again: an issuer rotates its keys more often than a server is started. A file that
    /// cannot be read or is no key set changes nothing for its issuer.
    pub(crate) fn read_keys_again(&self) {
        for (issuer, path) in &self.keys.files {
            let read = std::fs::read(path).map_err(anyhow::Error::from);
            match read.and_then(|bytes| Ok(JwkSet::parse(&bytes)?)) {
                Ok(keys) => {
                    self.keys.sets.write().insert(issuer.clone(), keys);
                    tracing::info!(issuer, "the issuer's keys were read again");
                }
                Err(error) => tracing::warn!(issuer, %error, "the issuer's keys stay as they were: mend jwt.jwks_file"),
            }
        }
    }

    /// Who may come in, for the inventory: an issuer for each tenant that it speaks for, and workloads.
    pub(crate) fn configured(&self) -> Vec<Configured> {
        let issuers = self.issuers.iter().flat_map(|issuer| {
            let id = format!("jwt:{}#", issuer.issuer);
            let entry =
                move |tenant: &TenantId| Configured { tenant: tenant.clone(), kind: IdentityKind::Jwt, id: id.clone() };
            issuer.tenants.values().map(entry)
        });
        let workloads = self.workloads.0.iter().map(|(id, entry)| Configured {
            tenant: entry.tenant.clone(),
            kind: IdentityKind::Spiffe,
            id: id.as_str().to_owned(),
        });
        issuers.chain(workloads).collect()
    }

    /// Verifies a JWT.
    pub(crate) fn jwt(&self, token: &str) -> Result<Principal, Unauthenticated> {
        authenticate_jwt(token, &self.issuers, &self.keys, UnixMillis::now())
    }

    /// Verifies the SPIFFE id of a client certificate (DER).
    pub(crate) fn spiffe(&self, certificate: &[u8]) -> Result<Principal, Unauthenticated> {
        authenticate_spiffe(certificate, &self.workloads)
    }
}

fn algorithms(names: &[String]) -> anyhow::Result<Vec<JwtAlgorithm>> {
    ensure!(!names.is_empty(), "jwt.algorithms: name at least one");
    names
        .iter()
        .map(|name| serde_json::from_value(serde_json::Value::String(name.clone())))
        .collect::<Result<_, _>>()
        .context("jwt.algorithms: RS256, ES256 and EdDSA are known")
}

fn find_all(tenants: &[Arc<TenantRecord>], table: &[(String, TenantKey)]) -> HashMap<String, TenantId> {
    table.iter().filter_map(|(claim, key)| Some((claim.clone(), find(tenants, key)?))).collect()
}

/// The tenant that the operator means, if there is one now.
pub(crate) fn find(tenants: &[Arc<TenantRecord>], key: &TenantKey) -> Option<TenantId> {
    let found = tenants.iter().find(|tenant| match key {
        TenantKey::Id(id) => tenant.id == *id,
        TenantKey::Name(name) => tenant.name == *name,
    });
    if found.is_none() {
        tracing::warn!(tenant = ?key, "the configuration names a tenant that does not exist: its entry has no effect until the next start");
    }
    found.map(|tenant| tenant.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keybearer_contract::Limits;
    use keybearer_gate::Scope;
    use keybearer_gate::Scopes;
    use keybearer_gate::TenantState;

    fn tenant(name: &str) -> Arc<TenantRecord> {
        Arc::new(TenantRecord {
            id: TenantId::random(),
            name: name.parse().expect("a name"),
            state: TenantState::Active,
            created: UnixMillis(0),
            limits: Limits::default(),
            calls_per_second: 1,
            concurrent_calls: 1,
        })
    }

    fn workload(id: &str, tenant: TenantKey) -> Workload {
        Workload { id: id.to_owned(), tenant, scopes: Scopes::of(&[Scope::Call]) }
    }

    #[test]
    fn an_entry_of_a_tenant_that_does_not_exist_has_no_effect() {
        let acme = tenant("acme");
        let entries = [
            workload("spiffe://x/a", TenantKey::Name("acme".parse().expect("a name"))),
            workload("spiffe://x/b", TenantKey::Id(acme.id.clone())),
            workload("spiffe://x/c", TenantKey::Name("gone".parse().expect("a name"))),
            workload("spiffe://x/d", TenantKey::Id(TenantId::random())),
        ];
        let verifiers = Verifiers::new(&[], &entries, &[acme]).expect("holds");
        let mut known: Vec<_> = verifiers.workloads.0.keys().map(ToString::to_string).collect();
        known.sort_unstable();
        assert_eq!(known, ["spiffe://x/a", "spiffe://x/b"]);
    }

    #[test]
    fn an_id_that_stands_twice_and_an_unknown_algorithm_are_refused() {
        let acme = tenant("acme");
        let twice = [
            workload("spiffe://x/a", TenantKey::Id(acme.id.clone())),
            workload("spiffe://x/a", TenantKey::Id(acme.id.clone())),
        ];
        assert!(Verifiers::new(&[], &twice, &[acme]).is_err());
        for bad in [&[][..], &["HS256"], &["none"], &["rs256"]] {
            let names: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert!(algorithms(&names).is_err(), "{bad:?}");
        }
    }
}
