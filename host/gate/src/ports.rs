//! The look-ups that this room and the strongbox need and do not do. The store implements them. Every
//! look-up but that of a token begins with the tenant; another tenant's id answers as a missing one.

use std::sync::Arc;

use keybearer_contract::CredentialId;
use keybearer_contract::Limits;
use keybearer_contract::PackageName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TenantName;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::CredentialRecord;
use crate::RunRecord;
use crate::Scopes;
use crate::Sealed;

/// An API token as it is stored: never the token itself.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its public half.
    pub id: TokenId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What people call it.
    pub label: String,
    /// Keyed hash of the secret half (see `token`).
    pub hash: [u8; 32],
    /// What it is good for.
    pub scopes: Scopes,
    /// The packages it may call; none means every one.
    pub packages: Option<Vec<PackageName>>,
    /// When it was issued.
    pub issued: UnixMillis,
    /// When it ends; every token ends.
    pub expires: UnixMillis,
    /// When it was revoked.
    pub revoked: Option<UnixMillis>,
    /// Who answers for it, and why it is there.
    #[serde(default)]
    pub onboarding: Onboarding,
}

/// Who answers for an identity that is no person's, and why it is there. Empty in rows from before it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onboarding {
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Why it is there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub justification: String,
}

/// Whether a tenant's calls run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// They do.
    Active,
    /// They do not, until it is made active again.
    Suspended,
}

/// A tenant as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TenantRecord {
    /// The id: opaque, never reused.
    pub id: TenantId,
    /// What people call it.
    pub name: TenantName,
    /// Whether its calls run.
    pub state: TenantState,
    /// When it was made; a JWT that is older than this is not for this tenant.
    pub created: UnixMillis,
    /// What its calls may use, at the most; the operator's ceilings hold as well.
    pub limits: Limits,
    /// Calls a second, sustained.
    pub calls_per_second: u32,
    /// Calls at the same time.
    pub concurrent_calls: u32,
}

/// Where API tokens are looked up.
pub trait TokenDirectory: Send + Sync {
    /// The token's record, revoked and expired ones too.
    fn token(&self, id: &TokenId) -> Option<Arc<TokenRecord>>;
}

/// Where runs are looked up by their tokens. As for API tokens, it is the run that tells the tenant.
pub trait RunDirectory: Send + Sync {
    /// The run's record, ended ones too.
    fn run_of_token(&self, id: &RunId) -> Option<Arc<RunRecord>>;
}

/// Where tenants are looked up.
pub trait TenantDirectory: Send + Sync {
    /// The tenant's record.
    fn tenant(&self, id: &TenantId) -> Option<Arc<TenantRecord>>;
}

/// Where credentials' records are looked up.
pub trait CredentialDirectory: Send + Sync {
    /// The record of this tenant's credential, its sealed versions included.
    fn credential(&self, tenant: &TenantId, id: &CredentialId) -> Option<Arc<CredentialRecord>>;

    /// The tenant's data key, wrapped by the master key.
    fn data_key(&self, tenant: &TenantId) -> Option<Sealed>;
}
