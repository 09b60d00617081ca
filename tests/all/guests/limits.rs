//! G01–G09: processor, memory, stack, what is left behind, and more calls than there is room for. If
//! one of these failed, one tenant's tool would stop everybody's, or read what another left.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::ServerOptions;
use serde_json::json;
use tokio::sync::Semaphore;

use super::components::Written;
use super::stage::Stage;
use super::stage::echo;
use super::stage::limit;
use super::stage::trap;

#[tokio::test]
pub(super) async fn g01_a_guest_that_never_ends_is_stopped_and_slows_nobody() {
    let stage = Stage::start().await;
    let rage = async {
        let started = Instant::now();
        let spins = (0..4).map(|_| stage.limit("spin", json!({})));
        let limits = futures_util::future::join_all(spins).await;
        assert_eq!(limits, ["cpu_ms"; 4]);
        started.elapsed()
    };
    let control = async {
        for _ in 0..10 {
            stage.control().await;
        }
    };
    let (raged, ()) = tokio::join!(rage, control);
    // Four seconds of two processors, and whatever else this machine does.
    assert!(raged < Duration::from_secs(15), "the guests ran for {raged:?}");
    let body = json!({"tool": "hostile.spin", "arguments": {}, "timeout_ms": 200});
    let started = Instant::now();
    let answer = stage.alice.client.post("/v1/calls", &body).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"), "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g02_time_in_cheap_imports_is_the_guests_own() {
    let stage = Stage::start().await;
    for import in ["current", "base_url", "log", "send_all"] {
        let (reached, ()) = tokio::join!(stage.limit("hostcall_flood", json!({"import": import})), stage.control());
        assert_eq!(reached, "cpu_ms", "{import}");
    }
}

#[tokio::test]
pub(super) async fn g04_memory_ends_at_its_limit() {
    let stage = Stage::start().await;
    // 16 MiB are 256 pages, and not one more.
    for _ in 0..3 {
        assert_eq!(stage.result("grow", json!({})).await, json!({"pages": 256}));
    }
    let (kilobytes, files) = stage.size();
    for _ in 0..100 {
        assert_eq!(stage.result("grow", json!({})).await, json!({"pages": 256}));
    }
    let (kilobytes_after, files_after) = stage.size();
    // The pool gives memory back for 16 places at a time, each of 16 MiB here: 100 calls must not keep more.
    let kept = 16 * (16 << 10) + (64 << 10);
    assert!(kilobytes_after < kilobytes + kept, "100 calls left {kilobytes} kB at {kilobytes_after} kB");
    assert!(files_after <= files + 8, "100 calls left {files} open files at {files_after}");
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g07_recursion_ends_in_a_trap_and_not_in_a_crash() {
    let stage = Stage::start().await;
    for _ in 0..3 {
        let detail = stage.trap("recurse", json!({"heavy": false})).await;
        assert!(detail.contains("stack_overflow"), "{detail}");
        // The stack in linear memory ends first, below address 0.
        let detail = stage.trap("recurse", json!({"heavy": true})).await;
        assert!(detail.contains("out_of_bounds"), "{detail}");
    }
    stage.control().await;
}

// A realloc that calls the host again would have it recurse for the guest, or see half-made arguments.
#[tokio::test]
async fn g07_a_realloc_that_calls_the_host_is_a_trap() {
    let stage = Stage::start().await;
    let written = Written {
        before: super::components::LOG.to_owned(),
        imports: "(import \"log\" \"write\" (func $write (param i32 i32 i32)))".to_owned(),
        with: "(with \"log\" (instance (export \"write\" (func $write))))".to_owned(),
        realloc: "(call $write (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 4096)".to_owned(),
        ..Written::default()
    };
    stage.accept("realloc", &written.bytes()).await;
    // The arguments themselves are put into the guest by its realloc.
    let detail = trap(&stage.alice.call("realloc.run", json!({})).await.expect("an answer"));
    assert!(detail.contains("contract"), "{detail}");
    stage.control().await;
}

#[tokio::test]
pub(super) async fn g08_nothing_of_a_call_is_left_for_the_next() {
    let stage = Stage::start().await;
    let mark = keybearer_tests::canary("residue-");
    let turned: Vec<u8> = mark.bytes().map(|byte| byte ^ 0xa5).collect();
    for _ in 0..20 {
        let written = stage.result("residue_write", json!({"turned": turned})).await;
        assert!(written.as_u64().is_some_and(|bytes| bytes > 6 << 20), "{written}");
        let answer = stage.bob.call("hostile.residue_read", json!({"turned": turned})).await.expect("an answer");
        let found = json!({"looked_at": 8 << 20, "marks": 0, "not_zero": 0});
        assert_eq!(answer.json()["result"], found, "{}", answer.text());
    }
}

// Tables are kept in the pool as memories are: what one call left in one would be a way to its code.
#[tokio::test]
async fn g08_nothing_of_a_table_is_left_for_the_next() {
    let stage = Stage::start().await;
    let written = Written {
        items: "(table $table 1000 5000 funcref) (elem declare func $number)".to_owned(),
        // Counts what is there already, by ones up to 9, and then fills all of it.
        run: "(local $index i32) (local $found i32)
            (drop (table.grow $table (ref.null func) (i32.const 4000)))
            (loop $next
              (if (i32.eqz (ref.is_null (table.get $table (local.get $index))))
                (then (local.set $found (i32.const 9))))
              (local.set $index (i32.add (local.get $index) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $index) (i32.const 5000))))
            (table.fill $table (i32.const 0) (ref.func $number) (i32.const 5000))
            (call $number (local.get $found))"
            .to_owned(),
        ..Written::default()
    };
    stage.accept("table", &written.bytes()).await;
    for _ in 0..20 {
        let answer = stage.alice.call("table.run", json!({})).await.expect("an answer");
        assert_eq!(answer.json()["result"], 0, "{}", answer.text());
    }
}

// Without a place for everyone, those who come late are told so at once, and those who came are served.
#[tokio::test]
async fn g09_more_calls_than_instances_are_turned_away_and_served_later() {
    const INSTANCES: usize = 3;
    let gate = Arc::new(Semaphore::new(0));
    let closed = Arc::clone(&gate);
    let options = ServerOptions::default().with(&format!("[sandbox]\ninstances = {INSTANCES}"));
    let stage = Stage::start_with(options, move |request| {
        let gate = Arc::clone(&closed);
        async move {
            gate.acquire().await.expect("it is never closed").forget();
            echo(&request)
        }
    })
    .await;
    let calls = (0..40).map(|_| stage.call("echo_back", json!({"url": "https://upstream.test/wait"})));
    let release = async {
        // Once every instance waits for its upstream, it may answer.
        while stage.upstream.recorded().len() < INSTANCES {
            tokio::task::yield_now().await;
        }
        gate.add_permits(40);
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(calls), release);
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let turned_away = answers.iter().filter(|answer| matches!(answer.status, 429 | 503)).count();
    assert!(served >= INSTANCES, "{served} were served");
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(served + turned_away, 40, "{statuses:?}");
    stage.control().await;
    assert_eq!(stage.result("echo_back", json!({"url": "https://upstream.test/after"})).await["outcome"], "200");
}

// Each memory is below the limit; both together are not.
#[tokio::test]
async fn g05_many_memories_and_tables_count_together() {
    let stage = Stage::start().await;
    let other = |items: &str| Written {
        before: format!("(core module $other {items}) (core instance (instantiate $other))"),
        ..Written::default()
    };
    // 2 x 10 MiB, where the manifest allows 16 MiB: every call would fail, so it is not published.
    let mut two = other("(memory 160)");
    two.memory = "(memory (export \"memory\") 160)".to_owned();
    let reason = stage.refuse(&two.bytes()).await;
    assert!(reason.contains("20971520 bytes of memory") && reason.contains("is 16777216"), "{reason}");
    let checked = stage.check(&two.bytes());
    assert!(checked.contains("20971520 bytes of memory") && checked.contains("is 16777216"), "{checked}");
    let mut tables = other("(table 6000 funcref)");
    tables.items = "(table 6000 funcref)".to_owned();
    let reason = stage.refuse(&tables.bytes()).await;
    assert!(reason.contains("12000 elements of tables") && reason.contains("is 10000"), "{reason}");
    let many = "(core module $other (memory 1))".to_owned() + &"(core instance (instantiate $other))".repeat(10);
    let reason = stage.refuse(&Written { before: many, ..Written::default() }.bytes()).await;
    assert!(reason.contains("memor"), "{reason}");
    // What grows at run time counts together too: 8 MiB lie there, and the other memory grows.
    let mut grows = other("(memory 128)");
    grows.run = "(if (i32.ne (memory.grow (i32.const 160)) (i32.const -1)) (then (unreachable)))
        (call $number (i32.const 7))"
        .to_owned();
    stage.accept("grows", &grows.bytes()).await;
    let answer = stage.alice.call("grows.run", json!({})).await.expect("an answer");
    assert_eq!(answer.json()["result"], 7, "{}", answer.text());
    stage.control().await;
}

// A guest that may make handles without end would fill the host's tables, not its own memory.
#[tokio::test]
async fn g14_handles_end_at_their_limit() {
    let stage = Stage::start().await;
    let written = Written {
        before: "(type $thing (resource (rep i32))) (core func $make (canon resource.new $thing))".to_owned(),
        imports: "(import \"thing\" \"make\" (func $make (param i32) (result i32)))".to_owned(),
        with: "(with \"thing\" (instance (export \"make\" (func $make))))".to_owned(),
        run: "(local $left i32) (local.set $left (i32.const 1000000))
            (loop $next
              (drop (call $make (local.get $left)))
              (br_if $next (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (call $number (i32.const 1))"
            .to_owned(),
        ..Written::default()
    };
    stage.accept("handles", &written.bytes()).await;
    let answer = stage.alice.call("handles.run", json!({})).await.expect("an answer");
    assert_eq!(limit(&answer), "handles");
    assert_eq!(answer.json()["limit"]["value"], 100);
    stage.control().await;
}
