//! Packages and keys on the admin listener.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_executor::PublishOptions;
use keybearer_executor::Rollback;
use keybearer_gate::OperatorContext;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// POST /v1/packages?allow_rollback=true&visible_to=ten_…,ten_…
pub(crate) async fn publish(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let options = options(&input)?;
    let bundle = input.octets(&app.limits, app.limits.package_bytes).await?;
    Reply::created(&app.executor.publish(&operator, bundle, options).await?)
}

fn options(input: &Input) -> Result<PublishOptions, Problem> {
    let refused = |detail: &str| Problem::new(Code::MalformedRequest, detail);
    let rollback = match input.query_value("allow_rollback") {
        None | Some("false") => Rollback::Refused,
        Some("true") => Rollback::Allowed,
        Some(_) => return Err(refused("allow_rollback is true or false")),
    };
    let visible_to = match input.query_value("visible_to") {
        None => None,
        Some(list) => {
            let ids: Result<Vec<TenantId>, _> = list.split(',').map(str::parse).collect();
            Some(ids.map_err(|_| refused("visible_to is a list of tenants' ids, with commas"))?)
        }
    };
    Ok(PublishOptions { rollback, visible_to })
}

/// GET /v1/packages
pub(crate) async fn packages(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.packages(&operator))
}

/// GET /v1/packages/{digest}
pub(crate) async fn package(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let digest: Digest = input.parameter(0)?;
    Reply::ok(&app.executor.package(&operator, &digest)?)
}

/// POST /v1/packages/{digest}/withdraw
pub(crate) async fn withdraw(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let digest: Digest = input.parameter(0)?;
    Reply::ok(&app.executor.withdraw(&operator, &digest).await?)
}

/// GET /v1/shared-values
pub(crate) async fn shared_values(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.shared_values(&operator))
}

/// GET /v1/audit
pub(crate) async fn audit(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::ok(&app.executor.audit(&operator).await?)
}

/// POST /v1/master-key/rotate
pub(crate) async fn rotate_master_key(
    app: Arc<App>,
    operator: OperatorContext,
    _input: Input,
) -> Result<Reply, Problem> {
    app.executor.rotate_master_key(&operator).await?;
    Ok(Reply::nothing())
}

/// POST /v1/tools/{name}/revoke
pub(crate) async fn revoke_tool(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let tool: ToolRef = input.parameter(0)?;
    Reply::ok(&app.executor.revoke_tool(&operator, &tool).await?)
}

/// POST /v1/tools/{name}/restore
pub(crate) async fn restore_tool(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let tool: ToolRef = input.parameter(0)?;
    app.executor.restore_tool(&operator, &tool).await?;
    Ok(Reply::nothing())
}

/// POST /v1/signers/{key}/revoke
pub(crate) async fn revoke_signer(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let signer: String = input.parameter(0)?;
    Reply::ok(&app.executor.revoke_signer(&operator, &signer).await?)
}
