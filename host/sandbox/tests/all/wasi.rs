//! WASI, as little as was asked for. If one of these fails, a guest sees something of the host.

use keybearer_contract::Wasi;
use keybearer_sandbox::LogLevel;
use keybearer_sandbox::Stop;
use keybearer_sandbox::TrapKind;

use crate::support::Bench;
use crate::support::HEX;
use crate::support::guest;

const NOTHING: Wasi = Wasi { clocks: false, random: false, stdio: false, scratch_bytes: 0 };

/// Imports, up to the scaffold's mark.
fn importing(imports: &str, items: &str, body: &str) -> Vec<u8> {
    guest(&format!("{imports} ;; then\n{HEX} {items}"), body)
}

async fn outcome(component: &[u8], asked: &Wasi) -> Result<String, Stop> {
    let bench = Bench::new();
    let tool = bench.load_asking(component, asked).await;
    bench.call(&tool, "{}").await.outcome
}

/// Calls an import that writes a list to 128, and gives its length.
fn length_of(interface: &str, function: &str) -> Vec<u8> {
    importing(
        &format!(r#"(import "{interface}" "{function}" (func $list (param i32)))"#),
        "",
        "(i32.store (i32.const 132) (i32.const -1)) (call $list (i32.const 128))
        (call $hex (i64.extend_i32_u (i32.load (i32.const 132))) (i32.const 300))
        (call $ok (i32.const 300) (i32.const 16))",
    )
}

#[tokio::test]
async fn g16_there_is_no_environment_no_argument_and_no_folder() {
    for (interface, function) in [
        ("wasi:cli/environment@0.2.0", "get-environment"),
        ("wasi:cli/environment@0.2.0", "get-arguments"),
        ("wasi:filesystem/preopens@0.2.0", "get-directories"),
    ] {
        let found = outcome(&length_of(interface, function), &NOTHING).await;
        assert_eq!(found.as_deref(), Ok("0000000000000000"), "{function}");
    }
}

#[tokio::test]
async fn leaving_by_exit_is_no_result() {
    let component = importing(
        r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#,
        "",
        "(call $exit (i32.const 0)) (unreachable)",
    );
    let left = outcome(&component, &NOTHING).await;
    assert!(matches!(left, Err(Stop::Trap { kind: TrapKind::NotGranted, .. })), "{left:?}");
}

/// The wall clock's nanoseconds within the second.
fn clock() -> Vec<u8> {
    importing(
        r#"(import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (param i32)))"#,
        "",
        "(call $now (i32.const 128))
        (if (i64.eqz (i64.load (i32.const 128))) (then (unreachable)))
        (call $hex (i64.extend_i32_u (i32.rem_u (i32.load (i32.const 136)) (i32.const 1000000))) (i32.const 300))
        (call $ok (i32.const 300) (i32.const 16))",
    )
}

#[tokio::test]
async fn g16_g22_the_clock_stops_who_has_not_asked_and_tells_the_others_milliseconds() {
    let stopped = outcome(&clock(), &NOTHING).await;
    assert!(matches!(stopped, Err(Stop::Trap { kind: TrapKind::NotGranted, .. })), "{stopped:?}");
    for _ in 0..5 {
        let told = outcome(&clock(), &Wasi { clocks: true, ..NOTHING }).await;
        assert_eq!(told.as_deref(), Ok("0000000000000000"));
    }
}

#[tokio::test]
async fn g16_the_seed_is_a_constant_and_random_bytes_are_for_who_asks() {
    let seed = importing(
        r#"(import "wasi:random/insecure-seed@0.2.0" "insecure-seed" (func $seed (param i32)))"#,
        "",
        "(call $seed (i32.const 128)) (call $hex (i64.load (i32.const 128)) (i32.const 300))
        (call $hex (i64.load (i32.const 136)) (i32.const 316)) (call $ok (i32.const 300) (i32.const 32))",
    );
    assert_eq!(outcome(&seed, &NOTHING).await, Ok("0".repeat(32)));
    let random = importing(
        r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#,
        "",
        "(call $hex (call $random) (i32.const 300)) (call $ok (i32.const 300) (i32.const 16))",
    );
    assert!(Bench::new().refusal(&random).await.contains("wasi.random"));
    let asked = Wasi { random: true, ..NOTHING };
    assert_ne!(outcome(&random, &asked).await, outcome(&random, &asked).await);
}

#[tokio::test]
async fn w06_sockets_are_refused_whatever_is_asked() {
    let sockets = importing(
        r#"(import "wasi:sockets/tcp-create-socket@0.2.0" "create" (func $create))"#,
        "",
        "(call $create) (unreachable)",
    );
    assert!(Bench::new().refusal(&sockets).await.contains("the only way out"));
}

#[tokio::test]
async fn a_scratch_folder_is_refused_at_registration() {
    let asked = Wasi { scratch_bytes: 1, ..NOTHING };
    let bench = Bench::new();
    let digest = keybearer_contract::Digest::of_package(b"", b"");
    let failed = bench.sandbox.load(&digest, &crate::support::echo(), &asked).await;
    assert!(failed.err().expect("refused").to_string().contains("scratch"));
}

/// Prints `hello` and a newline, then `and` without.
fn printing() -> Vec<u8> {
    importing(
        r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
        (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
          (func $print (param i32 i32 i32 i32)))"#,
        r#"(data (i32.const 256) "hello\nand")"#,
        "(call $print (call $stdout) (i32.const 256) (i32.const 9) (i32.const 128))
        (if (i32.load8_u (i32.const 128)) (then (unreachable)))
        (call $ok (i32.const 0) (i32.const 0))",
    )
}

#[tokio::test]
async fn what_is_printed_is_silent_or_becomes_log_lines() {
    let bench = Bench::new();
    let tool = bench.load_asking(&printing(), &NOTHING).await;
    let ended = bench.call(&tool, "{}").await;
    assert_eq!((ended.outcome.as_deref(), ended.logs.len()), (Ok(""), 0));
    let tool = bench.load_asking(&printing(), &Wasi { stdio: true, ..NOTHING }).await;
    let ended = bench.call(&tool, "{}").await;
    let lines: Vec<_> = ended.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "hello"), (LogLevel::Info, "and")]);
}

#[tokio::test]
async fn g14_handles_that_are_never_dropped_end_the_call() {
    let hoarding = importing(
        r#"(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))"#,
        "",
        "(loop $more (drop (call $stdout)) (br $more)) (unreachable)",
    );
    assert_eq!(outcome(&hoarding, &NOTHING).await, Err(Stop::Limit { name: "handles", value: 1_000 }));
}
