//! A principal: who called, as proved by a verified token. It is made by the verifiers of this room
//! and by nothing else, and it carries the tenant with it.

use std::sync::Arc;

use keybearer_contract::PackageName;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::PrincipalLabel;
use crate::RunRecord;
use crate::TenantContext;
use crate::TenantDirectory;
use crate::TenantState;

/// One answer for no, unknown, malformed, expired and revoked: a caller learns nothing from it (P10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no valid credentials for Keybearer itself")]
pub struct Unauthenticated;

/// What a token may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Submit calls, list tools, open runs: a run has no right that calls outside of it lack.
    Call,
    /// Store, rotate, revoke and list credentials.
    Credentials,
    /// Give, approve, take and list grants.
    Grants,
    /// Issue, list and revoke API tokens, with no scope that the issuer lacks.
    Tokens,
    /// Read `explain` and the tenant's part of the ledger.
    Audit,
    /// List, end, abort, checkpoint and resume the tenant's runs, whoever opened them.
    Runs,
}

impl Scope {
    /// Every scope.
    pub const ALL: &'static [Self] =
        &[Self::Call, Self::Credentials, Self::Grants, Self::Tokens, Self::Audit, Self::Runs];
}

/// A set of scopes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// A set of these.
    #[must_use]
    pub fn of(scopes: &[Scope]) -> Self {
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        Self(scopes)
    }

    /// Whether it holds this one.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }

    /// Whether it holds every one of the other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|scope| self.has(*scope))
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = Scope> + '_ {
        self.0.iter().copied()
    }
}

/// Who called, verified. No public constructor, not `Clone`: it is spent on a tenant context.
pub struct Principal {
    pub(crate) tenant: TenantId,
    pub(crate) label: PrincipalLabel,
    pub(crate) scopes: Scopes,
    pub(crate) packages: Option<Vec<PackageName>>,
    /// When the proof was made: a proof that is older than the tenant is for an earlier one of its name.
    pub(crate) issued: UnixMillis,
    /// When the proof ends, where what it opens must not outlive it.
    pub(crate) expires: Option<UnixMillis>,
    /// The run whose token it was.
    pub(crate) run: Option<Arc<RunRecord>>,
}

impl Principal {
    /// Becomes the tenant's context, if the tenant stands.
    ///
    /// # Errors
    /// [`Unauthenticated`] if the tenant is gone, suspended, or younger than the proof.
    pub fn enter(self, tenants: &dyn TenantDirectory) -> Result<TenantContext, Unauthenticated> {
        let tenant = tenants.tenant(&self.tenant).ok_or(Unauthenticated)?;
        if tenant.state != TenantState::Active || self.issued < tenant.created {
            return Err(Unauthenticated);
        }
        Ok(TenantContext::new(self, tenant))
    }
}
