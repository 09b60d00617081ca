//! G15, G18, G19: what a guest says, in logs, in results and at its end. If one of these failed, a tool
//! could forge the operator's log, fill it, or crash whoever reads its result.

use serde_json::Value;
use serde_json::json;

use super::components::Written;
use super::stage::Stage;

/// Lines of a log that would fool somebody: a line of its own, another one's JSON, a terminal's commands,
/// text that runs backwards.
const FORGED: [&str; 5] = [
    "done\n2026-01-01T00:00:00Z ERROR forged-by-a-guest",
    "done\r\n{\"level\":\"ERROR\",\"message\":\"forged-by-a-guest\"}",
    "\u{1b}[2J\u{1b}[31mforged-by-a-guest\u{7}",
    "\u{202e}tseug-a-yb-degrof\u{2028}next",
    "a\0b",
];

/// Whether a text is one plain line.
fn is_one_line(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || matches!(character, '\u{2028}'..='\u{202e}'))
}

#[tokio::test]
pub(super) async fn g15_a_flood_of_log_lines_is_capped() {
    let stage = Stage::start().await;
    for (lines, bytes) in [(20_000, 100), (100_000, 0), (4, 2 << 20)] {
        let answer = stage.call("log_flood", json!({"lines": lines, "bytes": bytes})).await;
        assert_eq!(answer.status, 200, "{lines} x {bytes}: {}", answer.text());
        let body = answer.json();
        let logs = body["logs"].as_array().expect("the lines");
        let (last, logs) = logs.split_last().expect("a last line");
        assert!(last["message"].as_str().is_some_and(|text| text.contains("dropped")), "it says so: {last}");
        let kept: usize = logs.iter().map(|line| line["message"].as_str().map_or(0, str::len)).sum();
        assert!(kept <= 16 << 10, "{lines} x {bytes}: {kept} bytes were kept");
        assert!((1..=600).contains(&logs.len()), "{lines} x {bytes}: {} lines were kept", logs.len());
    }
    assert!(stage.server.log().len() < 64 << 10, "the server's own log is as it was");
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g15_no_log_line_forges_another() {
    let stage = Stage::start().await;
    let answer = stage.call("log_forge", json!({"lines": FORGED})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let logs = body["logs"].as_array().expect("the lines");
    assert_eq!(logs.len(), FORGED.len(), "one line for each: {logs:?}");
    for line in logs {
        let message = line["message"].as_str().expect("a message");
        assert!(is_one_line(message), "{message:?}");
    }
    let own = stage.server.log();
    assert!(!own.contains('\u{1b}'), "the server's log commands a terminal");
    assert!(!own.lines().any(|line| line.contains("ERROR forged")), "a line was forged: {own}");
}

#[tokio::test]
pub(super) async fn g18_a_result_that_is_too_large_or_too_deep_is_refused() {
    let stage = Stage::start().await;
    assert_eq!(stage.limit("big_result", json!({"bytes": 2 << 20})).await, "result_bytes");
    // Text and JSON of it do not fit into the guest together.
    assert_eq!(stage.limit("big_result", json!({"bytes": 12 << 20})).await, "memory_bytes");
    assert_eq!(stage.result("big_result", json!({"bytes": 1000})).await, "x".repeat(1000));
    // 100 000 lists in one another; as much as a parser's stack, if it were used for that.
    let deep = Written {
        memory: "(memory (export \"memory\") 8)".to_owned(),
        run: "(memory.fill (i32.const 65536) (i32.const 91) (i32.const 100000))
            (memory.fill (i32.const 165536) (i32.const 93) (i32.const 100000))
            (call $ok (i32.const 65536) (i32.const 200000))"
            .to_owned(),
        ..Written::default()
    };
    stage.accept("deep", &deep.bytes()).await;
    let answer = stage.alice.call("deep.run", json!({})).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (502, "result_invalid"), "{}", answer.text());
    // What two parsers read in two ways: one name twice.
    let broken = Written {
        items: "(data (i32.const 2048) \"{\\22a\\22:1,\\22a\\22:2}\")".to_owned(),
        run: "(call $ok (i32.const 2048) (i32.const 13))".to_owned(),
        ..Written::default()
    };
    stage.accept("broken", &broken.bytes()).await;
    let answer = stage.alice.call("broken.run", json!({})).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (502, "result_invalid"), "{}", answer.text());
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g19_what_a_guest_says_at_its_end_is_one_short_line() {
    let stage = Stage::start().await;
    let canary = keybearer_tests::canary("said-by-the-caller-");
    for (guest, code) in [("trap_text", "tool_trapped"), ("failed_text", "tool_failed")] {
        for text in FORGED {
            let answer = stage.call(guest, json!({"text": text, "times": 20_000})).await;
            assert_eq!((answer.status, answer.code().as_str()), (502, code), "{guest}");
            let body = answer.json();
            let detail = body["detail"].as_str().expect("a problem has a detail");
            assert!(detail.len() <= 1200, "{guest}: {} bytes", detail.len());
            assert!(is_one_line(detail), "{guest}: {detail:?}");
        }
        // A text that begins with what the upstream echoed: the body of the request, and the token.
        let ask = json!({"method": "POST", "url": "https://upstream.test/end", "body": canary});
        let answer = stage.call(guest, json!({"text": "the end", "times": 1, "ask": ask})).await;
        assert_eq!(answer.code(), code, "{}", answer.text());
        let token = stage.secret.as_str();
        assert!(!answer.text().contains(token), "{guest}: {}", answer.text());
    }
    let own = stage.server.log();
    assert!(!own.contains(&canary), "the server's log repeats what a guest said");
    assert!(!own.contains('\u{1b}') && !own.contains("ERROR forged"), "{own}");
    let folder = stage.server.home();
    assert!(!anywhere(&folder, canary.as_bytes()), "{} holds what a guest said", folder.display());
    stage.control().await;
}

// What a tool logged before it failed is what its author needs most; what he logged of an answer must
// not be the way out for a credential.
#[tokio::test]
pub(super) async fn g15_a_failed_call_has_its_log_lines_in_its_problem() {
    let stage = Stage::start().await;
    let ask = json!({"method": "POST", "url": "https://upstream.test/log", "body": "of-the-guest"});
    for (guest, code) in [("trap_text", "tool_trapped"), ("failed_text", "tool_failed")] {
        let arguments = json!({"text": "the end", "times": 1, "ask": ask, "log": true});
        let call = json!({"tool": format!("hostile.{guest}"), "arguments": arguments});
        let answer = stage.alice.client.post("/v1/calls", &call).await.expect("an answer");
        assert_eq!(answer.code(), code, "{}", answer.text());
        let body = answer.json();
        let logs = body["logs"].as_array().unwrap_or_else(|| panic!("{guest}: no lines: {body}"));
        let message = logs[0]["message"].as_str().expect("a message");
        assert_eq!(logs[0]["level"], "warn", "{guest}: {body}");
        // Who panics has his last words logged by the SDK, too.
        assert_eq!(logs.len(), if guest == "trap_text" { 2 } else { 1 }, "{guest}: {body}");
        assert!(message.contains("of-the-guest") && message.contains("the end"), "{guest}: {message}");
        assert!(is_one_line(message) && !answer.text().contains(&stage.secret), "{guest}: {message}");
        // Whoever submits MessagePack hears the same: a problem is JSON in either case.
        let packed = rmp_serde::to_vec_named(&call).expect("plain data");
        let headers = [("content-type", "application/msgpack"), ("accept", "application/msgpack")];
        let answer = stage.alice.client.send("POST", "/v1/calls", &headers, packed).await.expect("an answer");
        assert_eq!(answer.json()["logs"].as_array().map(Vec::len), Some(logs.len()), "{guest}: {}", answer.text());
    }
    let flood = json!({"text": "x".repeat(100), "times": 1000, "log": true});
    let body = stage.call("failed_text", flood).await.json();
    let logs = body["logs"].as_array().expect("the lines");
    let kept: usize = logs.iter().map(|line| line["message"].as_str().map_or(0, str::len)).sum();
    assert!((1 << 10..=17 << 10).contains(&kept), "within the manifest's log_bytes: {kept}");
    let document = stage.server.admin().get("/openapi.json").await.expect("an answer").json();
    let schemas = &document["components"]["schemas"];
    assert!(schemas["Problem"]["properties"]["logs"].is_object() && schemas["LogView"].is_object(), "{schemas}");
    // The command line shows them above its own sentence.
    let token = stage.server.folder().join("alice.token");
    std::fs::write(&token, &stage.alice.token).expect("a file");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
    let token = token.display().to_string();
    let said = r#"{"text": "the end", "times": 1, "log": true}"#;
    let arguments = ["call", "hostile.failed_text", "--args", said, "--token-file", &token];
    let (well, _, shown) = stage.server.cli(&arguments, b"").expect("it starts");
    let place = |text: &str| shown.find(text).unwrap_or_else(|| panic!("no `{text}`: {shown}"));
    assert!(!well && place("warn: the end") < place("tool_failed"), "{shown}");
    stage.control().await;
}

/// Whether these bytes stand in a file of the folder.
fn anywhere(folder: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("the folder").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return anywhere(&path, bytes);
        }
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

// Numbers, flags and relaxed operations that differ between machines would make a call's result a
// matter of where it ran.
#[tokio::test]
async fn g20_what_differs_between_machines_is_off() {
    let stage = Stage::start().await;
    let relaxed = Written {
        items: "(func (param v128 v128 v128) (result v128)
            (i32x4.relaxed_trunc_f32x4_s (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2))))"
            .to_owned(),
        ..Written::default()
    };
    let reason = stage.refuse(&relaxed.bytes()).await;
    assert!(reason.contains("relaxed"), "{reason}");
    // A NaN has one payload, whatever made it: 0x7fc00000, whose second byte is 0xc0.
    let nan = Written {
        run: "(if (i32.ne (i32.reinterpret_f32 (f32.div (f32.const 0) (f32.const 0))) (i32.const 0x7fc00000))
            (then (unreachable)))
            (if (i32.ne (i32.reinterpret_f32 (f32.add (f32.const nan:0x200001) (f32.const 1))) (i32.const 0x7fc00000))
            (then (unreachable)))
            (call $number (i32.const 1))"
            .to_owned(),
        ..Written::default()
    };
    stage.accept("nan", &nan.bytes()).await;
    let answer = stage.alice.call("nan.run", json!({})).await.expect("an answer");
    assert_eq!(answer.json()["result"], Value::from(1), "{}", answer.text());
}
