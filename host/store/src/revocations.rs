//! What was revoked that has no row of its own to say so: principals and agents of a tenant, and the operator's
//! tools and signers. What is listed here is refused until it is restored.

use std::collections::HashSet;

use keybearer_contract::AgentName;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use rusqlite::params;

use crate::Store;
use crate::StoreError;
use crate::image::Image;
use crate::store::to_sql;

/// What is revoked or restored by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A principal of a tenant, by its label.
    Principal(TenantId, String),
    /// What agents of this name open runs as.
    Agent(TenantId, AgentName),
    /// A tool, of every version of its package and for every tenant.
    Tool(ToolRef),
    /// A signer, by its public key.
    Signer(String),
}

/// The names that are the operator's.
#[derive(Default)]
pub(crate) struct Revoked {
    pub(crate) tools: HashSet<String>,
    pub(crate) signers: HashSet<String>,
}

/// Names that one tenant may have listed; every call is held against them in memory.
const NAMES_MAX: usize = 10_000;

impl Named {
    /// Tenant, kind and name, as their columns hold them; no tenant has an empty id.
    fn columns(&self) -> (&str, &'static str, String) {
        match self {
            Self::Principal(tenant, label) => (tenant.as_str(), "principal", label.clone()),
            Self::Agent(tenant, agent) => (tenant.as_str(), "agent", agent.to_string()),
            Self::Tool(tool) => ("", "tool", tool.to_string()),
            Self::Signer(signer) => ("", "signer", signer.clone()),
        }
    }
}

impl Store {
    /// Lists a name as revoked. Once more keeps the time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if its tenant is gone; [`StoreError::Conflict`] for more names than are kept.
    pub fn revoke_name(&self, named: &Named, at: UnixMillis) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                if let Named::Principal(tenant, _) | Named::Agent(tenant, _) = named {
                    let image = self.image();
                    let tenant = image.tenant(tenant).ok_or(StoreError::NotFound)?;
                    if tenant.revoked_principals.len() + tenant.revoked_agents.len() >= NAMES_MAX {
                        return Err(StoreError::Conflict(
                            "the tenant has revoked too many principals and agents by name",
                        ));
                    }
                }
                let (tenant, kind, name) = named.columns();
                transaction.execute(
                    "INSERT INTO revocations (tenant, kind, name, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                    params![tenant, kind, name, to_sql(at.0)?],
                )?;
                Ok(())
            },
            |image, ()| image.put_revoked(named.clone()),
        )
    }

    /// Takes a name off the list.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if it is not on it.
    pub fn restore_name(&self, named: &Named) -> Result<(), StoreError> {
        self.commit(
            |transaction| {
                let (tenant, kind, name) = named.columns();
                let sql = "DELETE FROM revocations WHERE tenant = ?1 AND kind = ?2 AND name = ?3";
                match transaction.execute(sql, params![tenant, kind, name])? {
                    0 => Err(StoreError::NotFound),
                    _ => Ok(()),
                }
            },
            |image, ()| image.remove_revoked(named),
        )
    }

    /// Whether a name is on the list, from memory.
    #[must_use]
    pub fn is_revoked(&self, named: &Named) -> bool {
        match named {
            Named::Principal(tenant, label) => self.is_principal_revoked(tenant, label),
            Named::Agent(tenant, agent) => self.is_agent_revoked(tenant, agent),
            Named::Tool(tool) => self.is_tool_revoked(tool),
            Named::Signer(signer) => self.is_signer_revoked(signer),
        }
    }

    /// Whether this principal of this tenant is revoked by name.
    #[must_use]
    pub fn is_principal_revoked(&self, tenant: &TenantId, label: &str) -> bool {
        self.image().tenant(tenant).is_some_and(|tenant| tenant.revoked_principals.contains(label))
    }

    /// Whether agents of this name are revoked for this tenant.
    #[must_use]
    pub fn is_agent_revoked(&self, tenant: &TenantId, agent: &AgentName) -> bool {
        self.image().tenant(tenant).is_some_and(|tenant| tenant.revoked_agents.contains(agent.as_str()))
    }

    /// Whether this tool is revoked.
    #[must_use]
    pub fn is_tool_revoked(&self, tool: &ToolRef) -> bool {
        let image = self.image();
        // Without the text of the name, where nothing is revoked: this is asked for every call.
        !image.revoked.tools.is_empty() && image.revoked.tools.contains(&tool.to_string())
    }

    /// Whether this signer is revoked.
    #[must_use]
    pub fn is_signer_revoked(&self, signer: &str) -> bool {
        self.image().revoked.signers.contains(signer)
    }

    /// How many changes were committed in the store's life: a copy with fewer is an older one.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.acknowledged()
    }
}

impl Image {
    pub(crate) fn put_revoked(&mut self, named: Named) {
        match named {
            Named::Principal(tenant, label) => {
                self.tenant_mut(&tenant).map(|tenant| tenant.revoked_principals.insert(label));
            }
            Named::Agent(tenant, agent) => {
                self.tenant_mut(&tenant).map(|tenant| tenant.revoked_agents.insert(agent.to_string()));
            }
            Named::Tool(tool) => drop(self.revoked.tools.insert(tool.to_string())),
            Named::Signer(signer) => drop(self.revoked.signers.insert(signer)),
        }
    }

    fn remove_revoked(&mut self, named: &Named) {
        match named {
            Named::Principal(tenant, label) => {
                self.tenant_mut(tenant).map(|tenant| tenant.revoked_principals.remove(label));
            }
            Named::Agent(tenant, agent) => {
                self.tenant_mut(tenant).map(|tenant| tenant.revoked_agents.remove(agent.as_str()));
            }
            Named::Tool(tool) => drop(self.revoked.tools.remove(&tool.to_string())),
            Named::Signer(signer) => drop(self.revoked.signers.remove(signer)),
        }
    }
}
