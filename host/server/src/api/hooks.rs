//! `/v1/hooks`: where sources outside say that something changed. A hook's secret is in one answer, once;
//! events come signed by it and without any other proof.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::HookId;
use keybearer_contract::Problem;
use keybearer_executor::HookView;
use keybearer_executor::NewHook;
use keybearer_executor::Received;
use keybearer_gate::TenantContext;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// A hook that was made. No `Debug`: it holds the secret.
#[derive(Serialize, ToSchema)]
#[schema(as = MadeHook)]
pub(crate) struct MadeBody {
    /// What is kept of it.
    #[serde(flatten)]
    view: HookView,
    /// The secret, `whsec_…`, shown this once.
    #[schema(value_type = String)]
    #[serde(serialize_with = "plain")]
    text: Zeroizing<String>,
}

fn plain<S: serde::Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Events are short: a name, or what a cloud's bus makes of one call.
const EVENT_BYTES_MAX: u64 = 64 << 10;

/// POST /v1/hooks
pub(crate) async fn make(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let new: NewHook = input.json(&app.limits).await?;
    let (view, text) = app.executor.make_hook(&context, new).await?;
    Reply::created(&MadeBody { view, text })
}

/// GET /v1/hooks
pub(crate) async fn list(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.hooks(&context)?)
}

/// DELETE /v1/hooks/{id}
pub(crate) async fn remove(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: HookId = input.parameter(0)?;
    app.executor.remove_hook(&context, &id).await?;
    Ok(Reply::nothing())
}

/// POST /v1/hooks/{id}/events
pub(crate) async fn receive(app: Arc<App>, input: Input) -> Result<Reply, Problem> {
    // What does not parse as an id is unknown, and answered as a wrong signature is.
    let hook: Option<HookId> = input.parameter(0).ok();
    let field = |name| {
        let mut values = input.headers().get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().map(str::to_owned).ok(),
            _ => None,
        }
    };
    let fields = (field("webhook-id"), field("webhook-timestamp"), field("webhook-signature"));
    let (Some(id), Some(timestamp), Some(signatures)) = fields else {
        return Err(Problem::new(
            Code::Unauthenticated,
            "send webhook-id, webhook-timestamp and webhook-signature, each once",
        ));
    };
    let body = input.bytes(&app.limits, EVENT_BYTES_MAX).await?;
    let received = Received { id: &id, timestamp: &timestamp, signatures: &signatures, body: &body };
    Reply::ok(&app.executor.receive(hook, received).await?)
}
