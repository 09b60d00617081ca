//! What is asked and shown of incidents: plain data for the API, the command line and notices.

use keybearer_contract::CredentialId;
use keybearer_contract::GrantId;
use keybearer_contract::IncidentId;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::IncidentCounts;
use keybearer_gate::IncidentRecord;
use keybearer_gate::IncidentState;
use keybearer_gate::IncidentSubject;
use keybearer_gate::NoticeState;
use keybearer_gate::Quarantine;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// An incident to be opened: about one of the three.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewIncident {
    /// A credential, of whichever tenant: it is revoked for good, and the tools that it was granted to are quarantined
    /// for its tenant.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// A tenant: it is suspended, and all of its credentials and API tokens are revoked for good.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// A tool, `package.tool`, or every tool of a package: quarantined for everybody.
    #[serde(default)]
    pub tool: Option<String>,
    /// What is known by now, 500 bytes at most.
    #[serde(default)]
    pub note: String,
}

/// An incident about a thing of the tenant's own, to be opened: one of these.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewOwnIncident {
    /// A credential: it is revoked for good, and the packages that it was granted to are quarantined for the tenant.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub credential: Option<CredentialId>,
    /// A grant: it is taken for good, and its package is quarantined for the tenant.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    /// A run: it ends, with those within it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub run: Option<RunId>,
    /// An API token: it is revoked for good, and the runs that it opened end.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub token: Option<TokenId>,
    /// A principal by its label: it is refused until it is restored, its tokens are revoked for good, its runs end.
    #[serde(default)]
    pub principal: Option<String>,
    /// A tool that the tenant has a grant for, `package.tool`: its grants are good for nothing while it is open.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub tool: Option<ToolRef>,
    /// What is known by now, 500 bytes at most.
    #[serde(default)]
    pub note: String,
}

/// How an incident is closed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseIncident {
    /// How it came about, 20 characters to 4000 bytes.
    #[serde(default)]
    pub root_cause: String,
}

/// An incident.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    /// The id.
    #[schema(value_type = String)]
    pub id: IncidentId,
    /// `open` or `closed`.
    pub state: String,
    /// What it is about: `kind` and the names of that.
    #[schema(value_type = Object)]
    pub subject: IncidentSubject,
    /// What was known when it was opened.
    pub note: String,
    /// When it was opened, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub opened: UnixMillis,
    /// Who opened it.
    pub by: String,
    /// Whether it is the tenant's own to close; otherwise it is the operator's.
    #[serde(default)]
    pub own: bool,
    /// When everything was stopped; absent if that is going on, or was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub contained: Option<UnixMillis>,
    /// What does not run while it is open; an absent member stands for every one.
    #[schema(value_type = Vec<Object>)]
    pub quarantine: Vec<Quarantine>,
    /// How much was stopped.
    #[schema(value_type = Object)]
    pub counts: IncidentCounts,
    /// What has become of the notice to the operator: `none`, `pending`, `delivered` or `failed`.
    #[schema(value_type = Object)]
    pub notice: NoticeState,
    /// How it came about, once it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_cause: Option<String>,
    /// Who closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_by: Option<String>,
    /// When, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub closed: Option<UnixMillis>,
}

/// As its tenant is shown it: what the operator wrote is the operator's.
pub(super) fn own_view(incident: &IncidentRecord) -> IncidentView {
    let view = view(incident);
    if incident.own { view } else { IncidentView { note: String::new(), root_cause: None, ..view } }
}

/// As it is shown.
pub(super) fn view(incident: &IncidentRecord) -> IncidentView {
    let (root_cause, closed_by, closed) = match &incident.state {
        IncidentState::Open => (None, None, None),
        IncidentState::Closed { root_cause, by, at } => (Some(root_cause.clone()), Some(by.to_string()), Some(*at)),
    };
    IncidentView {
        id: incident.id.clone(),
        state: if incident.is_open() { "open" } else { "closed" }.to_owned(),
        subject: incident.subject.clone(),
        note: incident.note.clone(),
        opened: incident.opened,
        by: incident.by.to_string(),
        own: incident.own,
        contained: incident.contained,
        quarantine: incident.quarantine.clone(),
        counts: incident.counts,
        notice: incident.notice,
        root_cause,
        closed_by,
        closed,
    }
}
