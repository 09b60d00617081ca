//! `/v1/incidents` on the admin listener.

use std::sync::Arc;

use http::StatusCode;
use http::header;
use keybearer_contract::IncidentId;
use keybearer_contract::Problem;
use keybearer_executor::CloseIncident;
use keybearer_executor::NewIncident;
use keybearer_gate::OperatorContext;

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
    let accept = input.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wants_page = accept.split([',', ';']).any(|part| part.trim().eq_ignore_ascii_case("text/html"));
    let report = app.executor.incident_report(&operator, &id).await?;
    if wants_page {
        return Ok(Reply::bytes(StatusCode::OK, "text/html; charset=utf-8", report.page()));
    }
    Reply::ok(&report)
}

/// POST /v1/incidents/{id}/close
pub(crate) async fn close(app: Arc<App>, operator: OperatorContext, input: Input) -> Result<Reply, Problem> {
    let id: IncidentId = input.parameter(0)?;
    let close: CloseIncident = input.json(&app.limits).await?;
    Reply::ok(&app.executor.close_incident(&operator, &id, close).await?)
}
