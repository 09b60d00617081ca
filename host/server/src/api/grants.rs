//! `/v1/grants`: which credential fills which slot of which package.

use std::sync::Arc;

use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::Problem;
use keybearer_executor::NewGrant;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// What is approved.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApproveGrant)]
pub(crate) struct ApproveBody {
    /// The digest that `differences` named.
    #[schema(value_type = String)]
    digest: Digest,
}

/// POST /v1/grants
pub(crate) async fn give(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let new: NewGrant = input.json(&app.limits).await?;
    Reply::created(&app.executor.give_grant(&context, new).await?)
}

/// GET /v1/grants
pub(crate) async fn list(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.grants(&context)?)
}

/// GET /v1/grants/{id}/differences
pub(crate) async fn differences(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: GrantId = input.parameter(0)?;
    Reply::ok(&app.executor.grant_differences(&context, &id)?)
}

/// POST /v1/grants/{id}/approve
pub(crate) async fn approve(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: GrantId = input.parameter(0)?;
    let body: ApproveBody = input.json(&app.limits).await?;
    Reply::ok(&app.executor.approve_grant(&context, &id, body.digest).await?)
}

/// DELETE /v1/grants/{id}
pub(crate) async fn take(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: GrantId = input.parameter(0)?;
    Reply::ok(&app.executor.take_grant(&context, &id).await?)
}
