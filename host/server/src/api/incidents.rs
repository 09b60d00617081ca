//! `/v1/incidents` on the admin listener, and a tenant's own incidents on the public one.

use std::sync::Arc;

use http::StatusCode;
use http::header;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_executor::CloseIncident;
use keybearer_executor::ExposureReport;
use keybearer_executor::NewIncident;
use keybearer_executor::NewOwnIncident;
use keybearer_gate::OperatorContext;
use keybearer_gate::Scope;
use keybearer_gate::TenantContext;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

/// POST /v1/incidents
pub(crate) async fn open(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let new: NewIncident = input.json(&app.limits).await?;
    Reply::created(&app.executor.open_incident(&operator, new).await?)
}

/// GET /v1/incidents
pub(crate) async fn list(app: Arc<App>, operator: OperatorContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.incidents(&operator))
}

/// GET /v1/incidents/{id}
pub(crate) async fn get(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: IncidentId = input.parameter(0)?;
    Reply::ok(&app.executor.incident(&operator, &id)?)
}

/// GET /v1/incidents/{id}/report
pub(crate) async fn report(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: IncidentId = input.parameter(0)?;
    in_form(&input, &app.executor.incident_report(&operator, &id).await?)
}

/// A page for people, where that is asked for.
fn in_form(input: &Input, report: &ExposureReport) -> Result<Reply, Problem> {
    let accept = input.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wants_page = accept.split([',', ';']).any(|part| part.trim().eq_ignore_ascii_case("text/html"));
    if wants_page {
        return Ok(Reply::bytes(StatusCode::OK, "text/html; charset=utf-8", report.page()));
    }
    Reply::ok(report)
}

/// POST /v1/incidents/{id}/close
pub(crate) async fn close(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: IncidentId = input.parameter(0)?;
    let close: CloseIncident = input.json(&app.limits).await?;
    Reply::ok(&app.executor.close_incident(&operator, &id, close).await?)
}

/// POST /v1/own/incidents
pub(crate) async fn open_own(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    context.require(Scope::Audit)?;
    let new: NewOwnIncident = input.json(&app.limits).await?;
    Reply::created(&app.executor.open_own_incident(&context, new).await?)
}

/// GET /v1/own/incidents
pub(crate) async fn list_own(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.own_incidents(&context)?)
}

/// GET /v1/own/incidents/{id}
pub(crate) async fn get_own(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    Reply::ok(&app.executor.own_incident(&context, &own_id(&context, &input)?)?)
}

/// GET /v1/own/incidents/{id}/report
pub(crate) async fn report_own(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id = own_id(&context, &input)?;
    in_form(&input, &app.executor.own_incident_report(&context, &id).await?)
}

/// POST /v1/own/incidents/{id}/close
pub(crate) async fn close_own(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id = own_id(&context, &input)?;
    let close: CloseIncident = input.json(&app.limits).await?;
    Reply::ok(&app.executor.close_own_incident(&context, &id, close).await?)
}

/// The incident that a path names. Who lacks the scope hears that of what cannot exist, too.
fn own_id(context: &TenantContext, input: &Input) -> Result<IncidentId, Problem> {
    context.require(Scope::Audit)?;
    input.parameter(0)
}
