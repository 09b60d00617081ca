//! The inventory: a tenant's own, and the operator's of all tenants.

use std::sync::Arc;

use keybearer_contract::Problem;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantContext;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// GET /v1/inventory
pub(crate) async fn of_tenant(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.inventory(&context)?)
}

/// GET /v1/inventory/all
pub(crate) async fn of_all(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.inventory_of_all(&operator, &app.verifiers.configured()))
}
