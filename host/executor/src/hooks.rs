//! Hooks: a source outside says that something changed, and what was fetched of it is used no more. The
//! event names a credential or the place where its value comes from; it carries no value, and whatever it
//! says, the worst that it can do is a fetch.

use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::HookId;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialState;
use keybearer_gate::HookRecord;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_strongbox::Webhook;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Executor;
use crate::act;
use crate::mint;
use crate::onboarding::onboarding_of;
use crate::watches::Event;
use crate::watches::TOLERANCE;

/// A hook to be made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewHook {
    /// What people call it, 1 to 200 bytes.
    pub label: String,
    /// How often it promises to be heard of, in seconds, 5 to 86400; 0 if it promises nothing. While one that promised
    /// is silent, what was fetched from the tenant's sources is used for 30 seconds at most.
    #[serde(default)]
    pub heartbeat_s: u32,
    /// Who answers for it, 1 to 200 bytes; whoever makes it, where nobody is named.
    #[serde(default)]
    pub owner: Option<String>,
    /// Why it is there, 1 to 200 bytes. Without one the inventory asks for it.
    #[serde(default)]
    pub justification: Option<String>,
}

/// A hook, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HookView {
    /// The id; events go to `/v1/hooks/{id}/events`.
    #[schema(value_type = String)]
    pub id: HookId,
    /// What people call it.
    pub label: String,
    /// How often it promises to be heard of, in seconds; 0 if it promises nothing.
    pub heartbeat_s: u32,
    /// Whether it keeps its promise; absent if it made none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<bool>,
    /// When it was made, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub justification: String,
}

/// An event as it came in: Standard Webhooks' three fields, and the body byte for byte.
pub struct Received<'request> {
    /// `webhook-id`
    pub id: &'request str,
    /// `webhook-timestamp`, seconds since 1970.
    pub timestamp: &'request str,
    /// `webhook-signature`
    pub signatures: &'request str,
    /// The body.
    pub body: &'request [u8],
}

/// What an event came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Invalidated {
    /// Credentials whose fetched values are used no more; 0 for one that was taken before.
    pub invalidated: u64,
}

/// Ids are short; what is longer was not made by a sender of ours.
const EVENT_ID_BYTES_MAX: usize = 128;

/// References in one event that are looked at.
const REFERENCES_MAX: usize = 16;

/// A heartbeat is not rarer than once a day, nor so frequent that it is a load.
const HEARTBEAT_S: std::ops::RangeInclusive<u32> = 5..=86_400;

impl Executor {
    /// Makes a hook. Its secret is shown this once.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`], [`Code::Conflict`] beyond 16 of them.
    pub async fn make_hook(
        &self,
        context: &TenantContext,
        new: NewHook,
    ) -> Result<(HookView, Zeroizing<String>), Problem> {
        context.require(Scope::Credentials)?;
        if new.label.trim().is_empty() || new.label.len() > 200 || new.label.chars().any(char::is_control) {
            return Err(Problem::new(Code::MalformedRequest, "`label` is 1 to 200 bytes of plain text"));
        }
        if new.heartbeat_s != 0 && !HEARTBEAT_S.contains(&new.heartbeat_s) {
            return Err(Problem::new(Code::MalformedRequest, "`heartbeat_s` is 0, or 5 to 86400"));
        }
        let onboarding = onboarding_of(new.owner, new.justification, context.principal())?;
        let (tenant, id) = (context.tenant().clone(), HookId::random());
        let made = self.strongbox.new_hook_secret(&tenant, &id);
        let (sealed, text) = made.map_err(|_| Problem::new(Code::Internal, "tell the operator"))?;
        let (label, heartbeat_s, created) = (new.label, new.heartbeat_s, UnixMillis::now());
        let record = HookRecord { id: id.clone(), tenant, label, heartbeat_s, created, sealed, onboarding };
        let view = self.hook_view(&record);
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.insert_hook(record)).await?;
        self.record(act::of_tenant(context, ActKind::HookMade, id.as_str())).await?;
        Ok((view, text))
    }

    /// The tenant's hooks.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn hooks(&self, context: &TenantContext) -> Result<Vec<HookView>, Problem> {
        context.require(Scope::Credentials)?;
        Ok(self.store.hooks(context.tenant()).iter().map(|hook| self.hook_view(hook)).collect())
    }

    /// Removes a hook: what it sends is refused.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or another tenant's.
    pub async fn remove_hook(&self, context: &TenantContext, id: &HookId) -> Result<(), Problem> {
        context.require(Scope::Credentials)?;
        let (store, tenant, subject) = (Arc::clone(&self.store), context.tenant().clone(), id.clone());
        crate::blocking(move || store.remove_hook(&tenant, &subject)).await?;
        self.record(act::of_tenant(context, ActKind::HookRemoved, id.as_str())).await
    }

    /// Takes an event. Returns when no request carries what it made out of date; whoever gives up waiting for that does
    /// not stop it.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] for an unknown hook, a wrong signature and a time that is not now, all the same;
    /// [`Code::MalformedBody`]; [`Code::RateLimited`]; [`Code::Conflict`] for one that came before and is being acted on.
    pub async fn receive(
        self: &Arc<Self>,
        hook: Option<HookId>,
        received: Received<'_>,
    ) -> Result<Invalidated, Problem> {
        let refused = || Problem::new(Code::Unauthenticated, "sign the event with the hook's secret, now");
        let hook = hook.and_then(|id| self.store.hook(&id)).ok_or_else(refused)?;
        let Received { id, timestamp, signatures, body } = received;
        let is_now = timestamp
            .parse::<u64>()
            .is_ok_and(|sent| UnixMillis::now().0.abs_diff(sent.saturating_mul(1_000)) <= TOLERANCE.as_secs() * 1_000);
        let is_signed =
            self.strongbox.is_signed(&hook.tenant, &hook.id, &hook.sealed, Webhook { id, timestamp, body }, signatures);
        if !is_signed || !is_now || id.is_empty() || id.len() > EVENT_ID_BYTES_MAX {
            return Err(refused());
        }
        let (executor, id, body) = (Arc::clone(self), id.to_owned(), body.to_vec());
        let running = self.running.token();
        let taking = tokio::spawn(async move {
            let _running = running;
            executor.take(&hook, &id, &body).await
        });
        taking.await.unwrap_or_else(|_| Err(Problem::new(Code::Internal, "send the event again")))
    }

    /// Takes an event that is well signed.
    async fn take(&self, hook: &HookRecord, id: &str, body: &[u8]) -> Result<Invalidated, Problem> {
        let malformed = || Problem::new(Code::MalformedBody, "send a JSON object as docs/push.md has it");
        let come_again = |code, how, after_s| {
            let mut problem = Problem::new(code, how);
            problem.retry_after_s = Some(after_s);
            problem
        };
        let turn = match self.watches.hear(hook, id) {
            Event::New(turn) => turn,
            Event::Taken => return Ok(Invalidated { invalidated: 0 }),
            Event::Refused => return Err(malformed()),
            Event::UnderWay => {
                let how = "the event came before, and is being acted on: send it again to hear what came of it";
                return Err(come_again(Code::Conflict, how, 5));
            }
            Event::TooMany => return Err(come_again(Code::RateLimited, "send fewer events", 60)),
        };
        let event: Option<Value> = serde_json::from_slice(body).ok();
        let Some(references) = event.as_ref().and_then(references) else {
            turn.refused();
            return Err(malformed());
        };
        let invalidated = self.act_on(hook, &references).await?;
        turn.taken();
        Ok(invalidated)
    }

    /// Has fetched anew what an event names: all that can be, whatever becomes of the others.
    async fn act_on(&self, hook: &HookRecord, references: &[&str]) -> Result<Invalidated, Problem> {
        let (mut invalidated, mut failed) = (0, None);
        for record in self.store.credentials(&hook.tenant) {
            let is_named =
                references.iter().any(|name| *name == record.id.as_str() || record.kind.is_fetched_from(name));
            if is_named && record.kind.is_recipe() && record.state == CredentialState::Active {
                match self.invalidate(&hook.tenant, &record.id, hook.principal()).await {
                    Ok(()) => invalidated += 1,
                    Err(problem) => failed = failed.or(Some(problem)),
                }
            }
        }
        failed.map_or(Ok(Invalidated { invalidated }), Err)
    }

    /// Sees to it that nothing that was fetched with this credential so far is used any more: raises the epoch, waits
    /// for requests in flight, gives back what was minted.
    pub(crate) async fn invalidate(
        &self,
        tenant: &TenantId,
        id: &CredentialId,
        principal: PrincipalLabel,
    ) -> Result<(), Problem> {
        let (store, of, subject) = (Arc::clone(&self.store), tenant.clone(), id.clone());
        let raised = crate::blocking(move || store.touch_credential(&of, &subject)).await;
        if raised.is_err() {
            // Here at least it is not used on.
            self.strongbox.age(tenant, id, Duration::ZERO);
        }
        let epoch = raised?.epoch;
        self.strongbox.barrier_rotate(tenant, id, epoch).await;
        self.give_back(self.strongbox.end_minted(tenant, id, epoch), mint::issuers_until()).await;
        let act = act::within(tenant, principal, ActKind::CredentialInvalidated, id.as_str());
        self.record(Act { epoch: Some(epoch), ..act }).await
    }

    fn hook_view(&self, record: &HookRecord) -> HookView {
        HookView {
            id: record.id.clone(),
            label: record.label.clone(),
            heartbeat_s: record.heartbeat_s,
            live: self.watches.is_live(record),
            created: record.created,
            owner: record.onboarding.owner.clone(),
            justification: record.onboarding.justification.clone(),
        }
    }
}

/// What an event names: our own form, or one of Amazon EventBridge (`source`, `detail-type`, `resources`, `detail`).
/// None if it is neither. A heartbeat names nothing.
fn references(event: &Value) -> Option<Vec<&str>> {
    let event = event.as_object()?;
    let mut names = Vec::new();
    if let Some(kind) = event.get("type").and_then(Value::as_str) {
        match kind {
            "ping" => return Some(names),
            "credential.changed" => {}
            _ => return None,
        }
        let data = event.get("data")?;
        names.extend(["credential", "reference"].into_iter().filter_map(|name| data.get(name)?.as_str()));
    } else {
        event.get("detail-type")?.as_str()?;
        if !event.get("source")?.as_str()?.starts_with("aws.") {
            return None;
        }
        let resources = event.get("resources").and_then(Value::as_array);
        names.extend(resources.into_iter().flatten().filter_map(Value::as_str));
        let places = [
            "/additionalEventData/SecretId",
            "/requestParameters/secretId",
            "/responseElements/arn",
            "/responseElements/aRN",
        ];
        let detail = event.get("detail")?;
        names.extend(places.iter().filter_map(|place| detail.pointer(place)?.as_str()));
    }
    names.truncate(REFERENCES_MAX);
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_both_forms_name_what_changed() {
        let named = |event: Value| references(&event).map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(named(json!({"type": "ping"})), names(&[]));
        let event = json!({"type": "credential.changed", "data": {"reference": "secret/stripe"}});
        assert_eq!(named(event), names(&["secret/stripe"]));
        let event = json!({"type": "credential.changed", "data": {"credential": "cred_x"}});
        assert_eq!(named(event), names(&["cred_x"]));
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:stripe-a1b2c3";
        let event = json!({
            "version": "0", "id": "e", "detail-type": "AWS Service Event via CloudTrail", "source": "aws.secretsmanager",
            "account": "123456789012", "time": "2026-11-22T10:00:00Z", "region": "eu-west-1", "resources": [],
            "detail": {"eventName": "RotationSucceeded", "additionalEventData": {"SecretId": arn}},
        });
        assert_eq!(named(event), names(&[arn]));
        for bad in [
            json!([]),
            json!({}),
            json!({"type": "other"}),
            json!({"type": "credential.changed"}),
            json!({"type": "credential.changed", "data": {}}),
            json!({"detail-type": "x", "source": "elsewhere", "detail": {}}),
            json!({"detail-type": "x", "source": "aws.s3", "detail": {}}),
        ] {
            assert_eq!(references(&bad), None, "{bad}");
        }
    }
}
