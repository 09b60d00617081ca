//! `/v1/tenants` on the admin listener.

use std::sync::Arc;

use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_executor::NewTenant;
use keybearer_executor::NewToken;
use keybearer_gate::OperatorContext;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;
use crate::api::tokens;

/// POST /v1/tenants
pub(crate) async fn create(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let new: NewTenant = input.json(&app.limits).await?;
    Reply::created(&app.executor.create_tenant(&operator, new).await?)
}

/// GET /v1/tenants
pub(crate) async fn list(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.tenants(&operator))
}

/// POST /v1/tenants/{id}/suspend
pub(crate) async fn suspend(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: TenantId = input.parameter(0)?;
    Reply::ok(&app.executor.suspend_tenant(&operator, &id).await?)
}

/// DELETE /v1/tenants/{id}
pub(crate) async fn offboard(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: TenantId = input.parameter(0)?;
    Reply::ok(&app.executor.offboard_tenant(&operator, &id).await?)
}

/// POST /v1/tenants/{id}/activate
pub(crate) async fn activate(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: TenantId = input.parameter(0)?;
    Reply::ok(&app.executor.activate_tenant(&operator, &id).await?)
}

/// POST /v1/tenants/{id}/tokens
pub(crate) async fn issue_token(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: TenantId = input.parameter(0)?;
    let new: NewToken = input.json(&app.limits).await?;
    tokens::issued(app.executor.issue_tenant_token(&operator, &id, new).await?)
}
