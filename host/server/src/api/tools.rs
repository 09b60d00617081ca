//! `/v1/tools`: what a tenant may call.

use std::sync::Arc;

use keybearer_contract::Problem;
use keybearer_contract::ToolRef;
use keybearer_gate::TenantContext;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// GET /v1/tools
pub(crate) async fn list(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.tools(&context)?)
}

/// GET /v1/tools/{name}
pub(crate) async fn get(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let name: ToolRef = input.parameter(0)?;
    Reply::ok(&app.executor.tool(&context, &name)?)
}
