//! Components that are not what they should be: refused with a sentence at registration, before anything
//! of them runs. If one of these fails, a publisher can stop the server or import what nobody granted.

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::Wasi;
use keybearer_sandbox::CompileMode;
use keybearer_sandbox::LoadFailed;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::Stop;
use keybearer_sandbox::TrapKind;

use crate::support::Bench;
use crate::support::EXPORTS;
use crate::support::by_hand;
use crate::support::config;
use crate::support::core;
use crate::support::echo;
use crate::support::guest;

#[tokio::test]
async fn w01_what_is_no_component_is_refused() {
    let bench = Bench::new();
    let module =
        wat::parse_str(core("", "(i32.const 0)", "(i32.const 0)").replace("(global $heap", "(memory 1) (global $heap"))
            .expect("parses");
    for (case, bytes) in [
        ("nothing", Vec::new()),
        ("text", b"(component)".to_vec()),
        ("another magic", b"\0asn\x0d\0\x01\0".to_vec()),
        ("another version", b"\0asm\xff\0\x01\0".to_vec()),
        ("an empty component", b"\0asm\x0d\0\x01\0".to_vec()),
    ] {
        assert!(!bench.refusal(&bytes).await.is_empty(), "{case}");
    }
    assert!(bench.refusal(&module).await.contains("core module"));
}

#[tokio::test]
async fn w01_a_component_that_is_cut_anywhere_is_refused() {
    let bench = Bench::new();
    let whole = echo();
    let mut whole_again = 0;
    for length in 0..whole.len() {
        let cut = &whole[..length];
        if let Ok(tool) = bench.sandbox.load(&digest(cut), cut, &Wasi::default()).await {
            // Only names and producers stand behind the exports: without them it is the same component.
            assert_eq!(bench.call(&tool, "{}").await.outcome.as_deref(), Ok("{}"), "cut at {length}");
            whole_again += 1;
        }
    }
    assert!(whole_again <= 3, "{whole_again}");
}

fn digest(component: &[u8]) -> Digest {
    Digest::of_package(component, b"")
}

#[tokio::test]
async fn w01_a_component_with_a_wrong_byte_anywhere_loads_or_is_refused_and_never_panics() {
    let bench = Bench::new();
    let whole = echo();
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let digest = digest(&bytes);
        if let Err(failed) = bench.sandbox.load(&digest, &bytes, &Wasi::default()).await {
            let LoadFailed::Refused(refused) = failed else { panic!("byte {at}: {failed}") };
            assert!(!refused.reason.contains("panicked"), "byte {at}: {refused}");
        }
    }
}

#[tokio::test]
async fn w03_too_many_or_too_large_is_refused_before_it_is_compiled() {
    let bench = Bench::new();
    for (case, module, says) in [
        ("functions", "(func)".repeat(100_001), "functions"),
        ("types", "(type (func))".repeat(20_001), "types"),
        ("locals", format!("(func (local {}))", "i32 ".repeat(10_001)), "locals"),
        ("one function", format!("(func {})", "nop ".repeat(1_100_000)), "larger"),
        ("segments", "(data \"\")".repeat(20_001), "segments"),
        ("globals", "(global i32 (i32.const 0))".repeat(20_001), "globals"),
        (
            "exports",
            (0..20_001).map(|index| format!("(global (export \"{index}\") i32 (i32.const 0))")).collect(),
            "than",
        ),
    ] {
        let component = by_hand(&format!("(core module {module})"), EXPORTS);
        let reason = bench.refusal(&component).await;
        assert!(reason.contains(says), "{case}: {reason}");
    }
    let mut large = echo();
    // A custom section of 50 MiB.
    let size = 50_u32 << 20;
    large.extend([0, 0x80 | (size & 0x7f) as u8, 0x80 | ((size >> 7) & 0x7f) as u8]);
    large.extend([0x80 | ((size >> 14) & 0x7f) as u8, (size >> 21) as u8, 0]);
    large.resize(large.len() + size as usize - 1, 0);
    assert!(bench.refusal(&large).await.contains("larger"));
}

#[tokio::test]
async fn w04_g06_memories_and_tables_beyond_the_limits_are_refused() {
    let bench = Bench::new();
    for (module, says) in [
        ("(memory 65536)", "memory"),
        ("(memory 1025)", "memory"),
        ("(memory i64 1)", "64"),
        ("(table 4294967295 funcref)", "table"),
        ("(table i64 1 funcref)", "64"),
        ("(memory 1 2 shared)", "shared"),
        ("(memory 1) (memory 1)", "memor"),
    ] {
        let component = by_hand(&format!("(core module {module})"), EXPORTS);
        let reason = bench.refusal(&component).await;
        assert!(reason.contains(says), "{module}: {reason}");
    }
}

#[tokio::test]
async fn w04_a_segment_outside_of_its_memory_is_a_trap_of_the_call() {
    let ended = Bench::new().run(&guest("(data (i32.const 131070) \"xxx\")", "(unreachable)")).await;
    assert!(matches!(ended.outcome, Err(Stop::Trap { kind: TrapKind::OutOfBounds, .. })), "{:?}", ended.outcome);
}

#[tokio::test]
async fn w06_imports_outside_of_the_world_are_refused() {
    let bench = Bench::new();
    for import in [
        r#"(import "keybearer:tool/http@0.2.0" (instance))"#,
        r#"(import "keybearer:tool/http" (instance))"#,
        r#"(import "keybearer:tool/secrets@0.1.0" (instance))"#,
        r#"(import "wasi:sockets/tcp@0.2.0" (instance))"#,
        r#"(import "wasi:http/outgoing-handler@0.2.0" (instance))"#,
        r#"(import "wasi:random/random@0.2.0" (instance))"#,
        r#"(import "wasi:cli/run@0.2.0" (instance))"#,
        r#"(import "read" (func))"#,
        r#"(import "keybearer:tool/log@0.1.0" (func))"#,
        r#"(import "keybearer:tool/log@0.1.0" (component))"#,
    ] {
        let reason = bench.refusal(&by_hand(import, EXPORTS)).await;
        assert!(reason.contains("it imports"), "{import}: {reason}");
    }
    // Made for another version of the world: both are named, so that its author knows what to build with.
    let newer = bench.refusal(&by_hand(r#"(import "keybearer:tool/http@0.2.0" (instance))"#, EXPORTS)).await;
    assert!(newer.contains("version 0.2.0") && newer.contains("this host speaks 0.1.0"), "{newer}");
    // The right name, another type.
    for import in [
        r#"(import "keybearer:tool/log@0.1.0" (instance (export "write" (func (param "message" string)))))"#,
        r#"(import "keybearer:tool/call@0.1.0" (instance (export "tenant" (func (result string)))))"#,
        r#"(import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result string)))))"#,
    ] {
        bench.refusal(&by_hand(import, EXPORTS)).await;
    }
}

#[tokio::test]
async fn w07_exports_are_exactly_the_worlds() {
    let bench = Bench::new();
    let (describe, invoke) = EXPORTS.split_once("\n  (func (export \"invoke\")").expect("two exports");
    let invoke = format!("(func (export \"invoke\"){invoke}");
    let extra = r#"(func (export "more") (canon lift (core func $i "describe") (memory $i "memory")))"#;
    for (case, exports) in [
        ("none", String::new()),
        ("one", describe.to_owned()),
        ("the other one", invoke.clone()),
        ("one more", format!("{EXPORTS} {}", extra.replace("(canon", "(result string) (canon"))),
        ("another type", EXPORTS.replace(r#"(param "tool" string)"#, r#"(param "tool" (list u8))"#)),
        ("another result", EXPORTS.replace("(result (list $tool))", "(result string)")),
        ("an instance", format!(r#"{invoke} (instance $x) (export "describe" (instance $x))"#)),
        (
            "lifted as async",
            EXPORTS.replace("(memory $i \"memory\") (realloc", "async (memory $i \"memory\") (realloc"),
        ),
    ] {
        let Ok(component) = wat::parse_str(crate::support::by_hand_text("", &exports)) else {
            panic!("{case} does not parse")
        };
        bench.refusal(&component).await;
    }
    assert!(bench.run(&by_hand("", EXPORTS)).await.outcome.is_ok());
}

#[tokio::test]
async fn w08_types_within_types_and_components_within_components_are_refused() {
    let bench = Bench::new();
    // 100 000 instance types, one within the other, three bytes each; wasmparser alone would recurse.
    for constructor in [0x41, 0x42] {
        let mut types = vec![1];
        for _ in 0..100_000 {
            types.extend([constructor, 1, 1]);
        }
        types.extend([constructor, 0]);
        let mut component = b"\0asm\x0d\0\x01\0\x07".to_vec();
        let size = types.len();
        component.extend([(size & 0x7f) as u8 | 0x80, (size >> 7 & 0x7f) as u8 | 0x80, (size >> 14) as u8]);
        component.extend(types);
        let reason = bench.refusal(&component).await;
        assert!(reason.contains("nests types"), "{reason}");
    }
    let nested = format!("{}{}", "(component ".repeat(30), ")".repeat(30));
    assert!(bench.refusal(&by_hand(&nested, EXPORTS)).await.contains("nests components"));
}

#[tokio::test]
async fn w08_chains_and_bombs_of_types_are_refused_or_harmless() {
    let bench = Bench::new();
    let mut chain = "(type $t0 (list u8))".to_owned();
    let mut bomb = "(type $b0 (tuple u64 u64))".to_owned();
    for index in 1..10_000 {
        chain += &format!("(type $t{index} (list $t{}))", index - 1);
    }
    for index in 1..60 {
        bomb += &format!("(type $b{index} (tuple $b{} $b{}))", index - 1, index - 1);
    }
    for items in [chain, bomb] {
        bench.refusal(&by_hand(&items, EXPORTS)).await;
    }
}

#[tokio::test]
async fn g20_relaxed_simd_is_refused() {
    let module = "(core module (func (param v128 v128 v128) (result v128)
        (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2))))";
    Bench::new().refusal(&by_hand(module, EXPORTS)).await;
}

#[tokio::test]
async fn w14_the_cache_is_used_when_it_holds_and_otherwise_the_component_is_compiled_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = echo();
    let digest = digest(&component);
    let sandbox = |compile: CompileMode, key: u8| {
        Sandbox::new(keybearer_sandbox::SandboxConfig {
            cache_dir: Some(folder.path().to_owned()),
            cache_key: [key; 32].into(),
            compile,
            ..config(Limits::default(), 2)
        })
        .expect("a sandbox")
    };
    // A compiler that is not there: what loads under it came from the cache.
    let nothing = || CompileMode::Child { exe: "/nonexistent".into(), args: Vec::new() };
    let load = async |sandbox: Sandbox| sandbox.load(&digest, &component, &Wasi::default()).await.is_ok();

    assert!(!load(sandbox(nothing(), 1)).await);
    assert!(load(sandbox(CompileMode::InProcess, 1)).await);
    assert!(load(sandbox(nothing(), 1)).await, "from the cache");
    assert!(!load(sandbox(nothing(), 2)).await, "another key");

    let entry = std::fs::read_dir(folder.path()).expect("lists").next().expect("an entry").expect("reads").path();
    let whole = std::fs::read(&entry).expect("reads");
    let mut tampered = whole.clone();
    *tampered.last_mut().expect("bytes") ^= 1;
    std::fs::write(&entry, &tampered).expect("writes");
    assert!(!load(sandbox(nothing(), 1)).await, "tampered");
    assert!(load(sandbox(CompileMode::InProcess, 1)).await, "compiled anew");
    assert!(load(sandbox(nothing(), 1)).await, "and kept");
}

#[tokio::test]
async fn w14_compiled_code_is_not_accepted_as_a_component() {
    let folder = tempfile::tempdir().expect("a folder");
    let sandbox = Sandbox::new(keybearer_sandbox::SandboxConfig {
        cache_dir: Some(folder.path().to_owned()),
        ..config(Limits::default(), 2)
    })
    .expect("a sandbox");
    let component = echo();
    sandbox.load(&digest(&component), &component, &Wasi::default()).await.expect("it loads");
    let entry = std::fs::read_dir(folder.path()).expect("lists").next().expect("an entry").expect("reads").path();
    let code = std::fs::read(&entry).expect("reads").split_off(32);
    let reason = Bench::new().refusal(&code).await;
    assert!(reason.contains("compiled code"), "{reason}");
}
