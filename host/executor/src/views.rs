//! What is asked of the executor and what it shows: plain data for the API and the CLI. Nothing here
//! holds a value of a credential or grants anything.

use keybearer_contract::Binding;
use keybearer_contract::CallId;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::Limits;
use keybearer_contract::Logged;
use keybearer_contract::PackageName;
use keybearer_contract::SlotName;
use keybearer_contract::TenantId;
use keybearer_contract::TenantName;
use keybearer_contract::TokenId;
use keybearer_contract::ToolName;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::BaseUrl;
use keybearer_gate::CredentialKind;
use keybearer_gate::Difference;
use keybearer_gate::RotationPolicy;
use keybearer_gate::Scopes;
use keybearer_gate::Standing;
use keybearer_gate::TenantState;
use keybearer_gate::VersionState;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::NewRotation;

/// One call, as submitted.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// What to call.
    pub tool: ToolRef,
    /// Its arguments as JSON text, not yet looked at.
    pub arguments: String,
    /// Exactly this version of the package; the newest that the tenant's grants cover, where none is named.
    pub package: Option<Digest>,
    /// The caller's own count of its tries, from 1.
    pub attempt: u32,
    /// Milliseconds after which the caller no longer waits; less than the limits, or it has no effect.
    pub timeout_ms: Option<u64>,
    /// The caller's key for this call: the same key never runs twice.
    pub idempotency_key: Option<String>,
}

/// A line that the tool logged.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LogView {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The line, escaped and scrubbed.
    pub message: String,
}

impl From<&Logged> for LogView {
    fn from(line: &Logged) -> Self {
        Self { level: line.level.clone(), message: line.message.clone() }
    }
}

/// A new credential, its value apart.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// What people call it; unique within the tenant.
    pub name: String,
    /// What kind it is, with the public part of its recipe.
    #[schema(value_type = Object)]
    pub kind: CredentialKind,
    /// Who answers for it.
    pub owner: String,
    /// Why it is here.
    pub justification: String,
    /// When it ends, in milliseconds since 1970; after a year, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<UnixMillis>,
    /// How often it is rotated.
    #[serde(default)]
    pub rotation: Option<NewRotation>,
    /// The places that it may go to at the most, as a manifest writes them; none leaves that to the slots that it
    /// is granted to.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub binding: Vec<Binding>,
}

/// A credential, without its values.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CredentialView {
    /// The id.
    #[schema(value_type = String)]
    pub id: CredentialId,
    /// What people call it.
    pub name: String,
    /// What kind it is.
    #[schema(value_type = Object)]
    pub kind: CredentialKind,
    /// Who answers for it.
    pub owner: String,
    /// Why it is here.
    pub justification: String,
    /// When it ends.
    #[schema(value_type = Option<u64>)]
    pub expires: Option<UnixMillis>,
    /// How often it is rotated: `every_h` hours, and whether it is `sensitive`.
    #[schema(value_type = Object)]
    pub rotation: RotationPolicy,
    /// When its current version is to be replaced at the latest.
    #[schema(value_type = Option<u64>)]
    pub rotation_due: Option<UnixMillis>,
    /// The places that it may go to at the most; empty leaves that to the slots that it is granted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub binding: Vec<Binding>,
    /// Whether it may be used: `active`, `expired`, `revoked`, `pending` or `reauthorise`.
    #[schema(value_type = String)]
    pub state: Standing,
    /// Raised by every rotation and revocation.
    pub epoch: u64,
    /// When it was made.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// What is known of its client, if this host registered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<RegistrationView>,
    /// Its versions, oldest first.
    pub versions: Vec<VersionView>,
}

/// A client that this host registered, without what manages it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RegistrationView {
    /// Where.
    pub place: String,
    /// When.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    /// Whether it is taken back when the credential ends: its issuer gave a way.
    pub managed: bool,
}

/// One version of a credential, without its value.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionView {
    /// 1, 2, 3, …
    pub version: u32,
    /// When it was stored.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// Its state.
    #[schema(value_type = String)]
    pub state: VersionState,
    /// Until when the credential can go back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub overlap_until: Option<UnixMillis>,
}

/// What a rotation did.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EpochRaised {
    /// The credential.
    #[schema(value_type = String)]
    pub id: CredentialId,
    /// The version that is current now.
    pub version: Option<u32>,
    /// The epoch now.
    pub epoch: u64,
    /// Until when the credential can go back to the version before.
    #[schema(value_type = Option<u64>)]
    pub overlap_until: Option<UnixMillis>,
}

/// A credential whose source made a new value of what is stored.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RotatedAtSource {
    /// The credential.
    #[schema(value_type = String)]
    pub id: CredentialId,
    /// The version that is current now.
    pub version: Option<u32>,
    /// The epoch now.
    pub epoch: u64,
    /// Whether the source has destroyed the value before; if not, it should be done by hand.
    pub previous_destroyed: bool,
}

/// What a revocation did, whatever was revoked: how much of each was found and ended before it was
/// acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// What was revoked: `credential`, `version`, `grant`, `token`, `tool`, `package`, `signer`, `principal`,
    /// `agent`, `tenant` or `run`.
    pub what: String,
    /// Its id or name.
    pub id: String,
    /// The credential's epoch now, where it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Calls that were stopped.
    pub calls_cancelled: u64,
    /// Requests in flight that were cut off, each with its connection.
    pub dispatches_cancelled: u64,
    /// Kept connections that were closed.
    pub connections_closed: u64,
    /// Things held ready in memory that were dropped: minted tokens, compiled packages.
    pub caches_flushed: u64,
    /// Tokens that were minted from it and that their issuer revoked.
    pub minted_revoked: u64,
    /// Runs that were ended.
    pub runs_ended: u64,
}

/// A new grant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// Which package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// Which slot; none for leave to run a package as such.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub slot: Option<SlotName>,
    /// What fills the slot.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// Where the binding leaves its host to the grant: `https://host[:port]`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub base_url: Option<BaseUrl>,
    /// The tools that may use it; none means every one of the package.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub actions: Option<Vec<ToolName>>,
    /// The version that was looked at; the newest visible one, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
}

/// A grant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantView {
    /// The id.
    #[schema(value_type = String)]
    pub id: GrantId,
    /// Which package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// Which slot.
    #[schema(value_type = Option<String>)]
    pub slot: Option<SlotName>,
    /// What fills it.
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// Where the binding leaves its host to the grant.
    #[schema(value_type = Option<String>)]
    pub base_url: Option<BaseUrl>,
    /// The tools that may use it.
    #[schema(value_type = Option<Vec<String>>)]
    pub actions: Option<Vec<ToolName>>,
    /// What the slot signs for its tools, and for whom, in words; none where the credential goes on requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<String>,
    /// The version that was approved.
    #[schema(value_type = String)]
    pub approved: Digest,
    /// Whether the newest visible version is covered by what was approved.
    pub covers_newest: bool,
    /// When it was given.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// The grant of the same package and slot that it ended, in the answer to giving it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub replaces: Option<GrantId>,
}

/// What the newest version asks beyond what a grant approved.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GrantDifferences {
    /// The grant.
    #[schema(value_type = String)]
    pub id: GrantId,
    /// The version that would be approved: name it when approving.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What differs.
    #[schema(value_type = Vec<Object>)]
    pub differences: Vec<Difference>,
}

/// A new API token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What people call it.
    pub label: String,
    /// What it is good for: `call`, `credentials`, `grants`, `tokens`, `audit`, `runs`.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// The packages it may call; none means every one.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub packages: Option<Vec<PackageName>>,
    /// Seconds that it lives, at most 366 days; 30 days where that is not said.
    #[serde(default = "thirty_days_s")]
    pub life_s: u64,
    /// Who answers for it, 1 to 200 bytes; whoever issues it, where nobody is named.
    #[serde(default)]
    pub owner: Option<String>,
    /// Why it is there, 1 to 200 bytes. Without one the inventory asks for it.
    #[serde(default)]
    pub justification: Option<String>,
}

/// As long as people mean when they say nothing.
fn thirty_days_s() -> u64 {
    30 * 24 * 3_600
}

/// An API token, without its secret half.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// The id.
    #[schema(value_type = String)]
    pub id: TokenId,
    /// What people call it.
    pub label: String,
    /// What it is good for.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// The packages it may call.
    #[schema(value_type = Option<Vec<String>>)]
    pub packages: Option<Vec<PackageName>>,
    /// When it was issued.
    #[schema(value_type = u64)]
    pub issued: UnixMillis,
    /// When it ends.
    #[schema(value_type = u64)]
    pub expires: UnixMillis,
    /// When it was revoked.
    #[schema(value_type = Option<u64>)]
    pub revoked: Option<UnixMillis>,
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub justification: String,
}

/// A new tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// What people call it.
    #[schema(value_type = String)]
    pub name: TenantName,
    /// What its calls may use at the most; the operator's ceilings, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub limits: Option<Limits>,
    /// Calls a second, sustained.
    #[serde(default)]
    pub calls_per_second: Option<u32>,
    /// Calls at the same time.
    #[serde(default)]
    pub concurrent_calls: Option<u32>,
}

/// A tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// The id.
    #[schema(value_type = String)]
    pub id: TenantId,
    /// What people call it.
    #[schema(value_type = String)]
    pub name: TenantName,
    /// Whether its calls run.
    #[schema(value_type = String)]
    pub state: TenantState,
    /// When it was made.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// What its calls may use.
    #[schema(value_type = Object)]
    pub limits: Limits,
    /// Calls a second.
    pub calls_per_second: u32,
    /// Calls at the same time.
    pub concurrent_calls: u32,
}

/// A published package.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackageView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PackageName,
    /// Its version, for people.
    pub version: String,
    /// Its digest.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Who signed it.
    pub signer: String,
    /// Its manifest.
    #[schema(value_type = Object)]
    pub manifest: keybearer_contract::Manifest,
    /// Its tools, as frozen at publish.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<keybearer_contract::ToolDescription>,
    /// When it was published.
    #[schema(value_type = u64)]
    pub published: UnixMillis,
    /// When it was withdrawn.
    #[schema(value_type = Option<u64>)]
    pub withdrawn: Option<UnixMillis>,
    /// Findings of the linter that do not forbid publishing.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<keybearer_contract::Finding>,
}

/// A tool as a tenant sees it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ToolView {
    /// `package.tool`.
    #[schema(value_type = String)]
    pub name: ToolRef,
    /// The version that a call would run.
    #[schema(value_type = String)]
    pub package: Digest,
    /// Its version, for people.
    pub version: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of the arguments.
    #[schema(value_type = Object)]
    pub input_schema: serde_json::Value,
    /// JSON Schema of the result.
    #[schema(value_type = Option<Object>)]
    pub output_schema: Option<serde_json::Value>,
    /// It changes nothing anywhere.
    pub read_only: bool,
    /// Twice is the same as once.
    pub idempotent: bool,
    /// Whether the tenant's grants cover it.
    pub granted: bool,
    /// The slots that it declares.
    #[schema(value_type = Vec<String>)]
    pub slots: Vec<SlotName>,
}

/// Credentials of different tenants or names that hold the same value: for the operator alone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SharedValue {
    /// Where the value was found: tenant and credential.
    #[schema(value_type = Vec<(String, String)>)]
    pub places: Vec<(TenantId, CredentialId)>,
}

/// Why a credential was or was not attached, request by request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The call.
    #[schema(value_type = String)]
    pub call: CallId,
    /// One sentence a request or refusal, in order.
    pub sentences: Vec<String>,
    /// The records themselves.
    #[schema(value_type = Vec<Object>)]
    pub records: Vec<serde_json::Value>,
}
