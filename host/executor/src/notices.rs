//! Notices to a tenant, of what needs its attention (the operator has one of his own, see `notify`): signed as the
//! Standard Webhooks specification has it, sent the way of every request of the host's (vetted, intended,
//! recorded), tried a few times, and never waited for by a call. What cannot be delivered is in the ledger as a
//! dispatch without an answer; nobody is told twice on purpose, and `webhook-id` says which are the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Delivery;
use keybearer_contract::Digest;
use keybearer_contract::HookId;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::Scheme;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_egress::SendLimits;
use keybearer_gate::Facts;
use keybearer_gate::Notice;
use keybearer_gate::NoticeRecord;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Scope;
use keybearer_gate::Target;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_gate::clear_notice;
use keybearer_ledger::ActKind;
use keybearer_ledger::DispatchOutcome;
use keybearer_ledger::Fault;
use keybearer_ledger::IntentDetails;
use keybearer_ledger::Purpose;
use keybearer_strongbox::Webhook;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Executor;
use crate::act;

/// Where notices are to go.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNotices {
    /// An `https://` URL.
    #[schema(value_type = String)]
    pub url: Target,
}

/// Where notices go, without the secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct NoticesView {
    /// The URL.
    #[schema(value_type = String)]
    pub url: Target,
    /// When it was set, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
}

/// Notices on their way, by tenant.
#[derive(Default)]
pub(crate) struct Notices {
    under_way: Mutex<HashMap<TenantId, usize>>,
}

/// Notices of one tenant on their way at once; what comes on top is dropped, and said so in the log.
const UNDER_WAY_MAX: usize = 32;

/// Waits before the second and further tries: a receiver that restarts is back by the last.
const BACKOFF: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60), Duration::from_secs(300)];

/// Standard Webhooks: 15 to 30 seconds.
const TRY_MAX: Duration = Duration::from_secs(15);

/// What a receiver has to say is its status.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// How one try ended.
enum Tried {
    Delivered,
    Again,
    /// The receiver is gone for good, or must not be asked.
    Never,
}

impl Executor {
    /// Sets where the tenant wants its notices. The secret that signs them is shown this once.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for what is not `https://`.
    pub async fn set_notices(
        &self,
        context: &TenantContext,
        new: NewNotices,
    ) -> Result<(NoticesView, Zeroizing<String>), Problem> {
        context.require(Scope::Credentials)?;
        if new.url.destination().scheme() != Scheme::Https {
            return Err(Problem::new(Code::MalformedRequest, "`url` begins with `https://`"));
        }
        let (tenant, id, created) = (context.tenant().clone(), HookId::random(), UnixMillis::now());
        let made = self.strongbox.new_hook_secret(&tenant, &id);
        let (sealed, text) = made.map_err(|_| Problem::new(Code::Internal, "tell the operator"))?;
        let record = NoticeRecord { tenant, id: id.clone(), url: new.url.clone(), created, sealed };
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.put_notice(record)).await?;
        self.record(act::of_tenant(context, ActKind::NoticesSet, id.as_str())).await?;
        Ok((NoticesView { url: new.url, created }, text))
    }

    /// Where the tenant wants its notices.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it wants none.
    pub fn notices_of(&self, context: &TenantContext) -> Result<NoticesView, Problem> {
        context.require(Scope::Credentials)?;
        let record = self.store.notice(context.tenant()).ok_or_else(Problem::not_found)?;
        Ok(NoticesView { url: record.url.clone(), created: record.created })
    }

    /// From now on the tenant gets no notices, if it got any.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub async fn remove_notices(&self, context: &TenantContext) -> Result<(), Problem> {
        context.require(Scope::Credentials)?;
        let (store, tenant) = (Arc::clone(&self.store), context.tenant().clone());
        crate::blocking(move || store.remove_notice(&tenant)).await?;
        self.record(act::of_tenant(context, ActKind::NoticesRemoved, "notices")).await
    }

    /// Sends a notice that says nothing, to see whether it arrives. Returns at once.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the tenant wants no notices; [`Code::RateLimited`].
    pub fn test_notices(self: &Arc<Self>, context: &TenantContext) -> Result<(), Problem> {
        context.require(Scope::Credentials)?;
        self.store.notice(context.tenant()).ok_or_else(Problem::not_found)?;
        if self.tell_tenant(context.tenant(), "test", &serde_json::json!({})) {
            return Ok(());
        }
        Err(Problem::new(Code::RateLimited, "too many notices are on their way"))
    }

    /// Tells a tenant that something needs its attention; it must hold no value of a credential. Returns at once:
    /// whether it is on its way, which it is not for a tenant that wants no notices or has too many on theirs.
    pub(crate) fn tell_tenant(self: &Arc<Self>, tenant: &TenantId, event_type: &str, data: &Value) -> bool {
        if self.store.notice(tenant).is_none() {
            return false;
        }
        let now = UnixMillis::now();
        let body = serde_json::json!({"type": event_type, "timestamp": now.to_utc(), "data": data}).to_string();
        if !self.notices.enter(tenant) {
            tracing::warn!(%tenant, event_type, "a notice was dropped: too many are on their way");
            return false;
        }
        let (executor, tenant) = (Arc::downgrade(self), tenant.clone());
        let id = format!("msg_{}", CallId::random().as_str().rsplit('_').next().unwrap_or_default());
        tokio::spawn(async move {
            let mut waits = BACKOFF.iter();
            loop {
                // Not held while it waits: a stop does not wait for a receiver that is away.
                let Some(executor) = executor.upgrade() else { return };
                let tried = executor.try_notice(&tenant, &id, &body).await;
                let wait = waits.next().filter(|_| matches!(tried, Tried::Again));
                let Some(wait) = wait else {
                    if !matches!(tried, Tried::Delivered) {
                        tracing::warn!(%tenant, id, "a notice was not delivered");
                    }
                    executor.notices.leave(&tenant);
                    return;
                };
                drop(executor);
                tokio::time::sleep(*wait).await;
            }
        });
        true
    }

    async fn try_notice(&self, tenant: &TenantId, id: &str, body: &str) -> Tried {
        // Asked again for each try: it may have been changed or taken away meanwhile.
        let Some(record) = self.store.notice(tenant) else { return Tried::Never };
        if !self.is_active(tenant) {
            return Tried::Never;
        }
        let Ok(_running) = self.running() else { return Tried::Never };
        let timestamp = (UnixMillis::now().0 / 1_000).to_string();
        let webhook = Webhook { id, timestamp: &timestamp, body: body.as_bytes() };
        let Ok(signature) = self.strongbox.sign_webhook(tenant, &record.id, &record.sealed, webhook) else {
            return Tried::Never;
        };
        let headers = vec![
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", timestamp.clone()),
            ("webhook-signature", signature),
        ];
        let notice = Notice { headers, body: body.as_bytes().to_vec() };
        match self.send_notice(&record, notice).await {
            Some(200..=299) => Tried::Delivered,
            // RFC 9110 §15.5.11: Standard Webhooks asks senders to stop then.
            Some(410) => Tried::Never,
            _ => Tried::Again,
        }
    }

    fn is_active(&self, tenant: &TenantId) -> bool {
        self.store.tenant(tenant).is_some_and(|record| record.state == TenantState::Active)
    }

    /// Sends one request; the status of its answer.
    async fn send_notice(&self, record: &NoticeRecord, notice: Notice) -> Option<u16> {
        let deadline = Instant::now() + TRY_MAX;
        let cleared = clear_notice(&facts_of(&record.tenant), record, notice).ok()?;
        let vetted = self.egress.vet(cleared.destination(), deadline).await.ok()?;
        let details = IntentDetails { version: None, epoch: None, address: vetted.address(), purpose: Purpose::Notify };
        let started = Instant::now();
        let sent_bytes = cleared.body_bytes();
        let (intent, entry) = self.ledger.intend(&cleared, details).await.ok()?;
        let Ok(armed) = keybearer_strongbox::plain(cleared, intent) else {
            entry.close(DispatchOutcome::failed(Fault::Host, Delivery::NotSent)).await.ok()?;
            return None;
        };
        let answered = self.egress.send(armed, vetted, SendLimits { deadline, response_bytes: ANSWER_BYTES_MAX }).await;
        let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = match &answered {
            Ok(raw) => DispatchOutcome { sent_bytes, wall_ms, ..DispatchOutcome::answered(raw.status()) },
            Err(fault) => {
                let recorded = DispatchOutcome::failed(crate::dispatch::recorded(fault.reason), fault.delivery);
                DispatchOutcome { wall_ms, ..recorded }
            }
        };
        entry.close(outcome).await.ok()?;
        answered.ok().map(|raw| raw.status())
    }
}

impl Notices {
    fn enter(&self, tenant: &TenantId) -> bool {
        let mut under_way = self.under_way.lock();
        let count = under_way.entry(tenant.clone()).or_default();
        let has_room = *count < UNDER_WAY_MAX;
        *count += usize::from(has_room);
        has_room
    }

    fn leave(&self, tenant: &TenantId) {
        let mut under_way = self.under_way.lock();
        if let Some(count) = under_way.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(tenant);
            }
        }
    }
}

/// A notice belongs to no call: it gets ids of its own, and says that it is the host's.
fn facts_of(tenant: &TenantId) -> Facts {
    Facts {
        tenant: tenant.clone(),
        principal: PrincipalLabel::host(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "keybearer.notices".parse().expect("it is a name of a tool"),
        package: Digest::of_package(b"", b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_of_one_tenant_are_bounded_and_take_no_place_of_anothers() {
        let (notices, one, other) = (Notices::default(), TenantId::random(), TenantId::random());
        assert_eq!((0..UNDER_WAY_MAX + 5).filter(|_| notices.enter(&one)).count(), UNDER_WAY_MAX);
        assert!(notices.enter(&other));
        notices.leave(&one);
        assert!(notices.enter(&one) && !notices.enter(&one));
        notices.leave(&other);
        assert_eq!(notices.under_way.lock().len(), 1);
        assert_eq!(facts_of(&one).tool.to_string(), "keybearer.notices");
    }
}
