//! The notifier: tells tenants and the operator that something needs their attention, by a POST that is signed as the
//! Standard Webhooks specification has it. A notice is in the store before anybody counts on it, is tried until it is
//! taken or too old, over restarts too, and carries the same `webhook-id` every time. It goes over TLS to a vetted
//! address, recorded before its first byte as everything that leaves; nothing waits for it. Not for hooks, which come in.

mod queue;

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::HookId;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_contract::Scheme;
use keybearer_contract::UnixMillis;
use keybearer_egress::Message;
use keybearer_egress::SendLimits;
use keybearer_egress::VetFault;
use keybearer_gate::Addressee;
use keybearer_gate::NoticeRecord;
use keybearer_gate::NoticeTarget;
use keybearer_gate::OperatorContext;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Refusal;
use keybearer_gate::Scope;
use keybearer_gate::Sealed;
use keybearer_gate::Target;
use keybearer_gate::TenantContext;
use keybearer_gate::TenantDirectory as _;
use keybearer_gate::TenantState;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_strongbox::SealBroken;
use keybearer_strongbox::Webhook;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use tokio::time::Instant;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::Executor;
use crate::act;
use queue::Next;

pub(crate) use queue::Notices;

/// Where notices are to go.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNotices {
    /// `https://host/path`. Not for secrets: what proves a notice is its signature.
    pub url: String,
}

/// Where notices go, without the secret, and how it stands with them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NoticesView {
    /// The id of the setting: another secret has another id.
    #[schema(value_type = String)]
    pub id: HookId,
    /// The URL.
    #[schema(value_type = String)]
    pub url: Target,
    /// When it was set, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// How many wait to be taken.
    pub waiting: u64,
    /// What came of the last try since the server started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<NoticeTry>,
}

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NoticeTry {
    /// The notice's `webhook-id`.
    pub id: String,
    /// When, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub at: UnixMillis,
    /// `delivered`, `put_off` (it is tried again) or `failed` (it is not).
    pub state: &'static str,
    /// What was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What is to be told.
pub(crate) struct Notice {
    /// Never the same for two: the receiver tells repetitions by it. To put the same notice twice is to put it once.
    pub(crate) id: String,
    /// `thing.happened`.
    pub(crate) kind: &'static str,
    /// Names and ids, no value of a credential.
    pub(crate) data: Value,
    /// The incident that it tells of: what becomes of the notice stands in its record.
    pub(crate) incident: Option<IncidentId>,
}

/// Why nobody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untold {
    #[error("no notices are wanted")]
    Unwanted,
    #[error("too many notices wait")]
    TooMany,
    #[error("the notice could not be stored")]
    NotStored,
}

/// Why a try came to nothing.
struct Refused {
    why: String,
    /// There is no use in trying again.
    is_final: bool,
}

/// A receiver takes a notice at once, and thinks about it later. Standard Webhooks: 15 to 30 seconds.
const TRY_MAX: Duration = Duration::from_secs(15);

/// What a receiver has to say is its status.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// How old a notice may become, in ms, whatever restarts: on the next day it is no news.
const AGE_MAX_MS: u64 = 24 * 3_600_000;

impl Executor {
    /// Sets where the tenant wants its notices. The secret that signs them is shown this once.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for what is no canonical `https` URL of a named host.
    pub async fn set_notices(
        &self,
        context: &TenantContext,
        new: NewNotices,
    ) -> Result<(NoticesView, Zeroizing<String>), Problem> {
        context.require(Scope::Credentials)?;
        let set = self.set_target(Addressee::Tenant(context.tenant().clone()), new).await?;
        self.record(act::of_tenant(context, ActKind::NoticesSet, set.0.id.as_str())).await?;
        Ok(set)
    }

    /// Where the tenant wants its notices.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it wants none.
    pub fn notices_of(&self, context: &TenantContext) -> Result<NoticesView, Problem> {
        context.require(Scope::Credentials)?;
        self.target_view(&Addressee::Tenant(context.tenant().clone()))
    }

    /// From now on the tenant gets no notices, if it got any; what waits is forgotten.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub async fn remove_notices(&self, context: &TenantContext) -> Result<(), Problem> {
        context.require(Scope::Credentials)?;
        self.remove_target(Addressee::Tenant(context.tenant().clone())).await?;
        self.record(act::of_tenant(context, ActKind::NoticesRemoved, "notices")).await
    }

    /// Sends a notice that says nothing, to see whether it arrives. Does not wait for that.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the tenant wants no notices; [`Code::RateLimited`].
    pub async fn test_notices(self: &Arc<Self>, context: &TenantContext) -> Result<(), Problem> {
        context.require(Scope::Credentials)?;
        let told = self.tell(Addressee::Tenant(context.tenant().clone()), Notice::new("test", json!({})));
        told.await.map_err(|untold| match untold {
            Untold::Unwanted => Problem::not_found(),
            Untold::TooMany => Problem::new(Code::RateLimited, "too many notices wait: see that they are taken"),
            Untold::NotStored => Problem::new(Code::StoreUnavailable, "try again"),
        })
    }

    /// Says where the operator hears of incidents. The secret that signs is made anew and shown this once.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for what is no canonical `https` URL of a named host.
    pub async fn set_notify(
        &self,
        operator: &OperatorContext,
        new: NewNotices,
    ) -> Result<(NoticesView, Zeroizing<String>), Problem> {
        let set = self.set_target(Addressee::Operator, new).await?;
        self.record(act::of_operator(operator, ActKind::NoticesSet, set.0.id.as_str())).await?;
        Ok(set)
    }

    /// Where the operator hears of incidents.
    ///
    /// # Errors
    /// [`Code::NotFound`] if nowhere.
    pub fn notify_target(&self, _operator: &OperatorContext) -> Result<NoticesView, Problem> {
        self.target_view(&Addressee::Operator)
    }

    /// The operator wants to hear of nothing any more; what waits is forgotten.
    ///
    /// # Errors
    /// [`Code::NotFound`] if that is so already.
    pub async fn remove_notify(&self, operator: &OperatorContext) -> Result<(), Problem> {
        self.target_view(&Addressee::Operator)?;
        self.remove_target(Addressee::Operator).await?;
        self.record(act::of_operator(operator, ActKind::NoticesRemoved, "notices")).await
    }

    async fn set_target(&self, to: Addressee, new: NewNotices) -> Result<(NoticesView, Zeroizing<String>), Problem> {
        let url: Target = new.url.parse().map_err(|why: keybearer_gate::NotCanonical| {
            Problem::new(Code::MalformedRequest, format!("`url` is not canonical: {why}"))
        })?;
        if url.destination().scheme() != Scheme::Https {
            return Err(Problem::new(Code::MalformedRequest, "`url` begins with `https://`"));
        }
        let (id, created) = (HookId::random(), UnixMillis::now());
        let (sealed, text) = match &to {
            Addressee::Operator => self.strongbox.new_notice_secret(&id),
            Addressee::Tenant(tenant) => {
                let made = self.strongbox.new_hook_secret(tenant, &id);
                made.map_err(|_| Problem::new(Code::Internal, "tell the operator"))?
            }
        };
        let target = NoticeTarget { id, url, created, sealed };
        // While the master key is rotated the operator's secret is read, wrapped anew and put back.
        let _turn = self.rows.turn().await;
        let (store, of) = (Arc::clone(&self.store), to.clone());
        crate::blocking(move || store.set_notice_target(&of, Some(target))).await?;
        Ok((self.target_view(&to)?, text))
    }

    async fn remove_target(&self, to: Addressee) -> Result<(), Problem> {
        let (store, of) = (Arc::clone(&self.store), to.clone());
        crate::blocking(move || store.set_notice_target(&of, None)).await?;
        self.notices.forget(&to);
        Ok(())
    }

    fn target_view(&self, to: &Addressee) -> Result<NoticesView, Problem> {
        let target = self.store.notice_target(to).ok_or_else(Problem::not_found)?;
        let (waiting, last) = self.notices.of(to);
        Ok(NoticesView { id: target.id.clone(), url: target.url.clone(), created: target.created, waiting, last })
    }

    /// Has somebody be told. When this returns the notice is stored, and on its way.
    ///
    /// # Errors
    /// [`Untold`]: nobody is.
    pub(crate) async fn tell(self: &Arc<Self>, to: Addressee, notice: Notice) -> Result<(), Untold> {
        if self.store.notice_target(&to).is_none() {
            return Err(Untold::Unwanted);
        }
        let created = UnixMillis::now();
        let body = json!({"type": notice.kind, "timestamp": created.to_utc(), "data": notice.data}).to_string();
        let body = self.seal_body(&to, &notice.id, body.into_bytes()).map_err(|_| Untold::NotStored)?;
        let record = NoticeRecord { to, id: notice.id, created, incident: notice.incident, body };
        let (store, stored) = (Arc::clone(&self.store), record.clone());
        match crate::blocking(move || store.put_notice(&stored)).await {
            Ok(true) => self.take_up(record),
            // It waits already.
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(notice = %record.id, kind = notice.kind, %problem, "a notice was dropped");
                self.notices.drop_one();
                self.note(&record, ActKind::NoticeFailed, &problem.to_string()).await;
                return Err(match problem.code {
                    Code::Conflict => Untold::TooMany,
                    Code::NotFound => Untold::Unwanted,
                    _ => Untold::NotStored,
                });
            }
        }
        Ok(())
    }

    /// Tries again what an earlier process could not deliver.
    pub(crate) fn take_up_notices(self: &Arc<Self>) {
        let waiting = self.store.waiting_notices().unwrap_or_else(|error| {
            tracing::error!(%error, "the notices that wait cannot be read: nobody is told of them");
            Vec::new()
        });
        waiting.into_iter().for_each(|notice| self.take_up(notice));
    }

    fn take_up(self: &Arc<Self>, notice: NoticeRecord) {
        let to = notice.to.clone();
        if self.notices.add(notice) {
            tokio::spawn(work(Arc::downgrade(self), to));
        }
    }

    /// Tries once, and sees to what comes of it.
    async fn try_notice(&self, notice: &NoticeRecord) {
        let sent = self.send_notice(notice).await;
        let is_old = UnixMillis::now().0.saturating_sub(notice.created.0) > AGE_MAX_MS;
        let (last, kind) = match sent {
            Ok(()) => (NoticeTry::delivered(&notice.id), ActKind::NoticeDelivered),
            Err(Refused { why, is_final }) => {
                tracing::warn!(notice = %notice.id, why, "a notice was not taken");
                if !is_final && !is_old && self.notices.put_off(notice, &why) {
                    return;
                }
                (NoticeTry::failed(&notice.id, &why), ActKind::NoticeFailed)
            }
        };
        if let Some(incident) = &notice.incident {
            self.note_told(incident, &notice.id, last.is_delivered()).await;
        }
        self.note(notice, kind, last.why.as_deref().unwrap_or_default()).await;
        // Last: whoever is cut off before this tells it once more.
        let (store, to, id) = (Arc::clone(&self.store), notice.to.clone(), notice.id.clone());
        if let Err(problem) = crate::blocking(move || store.forget_notice(&to, &id)).await {
            tracing::warn!(notice = %notice.id, %problem, "a notice is told once more after the next start");
        }
        self.notices.settle(notice, last);
    }

    async fn send_notice(&self, notice: &NoticeRecord) -> Result<(), Refused> {
        let deadline = Instant::now() + TRY_MAX;
        // Asked again for each try: it may have been changed or taken away meanwhile.
        let target = self.store.notice_target(&notice.to).ok_or_else(|| Refused::for_good("nobody wants it"))?;
        if !notice.to.tenant().is_none_or(|tenant| self.is_active(tenant)) {
            return Err(Refused::for_now("its tenant is suspended"));
        }
        let body = self.open_body(notice).map_err(|_| Refused::for_good("what is stored of it does not open"))?;
        let timestamp = (UnixMillis::now().0 / 1_000).to_string();
        let webhook = Webhook { id: &notice.id, timestamp: &timestamp, body: &body };
        let signature = match &notice.to {
            Addressee::Operator => self.strongbox.sign_notice(&target.id, &target.sealed, webhook),
            Addressee::Tenant(tenant) => self.strongbox.sign_webhook(tenant, &target.id, &target.sealed, webhook),
        };
        let signature = signature.map_err(|_| Refused::for_good("the secret that signs does not open"))?;
        let fields = [
            ("content-type", "application/json"),
            ("user-agent", "keybearer"),
            ("webhook-id", &notice.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        let message = Message::new(&target.url, &fields, body);
        let message = message.ok_or_else(|| Refused::for_good("its URL cannot be asked for"))?;
        let vetted = self.egress.vet(target.url.destination(), deadline).await.map_err(|fault| match fault {
            // As `explain` tells it of a request of a tool's. A name may come back; what leads inside is no outage.
            VetFault::Refused(refusal) => {
                Refused { why: refusal.to_string(), is_final: refusal != Refusal::UnknownName }
            }
            fault => Refused::for_now(&fault.to_string()),
        })?;
        let sent = act_of(notice, ActKind::NoticeSent, &target.url.destination().to_string());
        self.record(sent).await.map_err(|_| Refused::for_now("the ledger cannot be written"))?;
        let limits = SendLimits { deadline, response_bytes: ANSWER_BYTES_MAX };
        match self.egress.tell(&vetted, message, limits).await {
            Ok(200..=299) => Ok(()),
            // RFC 9110 §15.5.11: Standard Webhooks asks senders to stop then.
            Ok(410) => Err(Refused::for_good("it answered 410")),
            Ok(status) => Err(Refused::for_now(&format!("it answered {status}"))),
            Err(fault) => Err(Refused::for_now(&fault.to_string())),
        }
    }

    fn is_active(&self, tenant: &keybearer_contract::TenantId) -> bool {
        self.store.tenant(tenant).is_some_and(|record| record.state == TenantState::Active)
    }

    fn seal_body(&self, to: &Addressee, id: &str, body: Vec<u8>) -> Result<Vec<u8>, SealBroken> {
        let Some(tenant) = to.tenant() else { return Ok(body) };
        Ok(self.strongbox.seal_for_tenant(tenant, &context(id), &body)?.0.to_vec())
    }

    fn open_body(&self, notice: &NoticeRecord) -> Result<Vec<u8>, SealBroken> {
        let Some(tenant) = notice.to.tenant() else { return Ok(notice.body.clone()) };
        self.strongbox.open_for_tenant(tenant, &context(&notice.id), &Sealed(notice.body.clone().into()))
    }

    async fn note(&self, notice: &NoticeRecord, kind: ActKind, note: &str) {
        if self.record(act_of(notice, kind, note)).await.is_err() {
            tracing::error!(notice = %notice.id, "what became of a notice could not be recorded");
        }
    }
}

/// Tries what waits for one addressee, one after the other, until nothing does or the server goes down: what waits
/// then is tried after the next start.
async fn work(executor: Weak<Executor>, to: Addressee) {
    loop {
        let Some(held) = executor.upgrade() else { return };
        if held.stopping.load(Ordering::Acquire) {
            return;
        }
        match held.notices.next(&to) {
            Next::Over => return,
            Next::Wait(due, news) => {
                // Not held while it waits: a stop does not wait for a receiver that is away.
                drop(held);
                let _ = tokio::time::timeout_at(due, news.notified()).await;
            }
            Next::Try(notice) => {
                let Ok(_place) = held.notices.place(&to).await else { return };
                let Ok(_running) = held.running() else { return };
                held.try_notice(&notice).await;
            }
        }
    }
}

fn context(id: &str) -> String {
    format!("notice {id}")
}

fn act_of(notice: &NoticeRecord, kind: ActKind, note: &str) -> Act {
    let act = match &notice.to {
        Addressee::Operator => act::of_host(kind, &notice.id),
        Addressee::Tenant(tenant) => act::within(tenant, PrincipalLabel::host(), kind, &notice.id),
    };
    Act { note: note.to_owned(), ..act }
}

impl Notice {
    /// One of which there is no other.
    pub(crate) fn new(kind: &'static str, data: Value) -> Self {
        let id = format!("msg_{}", CallId::random().as_str().rsplit('_').next().unwrap_or_default());
        Self { id, kind, data, incident: None }
    }
}

impl NoticeTry {
    fn delivered(id: &str) -> Self {
        Self { id: id.to_owned(), at: UnixMillis::now(), state: "delivered", why: None }
    }

    fn put_off(id: &str, why: &str) -> Self {
        Self { state: "put_off", why: Some(why.to_owned()), ..Self::delivered(id) }
    }

    fn failed(id: &str, why: &str) -> Self {
        Self { state: "failed", why: Some(why.to_owned()), ..Self::delivered(id) }
    }

    fn is_delivered(&self) -> bool {
        self.state == "delivered"
    }
}

impl Refused {
    fn for_now(why: &str) -> Self {
        Self { why: why.to_owned(), is_final: false }
    }

    fn for_good(why: &str) -> Self {
        Self { why: why.to_owned(), is_final: true }
    }
}
