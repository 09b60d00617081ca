//! Numbers for Prometheus. Labels are words that this code chose: routes of the table, classes of
//! status, codes of problems. Never a tenant, a host, a path or a tool (threats X16).

use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use keybearer_executor::Counters;
use keybearer_executor::WorkloadState;
use keybearer_executor::WorkloadView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// As what they are served (OpenMetrics 1.0).
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted at the listeners.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    calls_s: Histogram,
    unauthenticated: Counter,
    connections: Gauge,
    connections_refused: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    class: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // From half a millisecond, which an idle machine needs for a call, to the ceiling of a call.
        let buckets = [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
        let metrics = Self {
            registry: Registry::with_prefix("keybearer"),
            requests: Family::default(),
            calls_s: Histogram::new(buckets),
            unauthenticated: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests that were answered", self.requests.clone());
        registry.register("http_call_seconds", "Time from a call's head to its answer", self.calls_s.clone());
        registry.register("http_unauthenticated", "Requests without valid credentials", self.unauthenticated.clone());
        registry.register("http_connections", "Open connections", self.connections.clone());
        registry.register(
            "http_connections_refused",
            "Connections that were closed at once, over a cap",
            self.connections_refused.clone(),
        );
        self
    }

    /// A request was answered. The route is a name of the table, or `none`.
    pub(crate) fn answered(&self, route: &'static str, status: StatusCode, after: Duration) {
        let class = match status.as_u16() / 100 {
            2 => "2xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        };
        self.requests.get_or_create(&Answered { route, class }).inc();
        if route == "submit_call" {
            self.calls_s.observe(after.as_secs_f64());
        }
    }

    pub(crate) fn unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.inc();
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.dec();
    }

    pub(crate) fn connection_refused(&self) {
        self.connections_refused.inc();
    }

    /// The numbers as OpenMetrics text, with those of the executor.
    pub(crate) fn text(
        &self,
        counters: &Counters,
        ready: bool,
        watched: [(u64, u64); 2],
        workload: Option<WorkloadView>,
    ) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::warn!("the metrics could not be written");
        }
        let own = text.trim_end().strip_suffix("# EOF").map(str::len);
        text.truncate(own.unwrap_or(text.len()));
        write_counters(&mut text, counters, ready, watched);
        if let Some(workload) = workload {
            write_workload(&mut text, workload);
        }
        text.push_str("# EOF\n");
        text
    }
}

/// How it stands with the host's own identities.
fn write_workload(text: &mut String, workload: WorkloadView) {
    let live = u64::from(workload.state == WorkloadState::Live);
    let WorkloadView { held, over, .. } = workload;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# HELP keybearer_workload_api_live Whether the stream of the Workload API is open.\n\
         # TYPE keybearer_workload_api_live gauge\nkeybearer_workload_api_live {live}\n\
         # HELP keybearer_svids X.509-SVIDs of this host.\n# TYPE keybearer_svids gauge\n\
         keybearer_svids{{state=\"held\"}} {held}\nkeybearer_svids{{state=\"over\"}} {over}\n"
    );
}

fn write_counters(text: &mut String, counters: &Counters, ready: bool, [hooks, subscriptions]: [(u64, u64); 2]) {
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, u64)]| {
        let name = format!("keybearer_{name}");
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{suffix}{labels} {value}");
        }
    };
    let mut calls = vec![("{outcome=\"succeeded\"}".to_owned(), counters.calls_succeeded)];
    let failed = counters.calls_failed.iter().filter(|(_, count)| *count > 0);
    calls.extend(failed.map(|(code, count)| (format!("{{outcome=\"{}\"}}", code.as_str()), *count)));
    family("calls", "counter", "Calls that ended", &calls);
    let dispatches = [
        ("{outcome=\"answered\"}".to_owned(), counters.dispatches_answered),
        ("{outcome=\"refused\"}".to_owned(), counters.dispatches_refused),
    ];
    family("dispatches", "counter", "Outbound requests", &dispatches);
    let signatures = [(String::new(), counters.signatures)];
    family("signatures", "counter", "Signatures that were made for guests", &signatures);
    family(
        "reflected",
        "counter",
        "Values of credentials that were taken out of answers",
        &[(String::new(), counters.reflected)],
    );
    family("calls_running", "gauge", "Calls that run now", &[(String::new(), counters.calls_running)]);
    let notices = [
        ("{outcome=\"delivered\"}".to_owned(), counters.notices_delivered),
        ("{outcome=\"put_off\"}".to_owned(), counters.notices_put_off),
        ("{outcome=\"failed\"}".to_owned(), counters.notices_failed),
    ];
    family("notice_tries", "counter", "Tries of notices, and notices that were given up", &notices);
    let waiting = [(String::new(), counters.notices_waiting)];
    family("notices_waiting", "gauge", "Notices that wait to be taken", &waiting);
    let hooks = [("{state=\"live\"}".to_owned(), hooks.0), ("{state=\"silent\"}".to_owned(), hooks.1)];
    family("hooks", "gauge", "Hooks that promised to be heard of", &hooks);
    let subscriptions =
        [("{state=\"live\"}".to_owned(), subscriptions.0), ("{state=\"broken\"}".to_owned(), subscriptions.1)];
    family("subscriptions", "gauge", "Sources that tell of changes by themselves", &subscriptions);
    family("ready", "gauge", "Whether calls can be taken", &[(String::new(), u64::from(ready))]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x16_the_text_is_well_formed_and_has_only_known_labels() {
        let metrics = Metrics::new();
        metrics.answered("submit_call", StatusCode::OK, Duration::from_millis(3));
        metrics.answered("none", StatusCode::NOT_FOUND, Duration::ZERO);
        let text = metrics.text(&Counters { calls_succeeded: 7, ..Counters::default() }, true, [(1, 2), (3, 4)], None);
        assert!(text.ends_with("keybearer_ready 1\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        assert!(text.contains("keybearer_http_requests_total{route=\"submit_call\",class=\"2xx\"} 1"), "{text}");
        assert!(text.contains("keybearer_calls_total{outcome=\"succeeded\"} 7"), "{text}");
        for line in text.lines().filter(|line| line.contains('{')) {
            let label = line.split(['{', '=']).nth(1).expect("a label");
            assert!(["route", "outcome", "state", "le"].contains(&label), "{line}");
        }
    }
}
