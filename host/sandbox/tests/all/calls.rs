//! What a well-behaved guest sees: its arguments, its imports, its log. If these fail, no tool works.

use std::sync::Arc;
use std::sync::Mutex;

use keybearer_contract::Delivery;
use keybearer_contract::Limits;
use keybearer_contract::Method;
use keybearer_sandbox::DescribeFailed;
use keybearer_sandbox::GuestFault;
use keybearer_sandbox::LogLevel;
use keybearer_sandbox::Stop;
use keybearer_sandbox::UpstreamReason;

use crate::support::Answer;
use crate::support::Bench;
use crate::support::Door;
use crate::support::HEX;
use crate::support::core;
use crate::support::echo;
use crate::support::encode;
use crate::support::guest;

/// `GET https://a.test/` without headers, and the answer at 128: the body as the result, or the error's
/// first two bytes in hexadecimal.
pub(crate) const SEND: &str = r#"
  (data (i32.const 256) "https://a.test/")
  (func $get
    (call $send (i32.const 0) (i32.const 256) (i32.const 15) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 128)))
  (func $answer (result i32)
    (if (result i32) (i32.load8_u (i32.const 128))
      (then
        (call $hex (i64.extend_i32_u (i32.load16_u (i32.const 132))) (i32.const 300))
        (call $failed (i32.const 312) (i32.const 4)))
      (else (call $ok (i32.load (i32.const 144)) (i32.load (i32.const 148))))))"#;

fn getter() -> Vec<u8> {
    guest(&format!("{HEX}{SEND}"), "(call $get) (call $answer)")
}

#[tokio::test]
async fn a_guest_is_given_its_arguments_and_its_result_comes_back() {
    let bench = Bench::new();
    let ended = bench.run(&echo()).await;
    assert_eq!(ended.outcome.as_deref(), Ok("{}"));
    assert_eq!(ended.memory_peak, 2 << 16);
    assert_eq!(ended.facts.tool.to_string(), "pack.run");
    assert!(ended.logs.is_empty());
}

#[tokio::test]
async fn the_guest_is_told_the_tool_that_was_permitted() {
    let ended = Bench::new().run(&guest("", "(call $ok (local.get $tp) (local.get $tl))")).await;
    assert_eq!(ended.outcome.as_deref(), Ok("run"));
}

#[tokio::test]
async fn a_request_reaches_the_outlet_as_it_was_said_and_the_answer_comes_back() {
    let bench = Bench::new();
    let tool = bench.load(&getter()).await;
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let door = Door::new(move |request, sender| {
        *keep.lock().unwrap() = Some(request);
        drop(sender.send(Ok(Answer((200, vec![("etag".into(), b"1".to_vec())], b"[1]".to_vec())))));
    });
    let ended = bench.instance(&tool, door.clone(), bench.limits).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome.as_deref(), Ok("[1]"));
    let request = seen.lock().unwrap().take().expect("a request");
    assert_eq!((request.method, request.url.as_str()), (Method::Get, "https://a.test/"));
    assert!(request.headers.is_empty() && request.body.is_none());
    assert_eq!(door.asked(), 1);
}

#[tokio::test]
async fn faults_arrive_by_the_party_that_is_at_fault() {
    let bench = Bench::new();
    let tool = bench.load(&getter()).await;
    let timeout = GuestFault::Upstream { reason: UpstreamReason::Timeout, delivery: Delivery::MaybeSent };
    // Little-endian: the case of the error, then the reason.
    for (fault, heard) in
        [(GuestFault::Denied, "00"), (timeout, "0302"), (GuestFault::Host { delivery: Delivery::NotSent }, "0003")]
    {
        let door = Door::new(move |_, sender| drop(sender.send(Err(fault))));
        let ended = bench.instance(&tool, door, bench.limits).invoke("{}".to_owned()).await;
        let Err(Stop::Failed(text)) = ended.outcome else { panic!("{:?}", ended.outcome) };
        assert!(text.ends_with(heard), "{fault:?}: {text}");
    }
}

#[tokio::test]
async fn an_outlet_that_gives_up_is_the_hosts_fault() {
    let bench = Bench::new();
    let tool = bench.load(&getter()).await;
    let door = Door::new(|_, sender| drop(sender));
    let ended = bench.instance(&tool, door, bench.limits).invoke("{}".to_owned()).await;
    // host (3), maybe-sent (1).
    assert_eq!(ended.outcome, Err(Stop::Failed("0103".to_owned())));
}

/// Ten requests at once: each an URL of its own, answers' first body bytes joined as the result.
fn ten_at_once() -> Vec<u8> {
    let mut items = String::new();
    for index in 0..10 {
        let at = 2048 + index * 32;
        items += &format!(r#"(data (i32.const {}) "\00\00\00\00\00\10\00\00\10\00\00\00")"#, at);
        items += &format!(r#"(data (i32.const {}) "\00\{:02x}\00\00\10\00\00\00")"#, at + 4, 0x10 + index);
        items += &format!(r#"(data (i32.const {}) "https://a.test/{index}")"#, 0x1000 + index * 256);
    }
    guest(
        &items,
        r#"(local $index i32) (local $list i32)
        (call $send_all (i32.const 2048) (i32.const 10) (i32.const 128))
        (local.set $list (i32.load (i32.const 128)))
        (loop $next
          (i32.store8 (i32.add (i32.const 700) (local.get $index))
            (if (result i32) (i32.load8_u (local.get $list))
              (then (i32.add (i32.const 97) (i32.load8_u offset=5 (local.get $list))))
              (else (i32.load8_u (i32.load offset=16 (local.get $list))))))
          (local.set $list (i32.add (local.get $list) (i32.const 24)))
          (local.set $index (i32.add (local.get $index) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $index) (i32.const 10))))
        (call $ok (i32.const 700) (i32.const 10))"#,
    )
}

#[tokio::test]
async fn answers_stand_in_the_order_of_the_requests_and_no_more_run_at_once_than_the_limit() {
    let bench = Bench::new();
    let tool = bench.load(&ten_at_once()).await;
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let most = Arc::new(Mutex::new(0));
    let (waiting_in, most_in) = (Arc::clone(&waiting), Arc::clone(&most));
    let door = Door::new(move |request, sender| {
        let digit = request.url.bytes().last().expect("a digit");
        let mut waiting = waiting_in.lock().unwrap();
        waiting.push((digit, sender));
        let mut most = most_in.lock().unwrap();
        *most = waiting.len().max(*most);
        // The newest is answered first, once as many wait as may.
        if waiting.len() == 3 || digit == b'9' {
            for (digit, sender) in waiting.drain(..).rev() {
                drop(sender.send(Ok(Answer((200, Vec::new(), vec![digit])))));
            }
        }
    });
    let limits = keybearer_contract::Limits { parallel_requests: 3, ..bench.limits };
    let ended = bench.instance(&tool, door, limits).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome.as_deref(), Ok("0123456789"));
    assert_eq!(*most.lock().unwrap(), 3);
}

#[tokio::test]
async fn requests_beyond_the_number_are_the_guests_mistake_and_do_not_reach_the_outlet() {
    let bench = Bench::new();
    let tool = bench.load(&ten_at_once()).await;
    let limits = keybearer_contract::Limits { requests: 4, ..bench.limits };
    let door = Door::answering(b"x");
    let ended = bench.instance(&tool, door.clone(), limits).invoke("{}".to_owned()).await;
    // too-many-requests is the fourth of the mistakes: `a` + 3.
    assert_eq!(ended.outcome.as_deref(), Ok("xxxxdddddd"));
    assert_eq!(door.asked(), 4);
}

#[tokio::test]
async fn an_answer_beyond_the_calls_bytes_is_not_copied_into_the_guest() {
    let bench = Bench::new();
    let tool = bench.load(&getter()).await;
    for limits in [
        keybearer_contract::Limits { response_bytes: 99, ..bench.limits },
        keybearer_contract::Limits { total_bytes: 99, ..bench.limits },
    ] {
        let ended = bench.instance(&tool, Door::answering(&[b'x'; 100]), limits).invoke("{}".to_owned()).await;
        // upstream (2), answer-too-large (5).
        assert_eq!(ended.outcome, Err(Stop::Failed("0502".to_owned())));
    }
}

#[tokio::test]
async fn a_guest_knows_its_calls_id_and_its_slots_base_url() {
    let bench = Bench::new();
    let id =
        guest("", "(call $current (i32.const 128)) (call $ok (i32.load (i32.const 128)) (i32.load (i32.const 132)))");
    let ended = bench.run(&id).await;
    assert_eq!(ended.outcome.as_deref(), Ok(ended.facts.call.as_str()));
    let url = guest(
        r#"(data (i32.const 256) "api")"#,
        r#"(call $base_url (i32.const 256) (i32.const 3) (i32.const 128))
        (call $ok (i32.load (i32.const 132)) (i32.load (i32.const 136)))"#,
    );
    assert_eq!(bench.run(&url).await.outcome.as_deref(), Ok("https://acme.example.test"));
    let other = guest(
        r#"(data (i32.const 256) "bpi")"#,
        r#"(call $base_url (i32.const 256) (i32.const 3) (i32.const 128))
        (call $ok (i32.const 256) (i32.load8_u (i32.const 128)))"#,
    );
    assert_eq!(bench.run(&other).await.outcome.as_deref(), Ok(""));
}

#[tokio::test]
async fn log_lines_come_back_in_order_with_their_level() {
    let ended = Bench::new()
        .run(&guest(
            r#"(data (i32.const 256) "onetwo")"#,
            r#"(call $log (i32.const 0) (i32.const 256) (i32.const 3))
            (call $log (i32.const 3) (i32.const 259) (i32.const 3))
            (call $ok (i32.const 0) (i32.const 0))"#,
        ))
        .await;
    let lines: Vec<_> = ended.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Debug, "one"), (LogLevel::Error, "two")]);
    assert_eq!(ended.dropped_logs, 0);
}

/// One described tool; the name, description and input schema are from the text.
fn describing(name: &str, schema: &str) -> Vec<u8> {
    let schema_len = schema.len();
    let items = format!(
        r#"(data (i32.const 2048) "{name}")
        (data (i32.const 4096) "{}")
        (func $tool (result i32)
          (i32.store (i32.const 600) (i32.const 700))
          (i32.store (i32.const 604) (i32.const 1))
          (i32.store (i32.const 700) (i32.const 2048))
          (i32.store (i32.const 704) (i32.const {}))
          (i32.store (i32.const 708) (i32.const 2048))
          (i32.store (i32.const 712) (i32.const 1))
          (i32.store (i32.const 716) (i32.const 4096))
          (i32.store (i32.const 720) (i32.const {schema_len}))
          (i32.store8 (i32.const 736) (i32.const 1))
          (i32.const 600))"#,
        schema.replace('"', "\\\""),
        name.len()
    );
    encode(&core(&items, "(call $tool)", "(unreachable)"))
}

#[tokio::test]
async fn a_package_describes_itself() {
    let bench = Bench::new();
    let tool = bench.load(&describing("search", r#"{"type":"object"}"#)).await;
    let tools = bench.sandbox.describe(&tool, &Limits::default()).await.expect("it describes itself");
    assert_eq!(tools.len(), 1);
    assert_eq!((tools[0].name.as_str(), tools[0].read_only, tools[0].idempotent), ("search", true, false));
    assert_eq!(tools[0].input_schema["type"], "object");
    assert_eq!(tools[0].output_schema, None);
}

#[tokio::test]
async fn w05_g18_a_description_with_a_path_for_a_name_or_too_deep_a_schema_is_refused() {
    let bench = Bench::new();
    let deep = "[".repeat(100_000);
    for (name, schema) in [("../x", "{}"), ("a", "[]"), ("a", "{"), ("a", &deep[..60_000]), ("a", &deep)] {
        let tool = bench.load(&describing(name, schema)).await;
        let failed = bench.sandbox.describe(&tool, &Limits::default()).await.expect_err("it is refused");
        assert!(matches!(&failed, DescribeFailed::Malformed(reason) if reason.len() < 600), "{failed:?}");
    }
}

// Found out now and with both numbers, not by each of its callers.
#[tokio::test]
async fn g04_g05_a_package_that_begins_with_more_than_its_calls_may_have_does_not_describe_itself() {
    let bench = Bench::new();
    let begins = |memory: u32, table: u32| {
        let items = format!(
            "(memory (export \"memory\") {memory})
            (table {table} funcref)"
        );
        encode(&core(&items, "(i32.const 512)", "(unreachable)"))
    };
    let limits = Limits { memory_bytes: 16 << 16, table_elements: 100, ..Limits::default() };
    // The table of the encoder's own has a few elements, too.
    let tool = bench.load(&begins(16, 50)).await;
    assert_eq!(bench.sandbox.describe(&tool, &limits).await, Ok(Vec::new()));
    for (memory, table, words) in [
        (17, 100, ["1114112 bytes of memory", "`memory_bytes` is 1048576"]),
        (16, 200, [" elements of tables", "`table_elements` is 100"]),
    ] {
        let tool = bench.load(&begins(memory, table)).await;
        let why = bench.sandbox.describe(&tool, &limits).await.expect_err("it is refused").to_string();
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }
}

#[tokio::test]
async fn a_package_that_traps_while_it_describes_itself_is_refused_with_the_kind() {
    let bench = Bench::new();
    for (body, kind) in [("(unreachable)", "unreachable"), ("(i32.div_s (i32.const 1) (i32.const 0))", "arithmetic")] {
        let tool = bench.load(&encode(&core("", body, "(unreachable)"))).await;
        let why = bench.sandbox.describe(&tool, &Limits::default()).await.expect_err("it is refused").to_string();
        assert!(why.contains(&format!("the tool trapped: {kind}: ")), "{why}");
    }
}

#[tokio::test]
async fn a_package_that_describes_itself_has_no_way_out() {
    let bench = Bench::new();
    // Traps if the request gets another answer than `denied`.
    let items = format!(
        "{HEX}{SEND}
        (func $ask (result i32)
          (call $get)
          (if (i32.ne (i32.load8_u (i32.const 128)) (i32.const 1)) (then (unreachable)))
          (if (i32.load8_u (i32.const 132)) (then (unreachable)))
          (i32.const 512))"
    );
    let tool = bench.load(&encode(&core(&items, "(call $ask)", "(unreachable)"))).await;
    assert_eq!(bench.sandbox.describe(&tool, &Limits::default()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_tool_that_is_loaded_is_found_by_its_digest() {
    let bench = Bench::new();
    let tool = bench.load(&echo()).await;
    assert!(Arc::ptr_eq(&tool, &bench.sandbox.loaded(tool.digest()).expect("it is loaded")));
    let other = keybearer_contract::Digest::of_package(b"other", b"");
    assert!(bench.sandbox.loaded(&other).is_none());
}

/// A MAC by the slot `mac` over `order 7`, and what came of it as in [`SEND`]: the MAC, or the error's first two bytes.
fn signer(times: usize) -> Vec<u8> {
    let items = r#"
  (import "keybearer:tool/signing@0.1.0" "mac" (func $mac (param i32 i32 i32 i32 i32)))
  ;; then
  (data (i32.const 256) "mac")
  (data (i32.const 272) "order 7")
  (func $sign (call $mac (i32.const 256) (i32.const 3) (i32.const 272) (i32.const 7) (i32.const 128)))
  (func $answer (result i32)
    (if (result i32) (i32.load8_u (i32.const 128))
      (then
        (call $hex (i64.extend_i32_u (i32.load16_u (i32.const 132))) (i32.const 300))
        (call $failed (i32.const 312) (i32.const 4)))
      (else (call $ok (i32.load (i32.const 132)) (i32.load (i32.const 136))))))"#;
    guest(&format!("{items}{HEX}"), &format!("{}(call $answer)", "(call $sign) ".repeat(times)))
}

#[tokio::test]
async fn a_signature_is_asked_of_the_outlet_and_counts_as_a_request_and_its_bytes() {
    let bench = Bench::new();
    let (once, thrice) = (bench.load(&signer(1)).await, bench.load(&signer(3)).await);
    let run = async |tool, limits| {
        let door = Door::answering(b"{}");
        let ended = bench.instance(tool, door.clone(), limits).invoke("{}".to_owned()).await;
        (ended.outcome, door.asked())
    };
    assert_eq!(run(&once, bench.limits).await, (Ok("mac:order 7".to_owned()), 1));
    // guest (1), too-many-requests (4).
    let two = Limits { requests: 2, ..bench.limits };
    assert_eq!(run(&thrice, two).await, (Err(Stop::Failed("0401".to_owned())), 2));
    // guest (1), message-too-large (0).
    let short = Limits { request_bytes: 6, ..bench.limits };
    assert_eq!(run(&once, short).await, (Err(Stop::Failed("0001".to_owned())), 0));
    // guest (1), too-many-bytes (5): 7 that were asked and 11 that were signed, once.
    let few = Limits { total_bytes: 24, ..bench.limits };
    assert_eq!(run(&thrice, few).await, (Err(Stop::Failed("0501".to_owned())), 1));
}
