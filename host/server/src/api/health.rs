//! `/healthz`, `/readyz` and `/metrics`, on the admin listener, without a token: they say nothing of
//! any tenant.

use std::sync::Arc;

use http::StatusCode;
use keybearer_contract::Problem;
use keybearer_executor::WorkloadState;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;
use crate::metrics::MEDIA_TYPE;

const TEXT: &str = "text/plain; charset=utf-8";

/// GET /healthz
pub(crate) async fn healthz(_app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    Ok(Reply::bytes(StatusCode::OK, TEXT, "ok\n"))
}

/// GET /readyz
pub(crate) async fn readyz(app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    Ok(match app.executor.ready() {
        Ok(()) => {
            let mut sentences = "ready\n".to_owned();
            let (live, silent) = app.executor.hooks_live_and_silent();
            if silent > 0 {
                let of = live + silent;
                sentences +=
                    &format!("{silent} of {of} hooks are silent: what is fetched is used for a short time only\n");
            }
            let (live, broken) = app.executor.subscriptions_live_and_broken();
            if broken > 0 {
                let of = live + broken;
                sentences += &format!(
                    "{broken} of {of} subscriptions are broken: what is fetched is used for a short time only\n"
                );
            }
            if let Some(workload) = app.executor.workload().filter(|workload| workload.state != WorkloadState::Live) {
                let held = workload.held;
                sentences +=
                    &format!("the Workload API gives nothing now: {held} identities are used until they end\n");
            }
            Reply::bytes(StatusCode::OK, TEXT, sentences)
        }
        Err(sentence) => Reply::bytes(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{sentence}\n")),
    })
}

/// GET /metrics
pub(crate) async fn metrics(app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    let watched = [app.executor.hooks_live_and_silent(), app.executor.subscriptions_live_and_broken()];
    let workload = app.executor.workload();
    let text = app.metrics.text(&app.executor.counters(), app.executor.ready().is_ok(), watched, workload);
    Ok(Reply::bytes(StatusCode::OK, MEDIA_TYPE, text))
}
