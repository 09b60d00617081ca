//! Spans to a collector: OTLP over HTTP, protobuf, by a client of a few lines. Only attributes of a list
//! leave; a span's name is one that this code chose. The exporter has a queue of its own that drops what
//! does not fit, so that a slow collector slows nobody down (threats A16, X15).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http::Response;
use opentelemetry_http::HttpClient;
use opentelemetry_http::HttpError;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_otlp::WithHttpConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::SpanData;
use opentelemetry_sdk::trace::SpanExporter;

use crate::cli::client::Connector;

/// Attributes that may leave. Ids, counts and words of ours.
const ATTRIBUTES: &[&str] = &[
    "route", "status", "tenant", "run", "call", "dispatch", "tool", "package", "version", "epoch", "attempt",
    "outcome", "code", "requests", "bytes", "busy_ns", "idle_ns", "level",
];

/// A provider that exports to this endpoint.
pub(super) fn provider(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let runtime = tokio::runtime::Handle::try_current().context("the exporter needs the runtime")?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
        .with_timeout(EXPORT_MAX)
        .with_http_client(Client { connector: Connector::public()?, runtime })
        .build()
        .context("telemetry.otlp_endpoint cannot be used")?;
    let resource = Resource::builder_empty().with_attribute(opentelemetry::KeyValue::new("service.name", "keybearer"));
    Ok(SdkTracerProvider::builder().with_batch_exporter(AllowListed(exporter)).with_resource(resource.build()).build())
}

/// How long one export may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);

/// Takes off what is not on the list.
#[derive(Debug)]
struct AllowListed<E>(E);

impl<E: SpanExporter> SpanExporter for AllowListed<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for span in &mut batch {
            strip(span);
        }
        self.0.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn strip(span: &mut SpanData) {
    span.attributes.retain(|attribute| ATTRIBUTES.contains(&attribute.key.as_str()));
    // Events are log lines: they stay on this machine.
    span.events.events.clear();
    span.status = match &span.status {
        opentelemetry::trace::Status::Error { .. } => opentelemetry::trace::Status::error(""),
        other => other.clone(),
    };
}

/// The exporter's HTTP client: one connection a batch, no redirects, no proxies.
struct Client {
    connector: Connector,
    runtime: tokio::runtime::Handle,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Client")
    }
}

impl HttpClient for Client {
    // What `#[async_trait]` would write.
    fn send_bytes<'client, 'future>(
        &'client self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'client: 'future,
        Self: 'future,
    {
        let connector = self.connector.clone();
        // The exporter's thread is none of the runtime's.
        let sent = self
            .runtime
            .spawn(async move { tokio::time::timeout(EXPORT_MAX, connector.send(request, ANSWER_BYTES_MAX)).await });
        Box::pin(async move { Ok(sent.await???) })
    }
}

/// A collector's answer is a few bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::KeyValue;
    use opentelemetry::trace::Span as _;
    use opentelemetry::trace::Tracer as _;
    use opentelemetry::trace::TracerProvider as _;

    #[derive(Debug, Clone, Default)]
    struct Kept(std::sync::Arc<parking_lot::Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn x15_only_listed_attributes_leave_and_no_events() {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(AllowListed(kept.clone())).build();
        let mut span = provider.tracer("t").start("request");
        span.set_attribute(KeyValue::new("route", "submit_call"));
        span.set_attribute(KeyValue::new("url", "https://x/?key=sk_live_canary"));
        span.add_event("sk_live_canary", vec![]);
        span.set_status(opentelemetry::trace::Status::error("sk_live_canary"));
        span.end();
        let spans = kept.0.lock();
        assert_eq!(spans[0].attributes, [KeyValue::new("route", "submit_call")]);
        assert!(!format!("{:?}", spans[0]).contains("canary"));
    }
}
