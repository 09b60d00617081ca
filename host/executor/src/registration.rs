//! Registration of a client as onboarding: its issuer registers it (RFC 7591), and what it is given is stored unread, as a
//! credential of the tenant. When the credential ends the client is taken back (RFC 7592). A registration that came to
//! nothing leaves a credential that waits, for the next try under the same name.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialRecord;
use keybearer_gate::CredentialState;
use keybearer_gate::OauthRegistration;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Registration;
use keybearer_gate::RotationPolicy;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_gate::Terms;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_sources::MintFault;
use keybearer_sources::Registered;
use keybearer_sources::Wanted;
use keybearer_store::RegisteredClient;
use keybearer_strongbox::ClientKey;
use keybearer_strongbox::SecretInput;
use keybearer_strongbox::Selected;
use keybearer_strongbox::Undo;
use keybearer_strongbox::Yield;
use tokio::time::Instant;

use crate::CredentialView;
use crate::Executor;
use crate::NewCredential;
use crate::act;
use crate::credentials::name_taken;
use crate::credentials::next_version;
use crate::credentials::view;
use crate::discovery::ISSUERS_BUSY;
use crate::mint;
use crate::mint::Way;
use crate::onboarding;
use crate::renewal;

/// One request, which its source answers in well under a second.
const REGISTER_MAX: Duration = Duration::from_secs(15);

/// Issuers that are asked at once by a tenant that leaves.
const AT_ONCE: usize = 16;

const HOUR_MS: u64 = 3_600_000;

impl Executor {
    /// Has an issuer register a client, and stores what it is given: as a new credential, or as one of this name whose
    /// registration came to nothing. `initial` is what lets a client be registered, where the issuer wants that.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for what cannot be registered; [`Code::Conflict`] for a name that is taken;
    /// [`Code::CredentialRefused`] if the issuer refuses, or registers something else; [`Code::UpstreamFailed`] if it
    /// cannot be asked; [`Code::TooMany`]; [`Code::RateLimited`] while issuers are asked for others of the tenant.
    pub async fn register_credential(
        self: &Arc<Self>,
        context: &TenantContext,
        new: NewCredential,
        asked: OauthRegistration,
        initial: Option<SecretInput>,
    ) -> Result<CredentialView, Problem> {
        context.require(Scope::Credentials)?;
        onboarding::check_texts(&new)?;
        asked.check(&new.kind).map_err(|refused| Problem::new(Code::MalformedRequest, refused.to_string()))?;
        onboarding::terms_of(&new, UnixMillis::now())?;
        let known = self.store.credential_by_name(context.tenant(), &new.name);
        if let Some(known) = known.as_ref().filter(|known| !waits_for_registration(known)) {
            return Err(name_taken(known));
        }
        let turn = self.issuers.take(context.tenant(), ISSUERS_BUSY)?;
        let record = match known {
            Some(known) => known,
            None => self.store_waiting(context, &CredentialId::random(), new.clone()).await?,
        };
        // A task of its own: a client whose answer is lost because nobody waits any more is left at its issuer.
        let (executor, running, by) = (Arc::clone(self), self.running()?, context.principal().clone());
        let registering = tokio::spawn(async move {
            let (_running, _turn) = (running, turn);
            executor.register(&by, &record, (new, asked), initial).await
        });
        registering.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "look at it before you try again")))
    }

    async fn register(
        &self,
        by: &PrincipalLabel,
        record: &CredentialRecord,
        (new, asked): (NewCredential, OauthRegistration),
        initial: Option<SecretInput>,
    ) -> Result<CredentialView, Problem> {
        let changed = |_| Problem::new(Code::Conflict, "the credential changed meanwhile: look at it again");
        let selected = self.strongbox.select_waiting(&record.tenant, &record.id).map_err(changed)?;
        let begun = self.strongbox.begin_registration(&selected, initial, new.kind.key_to_register());
        let (vessel, key) = begun.map_err(|refused| Problem::new(Code::CredentialRefused, refused.to_string()))?;
        let facts = renewal::facts_of_act(&record.tenant, by);
        let deadline = Instant::now() + REGISTER_MAX;
        let wanted = Wanted { facts: &facts, record, selected: &selected, watched: false, until: deadline, deadline };
        let (what, with) = ((&asked, &new.kind), (vessel, key.as_ref()));
        let registered = keybearer_sources::register(wanted, what, with, &self.strongbox, &Way(self)).await;
        let registered = registered.map_err(|fault| match fault {
            MintFault::Refused(refused) => Problem::new(Code::CredentialRefused, refused.to_string()),
            fault => Problem::new(Code::UpstreamFailed, fault.to_string()),
        })?;
        // What is asked for when its credential is not stored after all.
        let undo = registered.management_url.as_ref().map(keybearer_sources::deregister).and_then(|exchange| {
            let undo = Yield { undo: Some(exchange), ..Yield::default() };
            self.strongbox.undo_of(&selected, &registered.vessel, &undo, &facts)
        });
        let place = asked.registration_url.place();
        let stored = self.store_registered(record, &selected, (new, asked), (registered, key.as_ref())).await;
        match stored {
            Ok(stored) => {
                let act = act::within(&stored.tenant, by.clone(), ActKind::CredentialRegistered, stored.id.as_str());
                let (version, commit) = (Some(next_version(record)), Some(self.store.commits()));
                let note = format!("at {place}");
                self.record(Act { version, epoch: Some(stored.epoch), commit, note, ..act }).await?;
                Ok(view(&stored))
            }
            Err(problem) => {
                self.give_back(undo.into_iter().collect::<Vec<Undo>>(), mint::issuers_until()).await;
                Err(problem)
            }
        }
    }

    /// From what an issuer answered to a credential that can be used.
    async fn store_registered(
        &self,
        record: &CredentialRecord,
        selected: &Selected,
        (new, asked): (NewCredential, OauthRegistration),
        (registered, key): (Registered, Option<&ClientKey>),
    ) -> Result<Arc<CredentialRecord>, Problem> {
        let refused = |why: &dyn std::fmt::Display| Problem::new(Code::CredentialRefused, why.to_string());
        let kind = registered.recipe(&new.kind, key).map_err(|why| refused(&why))?;
        let secret_expires_s = registered.secret_expires_s().map_err(|why| refused(&why))?;
        let now = UnixMillis::now();
        let (terms, expires) = onboarding::terms_of(&new, now)?;
        let (terms, expires) = ending_with_secret((terms, expires), secret_expires_s, now);
        let management = match &registered.management_url {
            Some(url) => self.strongbox.seal_registration(selected, &registered.vessel, url),
            None => Ok(None),
        };
        let management = management.map_err(|why| refused(&why))?;
        if management.is_none() {
            tracing::warn!(tenant = %record.tenant, credential = %record.id, "its issuer gives no way to take its client back");
        }
        let number = next_version(record);
        let (vessel, parts) = (&registered.vessel, &registered.parts);
        let sealed = self.strongbox.seal_held_as(&kind, selected, vessel, parts, number);
        let version = renewal::version(number, sealed.map_err(|why| refused(&why))?);
        let client = RegisteredClient {
            kind,
            owner: new.owner,
            justification: new.justification,
            expires,
            terms,
            version,
            registration: Registration { registration_url: asked.registration_url, at: now, management },
        };
        let (store, epoch) = (Arc::clone(&self.store), record.epoch + 1);
        let (tenant, id) = (record.tenant.clone(), record.id.clone());
        crate::blocking(move || store.put_registered(&tenant, &id, epoch, client)).await
    }

    /// Takes a credential's client back at its issuer, by what was kept when it was registered: part of the act that ends
    /// the credential, after what the client was given is given back. Whether its issuer did until then; none if there is
    /// nothing to take back.
    pub(crate) async fn deregister(
        &self,
        record: &CredentialRecord,
        by: &PrincipalLabel,
        until: Instant,
    ) -> Option<bool> {
        record.registration.as_ref()?.management.as_ref()?;
        let Some(url) = self.strongbox.management_url(record) else { return Some(false) };
        let (facts, exchange) = (renewal::facts_of_act(&record.tenant, by), keybearer_sources::deregister(&url));
        let Some(undo) = self.strongbox.undo_registration(facts, record, exchange) else { return Some(false) };
        let is_taken_back = self.give_back_last(undo, until).await;
        if is_taken_back {
            let (store, tenant, id) = (Arc::clone(&self.store), record.tenant.clone(), record.id.clone());
            if crate::blocking(move || store.forget_registration(&tenant, &id)).await.is_err() {
                tracing::warn!(credential = %record.id, "its client was taken back, and is still noted");
            }
        }
        Some(is_taken_back)
    }

    /// The same for all of a tenant that leaves: a word to the auditor about what became of its clients.
    pub(crate) async fn deregister_all(&self, records: &[Arc<CredentialRecord>], by: &PrincipalLabel) -> String {
        use futures_util::StreamExt as _;
        let until = mint::issuers_until();
        let asked: Vec<_> = records.iter().map(|record| self.deregister(record, by, until)).collect();
        let (taken, left) = futures_util::stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .fold((0_u32, 0_u32), async |(taken, left), one| match one {
                None => (taken, left),
                Some(true) => (taken + 1, left),
                Some(false) => (taken, left + 1),
            })
            .await;
        if taken + left == 0 { String::new() } else { format!("; clients deregistered: {taken}, left: {left}") }
    }
}

/// A word to the auditor about what became of a client.
pub(crate) fn told(is_taken_back: Option<bool>) -> String {
    match is_taken_back {
        None => String::new(),
        Some(true) => "its client was deregistered".to_owned(),
        Some(false) => "its client is still registered: its issuer did not take it back".to_owned(),
    }
}

/// Whether a credential waits for the registration of its client, and for nothing else.
fn waits_for_registration(record: &CredentialRecord) -> bool {
    record.state == CredentialState::Pending && record.versions.is_empty() && !record.kind.holds_refresh_token()
}

/// A credential ends with its client's secret, and its owner is asked for another one in time.
fn ending_with_secret(
    (terms, expires): (Terms, UnixMillis),
    secret_expires_s: Option<u64>,
    now: UnixMillis,
) -> (Terms, UnixMillis) {
    let Some(end) = secret_expires_s.map(|at| UnixMillis(at.saturating_mul(1_000))) else { return (terms, expires) };
    let hours = u32::try_from(end.0.saturating_sub(now.0) / HOUR_MS).unwrap_or(u32::MAX).max(1);
    let rotation = RotationPolicy { every_h: terms.rotation.every_h.min(hours), ..terms.rotation };
    (Terms { rotation, ..terms }, UnixMillis(expires.0.min(end.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_ends_with_its_clients_secret_and_not_after_it() {
        let (now, year) = (UnixMillis(1_800_000_000_000), UnixMillis(1_800_000_000_000 + 365 * 24 * HOUR_MS));
        let ends = |secret_expires_s| {
            let (terms, expires) = ending_with_secret((Terms::default(), year), secret_expires_s, now);
            (terms.rotation.every_h, expires)
        };
        let default = Terms::default().rotation.every_h;
        assert_eq!(ends(None), (default, year), "one that does not end");
        assert_eq!(ends(Some(now.0 / 1_000 + 7_200)), (2, UnixMillis(now.0 + 2 * HOUR_MS)));
        assert_eq!(ends(Some(now.0 / 1_000 + 1)), (1, UnixMillis(now.0 + 1_000)), "the shortest policy is an hour");
        assert_eq!(ends(Some(1)), (1, UnixMillis(1_000)), "one that has ended cannot be used");
        assert_eq!(ends(Some(u64::MAX)), (default, year));
    }
}
