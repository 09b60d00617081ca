//! `/v1/notices` and, on the admin listener, `/v1/notify`: where a tenant and the operator want their notices. The
//! secret that signs them is in one answer, once.

use std::sync::Arc;

use keybearer_contract::Problem;
use keybearer_executor::NewNotices;
use keybearer_executor::NoticesView;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantContext;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// Where notices go from now on. No `Debug`: it holds the secret.
#[derive(Serialize, ToSchema)]
#[schema(as = NoticesSet)]
pub(crate) struct SetBody {
    /// What is kept of it.
    #[serde(flatten)]
    view: NoticesView,
    /// The secret, `whsec_…`, shown this once.
    #[schema(value_type = String)]
    #[serde(serialize_with = "plain")]
    text: Zeroizing<String>,
}

fn plain<S: serde::Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// PUT /v1/notices
pub(crate) async fn set(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let new: NewNotices = input.json(&app.limits).await?;
    let (view, text) = app.executor.set_notices(&context, new).await?;
    Reply::ok(&SetBody { view, text })
}

/// GET /v1/notices
pub(crate) async fn get(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::ok(&app.executor.notices_of(&context)?)
}

/// POST /v1/notices/test
pub(crate) async fn test(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    app.executor.test_notices(&context).await?;
    Ok(Reply::nothing())
}

/// DELETE /v1/notices
pub(crate) async fn remove(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    app.executor.remove_notices(&context).await?;
    Ok(Reply::nothing())
}

/// PUT /v1/notify
pub(crate) async fn set_operators(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let new: NewNotices = input.json(&app.limits).await?;
    let (view, text) = app.executor.set_notify(&operator, new).await?;
    Reply::ok(&SetBody { view, text })
}

/// GET /v1/notify
pub(crate) async fn get_operators(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::ok(&app.executor.notify_target(&operator)?)
}

/// DELETE /v1/notify
pub(crate) async fn remove_operators(
    app: Arc<App>,
    operator: OperatorContext,
    _input: Input,
) -> Result<Reply, Problem> {
    app.executor.remove_notify(&operator).await?;
    Ok(Reply::nothing())
}
