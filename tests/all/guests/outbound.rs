//! What a guest may send, and what it may see of the answer. If one of these failed, a tool could carry
//! a tenant's credential away, reach what it was never allowed, or have us flood an upstream. The lists
//! of tricks are short here: the room of egress and its own cases have the long ones.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Traces;
use keybearer_tests::forms;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

use super::stage::Stage;
use super::stage::echo;
use super::stage::token;

/// What a guest saw: it was masked so that nothing on its way here took anything out.
fn unmask(masked: &Value) -> Vec<u8> {
    let text = masked.as_str().expect("what was heard is a text");
    hex::decode(text).expect("it is hex").into_iter().map(|byte| byte ^ 0x5a).collect()
}

/// Fails if there is a trace of alice's token in these bytes.
fn clean(stage: &Stage, what: &str, bytes: &[u8]) {
    let traces = Traces::of(&[("alice's token", &stage.secret)]).expect("it can be searched for");
    assert_eq!(traces.find(bytes), None, "in {what}");
}

/// The upstream that echoes, and at `/forms/N` says the token in the Nth form.
fn in_forms(request: &Recorded) -> Reply {
    let Some(name) = request.target.strip_prefix("/forms/") else { return echo(request) };
    let forms = forms(&token(request));
    let form = name.parse().ok().and_then(|index: usize| forms.get(index));
    let body = form.map(|form| form.text.clone()).unwrap_or_default();
    Reply { status: 200, headers: vec![("content-type".to_owned(), "text/plain".to_owned())], body }
}

#[tokio::test]
pub(super) async fn o1_no_byte_of_a_credential_reaches_a_guest() {
    let stage = Stage::start().await;
    for guest in ["echo_back", "gather"] {
        let request = json!({"method": "POST", "url": "https://upstream.test/o1", "body": "the guest's own"});
        let result = stage.result(guest, request).await;
        assert_eq!(result["outcome"], "200", "{guest}");
        let seen = unmask(&result["masked"]);
        assert!(seen.windows(15).any(|window| window == b"the guest's own"), "{guest} saw the echo");
        clean(&stage, guest, &seen);
    }
    // The upstream was asked with the token, so there was something to be taken out.
    let recorded = stage.upstream.recorded();
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|request| token(request) == stage.secret));
    // The memory of a guest that never asked holds nothing either.
    let result = stage.result("gather", json!({"url": "https://elsewhere.test/"})).await;
    assert_eq!(result["outcome"], "denied");
    clean(&stage, "idle memory", &unmask(&result["masked"]));
    clean(&stage, "the server's log", stage.server.log().as_bytes());
}

#[tokio::test]
pub(super) async fn o1_x_no_form_of_a_credential_can_be_carried_away() {
    let stage = Stage::start_with(ServerOptions::default(), |request| async move { in_forms(&request) }).await;
    let count = forms(&stage.secret).len();
    let names: Vec<_> = (0..count).map(|index| index.to_string()).collect();
    for names in names.chunks(12) {
        let heard = stage.result("exfiltrate", json!({"forms": names})).await;
        for one in heard.as_array().expect("one for each form") {
            let form = format!("form {}", one["form"]);
            assert_eq!((&one["outcome"], &one["carried"]), (&json!("200"), &json!("200")), "{form}");
            clean(&stage, &form, &unmask(&one["masked"]));
        }
    }
    assert_eq!(stage.upstream.recorded().len(), count);
    // What arrived elsewhere is what the guest saw; and no token of ours was on it.
    let taken = stage.open.recorded();
    assert_eq!(taken.len(), count);
    for request in taken {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        let masked = request.target.strip_prefix("/take?it=").expect("what was carried away");
        clean(&stage, &request.target, &unmask(&json!(masked)));
    }
}

#[tokio::test]
pub(super) async fn g_a_flood_of_requests_ends_at_the_limit() {
    let stage = Stage::start().await;
    let url = "https://upstream.test/flood";
    let outcomes = stage.result("requests_flood", json!({"url": url, "requests": 50})).await;
    let mut expected = vec!["200"; 32];
    expected.resize(50, "too many requests");
    assert_eq!(outcomes, json!(expected));
    assert_eq!(stage.upstream.recorded().len(), 32);
    // What is refused counts too: a guest cannot ask around without end.
    let elsewhere = json!({"url": "https://elsewhere.test/", "requests": 40});
    let mut expected = vec!["denied"; 32];
    expected.resize(40, "too many requests");
    assert_eq!(stage.result("requests_flood", elsewhere).await, json!(expected));
    // One body is too large; and 4 MiB in all are 16 of 256 KiB (their echo counts as well).
    let large = json!({"url": url, "requests": 1, "body_bytes": (256 << 10) + 1});
    assert_eq!(stage.result("requests_flood", large).await, json!(["request too large"]));
    stage.upstream.forget();
    let bytes = json!({"url": url, "requests": 20, "body_bytes": 256 << 10});
    let outcomes = stage.result("requests_flood", bytes).await;
    let outcomes: Vec<_> = outcomes.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(outcomes.last(), Some(&"too many bytes"), "{outcomes:?}");
    assert!(stage.upstream.recorded().len() < 16, "{}", stage.upstream.recorded().len());
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g_a_flood_at_once_is_bounded_in_width() {
    const WIDTH: usize = 4;
    let (here, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (present, reached, arrived) = (Arc::clone(&here), Arc::clone(&most), Arc::new(Notify::new()));
    let stage = Stage::start_with(ServerOptions::default(), move |request| {
        let (present, reached, arrived) = (Arc::clone(&present), Arc::clone(&reached), Arc::clone(&arrived));
        async move {
            let now = present.fetch_add(1, Ordering::SeqCst) + 1;
            reached.fetch_max(now, Ordering::SeqCst);
            if now >= WIDTH {
                arrived.notify_waiters();
            } else if reached.load(Ordering::SeqCst) < WIDTH {
                // Until as many as may be are here; the last ones of a call are never that many.
                let _ = tokio::time::timeout(Duration::from_secs(5), arrived.notified()).await;
            }
            present.fetch_sub(1, Ordering::SeqCst);
            echo(&request)
        }
    })
    .await;
    let args = json!({"url": "https://upstream.test/wide", "requests": 40});
    let outcomes = stage.result("parallel_flood", args).await;
    let mut expected = vec!["200"; 32];
    expected.resize(40, "too many requests");
    assert_eq!(outcomes, json!(expected), "answers stand in the order of the requests");
    assert_eq!(most.load(Ordering::SeqCst), WIDTH);
    assert_eq!(stage.upstream.recorded().len(), 32);
    let lots = json!({"url": "https://upstream.test/wide", "requests": 50_000});
    let answer = stage.call("parallel_flood", lots).await;
    assert!(matches!(answer.code().as_str(), "tool_limit" | ""), "{}", answer.text());
    stage.control().await;
}

#[tokio::test]
pub(super) async fn n27_answers_that_are_too_large_are_not_read_to_their_end() {
    let stage = Stage::start_with(ServerOptions::default(), |request| async move {
        let (body, coding) = match request.target.as_str() {
            "/plain" => (vec![b'x'; 64 << 20], None),
            // 64 MiB of zeros, and the same packed twice.
            "/gzip" => (gzip(&vec![0; 64 << 20]), Some("gzip")),
            "/nested" => (gzip(&gzip(&vec![0; 64 << 20])), Some("gzip, gzip")),
            "/half" => (vec![b'x'; 900 << 10], None),
            _ => return echo(&request),
        };
        let headers = coding.map(|coding| ("content-encoding".to_owned(), coding.to_owned())).into_iter().collect();
        Reply { status: 200, headers, body }
    })
    .await;
    let (before, _) = stage.size();
    for path in ["plain", "gzip", "nested"] {
        let args = json!({"url": format!("https://upstream.test/{path}"), "times": 2});
        let heard = stage.result("response_bomb", args).await;
        let refused = ["upstream: answer too large, maybe sent", "upstream: malformed answer, maybe sent"];
        for one in heard.as_array().expect("one for each") {
            assert!(refused.contains(&one[0].as_str().unwrap_or_default()), "{path}: {heard}");
            assert_eq!(one[1], 0);
        }
    }
    // Each is within the limit of one answer; all together are not.
    let args = json!({"url": "https://upstream.test/half", "times": 6});
    let heard = stage.result("response_bomb", args).await;
    let large = json!(["200", 900 << 10]);
    let heard = heard.as_array().expect("one for each");
    assert_eq!(heard[..4], vec![large; 4][..], "{heard:?}");
    assert_ne!(heard[4][0], "200", "{heard:?}");
    let (after, _) = stage.size();
    // Nothing like the 64 MiB of an answer stayed, and the pool keeps 16 guests' memory at the most.
    assert!(after < before + (128 << 10), "from {before} kB to {after} kB");
    stage.control().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[tokio::test]
pub(super) async fn n_urls_that_mean_another_place_are_refused() {
    let stage = Stage::start().await;
    let tricks = [
        ("https://elsewhere.test/", "denied"),
        ("https://upstream.test:8443/", "denied"),
        ("http://upstream.test/", "denied"),
        ("https://upstream.test@elsewhere.test/", "malformed url"),
        ("https://@upstream.test/", "malformed url"),
        ("https://elsewhere.test\\@upstream.test/", "malformed url"),
        ("https://upstream.test%2eelsewhere.test/", "malformed url"),
        ("https://upstream.test\t.elsewhere.test/", "malformed url"),
        ("https://upstream.test./", "malformed url"),
        ("https://UPSTREAM.test/", "malformed url"),
        ("https:upstream.test/", "malformed url"),
        ("https://upstream.test/a/../b", "malformed url"),
        ("https://upstream.test/a/%2e%2e/b", "malformed url"),
        ("https://upstream.test/a%2fb", "malformed url"),
        ("https://upstream.test/a?b=c\r\nx: y", "malformed url"),
        ("https://upstream.test/a#b", "malformed url"),
        ("https://127.0.0.1/", "malformed url"),
        ("https://0x7f.1/", "malformed url"),
        ("https://[::1]/", "malformed url"),
        ("file:///etc/passwd", "malformed url"),
        ("", "malformed url"),
    ];
    let (urls, expected): (Vec<_>, Vec<_>) = tricks.into_iter().unzip();
    let outcomes = stage.result("url_tricks", json!({"urls": urls})).await;
    assert_eq!(outcomes, json!(expected));
    assert_eq!(stage.upstream.recorded().len() + stage.open.recorded().len(), 0, "nothing was sent");
    stage.control().await;
}

#[tokio::test]
pub(super) async fn n19_n20_headers_that_are_not_the_guests_are_refused() {
    let stage = Stage::start().await;
    let tricks = [
        (json!([["authorization", "Bearer mine"]]), "denied"),
        (json!([["Authorization", "Bearer mine"]]), "denied"),
        (json!([["x-note", "a"], ["authorization", "b"]]), "denied"),
        (json!([["host", "elsewhere.test"]]), "denied"),
        (json!([["cookie", "a=b"]]), "denied"),
        (json!([["proxy-authorization", "Basic eA=="]]), "denied"),
        (json!([["connection", "authorization"]]), "denied"),
        (json!([["transfer-encoding", "chunked"]]), "denied"),
        (json!([["content-length", "1"]]), "denied"),
        (json!([["expect", "100-continue"]]), "denied"),
        (json!([["range", "bytes=0-1"]]), "denied"),
        (json!([["accept-encoding", "x-secret"]]), "denied"),
        (json!([["x-forwarded-for", "10.0.0.1"]]), "denied"),
        (json!([["x-note", "a\r\nauthorization: b"]]), "malformed header"),
        (json!([["x-note\r\nx", "a"]]), "malformed header"),
        (json!([["", "a"]]), "malformed header"),
        (json!([[":authority", "elsewhere.test"]]), "malformed header"),
        (json!([["x-note", "a"]]), "200"),
    ];
    let (requests, expected): (Vec<_>, Vec<_>) = tricks.into_iter().unzip();
    let args = json!({"url": "https://upstream.test/headers", "requests": requests});
    assert_eq!(stage.result("header_tricks", args).await, json!(expected));
    let recorded = stage.upstream.recorded();
    assert_eq!(recorded.len(), 1, "only the last one was sent");
    assert_eq!(recorded[0].header("x-note"), Some("a"));
    stage.control().await;
}

// A tool that calls the server it runs on could multiply itself, or reach the operator's listener from
// the inside. (Names that lead there by the operator's own pin are refused as well.)
#[tokio::test]
async fn g21_a_guest_cannot_reach_the_server_itself() {
    let mut stage = Stage::start().await;
    let (public, admin) = (stage.server.public().address(), stage.server.admin().address());
    let pins = format!("\"upstream.test:443\" = \"{public}\"\n\"open.test:443\" = \"{admin}\"\n");
    stage.restart(|server| {
        // The same ports again, and names that lead to them.
        let file = server.config_file();
        let text = std::fs::read_to_string(&file).expect("the configuration");
        let text = text.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{public}\""), 1);
        let text = text.replacen("listen = \"127.0.0.1:0\"", &format!("listen = \"{admin}\""), 1);
        let (front, back) = text.split_once("[egress.dangerous.pin]\n").expect("the table of pins");
        let back: String = back.lines().skip(2).map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, format!("{front}[egress.dangerous.pin]\n{pins}{back}")).expect("the configuration");
    });
    assert_eq!(stage.server.public().address(), public);
    for url in ["https://upstream.test/v1/tools", "https://open.test/v1/tenants"] {
        let answer = stage.call("echo_back", json!({"url": url})).await;
        assert_eq!(answer.json()["result"]["outcome"], "denied", "{url}: {}", answer.text());
        let call = answer.json()["call"].as_str().expect("the call's id").to_owned();
        let told = stage.alice.client.get(&format!("/v1/calls/{call}/explain")).await.expect("an answer");
        assert!(told.text().contains("this server itself"), "{}", told.text());
    }
    stage.control().await;
}
