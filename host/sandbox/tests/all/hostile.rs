//! Guests that want more than they are given. If one of these fails, one tenant's tool can stop
//! everybody else's calls, read what another left behind, or speak in the host's name.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_sandbox::CallSetup;
use keybearer_sandbox::Ended;
use keybearer_sandbox::Stop;
use keybearer_sandbox::TrapKind;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::support::Answer;
use crate::support::Bench;
use crate::support::Door;
use crate::support::EXPORTS;
use crate::support::HEX;
use crate::support::by_hand;
use crate::support::core;
use crate::support::echo;
use crate::support::encode;
use crate::support::guest;
use crate::support::permit;

const SPIN: &str = "(loop $spin (br $spin)) (unreachable)";

/// What a machine that is busy with other things may add to the ±50 ms: the best of three tries counts.
async fn best_of_three(bench: &Bench, component: &[u8], limits: Limits) -> (Ended, Duration) {
    let tool = bench.load(component).await;
    let mut best: Option<(Ended, Duration)> = None;
    for _ in 0..3 {
        let began = Instant::now();
        let ended = bench.instance(&tool, Door::answering(b""), limits).invoke("{}".to_owned()).await;
        let took = began.elapsed();
        if best.as_ref().is_none_or(|(_, least)| took < *least) {
            best = Some((ended, took));
        }
    }
    best.expect("three tries")
}

fn kind(ended: &Ended) -> TrapKind {
    match &ended.outcome {
        Err(Stop::Trap { kind, message }) if message.len() <= 1100 => *kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn g01_an_endless_loop_ends_with_its_budget() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 200, ..bench.limits };
    let (ended, took) = best_of_three(&bench, &guest("", SPIN), limits).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "cpu_ms", value: 200 }));
    assert!((200..250).contains(&took.as_millis()), "{took:?}");
    assert!((200_000..250_000).contains(&ended.cpu_us), "{}", ended.cpu_us);
}

#[tokio::test]
async fn g01_an_endless_loop_ends_at_the_deadline() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 60_000, wall_ms: 200, ..bench.limits };
    let (ended, took) = best_of_three(&bench, &guest("", SPIN), limits).await;
    assert_eq!(ended.outcome, Err(Stop::Timeout));
    assert!((195..250).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn w04_a_start_function_that_loops_ends_with_the_calls_budget() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 50, ..bench.limits };
    let component = guest(&format!("(func $begin {SPIN}) (start $begin)"), "(unreachable)");
    let (ended, _) = best_of_three(&bench, &component, limits).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "cpu_ms", value: 50 }));
}

/// The runtime has one thread: whoever holds it holds everybody.
#[tokio::test(flavor = "current_thread")]
async fn g01_a_spinning_guest_gives_the_thread_back_at_every_tick() {
    let bench = Bench::new();
    let tool = bench.load(&guest("", SPIN)).await;
    let turns = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let limits = Limits { cpu_ms: 500, ..bench.limits };
    let ended = bench.instance(&tool, Door::answering(b""), limits).invoke("{}".to_owned()).await;
    other.abort();
    assert!(matches!(ended.outcome, Err(Stop::Limit { name: "cpu_ms", .. })));
    // 500 ms of 5 ms ticks are 100 turns; a machine that is busy makes fewer of them.
    assert!(turns.load(Ordering::Relaxed) >= 20, "{turns:?}");
}

#[tokio::test]
async fn g02_cheap_host_calls_are_on_the_guests_account() {
    let bench = Bench::new();
    let limits = Limits { cpu_ms: 100, ..bench.limits };
    let body = r#"(loop $next (call $log (i32.const 0) (i32.const 0) (i32.const 4)) (call $current (i32.const 128))
        (global.set $heap (i32.const 65536)) (br $next)) (unreachable)"#;
    let (ended, took) = best_of_three(&bench, &guest("", body), limits).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "cpu_ms", value: 100 }));
    assert!(took.as_millis() < 150, "{took:?}");
}

#[tokio::test]
async fn a_guest_that_waits_uses_time_and_no_processor() {
    let bench = Bench::new();
    let component = guest(&format!("{HEX}{}", crate::calls::SEND), "(call $get) (call $answer)");
    let tool = bench.load(&component).await;
    let door = Door::new(|_, sender| {
        // Never answered: the sender lives as long as the test.
        tokio::spawn(async move {
            let _held = sender;
            std::future::pending::<()>().await;
        });
    });
    let limits = Limits { wall_ms: 100, ..bench.limits };
    let ended = bench.instance(&tool, door, limits).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome, Err(Stop::Timeout));
    assert!(ended.cpu_us < 50_000, "{}", ended.cpu_us);
}

/// Grows page by page until it is refused, touches every page, and gives the number of pages.
const GROW: &str = r#"(local $at i32)
    (block $refused (loop $more
      (br_if $refused (i32.eq (i32.const -1) (memory.grow (i32.const 1))))
      (br $more)))
    (local.set $at (i32.const 131072))
    (block $done (loop $touch
      (br_if $done (i32.ge_u (local.get $at) (i32.mul (memory.size) (i32.const 65536))))
      (i32.store (local.get $at) (i32.const -1))
      (local.set $at (i32.add (local.get $at) (i32.const 4096)))
      (br $touch)))
    (call $hex (i64.extend_i32_u (memory.size)) (i32.const 300))
    (call $ok (i32.const 300) (i32.const 16))"#;

#[tokio::test]
async fn g04_memory_grows_to_the_limit_and_not_beyond() {
    let bench = Bench::new();
    let tool = bench.load(&guest(HEX, GROW)).await;
    let limits = Limits { memory_bytes: 4 << 20, ..bench.limits };
    let ended = bench.instance(&tool, Door::answering(b""), limits).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome.as_deref(), Ok("0000000000000040"), "64 pages");
    assert_eq!(ended.memory_peak, 4 << 20);
}

#[tokio::test]
async fn g04_who_gives_up_for_want_of_memory_is_told_the_limit() {
    let bench = Bench::new();
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 5000))) (then (unreachable))) (unreachable)";
    let ended = bench.run(&guest("", body)).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "memory_bytes", value: 64 << 20 }));
}

#[tokio::test]
async fn g05_memories_and_tables_are_counted_together() {
    let bench = Bench::new();
    let two =
        "(core module $more (memory 600)) (core instance (instantiate $more)) (core instance (instantiate $more))";
    let three_memories = by_hand(two, EXPORTS);
    assert!(bench.refusal(&three_memories).await.contains("memories"));
    // Two memories of 37.5 MiB and 128 KiB fit; of 63.9 MiB and 128 KiB they do not.
    for (pages, fits) in [(600, true), (1023, false)] {
        let one = format!("(core module $more (memory {pages})) (core instance (instantiate $more))");
        let ended = bench.run(&by_hand(&one, EXPORTS)).await;
        assert_eq!(ended.outcome.is_ok(), fits, "{:?}", ended.outcome);
        if !fits {
            assert_eq!(ended.outcome, Err(Stop::Limit { name: "memory_bytes", value: 64 << 20 }));
        }
    }
    let tables = "(core module $more (table 15000 funcref)) (core instance (instantiate $more))
        (core instance (instantiate $more))";
    let ended = bench.run(&by_hand(tables, EXPORTS)).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "table_elements", value: 20_000 }));
}

#[tokio::test]
async fn g07_deep_recursion_is_a_trap() {
    let bench = Bench::new();
    let component = guest("(func $deep (call $deep) (call $deep))", "(call $deep) (unreachable)");
    assert_eq!(kind(&bench.run(&component).await), TrapKind::StackOverflow);
    // The host goes on.
    assert!(bench.run(&echo()).await.outcome.is_ok());
}

#[tokio::test]
async fn g07_an_allocator_that_calls_the_host_is_a_trap() {
    let text = core("", "(i32.const 512)", "(call $ok (local.get $ap) (local.get $al))");
    let back = "(local $at i32) (call $log (i32.const 0) (i32.const 0) (i32.const 0))";
    let ended = Bench::new().run(&encode(&text.replacen("(local $at i32)", back, 1))).await;
    assert_eq!(kind(&ended), TrapKind::Contract);
}

/// Fails if any byte beyond the scaffold's and the arguments', or any element of the table, is not what a
/// fresh instance has; then fills all of it. 20 pages are more than what stays resident.
fn residue() -> Vec<u8> {
    guest(
        "(table $t 64 1000 funcref) (func $f) (elem declare func $f)",
        r#"(local $at i32)
        (if (i32.eq (i32.const -1) (memory.grow (i32.const 18))) (then (unreachable)))
        (if (i32.eq (i32.const -1) (table.grow $t (ref.null func) (i32.const 100))) (then (unreachable)))
        (local.set $at (i32.const 66000))
        (loop $next
          (if (i64.ne (i64.const 0) (i64.load (local.get $at))) (then (return (call $failed (i32.const 0) (i32.const 0)))))
          (i64.store (local.get $at) (i64.const -6148914691236517206))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $next (i32.lt_u (local.get $at) (i32.const 1310712))))
        (local.set $at (i32.const 2048))
        (loop $next
          (if (i64.ne (i64.const 0) (i64.load (local.get $at))) (then (return (call $failed (i32.const 0) (i32.const 0)))))
          (i64.store (local.get $at) (i64.const -6148914691236517206))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if $next (i32.lt_u (local.get $at) (i32.const 65528))))
        (local.set $at (i32.const 0))
        (loop $next
          (if (i32.eqz (ref.is_null (table.get $t (local.get $at))))
            (then (return (call $failed (i32.const 0) (i32.const 0)))))
          (table.set $t (local.get $at) (ref.func $f))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $at) (i32.const 164))))
        (call $ok (i32.const 0) (i32.const 0))"#,
    )
}

#[tokio::test]
async fn g08_an_instance_finds_nothing_of_the_one_before_it() {
    let bench = Bench::with(Limits::default(), 3);
    let (first, second) = (residue(), [residue(), b"\0\x02\x01x".to_vec()].concat());
    let tools = [bench.load(&first).await, bench.load(&second).await];
    // Two packages and more slots than one: a slot is used again by the same and by another one.
    for round in 0..3_000 {
        let ended = bench.call(&tools[usize::from(round % 3 == 0)], "{}").await;
        assert_eq!(ended.outcome.as_deref(), Ok(""), "round {round}");
    }
}

#[tokio::test]
async fn g09_beyond_the_pool_calls_are_turned_away_and_the_pool_recovers() {
    let bench = Bench::with(Limits::default(), 4);
    let component = guest(&format!("{HEX}{}", crate::calls::SEND), "(call $get) (call $answer)");
    let tool = bench.load(&component).await;
    let (gate, inside) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
    let (gate_in, inside_in) = (Arc::clone(&gate), Arc::clone(&inside));
    let door = Door::new(move |_, sender| {
        let gate = Arc::clone(&gate_in);
        inside_in.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            gate.notified().await;
            drop(sender.send(Ok(Answer((200, Vec::new(), b"in".to_vec())))));
        });
    });
    let calls: Vec<_> = (0..1_000)
        .map(|_| tokio::spawn(bench.instance(&tool, door.clone(), bench.limits).invoke("{}".to_owned())))
        .collect();
    let mut turned_away = 0;
    let mut held = Vec::new();
    for call in calls {
        // Whoever is in waits for the gate; all others have ended by the time they are asked.
        if inside.load(Ordering::SeqCst) == 4 && call.is_finished() {
            assert_eq!(call.await.expect("ends").outcome, Err(Stop::Overloaded));
            turned_away += 1;
        } else {
            tokio::task::yield_now().await;
            held.push(call);
        }
    }
    while inside.load(Ordering::SeqCst) < 4 {
        tokio::task::yield_now().await;
    }
    gate.notify_waiters();
    let mut answered = 0;
    for call in held {
        // A call that was let in late waits for a gate that is opened again and again.
        let call = call.await.expect("ends");
        match call.outcome {
            Ok(body) => {
                assert_eq!(body, "in");
                answered += 1;
            }
            Err(Stop::Overloaded) => turned_away += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((answered, turned_away), (4, 996));
    assert!(bench.run(&echo()).await.outcome.is_ok());
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_its_place_back_and_closes_its_request() {
    let bench = Bench::with(Limits::default(), 1);
    let component = guest(&format!("{HEX}{}", crate::calls::SEND), "(call $get) (call $answer)");
    let tool = bench.load(&component).await;
    let (asked, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (asked_in, closed_in) = (Arc::clone(&asked), Arc::clone(&closed));
    let door = Door::new(move |_, mut sender| {
        asked_in.notify_one();
        let closed = Arc::clone(&closed_in);
        tokio::spawn(async move {
            sender.closed().await;
            closed.notify_one();
        });
    });
    let call = tokio::spawn(bench.instance(&tool, door, bench.limits).invoke("{}".to_owned()));
    asked.notified().await;
    call.abort();
    assert!(call.await.err().expect("it was dropped").is_cancelled());
    closed.notified().await;
    assert_eq!(bench.call(&tool, "{}").await.outcome.as_deref(), Ok("{}"));
}

/// `send` with these nine parameters.
fn sending(parameters: [i64; 9]) -> Vec<u8> {
    let parameters: String = parameters.iter().map(|value| format!("(i32.const {value})")).collect();
    guest("", &format!("(call $send {parameters}) (unreachable)"))
}

#[tokio::test]
async fn g11_what_lies_outside_of_memory_is_a_trap() {
    let bench = Bench::new();
    for (case, component) in [
        ("a string of 4 GiB", sending([0, 0, 0xffff_ffff, 0, 0, 0, 0, 0, 128])),
        ("a string that wraps", sending([0, 0xffff_fff0, 0x20, 0, 0, 0, 0, 0, 128])),
        ("a string beyond the end", sending([0, 131_070, 3, 0, 0, 0, 0, 0, 128])),
        ("a list whose size wraps", sending([0, 0, 0, 0, 0x1000_0001, 0, 0, 0, 128])),
        ("a list of 4 GiB", sending([0, 0, 0, 8, 0xffff_ffff, 0, 0, 0, 128])),
        ("a body beyond the end", sending([0, 0, 0, 0, 0, 1, 100, 131_072, 128])),
        ("an answer's place beyond the end", sending([0, 0, 0, 0, 0, 0, 0, 0, 131_068])),
        ("a result beyond the end", guest("", "(i32.const 131068)")),
        ("a result's text beyond the end", guest("", "(call $ok (i32.const 4) (i32.const -1))")),
    ] {
        let ended = bench.run(&component).await;
        assert_eq!(kind(&ended), TrapKind::OutOfBounds, "{case}: {:?}", ended.outcome);
    }
    for (case, component) in [
        ("no such method", sending([7, 0, 0, 0, 0, 0, 0, 0, 128])),
        ("no such option", sending([0, 0, 0, 0, 0, 2, 0, 0, 128])),
        ("a crooked list", sending([0, 0, 0, 2, 1, 0, 0, 0, 128])),
        ("a crooked result", guest("", "(i32.const 18)")),
    ] {
        let ended = bench.run(&component).await;
        assert_eq!(kind(&ended), TrapKind::Contract, "{case}: {:?}", ended.outcome);
    }
}

#[tokio::test]
async fn g12_a_list_of_a_million_costs_hostcall_fuel_and_ends_there() {
    let bench = Bench::new();
    let door = Door::answering(b"");
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 600))) (then (unreachable)))
        (call $send_all (i32.const 65536) (i32.const 1000000) (i32.const 128)) (unreachable)";
    let tool = bench.load(&guest("", body)).await;
    let ended = bench.instance(&tool, door.clone(), bench.limits).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "hostcall_fuel", value: 64 << 20 }));
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn g13_text_that_is_not_utf8_is_a_trap_and_reaches_nobody() {
    let bench = Bench::new();
    for bytes in [r"\ed\a0\80", r"\ff", r"\c0\80", r"\f4\90\80\80"] {
        let items = format!(r#"(data (i32.const 256) "{bytes}")"#);
        let length = bytes.len() / 3;
        let body = format!(
            "(call $send (i32.const 0) (i32.const 256) (i32.const {length}) (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 128)) (unreachable)"
        );
        let door = Door::answering(b"");
        let tool = bench.load(&guest(&items, &body)).await;
        let ended = bench.instance(&tool, door.clone(), bench.limits).invoke("{}".to_owned()).await;
        assert_eq!(kind(&ended), TrapKind::Contract, "{bytes}");
        assert_eq!(door.asked(), 0);
    }
}

#[tokio::test]
async fn g13_a_header_name_of_megabytes_is_the_guests_mistake_and_reaches_nobody() {
    let bench = Bench::new();
    // One header at 2048, its name of 16 MiB from 65536 on.
    let items = r#"(data (i32.const 2048) "\00\00\01\00\00\00\00\01\00\00\00\00\00\00\00\00")"#;
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 300))) (then (unreachable)))
        (call $send (i32.const 0) (i32.const 256) (i32.const 15) (i32.const 2048) (i32.const 1)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 128)) (call $answer)";
    let door = Door::answering(b"");
    let tool = bench.load(&guest(&format!("{HEX}{}{items}", crate::calls::SEND), body)).await;
    let ended = bench.instance(&tool, door.clone(), bench.limits).invoke("{}".to_owned()).await;
    // guest (1), malformed-header (1).
    assert_eq!(ended.outcome, Err(Stop::Failed("0101".to_owned())));
    assert_eq!(door.asked(), 0);
}

#[tokio::test]
async fn g15_a_flood_of_log_lines_is_cut_counted_and_forges_nothing() {
    let bench = Bench::new();
    let items = r#"(data (i32.const 256) "ok\n{\22level\22:\22error\22}\1b[31m\e2\80\ae\00x")"#;
    let body = "(local $left i32) (local.set $left (i32.const 100000))
        (loop $next (call $log (i32.const 1) (i32.const 256) (i32.const 30))
          (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $ok (i32.const 0) (i32.const 0))";
    let ended = bench.run(&guest(items, body)).await;
    assert!(ended.outcome.is_ok(), "{:?}", ended.outcome);
    let kept: usize = ended.logs.iter().map(|line| line.message.len()).sum();
    assert!(kept as u64 <= bench.limits.log_bytes);
    assert_eq!(ended.logs.len() as u64 + ended.dropped_logs, 100_000);
    for line in &ended.logs {
        assert!(!line.message.chars().any(|character| character.is_control() || character == '\u{202e}'));
    }
}

#[tokio::test]
async fn g15_one_line_of_megabytes_is_cut() {
    let bench = Bench::new();
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 160))) (then (unreachable)))
        (call $log (i32.const 1) (i32.const 65536) (i32.const 10000000)) (call $ok (i32.const 0) (i32.const 0))";
    let ended = bench.run(&guest("", body)).await;
    assert_eq!(ended.logs.len(), 1);
    assert!(ended.logs[0].message.len() as u64 <= bench.limits.log_bytes);
}

#[tokio::test]
async fn g18_results_and_arguments_beyond_their_limits_end_the_call() {
    let bench = Bench::new();
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 160))) (then (unreachable)))
        (call $ok (i32.const 65536) (i32.const 10000000))";
    let ended = bench.run(&guest("", body)).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "result_bytes", value: 4 << 20 }));
    let tool = bench.load(&echo()).await;
    let ended = bench.call(&tool, &"x".repeat((1 << 20) + 1)).await;
    assert_eq!(ended.outcome, Err(Stop::Limit { name: "arguments_bytes", value: 1 << 20 }));
}

#[tokio::test]
async fn g19_a_tools_own_words_are_cut_and_escaped() {
    let items = r#"(data (i32.const 65536) "\1b[31mline\nline")"#;
    let body = "(if (i32.eq (i32.const -1) (memory.grow (i32.const 20))) (then (unreachable)))
        (call $failed (i32.const 65536) (i32.const 1000000))";
    let ended = Bench::new().run(&guest(items, body)).await;
    let Err(Stop::Failed(text)) = ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(text.len() < 1100 && !text.chars().any(char::is_control), "{text:?}");
    assert!(text.ends_with('…'));
}

#[tokio::test]
async fn g20_every_nan_is_the_same_nan() {
    // On x86 a division of 0 by 0 gives the negative one.
    let body =
        "(call $hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.div (f32.const 0) (f32.const 0)))) (i32.const 300))
        (call $ok (i32.const 300) (i32.const 16))";
    let ended = Bench::new().run(&guest(HEX, body)).await;
    assert_eq!(ended.outcome.as_deref(), Ok("000000007fc00000"));
}

#[tokio::test]
async fn traps_are_told_by_kind() {
    let bench = Bench::new();
    for (body, expected) in [
        ("(unreachable)", TrapKind::Unreachable),
        ("(i32.div_u (i32.const 1) (i32.const 0))", TrapKind::Arithmetic),
        ("(i32.load (i32.const 200000))", TrapKind::OutOfBounds),
    ] {
        assert_eq!(kind(&bench.run(&guest("", body)).await), expected, "{body}");
    }
}

#[tokio::test]
async fn a_permit_for_another_package_runs_nothing() {
    let bench = Bench::new();
    let tool = bench.load(&echo()).await;
    let setup = CallSetup {
        limits: bench.limits,
        deadline: Instant::now() + Duration::from_secs(5),
        attempt: 1,
        base_urls: Vec::new(),
    };
    let other = permit(Digest::of_package(b"other", b""));
    let ended = bench.sandbox.instance(other, &tool, Door::answering(b""), setup).invoke("{}".to_owned()).await;
    assert_eq!(ended.outcome, Err(Stop::Internal));
}
