//! Onboarding of a credential: what it needs beside its value, with what a person would choose where nothing is
//! said, and how that is changed later. The value's own life is in `credentials`.

use std::sync::Arc;

use keybearer_contract::Binding;
use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_gate::Onboarding;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RotationPolicy;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::Terms;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_store::TermsChange;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

use crate::CredentialView;
use crate::Executor;
use crate::NewCredential;
use crate::act;
use crate::credentials::view;

/// The longest name, owner or justification, in bytes: what fits a line of a report.
const TEXT_BYTES_MAX: usize = 200;

/// How long a credential lasts if nobody says: long enough to be renewed with the contract that it came with,
/// short enough that somebody looks at it again.
const LIFE: u64 = 365 * 24 * 3_600_000;

/// How often a credential is to be rotated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRotation {
    /// At the latest after so many hours; 2160 (90 days), or 24 for a sensitive one, where none is named.
    #[serde(default)]
    pub every_h: Option<u32>,
    /// Whether much is lost with it.
    #[serde(default)]
    pub sensitive: bool,
}

/// Other terms for a credential; what is left out stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTerms {
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Why it is here.
    #[serde(default)]
    pub justification: Option<String>,
    /// When it ends, in milliseconds since 1970; not in the past.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    pub expires: Option<UnixMillis>,
    /// How often it is rotated.
    #[serde(default)]
    pub rotation: Option<NewRotation>,
    /// The places that it may go to at the most, as a manifest writes them; an empty list leaves that to the slots.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub binding: Option<Vec<Binding>>,
}

impl Executor {
    /// Holds a credential on other terms. Returns when no request is on its way that the new terms would not allow
    /// and that had not begun to be sent.
    ///
    /// # Errors
    /// [`Code::NotFound`]; [`Code::Conflict`] if it was revoked; [`Code::MalformedRequest`].
    pub async fn change_terms(
        &self,
        context: &TenantContext,
        id: &CredentialId,
        new: NewTerms,
    ) -> Result<CredentialView, Problem> {
        context.require(Scope::Credentials)?;
        let record = self.find_active(context.tenant(), id)?;
        for (what, text) in [("owner", &new.owner), ("justification", &new.justification)] {
            text.as_deref().map_or(Ok(()), |text| check_text(what, text))?;
        }
        new.expires.map_or(Ok(()), |end| check_end(end, UnixMillis::now()))?;
        let rotation = new.rotation.map_or(Ok(record.terms.rotation), chosen)?;
        let binding = new.binding.unwrap_or_else(|| record.terms.binding.clone());
        let terms = checked(Terms { rotation, binding })?;
        let change = TermsChange { owner: new.owner, justification: new.justification, expires: new.expires, terms };
        // What was cleared on the old terms is cleared again: its epoch is over.
        let epoch = record.epoch + 1;
        let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        crate::blocking(move || store.change_terms(&tenant, &subject, epoch, change)).await?;
        self.strongbox.barrier_rotate(context.tenant(), id, epoch).await;
        self.undo_minted(context.tenant(), id, epoch).await;
        let act = act::of_tenant(context, ActKind::CredentialTermsChanged, id.as_str());
        self.record(Act { epoch: Some(epoch), ..act }).await?;
        self.find(context.tenant(), id).map(|record| view(&record))
    }
}

/// What a new credential says of itself is plain text, and not empty.
///
/// # Errors
/// [`Code::MalformedRequest`].
pub(crate) fn check_texts(new: &NewCredential) -> Result<(), Problem> {
    let texts = [("name", &new.name), ("owner", &new.owner), ("justification", &new.justification)];
    texts.into_iter().try_for_each(|(what, text)| check_text(what, text))
}

/// The terms and the end of a new credential.
///
/// # Errors
/// [`Code::MalformedRequest`].
pub(crate) fn terms_of(new: &NewCredential, now: UnixMillis) -> Result<(Terms, UnixMillis), Problem> {
    let rotation = chosen(new.rotation.unwrap_or_default())?;
    let terms = checked(Terms { rotation, binding: new.binding.clone() })?;
    new.expires.map_or(Ok(()), |end| check_end(end, now))?;
    Ok((terms, new.expires.unwrap_or(UnixMillis(now.0 + LIFE))))
}

/// An end is still to come: what is to end now is revoked. Seconds where milliseconds are meant are in 1970.
fn check_end(end: UnixMillis, now: UnixMillis) -> Result<(), Problem> {
    if end > now {
        return Ok(());
    }
    let hint = "`expires` is past: it is in milliseconds since 1970; what is to end now is revoked";
    Err(Problem::new(Code::MalformedRequest, hint))
}

/// Who answers for an API token or a hook, and why it is there: by default whoever makes it, and nothing.
///
/// # Errors
/// [`Code::MalformedRequest`].
pub(crate) fn onboarding_of(
    owner: Option<String>,
    justification: Option<String>,
    maker: &PrincipalLabel,
) -> Result<Onboarding, Problem> {
    for (what, text) in [("owner", &owner), ("justification", &justification)] {
        text.as_deref().map_or(Ok(()), |text| check_text(what, text))?;
    }
    let justification = justification.unwrap_or_default();
    Ok(Onboarding { owner: owner.unwrap_or_else(|| maker.to_string()), justification })
}

fn chosen(new: NewRotation) -> Result<RotationPolicy, Problem> {
    RotationPolicy::chosen(new.every_h, new.sensitive)
        .map_err(|refused| Problem::new(Code::MalformedRequest, refused.to_string()))
}

fn checked(terms: Terms) -> Result<Terms, Problem> {
    terms.check().map_err(|refused| Problem::new(Code::MalformedRequest, refused.to_string()))?;
    Ok(terms)
}

fn check_text(what: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Problem::new(Code::MalformedRequest, format!("`{what}` is 1 to 200 bytes of plain text")));
    }
    Ok(())
}
