//! Incidents: what was stopped at once, by whom, and what is quarantined until somebody says how it came about.
//! Not for stopping anything: the executor does that.

use keybearer_contract::CredentialId;
use keybearer_contract::GrantId;
use keybearer_contract::IncidentId;
use keybearer_contract::PackageName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::ToolName;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::PrincipalLabel;

/// An incident as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// The id.
    pub id: IncidentId,
    /// What it is about.
    pub subject: IncidentSubject,
    /// What whoever opened it knew then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When it was opened.
    pub opened: UnixMillis,
    /// Who opened it.
    pub by: PrincipalLabel,
    /// Whether it is the tenant's own: opened by it, and its to close. The operator takes it over by opening it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// Whether it goes on.
    pub state: IncidentState,
    /// What runs for nobody, or not for this tenant, while it is open.
    pub quarantine: Vec<Quarantine>,
    /// How far stopping things has come, for the first time.
    #[serde(default)]
    pub reached: IncidentStep,
    /// When everything was stopped, for the first time; none if that was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contained: Option<UnixMillis>,
    /// How much was stopped.
    #[serde(default)]
    pub counts: IncidentCounts,
    /// What has become of the notice of the last change.
    #[serde(default)]
    pub notice: NoticeState,
}

/// What an incident is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IncidentSubject {
    /// A credential of a tenant.
    Credential {
        /// Whose.
        tenant: TenantId,
        /// Which.
        credential: CredentialId,
    },
    /// A tenant and all that is its.
    Tenant {
        /// Which.
        tenant: TenantId,
    },
    /// Every tool of a package, for every tenant.
    Package {
        /// Which.
        package: PackageName,
    },
    /// One tool, for every tenant.
    Tool {
        /// Which.
        tool: ToolRef,
    },
    /// A grant of a tenant. What it was is kept here, as the grant itself is taken.
    Grant {
        /// Whose.
        tenant: TenantId,
        /// Which.
        grant: GrantId,
        /// Of which package it was.
        package: PackageName,
    },
    /// A run of a tenant, and those within it.
    Run {
        /// Whose.
        tenant: TenantId,
        /// Which.
        run: RunId,
    },
    /// An API token of a tenant.
    Token {
        /// Whose.
        tenant: TenantId,
        /// Which.
        token: TokenId,
    },
    /// A principal of a tenant, by its label.
    Principal {
        /// Whose.
        tenant: TenantId,
        /// Which.
        principal: String,
    },
    /// One tool, for one tenant: its grants there.
    OwnTool {
        /// For whom.
        tenant: TenantId,
        /// Which.
        tool: ToolRef,
    },
}

/// What has been done of an incident, in the order in which it is done. A start carries on behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentStep {
    /// It is stored with its quarantine: nothing new of that begins.
    #[default]
    Stored,
    /// What runs of that was stopped, and the ledger has it.
    Opened,
    /// What it is about is revoked.
    Revoked,
    /// Runs have ended.
    RunsEnded,
    /// What was kept is flushed.
    Flushed,
    /// The quarantine is recorded.
    Quarantined,
}

/// Whether an incident goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum IncidentState {
    /// It does, and so does its quarantine.
    Open,
    /// It does not.
    Closed {
        /// How it came about.
        root_cause: String,
        /// Who says so.
        by: PrincipalLabel,
        /// When.
        at: UnixMillis,
    },
}

/// What does not run while an incident is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// For whom; none for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Of which package; none for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageName>,
    /// Which tool of it; none for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
}

/// How much an incident stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentCounts {
    /// Credentials that were revoked for good.
    pub credentials_revoked: u64,
    /// API tokens that were revoked for good.
    pub tokens_revoked: u64,
    /// Grants that were taken for good.
    #[serde(default)]
    pub grants_taken: u64,
    /// Calls that were stopped.
    pub calls_cancelled: u64,
    /// Requests in flight that were cut off, each with its connection.
    pub dispatches_cancelled: u64,
    /// Runs that were ended.
    pub runs_ended: u64,
    /// Kept connections that were closed.
    pub connections_closed: u64,
    /// Things held ready in memory that were dropped.
    pub caches_flushed: u64,
    /// Minted tokens that their issuers took back.
    pub minted_revoked: u64,
}

/// What has become of a notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum NoticeState {
    /// Nobody wants to hear of it.
    #[default]
    None,
    /// It is on its way, or is sent again after the next start.
    Pending,
    /// It was taken.
    Delivered {
        /// When.
        at: UnixMillis,
    },
    /// It was given up.
    Failed {
        /// When.
        at: UnixMillis,
    },
}

impl IncidentRecord {
    /// Whether it goes on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == IncidentState::Open
    }
}

impl IncidentSubject {
    /// Whose thing it is; none for the operator's own.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Credential { tenant, .. }
            | Self::Tenant { tenant }
            | Self::Grant { tenant, .. }
            | Self::Run { tenant, .. }
            | Self::Token { tenant, .. }
            | Self::Principal { tenant, .. }
            | Self::OwnTool { tenant, .. } => Some(tenant),
            Self::Package { .. } | Self::Tool { .. } => None,
        }
    }

    /// What kind of thing it is, as records name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Credential { .. } => "credential",
            Self::Tenant { .. } => "tenant",
            Self::Package { .. } => "package",
            Self::Tool { .. } | Self::OwnTool { .. } => "tool",
            Self::Grant { .. } => "grant",
            Self::Run { .. } => "run",
            Self::Token { .. } => "token",
            Self::Principal { .. } => "principal",
        }
    }

    /// As records and pages name it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Credential { credential, .. } => credential.to_string(),
            Self::Tenant { tenant } => tenant.to_string(),
            Self::Package { package } => package.to_string(),
            Self::Tool { tool } | Self::OwnTool { tool, .. } => tool.to_string(),
            Self::Grant { grant, .. } => grant.to_string(),
            Self::Run { run, .. } => run.to_string(),
            Self::Token { token, .. } => token.to_string(),
            Self::Principal { principal, .. } => principal.clone(),
        }
    }
}

impl Quarantine {
    /// Whether a call of this tool by this tenant is meant.
    #[must_use]
    pub fn covers(&self, tenant: &TenantId, tool: &ToolRef) -> bool {
        self.tenant.as_ref().is_none_or(|meant| meant == tenant)
            && self.package.as_ref().is_none_or(|meant| *meant == tool.package)
            && self.tool.as_ref().is_none_or(|meant| *meant == tool.tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r11_a_quarantine_covers_what_it_names_and_nothing_beside() {
        // If this failed, an incident of one tenant's would stop another's tools, or stop nothing.
        let (mine, other) = (TenantId::random(), TenantId::random());
        let tool: ToolRef = "pay.charge".parse().expect("a name");
        let quarantine = |tenant: Option<&TenantId>, package: Option<&str>, tool: Option<&str>| Quarantine {
            tenant: tenant.cloned(),
            package: package.map(|name| name.parse().expect("a name")),
            tool: tool.map(|name| name.parse().expect("a name")),
        };
        assert!(quarantine(None, Some("pay"), None).covers(&mine, &tool));
        assert!(quarantine(None, Some("pay"), Some("charge")).covers(&other, &tool));
        assert!(quarantine(Some(&mine), None, None).covers(&mine, &tool));
        assert!(!quarantine(Some(&mine), Some("pay"), None).covers(&other, &tool));
        assert!(!quarantine(None, Some("pay"), Some("refund")).covers(&mine, &tool));
        assert!(!quarantine(None, Some("mail"), None).covers(&mine, &tool));
    }
}
