//! The tenant context and the permit: authority as values that move. A context is made from a
//! verified principal only; a permit is made by spending a context; neither can be cloned, printed
//! or invented elsewhere.

use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;

use crate::Facts;
use crate::Principal;
use crate::PrincipalLabel;
use crate::RunRecord;
use crate::Scope;
use crate::Scopes;
use crate::TenantRecord;

/// A verified principal within its tenant. Every look-up of a tenant's things starts here.
pub struct TenantContext {
    principal: Principal,
    tenant: Arc<TenantRecord>,
}

impl TenantContext {
    pub(crate) fn new(principal: Principal, tenant: Arc<TenantRecord>) -> Self {
        Self { principal, tenant }
    }

    /// The tenant's id, for look-ups.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// The tenant's record: limits, rates, name.
    #[must_use]
    pub fn record(&self) -> &Arc<TenantRecord> {
        &self.tenant
    }

    /// Who it is, for records.
    #[must_use]
    pub fn principal(&self) -> &PrincipalLabel {
        &self.principal.label
    }

    /// What it may do.
    #[must_use]
    pub fn scopes(&self) -> &Scopes {
        &self.principal.scopes
    }

    /// Refuses a principal that lacks a scope.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming the scope that is missing: the caller's own token is no secret to it.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.principal.scopes.has(scope) {
            return Ok(());
        }
        let name = serde_json::to_value(scope).unwrap_or_default();
        Err(Problem::new(Code::Forbidden, format!("ask for a token with the scope {name}")))
    }

    /// Whether the principal may see this package at all.
    #[must_use]
    pub fn may_see(&self, package: &keybearer_contract::PackageName) -> bool {
        self.principal.packages.as_ref().is_none_or(|packages| packages.contains(package))
            && self.run().is_none_or(|run| run.has_package(package))
    }

    /// Whether the principal may call this tool, as far as its token or its run goes.
    #[must_use]
    pub fn may_call(&self, tool: &ToolRef) -> bool {
        self.may_see(&tool.package) && self.run().is_none_or(|run| run.allows(tool))
    }

    /// Whether the principal is not confined to some packages.
    #[must_use]
    pub fn sees_every_package(&self) -> bool {
        self.packages().is_none() && self.run().is_none_or(|run| run.tools.is_none())
    }

    /// The packages that the principal's token is confined to; those of a run's tools are the run's to say.
    #[must_use]
    pub fn packages(&self) -> Option<&[keybearer_contract::PackageName]> {
        self.principal.packages.as_deref()
    }

    /// The run whose token this is; none outside of a run.
    #[must_use]
    pub fn run(&self) -> Option<&Arc<RunRecord>> {
        self.principal.run.as_ref()
    }

    /// When what this principal opens ends at the latest.
    #[must_use]
    pub fn expires(&self) -> Option<UnixMillis> {
        self.principal.expires
    }

    /// Spends the context on leave to run one call of one tool of one exact package: in the principal's run, or in
    /// a run of its own.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope `call`; [`Code::NotFound`] for a tool that the token or the run does
    /// not name, as if it did not exist.
    pub fn permit(self, tool: ToolRef, package: Digest) -> Result<Permit, Problem> {
        self.require(Scope::Call)?;
        if !self.may_call(&tool) {
            return Err(Problem::not_found());
        }
        Ok(Permit {
            facts: Facts {
                tenant: self.tenant.id.clone(),
                principal: self.principal.label,
                run: self.principal.run.map_or_else(RunId::random, |run| run.id.clone()),
                call: CallId::random(),
                tool,
                package,
            },
            tenant: self.tenant,
        })
    }
}

/// Leave to run one call. An instance is built from it, and so it is spent once.
#[must_use]
pub struct Permit {
    facts: Facts,
    tenant: Arc<TenantRecord>,
}

impl Permit {
    /// What is permitted, for records.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The tenant's record: limits and rates.
    #[must_use]
    pub fn tenant(&self) -> &Arc<TenantRecord> {
        &self.tenant
    }

    /// Spends the permit; what remains is description.
    #[must_use]
    pub fn spend(self) -> Facts {
        self.facts
    }
}
