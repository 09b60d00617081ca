//! Consent of an account as onboarding: a credential waits while a browser asks its account, and becomes active with
//! the refresh token that the code is redeemed for. Whatever is wrong with a callback is answered in one way. What an
//! account was asked lies sealed with its credential; here are the names only by which an answer finds it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::AwaitedConsent;
use keybearer_gate::ConsentProof;
use keybearer_gate::CredentialDirectory as _;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::OauthConsent;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_sources::Wanted;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::state_name;
use keybearer_strongbox::waits;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::CredentialView;
use crate::Executor;
use crate::NewCredential;
use crate::act;
use crate::credentials::name_taken;
use crate::credentials::next_version;
use crate::credentials::view;
use crate::mint::Way;
use crate::onboarding;
use crate::renewal;
use crate::rows::one_more;

/// A person logs in and reads what is asked; who takes longer begins again.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Accounts that a tenant asks at once, and all tenants together.
const WAITING_OF_TENANT_MAX: usize = 32;
const WAITING_MAX: usize = 4_096;

/// One request, which its source answers in well under a second.
const REDEEM_MAX: Duration = Duration::from_secs(15);

/// An account is being asked.
#[derive(Clone, Serialize, ToSchema)]
pub struct AuthorizationBegun {
    /// The credential that waits for it.
    pub credential: CredentialView,
    /// Where its account's browser is to go, within ten minutes. It is no secret, and is good once.
    pub authorization_url: String,
    /// When that ends, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub until: UnixMillis,
}

/// What a browser brought back (RFC 6749 §4.1.2, RFC 9207 §2).
pub struct Callback {
    /// `state`
    pub state: String,
    /// `iss`
    pub issuer: Option<String>,
    /// `code`; none if the account or its issuer refused.
    pub code: Option<SecretInput>,
}

/// The accounts that are being asked, by the names of their states.
#[derive(Default)]
pub(crate) struct Consents(Mutex<HashMap<String, Waiting>>);

/// One of them.
#[derive(Clone)]
struct Waiting {
    tenant: TenantId,
    credential: CredentialId,
    /// By the clock that does not jump.
    until: Instant,
}

impl Consents {
    /// One more; what was asked for the same credential before is good no more.
    fn add(&self, name: String, waiting: Waiting) -> Result<(), Problem> {
        let mut all = self.0.lock();
        let now = Instant::now();
        let is_same = |it: &Waiting| it.tenant == waiting.tenant && it.credential == waiting.credential;
        all.retain(|_, it| now < it.until && !is_same(it));
        let of_tenant = all.values().filter(|it| it.tenant == waiting.tenant).count();
        if of_tenant >= WAITING_OF_TENANT_MAX || all.len() >= WAITING_MAX {
            return Err(Problem::new(Code::TooMany, "too many accounts are being asked at once: try again later"));
        }
        all.insert(name, waiting);
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Waiting> {
        self.0.lock().get(name).filter(|it| Instant::now() < it.until).cloned()
    }

    fn forget(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

impl Executor {
    /// Has a credential wait for its account: a new one, or one of this name and kind that waits already or must be
    /// authorized again. `key` is the client's secret or key, if it has one.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for a kind that no account consents to; [`Code::CredentialRefused`] for a key that
    /// does not fit; [`Code::Conflict`] for a name that is taken; [`Code::TooMany`].
    pub async fn begin_authorization(
        &self,
        context: &TenantContext,
        new: NewCredential,
        consent: OauthConsent,
        key: Option<SecretInput>,
    ) -> Result<AuthorizationBegun, Problem> {
        context.require(Scope::Credentials)?;
        onboarding::check_texts(&new)?;
        let CredentialKind::OauthRefreshToken(client) = &new.kind else {
            return Err(Problem::new(Code::MalformedRequest, "an account consents to `oauth_refresh_token` only"));
        };
        let checked = new.kind.check().and_then(|()| consent.check());
        checked.map_err(|refused| Problem::new(Code::MalformedRequest, refused.to_string()))?;
        let known = self.store.credential_by_name(context.tenant(), &new.name);
        if let Some(known) = known.as_ref().filter(|known| !waits(known.state) || known.kind != new.kind) {
            return Err(name_taken(known));
        }
        let (tenant, id) = (context.tenant(), known.as_ref().map_or_else(CredentialId::random, |it| it.id.clone()));
        let begun = self
            .strongbox
            .begin_authorization(tenant, &id, &new.kind, key)
            .map_err(|refused| Problem::new(Code::CredentialRefused, refused.to_string()))?;
        let proof = ConsentProof { state: &begun.state, challenge: &begun.challenge };
        let authorization_url = consent.authorization_url(client, proof);
        let record = match known {
            Some(known) => known,
            None => self.store_waiting(context, &id, new).await?,
        };
        let until = UnixMillis(UnixMillis::now().0 + u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX));
        let (by, redirect_uri) = (context.principal().clone(), consent.redirect_uri);
        let (name, sealed, epoch) = (begun.name.clone(), begun.sealed, record.epoch);
        let awaited = AwaitedConsent { name, by, redirect_uri, sealed, epoch, until };
        let waiting = Waiting { tenant: tenant.clone(), credential: id.clone(), until: Instant::now() + WAIT_MAX };
        self.consents.add(begun.name.clone(), waiting)?;
        let (store, of) = (Arc::clone(&self.store), tenant.clone());
        let stored = crate::blocking(move || store.await_consent(&of, &id, awaited)).await;
        let record = stored.inspect_err(|_| self.consents.forget(&begun.name))?;
        Ok(AuthorizationBegun { credential: view(&record), authorization_url, until })
    }

    /// Stores a credential that waits.
    pub(crate) async fn store_waiting(
        &self,
        context: &TenantContext,
        id: &CredentialId,
        new: NewCredential,
    ) -> Result<Arc<CredentialRecord>, Problem> {
        let now = UnixMillis::now();
        let (terms, expires) = onboarding::terms_of(&new, now)?;
        let record = CredentialRecord {
            id: id.clone(),
            tenant: context.tenant().clone(),
            name: new.name,
            kind: new.kind,
            owner: new.owner,
            justification: new.justification,
            expires: Some(expires),
            state: CredentialState::Pending,
            epoch: 1,
            created: now,
            versions: Vec::new(),
            overlaps: Vec::new(),
            renewal: None,
            registration: None,
            consent: None,
            terms,
        };
        let turn = self.rows.turn().await;
        let has = self.store.credentials(context.tenant()).len();
        one_more("credentials", has, self.rows.ceilings.credentials, "rotate one that is there instead")?;
        let store = Arc::clone(&self.store);
        let record = crate::blocking(move || store.insert_credential(record)).await?;
        drop(turn);
        let stored = act::of_tenant(context, ActKind::CredentialStored, id.as_str());
        self.record(Act { epoch: Some(1), commit: Some(self.store.commits()), ..stored }).await?;
        Ok(record)
    }

    /// Takes up what accounts were asked before this process began.
    pub(crate) fn take_up_consents(&self) {
        let now = UnixMillis::now();
        for record in self.store.tenants().iter().flat_map(|tenant| self.store.credentials(&tenant.id)) {
            let Some(awaited) = record.consent.as_ref().filter(|awaited| now < awaited.until) else { continue };
            let left = Duration::from_millis(awaited.until.0 - now.0).min(WAIT_MAX);
            let (tenant, credential) = (record.tenant.clone(), record.id.clone());
            let waiting = Waiting { tenant, credential, until: Instant::now() + left };
            if self.consents.add(awaited.name.clone(), waiting).is_err() {
                tracing::warn!(credential = %record.id, "its account has to be asked again");
            }
        }
    }

    /// Forgets what accounts were asked and did not answer in time. To be called once a minute.
    pub(crate) async fn forget_unanswered(&self) {
        let now = UnixMillis::now();
        for record in self.store.tenants().iter().flat_map(|tenant| self.store.credentials(&tenant.id)) {
            let Some(awaited) = record.consent.as_ref().filter(|awaited| awaited.until <= now) else { continue };
            let (tenant, id, name) = (record.tenant.clone(), record.id.clone(), awaited.name.clone());
            let store = Arc::clone(&self.store);
            if crate::blocking(move || store.take_consent(&tenant, &id, &name)).await.is_err() {
                tracing::debug!(credential = %record.id, "what its account was asked is gone already");
            }
        }
    }

    /// Takes what a browser brought back: whether the credential is active now. Nothing says why it is not, and no
    /// state is good twice.
    pub async fn end_authorization(self: &Arc<Self>, callback: Callback) -> bool {
        // A task of its own: a code that is redeemed while nobody waits any more is gone.
        let (executor, running) = (Arc::clone(self), self.running.token());
        let ending = tokio::spawn(async move {
            let _running = running;
            executor.redeem(callback).await.is_some()
        });
        ending.await.unwrap_or(false)
    }

    async fn redeem(&self, callback: Callback) -> Option<()> {
        let Callback { state, issuer, code } = callback;
        let name = state_name(&state)?;
        let Waiting { tenant, credential, .. } = self.consents.find(name)?;
        if !self.strongbox.is_state(&tenant, &credential, &state) {
            return None;
        }
        // Before anything else: whatever comes of it, it was answered.
        let (store, of, id, taken) = (Arc::clone(&self.store), tenant.clone(), credential.clone(), name.to_owned());
        let awaited = crate::blocking(move || store.take_consent(&of, &id, &taken)).await;
        self.consents.forget(name);
        let AwaitedConsent { by, redirect_uri, sealed, epoch, until, .. } = awaited.ok()?;
        let in_time = UnixMillis::now() < until;
        self.store.tenant(&tenant).filter(|tenant| in_time && tenant.state == TenantState::Active)?;
        let record = self.store.credential(&tenant, &credential)?;
        let CredentialKind::OauthRefreshToken(client) = &record.kind else { return None };
        if !client.is_answered_by(issuer.as_deref()) || !waits(record.state) || record.epoch != epoch {
            tracing::warn!(%tenant, %credential, "an authorization came back from elsewhere, or too late");
            return None;
        }
        let selected = self.strongbox.select_waiting(&tenant, &credential).ok()?;
        let vessel = self.strongbox.resume_authorization(&selected, name, &sealed, code?).ok()?;
        let facts = renewal::facts_of_act(&tenant, &by);
        let deadline = Instant::now() + REDEEM_MAX;
        let wanted =
            Wanted { facts: &facts, record: &record, selected: &selected, watched: false, deadline, until: deadline };
        let asked = (client, redirect_uri.as_str());
        let redeemed = keybearer_sources::redeem(wanted, asked, vessel, &self.strongbox, &Way(self)).await;
        let warn = |why: &dyn std::fmt::Display| {
            tracing::warn!(%tenant, %credential, %why, "what an account consented to could not be stored");
        };
        let redeemed = redeemed.inspect_err(|fault| warn(fault)).ok()?;
        let number = next_version(&record);
        let sealed = self.strongbox.seal_held(&selected, &redeemed.vessel, &redeemed.parts, number);
        let version = renewal::version(number, sealed.inspect_err(|refused| warn(refused)).ok()?);
        let (store, of, subject, next) = (Arc::clone(&self.store), tenant.clone(), credential.clone(), epoch + 1);
        let stored = crate::blocking(move || store.add_version(&of, &subject, version, next)).await;
        stored.inspect_err(|problem| warn(&problem.detail)).ok()?;
        self.strongbox.barrier_rotate(&tenant, &credential, next).await;
        let act = act::within(&tenant, by, ActKind::CredentialAuthorized, credential.as_str());
        self.record(Act { version: Some(number), epoch: Some(next), commit: Some(self.store.commits()), ..act })
            .await
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(tenant: &TenantId) -> Waiting {
        Waiting { tenant: tenant.clone(), credential: CredentialId::random(), until: Instant::now() + WAIT_MAX }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_account_is_asked_is_found_until_it_ends_after_ten_minutes() {
        let (consents, tenant) = (Consents::default(), TenantId::random());
        for name in ["early", "late"] {
            consents.add(name.to_owned(), waiting(&tenant)).expect("room");
        }
        tokio::time::advance(WAIT_MAX - Duration::from_millis(1)).await;
        assert!(consents.find("early").is_some());
        consents.forget("early");
        assert!(consents.find("early").is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(consents.find("late").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_that_asks_too_many_accounts_takes_no_room_from_others() {
        let (consents, tenant) = (Consents::default(), TenantId::random());
        for number in 0..WAITING_OF_TENANT_MAX {
            consents.add(number.to_string(), waiting(&tenant)).expect("room");
        }
        assert_eq!(consents.add("more".to_owned(), waiting(&tenant)).map_err(|it| it.code), Err(Code::TooMany));
        assert!(consents.add("other".to_owned(), waiting(&TenantId::random())).is_ok());
        tokio::time::advance(WAIT_MAX).await;
        assert!(consents.add("more".to_owned(), waiting(&tenant)).is_ok(), "what is over takes no room");
    }
}
