//! Checks: a tenant asks whether an issuer still takes what is stored, or was minted, with one of its credentials. The
//! answer is one of three words, and nothing of the issuer's beside scope and end; what is good enough for a request is
//! not decided here.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_sources::Introspected;
use keybearer_sources::MintFault;
use keybearer_sources::Wanted;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Vessel;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::Executor;
use crate::act;
use crate::mint::Way;
use crate::renewal;

/// One request for a token and one about it, each of which its source answers in well under a second.
const CHECK_MAX: Duration = Duration::from_secs(15);

/// What an issuer says of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CredentialCheck {
    /// The credential.
    #[schema(value_type = String)]
    pub id: CredentialId,
    /// `active`, `inactive`, or `unknown` where the issuer did not say.
    pub state: CheckedState,
    /// What it was asked about: `stored` (a refresh token) or `minted` (an access token).
    pub about: CheckedPart,
    /// For what it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Until when, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<UnixMillis>,
}

/// Whether an issuer takes a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckedState {
    /// It does.
    Active,
    /// It does not.
    Inactive,
    /// It did not say.
    Unknown,
}

/// What an issuer was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckedPart {
    /// What is stored.
    Stored,
    /// What was minted with it.
    Minted,
}

impl Executor {
    /// Asks a credential's issuer whether it is good (RFC 7662). Where access tokens are minted with it and none is at
    /// hand, one is.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] for one that is not in force, or whose issuer is not asked.
    pub async fn ask_about_credential(
        &self,
        context: &TenantContext,
        id: &CredentialId,
    ) -> Result<CredentialCheck, Problem> {
        context.require(Scope::Credentials)?;
        let _running = self.running()?;
        let record = self.find_active(context.tenant(), id)?;
        if !keybearer_sources::can_be_introspected(&record.kind) {
            let how = "its source is not asked about it: only an OAuth recipe with `introspection_url` is checked";
            return Err(Problem::new(Code::Conflict, how));
        }
        let selected = self.strongbox.select(context.tenant(), id, UnixMillis::now());
        let selected = selected.map_err(|_| Problem::new(Code::Conflict, "it has no version that is in force"))?;
        let facts = renewal::facts_of_act(context.tenant(), context.principal());
        let deadline = Instant::now() + CHECK_MAX;
        let wanted =
            Wanted { facts: &facts, record: &record, selected: &selected, watched: true, until: deadline, deadline };
        let said = self.introspect(wanted).await;
        let check = self.checked(&record, &selected, said);
        let note = match check.state {
            CheckedState::Active => "active",
            CheckedState::Inactive => "inactive",
            CheckedState::Unknown => "unknown",
        };
        let act = act::of_tenant(context, ActKind::CredentialChecked, id.as_str());
        self.record(Act { note: note.to_owned(), ..act }).await?;
        Ok(check)
    }

    async fn introspect(&self, wanted: Wanted<'_>) -> Result<Introspected, MintFault> {
        let vessel = if wanted.record.kind.holds_refresh_token() {
            Vessel::default()
        } else {
            match self.mints.mint(wanted, &self.strongbox, &Way(self)).await {
                // What is stored is not taken: RFC 6749 §5.2.
                Err(MintFault::Refused(AnswerRefused::Status {
                    code: Some("invalid_client" | "invalid_grant" | "unauthorized_client"),
                    ..
                })) => return Ok(NOT_ACTIVE),
                minted => minted?,
            }
            let now = UnixMillis::now();
            self.strongbox.minted_vessel(wanted.selected, keybearer_sources::MINTED, now).ok_or(MintFault::Stale)?
        };
        let said = keybearer_sources::introspect(wanted, vessel, &self.strongbox, &Way(self)).await;
        said.unwrap_or(Err(MintFault::Unavailable))
    }

    fn checked(
        &self,
        record: &Arc<CredentialRecord>,
        selected: &Selected,
        said: Result<Introspected, MintFault>,
    ) -> CredentialCheck {
        let about = if record.kind.holds_refresh_token() { CheckedPart::Stored } else { CheckedPart::Minted };
        let id = record.id.clone();
        let unknown = CredentialCheck { id, state: CheckedState::Unknown, about, scope: None, expires: None };
        // What was said of a version that was replaced meanwhile says nothing of the one that is in force.
        match said.ok().filter(|_| !self.strongbox.is_over(selected)) {
            None => unknown,
            Some(Introspected { is_active: false, .. }) => CredentialCheck { state: CheckedState::Inactive, ..unknown },
            Some(Introspected { scope, expires_s, .. }) => {
                let expires = expires_s.map(|at| UnixMillis(at.saturating_mul(1_000)));
                CredentialCheck { state: CheckedState::Active, scope, expires, ..unknown }
            }
        }
    }
}

const NOT_ACTIVE: Introspected = Introspected { is_active: false, scope: None, expires_s: None };
