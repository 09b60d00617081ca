//! Notices: what the operator is told by a signed POST (Standard Webhooks) to the one place that he named. They
//! go out in the background, over TLS, to a vetted address, a bounded number of times, and nothing waits for
//! them. Not for tenants' hooks, which come in.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Duration;

use keybearer_contract::Code;
use keybearer_contract::HookId;
use keybearer_contract::Problem;
use keybearer_contract::Scheme;
use keybearer_contract::UnixMillis;
use keybearer_egress::Message;
use keybearer_egress::SendLimits;
use keybearer_gate::NotifyTarget;
use keybearer_gate::OperatorContext;
use keybearer_gate::Target;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
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

/// Where the operator wants to hear of incidents.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNotifyTarget {
    /// `https://host/path`. Not for secrets: what proves a notice is its signature.
    pub url: String,
}

/// Where the operator hears of incidents, without the secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NotifyView {
    /// The id of the setting: another secret has another id.
    #[schema(value_type = String)]
    pub id: HookId,
    /// Where.
    pub url: String,
    /// When it was set, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
}

/// One notice.
pub(crate) struct Notice {
    /// The same for every try, and never the same for two: the receiver tells repetitions by it.
    pub(crate) id: String,
    /// `thing.happened`.
    pub(crate) kind: &'static str,
    pub(crate) data: Value,
}

/// How long after one try comes the next: some ten minutes in all, as long as a restart of a receiver takes.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(180),
    Duration::from_secs(300),
];

/// A receiver takes a notice at once, and thinks about it later.
const TRY_MAX: Duration = Duration::from_secs(15);

/// What a receiver answers is not looked at.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

impl Executor {
    /// Says where the operator hears of incidents. The secret that signs is made anew and shown this once.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`] for anything but a canonical `https` URL.
    pub async fn set_notify(
        &self,
        operator: &OperatorContext,
        new: NewNotifyTarget,
    ) -> Result<(NotifyView, Zeroizing<String>), Problem> {
        let target: Target = new.url.parse().map_err(|why: keybearer_gate::NotCanonical| {
            Problem::new(Code::MalformedRequest, format!("`url` is not canonical: {why}"))
        })?;
        if target.destination().scheme() != Scheme::Https {
            return Err(Problem::new(Code::MalformedRequest, "`url` begins with https://"));
        }
        let id = HookId::random();
        let (sealed, text) = self.strongbox.new_notice_secret(&id);
        let record = NotifyTarget { id, url: new.url, created: UnixMillis::now(), sealed };
        let shown = view(&record);
        let turn = self.rows.turn().await;
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.set_notify_target(Some(record))).await?;
        drop(turn);
        self.notify_act(operator, ActKind::NotifyChanged, &shown.url).await?;
        Ok((shown, text))
    }

    /// Where the operator hears of incidents.
    ///
    /// # Errors
    /// [`Code::NotFound`] if nowhere.
    pub fn notify_target(&self, _operator: &OperatorContext) -> Result<NotifyView, Problem> {
        self.store.notify_target().map(|target| view(&target)).ok_or_else(Problem::not_found)
    }

    /// The operator wants to hear of nothing any more.
    ///
    /// # Errors
    /// [`Code::NotFound`] if that is so already.
    pub async fn remove_notify(&self, operator: &OperatorContext) -> Result<(), Problem> {
        let target = self.store.notify_target().ok_or_else(Problem::not_found)?;
        let store = Arc::clone(&self.store);
        crate::blocking(move || store.set_notify_target(None)).await?;
        self.notify_act(operator, ActKind::NotifyChanged, &target.url).await
    }

    /// Sends a notice in the background, as often as it takes within bounds; `told` hears whether it was taken.
    /// Without a target nothing happens.
    pub(crate) fn notify<F>(self: &Arc<Self>, notice: Notice, told: impl FnOnce(Arc<Self>, bool) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let executor = Arc::downgrade(self);
        tokio::spawn(async move {
            let is_taken = deliver(&executor, &notice).await;
            if let (Some(executor), Some(is_taken)) = (executor.upgrade(), is_taken) {
                told(executor, is_taken).await;
            }
        });
    }

    /// One try: whether it was taken.
    async fn tell(&self, target: &NotifyTarget, notice: &Notice) -> bool {
        match self.try_to_tell(target, notice).await {
            Ok(status) if (200..300).contains(&status) => true,
            Ok(status) => {
                tracing::warn!(notice = %notice.id, status, "a notice was not taken");
                false
            }
            Err(why) => {
                tracing::warn!(notice = %notice.id, why, "a notice could not be sent");
                false
            }
        }
    }

    async fn try_to_tell(&self, target: &NotifyTarget, notice: &Notice) -> Result<u16, String> {
        let deadline = Instant::now() + TRY_MAX;
        let place: Target = target.url.parse().map_err(|_| "its URL is not canonical".to_owned())?;
        let now = UnixMillis::now();
        let body = json!({ "type": notice.kind, "timestamp": now.to_utc(), "data": notice.data }).to_string();
        let timestamp = (now.0 / 1_000).to_string();
        let webhook = Webhook { id: &notice.id, timestamp: &timestamp, body: body.as_bytes() };
        let signature = self.strongbox.sign_notice(&target.id, &target.sealed, webhook);
        let signature = signature.map_err(|broken| broken.to_string())?;
        let fields = [
            ("content-type", "application/json"),
            ("user-agent", "keybearer"),
            ("webhook-id", &notice.id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        let message = Message::new(&place, &fields, body.into_bytes()).ok_or("its URL cannot be asked for")?;
        let vetted = self.egress.vet(place.destination(), deadline).await.map_err(|fault| fault.to_string())?;
        let limits = SendLimits { deadline, response_bytes: ANSWER_BYTES_MAX };
        self.egress.tell(&vetted, message, limits).await.map_err(|fault| fault.to_string())
    }

    async fn notify_act(&self, operator: &OperatorContext, kind: ActKind, url: &str) -> Result<(), Problem> {
        self.record(Act { note: destination_of(url), ..act::of_operator(operator, kind, "notices") }).await
    }
}

/// Whether it was taken; nothing if there is no target, or if the server goes down first: it is sent after the next
/// start then.
async fn deliver(executor: &Weak<Executor>, notice: &Notice) -> Option<bool> {
    {
        let executor = executor.upgrade()?;
        let target = executor.store.notify_target()?;
        // Recorded before its first byte, as everything that leaves.
        let sent = act::of_host(ActKind::NoticeSent, &notice.id);
        executor.record(Act { note: destination_of(&target.url), ..sent }).await.ok()?;
    }
    for pause in [None].into_iter().chain(PAUSES.map(Some)) {
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        let executor = executor.upgrade()?;
        let target = executor.store.notify_target()?;
        if executor.tell(&target, notice).await {
            return Some(true);
        }
    }
    let executor = executor.upgrade()?;
    tracing::error!(notice = %notice.id, "a notice was given up");
    if executor.record(act::of_host(ActKind::NoticeFailed, &notice.id)).await.is_err() {
        tracing::error!(notice = %notice.id, "that a notice was given up could not be recorded");
    }
    Some(false)
}

/// Scheme, host and port: some receivers have what they go by in the path.
fn destination_of(url: &str) -> String {
    url.parse::<Target>().map(|target| target.destination().to_string()).unwrap_or_default()
}

fn view(record: &NotifyTarget) -> NotifyView {
    NotifyView { id: record.id.clone(), url: record.url.clone(), created: record.created }
}
