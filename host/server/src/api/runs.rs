//! `/v1/runs`: an agent's runs, from opening to end, and their checkpoints. JSON or MessagePack, as calls.

use std::sync::Arc;

use http::StatusCode;
use keybearer_contract::AgentName;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_executor::NewRun;
use keybearer_executor::RunView;
use keybearer_gate::RunCheckpoint;
use keybearer_gate::RunEnd;
use keybearer_gate::Scope;
use keybearer_gate::SignedCheckpoint;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::api::App;
use crate::api::body;
use crate::api::input::Form;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// A run that was opened or resumed. No `Debug`: it holds the token.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenedRun)]
pub(crate) struct OpenedBody {
    /// The run.
    #[serde(flatten)]
    view: RunView,
    /// The run's token, shown this once: calls name their run by it and in no other way.
    #[schema(value_type = String)]
    #[serde(serialize_with = "plain")]
    token: Zeroizing<String>,
}

fn plain<S: serde::Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// A run's checkpoint: to be kept as it is, and given back whole.
#[derive(Serialize, ToSchema)]
#[schema(as = RunCheckpoint)]
pub(crate) struct CheckpointBody {
    /// What the run is: references, names and times, never a value.
    #[schema(value_type = Object)]
    checkpoint: RunCheckpoint,
    /// Says that it is whole, and whose: 64 hex digits.
    mac: String,
}

/// An agent, by the name that it opens runs as.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NamedAgent)]
pub(crate) struct AgentBody {
    /// The name.
    #[schema(value_type = String)]
    agent: AgentName,
}

/// POST /v1/agents/revoke
pub(crate) async fn revoke_agent(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    context.require(Scope::Runs)?;
    let body: AgentBody = input.json(&app.limits).await?;
    Reply::ok(&app.executor.revoke_agent(&context, &body.agent).await?)
}

/// POST /v1/agents/restore
pub(crate) async fn restore_agent(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    context.require(Scope::Runs)?;
    let body: AgentBody = input.json(&app.limits).await?;
    app.executor.restore_agent(&context, &body.agent).await?;
    Ok(Reply::nothing())
}

/// POST /v1/runs
pub(crate) async fn open(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let accepts = input.accepts();
    let text = input.json_text(&app.limits).await?;
    let new: NewRun = body::parse(&text, app.limits.json_depth)?;
    opened(accepts, app.executor.open_run(&context, new).await?)
}

/// GET /v1/runs
pub(crate) async fn list(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    #[derive(Serialize)]
    struct Items {
        items: Vec<RunView>,
    }
    Reply::in_form(input.accepts(), StatusCode::OK, &Items { items: app.executor.runs(&context)? })
}

/// GET /v1/runs/{id}
pub(crate) async fn get(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id = id(&context, &input)?;
    Reply::in_form(input.accepts(), StatusCode::OK, &app.executor.run_of(&context, &id)?)
}

/// POST /v1/runs/{id}/end
pub(crate) async fn end(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    over(&app, &context, &input, RunEnd::Finished).await
}

/// POST /v1/runs/{id}/abort
pub(crate) async fn abort(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    over(&app, &context, &input, RunEnd::Aborted).await
}

async fn over(app: &Arc<App>, context: &TenantContext, input: &Input, how: RunEnd) -> Result<Reply, Problem> {
    let id = id(context, input)?;
    Reply::in_form(input.accepts(), StatusCode::OK, &app.executor.end_run(context, &id, how).await?)
}

/// POST /v1/runs/{id}/checkpoint
pub(crate) async fn checkpoint(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id = id(&context, &input)?;
    let SignedCheckpoint { checkpoint, mac } = app.executor.checkpoint_run(&context, &id).await?;
    Reply::in_form(input.accepts(), StatusCode::OK, &CheckpointBody { checkpoint, mac })
}

/// POST /v1/runs/resume
pub(crate) async fn resume(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    context.require(Scope::Runs)?;
    let accepts = input.accepts();
    let text = input.json_text(&app.limits).await?;
    body::check(&text, app.limits.json_depth)?;
    // What is no checkpoint of ours is refused as one that was changed: a caller who edits it learns nothing.
    let Ok(signed) = serde_json::from_slice::<SignedCheckpoint>(&text) else {
        return Err(app.executor.refuse_checkpoint(&context).await);
    };
    opened(accepts, app.executor.resume_run(&context, &signed).await?)
}

fn opened(accepts: Form, (view, token): (RunView, Zeroizing<String>)) -> Result<Reply, Problem> {
    Reply::in_form(accepts, StatusCode::CREATED, &OpenedBody { view, token })
}

/// The run that a path names. What does not parse cannot exist; who lacks the scope hears that of it, too.
fn id(context: &TenantContext, input: &Input) -> Result<RunId, Problem> {
    input.parameter(0).map_err(|unknown| context.require(Scope::Runs).err().unwrap_or(unknown))
}
