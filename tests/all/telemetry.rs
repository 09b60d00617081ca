//! What leaves for a collector: spans with listed attributes and nothing else; and that nobody waits for a
//! collector that is down or does not answer.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keybearer_tests::Reserved;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;

/// What a collector got: for each request its path and its body.
type Got = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

async fn collector() -> anyhow::Result<(SocketAddr, Got)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (address, got) = (listener.local_addr()?, Got::default());
    let kept = Arc::clone(&got);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec());
                    kept.lock().push((path, body.unwrap_or_default()));
                    Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
                }
            });
            tokio::spawn(async move {
                // A connection that breaks is the exporter's business.
                drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    Ok((address, got))
}

/// The length-delimited fields of a protobuf message with this number; others are passed over.
fn fields(message: &[u8], number: u64) -> anyhow::Result<Vec<&[u8]>> {
    fn varint(bytes: &mut &[u8]) -> anyhow::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first().context("a varint ends")?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        anyhow::bail!("a varint is too long")
    }
    let (mut rest, mut found) = (message, Vec::new());
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let length = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?)?,
            5 => 4,
            other => anyhow::bail!("wire type {other}"),
        };
        let (field, after) = rest.split_at_checked(length).context("a field is cut")?;
        if tag == number << 3 | 2 {
            found.push(field);
        }
        rest = after;
    }
    Ok(found)
}

fn text(message: &[u8], number: u64) -> anyhow::Result<String> {
    Ok(fields(message, number)?.first().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default())
}

/// The names of spans, and of their attributes; an event is counted as an attribute called `event`.
fn spans(body: &[u8]) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut names, mut attributes) = (BTreeSet::new(), BTreeSet::new());
    // opentelemetry/proto/trace/v1/trace.proto: resource_spans = 1, scope_spans = 2, spans = 2.
    for resource in fields(body, 1)? {
        for scope in fields(resource, 2)? {
            for span in fields(scope, 2)? {
                names.insert(text(span, 5)?);
                for attribute in fields(span, 9)? {
                    attributes.insert(text(attribute, 1)?);
                }
                if !fields(span, 11)?.is_empty() {
                    attributes.insert("event".to_owned());
                }
            }
        }
    }
    Ok((names, attributes))
}

/// What may leave: ids, counts and words of ours.
const ATTRIBUTES: &[&str] = &[
    "route", "status", "tenant", "run", "call", "dispatch", "tool", "package", "version", "epoch", "attempt",
    "outcome", "code", "requests", "bytes", "busy_ns", "idle_ns", "level",
];

#[tokio::test(flavor = "multi_thread")]
async fn x15_spans_arrive_with_listed_attributes_and_nothing_of_a_call_but_its_names() -> anyhow::Result<()> {
    // If this failed, a collector, which many people read, would hold arguments, URLs or credentials.
    let (address, got) = collector().await?;
    let config = format!("[telemetry]\nlevel = \"trace\"\notlp_endpoint = \"http://{address}/v1/traces\"");
    let mut site = Site::start_with(ServerOptions::default().with(&config)).await?;
    let holder = site.holder("acme").await?;
    let arguments = json!({"path": "/anything/in-the-path", "query": {"hidden": "in-the-query"}});
    let call = json!({"tool": "http-get.get", "arguments": arguments}).to_string().into_bytes();
    let headers = [
        ("content-type", "application/json"),
        ("baggage", "in=the-baggage"),
        ("tracestate", "in=the-state"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let answer = holder.tenant.client.send("POST", "/v1/calls", &headers, call).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let sent = &site.upstream.recorded()[0];
    let inbound = ["baggage", "tracestate", "traceparent"];
    assert!(inbound.iter().all(|name| sent.header(name).is_none()), "what came in does not go on: {sent:?}");
    holder.get("/anything/../climbs").await?;
    // A stop sends what is left.
    assert!(site.server.stop()?);
    let got = got.lock().clone();
    assert!(!got.is_empty() && got.iter().all(|(path, _)| path == "/v1/traces"), "{} exports", got.len());
    let (mut names, mut attributes) = (BTreeSet::new(), BTreeSet::new());
    for (_, body) in &got {
        let (some, theirs) = spans(body)?;
        names.extend(some);
        attributes.extend(theirs);
        for hidden in [
            holder.value.as_str(),
            &holder.tenant.token,
            site.server.operator_token(),
            "in-the-",
            "the-baggage",
            "the-state",
        ] {
            let found = body.windows(hidden.len()).any(|window| window == hidden.as_bytes());
            assert!(!found, "`{hidden}` left for the collector");
        }
    }
    assert!(["request", "call", "dispatch"].iter().all(|name| names.contains(*name)), "{names:?}");
    assert!(attributes.iter().all(|name| ATTRIBUTES.contains(&name.as_str())), "{attributes:?}");
    assert!(attributes.contains("route") && attributes.contains("call"), "{attributes:?}");
    let log = site.server.log();
    assert!(!log.contains(&holder.value) && !log.contains(&holder.tenant.token), "at the level `trace`, too");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_a_collector_that_is_down_or_silent_holds_nobody_up() -> anyhow::Result<()> {
    // If this failed, the observers' outage would be the customers' outage.
    let silent = TcpListener::bind("127.0.0.1:0").await?;
    let gone = Reserved::new()?;
    for endpoint in [silent.local_addr()?, gone.address()] {
        let config = format!("[telemetry]\notlp_endpoint = \"http://{endpoint}/v1/traces\"");
        let mut site = Site::start_with(ServerOptions::default().with(&config)).await?;
        let holder = site.holder_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
        let began = Instant::now();
        let calls = (0..100).map(|count| {
            let holder = &holder;
            async move { holder.get(&format!("/anything/{count}")).await }
        });
        for answer in futures_util::future::join_all(calls).await {
            let answer = answer?;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let stopping = Instant::now();
        assert!(site.server.stop()?);
        assert!(stopping.elapsed() < Duration::from_secs(10), "a stop is not held up: {:?}", stopping.elapsed());
    }
    Ok(())
}
