//! `/v1/tokens`: a tenant's API tokens. The token itself is in one answer, once.

use std::sync::Arc;

use keybearer_contract::Problem;
use keybearer_contract::TokenId;
use keybearer_executor::NewToken;
use keybearer_executor::TokenView;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// A token that was issued. No `Debug`: it holds the token.
#[derive(Serialize, ToSchema)]
#[schema(as = IssuedToken)]
pub(crate) struct IssuedBody {
    /// What is kept of it.
    #[serde(flatten)]
    view: TokenView,
    /// The token, shown this once.
    #[schema(value_type = String)]
    #[serde(serialize_with = "plain")]
    text: Zeroizing<String>,
}

fn plain<S: serde::Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// The answer to an issued token.
pub(crate) fn issued(issued: (TokenView, Zeroizing<String>)) -> Result<Reply, Problem> {
    let (view, text) = issued;
    Reply::created(&IssuedBody { view, text })
}

/// Who is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NamedPrincipal)]
pub(crate) struct PrincipalBody {
    /// `jwt:ISSUER#SUBJECT`, `spiffe://…`, or the label of tokens.
    principal: String,
}

/// POST /v1/principals/revoke
pub(crate) async fn revoke_principal(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let body: PrincipalBody = input.json(&app.limits).await?;
    Reply::ok(&app.executor.revoke_principal(&context, &body.principal).await?)
}

/// POST /v1/principals/restore
pub(crate) async fn restore_principal(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let body: PrincipalBody = input.json(&app.limits).await?;
    app.executor.restore_principal(&context, &body.principal).await?;
    Ok(Reply::nothing())
}

/// POST /v1/tokens
pub(crate) async fn issue(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let new: NewToken = input.json(&app.limits).await?;
    issued(app.executor.issue_token(&context, new).await?)
}

/// GET /v1/tokens
pub(crate) async fn list(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.tokens(&context)?)
}

/// POST /v1/tokens/{id}/revoke
pub(crate) async fn revoke(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: TokenId = input.parameter(0)?;
    Reply::ok(&app.executor.revoke_token(&context, &id).await?)
}
