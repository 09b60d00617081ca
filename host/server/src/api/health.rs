//! `/healthz`, `/readyz` and `/metrics`, on the admin listener, without a token: they say nothing of
//! any tenant.

use std::sync::Arc;

use http::StatusCode;
use keybearer_contract::Problem;

use crate::api::App;
use crate::api::input::Input;
use crate::api::reply::Reply;

const TEXT: &str = "text/plain; charset=utf-8";

/// GET /healthz
pub(crate) async fn healthz(_app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    Ok(Reply::bytes(StatusCode::OK, TEXT, "ok\n"))
}

/// GET /readyz
pub(crate) async fn readyz(app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    Ok(match app.executor.ready() {
        Ok(()) => match app.executor.hooks_live_and_silent() {
            (_, 0) => Reply::bytes(StatusCode::OK, TEXT, "ready\n"),
            (live, silent) => {
                let of = live + silent;
                let sentence = format!(
                    "ready\n{silent} of {of} hooks are silent: what is fetched is used for a short time only\n"
                );
                Reply::bytes(StatusCode::OK, TEXT, sentence)
            }
        },
        Err(sentence) => Reply::bytes(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{sentence}\n")),
    })
}

/// GET /metrics
pub(crate) async fn metrics(app: Arc<App>, _input: Input) -> Result<Reply, Problem> {
    let hooks = app.executor.hooks_live_and_silent();
    let text = app.metrics.text(&app.executor.counters(), app.executor.ready().is_ok(), hooks);
    Ok(Reply::bytes(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text))
}
