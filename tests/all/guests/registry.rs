//! W: what a publisher may hand in, and what the server keeps of it. If one of these failed, a component
//! could harm the server before it was ever called, or run as something that nobody signed.

use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::components::DESCRIBE;
use super::components::INVOKE;
use super::components::Written;
use super::stage::Stage;
use super::stage::bundle;
use super::stage::manifest;
use super::stage::ran;
use super::stage::signed;
use super::stage::trap;

/// The preamble of a component.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A bundle as it lies in a file, for the cases that the command line would not write.
#[derive(Serialize, Deserialize)]
struct Bundle {
    component: Vec<u8>,
    manifest: String,
    signature: Option<Value>,
}

/// The form of a bundle: eight bytes, and then MessagePack.
const BUNDLE_HEAD: usize = 8;

/// Changes what is in a bundle, and leaves its signature as it is.
fn altered(bytes: &[u8], alter: impl FnOnce(&mut Bundle)) -> Vec<u8> {
    let (head, body) = bytes.split_at(BUNDLE_HEAD);
    let mut bundle: Bundle = rmp_serde::from_slice(body).expect("a bundle");
    alter(&mut bundle);
    [head, &rmp_serde::to_vec_named(&bundle).expect("a bundle")].concat()
}

#[tokio::test]
async fn w01_w14_what_is_no_component_is_refused_with_the_reason() {
    let stage = Stage::start().await;
    let good = Written::default().bytes();
    let sound = bundle(&stage.built, &manifest("written"), &good);
    // The upload itself: nothing, a part of it, something else.
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("half of one", sound[..sound.len() / 2].to_vec()),
        ("a component without a package", good.clone()),
        ("another file", b"\x7fELF\x02\x01\x01\0 and so on".to_vec()),
        ("more than one", [sound.clone(), sound.clone()].concat()),
    ] {
        let answer = stage.publish_bundle(bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "package_invalid"), "{what}: {}", answer.text());
    }
    // What it holds, whoever signed it. Compiled code is an ELF file.
    let module = wat::parse_str("(module (func (export \"describe\")))").expect("a module");
    for (what, component) in [
        ("nothing", Vec::new()),
        ("a core module", module),
        ("compiled code", b"\x7fELF\x02\x01\x01\0 and so on".to_vec()),
        ("random bytes", (0..500_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        let answer = stage.publish_bundle(altered(&sound, |bundle| bundle.component = component)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "package_invalid"), "{what}: {}", answer.text());
    }
    for (what, rest) in [("nothing more", &b""[..]), ("a section without end", b"\x01\xff\xff\xff\xff\x0f")] {
        let reason = stage.refuse(&[COMPONENT, rest].concat()).await;
        assert!(!reason.is_empty(), "{what}");
    }
    stage.control().await;
}

#[tokio::test]
async fn w01_a_component_cut_short_anywhere_is_refused() {
    let stage = Stage::start().await;
    let good = Written::default().bytes();
    let mut at = COMPONENT.len();
    while at < good.len() {
        stage.refuse(&good[..at]).await;
        // A prime, so that the cuts fall on every kind of place.
        at += 61;
    }
    // And one that ends in the middle of the real guests.
    let real = std::fs::read(stage.built.packages.join("hostile.wasm")).expect("the guests");
    for at in (1..8).map(|eighth| real.len() * eighth / 8) {
        stage.refuse(&real[..at]).await;
    }
    stage.control().await;
}

// Without limits before the compiler, one upload of a megabyte is minutes and gigabytes of everybody's
// machine.
#[tokio::test]
async fn w03_a_component_that_is_costly_to_compile_is_refused_and_slows_nobody() {
    let stage = Stage::start().await;
    let with = |items: String| Written { items, ..Written::default() }.bytes();
    let long = format!("(func {})", "(drop (i32.const 1))".repeat(400_000));
    let locals = format!("(func (local {}))", "i32 ".repeat(20_000));
    for (what, items, word) in [
        ("functions", "(func)".repeat(100_001), "functions"),
        ("a function's bytes", long, "larger"),
        ("a function's locals", locals, "locals"),
        ("globals", "(global i32 (i32.const 0))".repeat(20_001), "globals"),
        ("segments", "(data \"\")".repeat(20_001), "segments"),
        ("types", "(type (func (param i32 i64)))".repeat(20_001), "types"),
    ] {
        let component = with(items);
        let (reason, ()) = tokio::join!(stage.refuse(&component), stage.control());
        assert!(reason.contains(word), "{what}: {reason}");
    }
    let nested = format!("(func {} {})", "block ".repeat(60_000), "end ".repeat(60_000));
    let started = Instant::now();
    let answer = stage.publish(&manifest("nested"), &with(nested)).await;
    assert!(matches!(answer.status, 201 | 422), "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
    stage.control().await;
}

#[tokio::test]
async fn w04_what_a_component_does_when_it_is_made_is_bounded_too() {
    let stage = Stage::start().await;
    let with = |items: &str| Written { items: items.to_owned(), ..Written::default() }.bytes();
    let out_of_bounds = with("(data (i32.const 70000) \"beyond the end\")");
    let reason = stage.refuse(&out_of_bounds).await;
    assert!(reason.contains("out of bounds"), "{reason}");
    let forever = with("(func $forever (loop $again (br $again))) (start $forever)");
    let (reason, ()) = tokio::join!(stage.refuse(&forever), stage.control());
    assert!(reason.contains("cpu_ms"), "{reason}");
    let forever =
        Written { describe: "(loop $again (br $again)) (i32.const 16)".to_owned(), ..Written::default() }.bytes();
    let (reason, ()) = tokio::join!(stage.refuse(&forever), stage.control());
    assert!(reason.contains("cpu_ms"), "{reason}");
    let mut large = Written { memory: "(memory (export \"memory\") 65536)".to_owned(), ..Written::default() };
    let reason = stage.refuse(&large.bytes()).await;
    assert!(reason.contains("memory"), "{reason}");
    large.memory = "(memory (export \"memory\") 1 65536)".to_owned();
    stage.accept("large", &large.bytes()).await;
}

#[tokio::test]
async fn w05_a_tool_is_called_by_a_plain_name_or_not_at_all() {
    let stage = Stage::start().await;
    let long = "a".repeat(4096);
    for tool in ["../../x", "a/b", "a.b", "", "Run", "a b", "run\u{202e}", "run\0", "1run", "run_", long.as_str()] {
        let reason = stage.refuse(&Written { tool: tool.to_owned(), ..Written::default() }.bytes()).await;
        assert!(reason.contains("tool name") && !reason.contains('\u{202e}'), "{tool:?}: {reason}");
        assert!(reason.len() < 1000, "{tool:?}: {} bytes", reason.len());
    }
}

#[tokio::test]
async fn w06_a_component_imports_its_world_or_is_refused() {
    let stage = Stage::start().await;
    let instance = |name: &str| format!("(import \"{name}\" (instance))");
    for (before, word) in [
        (instance("wasi:sockets/tcp@0.2.0"), "wasi:sockets"),
        (instance("wasi:sockets/instance-network@0.2.3"), "wasi:sockets"),
        (instance("wasi:http/outgoing-handler@0.2.0"), "wasi:http"),
        (instance("wasi:random/random@0.2.0"), "wasi.random"),
        (instance("wasi:cli/environment@0.3.0"), "wasi:cli/environment"),
        (instance("wasi:cli/environment"), "wasi:cli/environment"),
        (instance("wasi:keyvalue/store@0.2.0"), "wasi:keyvalue"),
        (instance("keybearer:tool/http@0.2.0"), "keybearer:tool/http"),
        (instance("keybearer:tool/secrets@0.1.0"), "keybearer:tool/secrets"),
        (instance("host"), "host"),
        ("(import \"log\" (func))".to_owned(), "log"),
        ("(import \"module\" (core module))".to_owned(), "module"),
    ] {
        let reason = stage.refuse(&Written { before: before.clone(), ..Written::default() }.bytes()).await;
        assert!(reason.contains(word), "{before}: {reason}");
    }
    // The right name, and something else behind it.
    let other = "(type $other (instance (export \"write\" (func (param \"message\" u32)))))
        (import \"keybearer:tool/log@0.1.0\" (instance (type $other)))";
    let reason = stage.refuse(&Written { before: other.to_owned(), ..Written::default() }.bytes()).await;
    assert!(!reason.is_empty());
    stage.control().await;
}

#[tokio::test]
async fn w07_a_component_exports_its_world_and_nothing_else() {
    let stage = Stage::start().await;
    let one_more = format!("{DESCRIBE}{INVOKE}(export \"more\" (func 0))");
    let other_type = format!(
        "{DESCRIBE}(func (export \"invoke\") (param \"tool\" string) (result string)
            (canon lift (core func $main \"more\") (memory $main \"memory\") (realloc (func $main \"cabi_realloc\"))))"
    );
    for (what, exports) in [
        ("no describe", INVOKE.to_owned()),
        ("no invoke", DESCRIBE.to_owned()),
        ("nothing", String::new()),
        ("one more", one_more),
        ("another type", other_type),
    ] {
        let items = "(func (export \"more\") (param i32 i32) (result i32) (i32.const 16))".to_owned();
        let reason = stage.refuse(&Written { exports, items, ..Written::default() }.bytes()).await;
        assert!(reason.contains("describe") || reason.contains("invoke"), "{what}: {reason}");
    }
}

#[tokio::test]
async fn w08_what_is_nested_deeply_is_refused_and_not_followed() {
    let stage = Stage::start().await;
    let mut nested = COMPONENT.to_vec();
    for _ in 0..1000 {
        nested = [COMPONENT, &section(4, &nested)].concat();
    }
    let reason = stage.refuse(&nested).await;
    assert!(reason.contains("nests"), "{reason}");
    // An instance type that declares a type that is an instance type that ...
    let mut types = vec![1];
    types.extend([0x42, 1, 1].repeat(100_000));
    types.extend([0x42, 0]);
    let reason = stage.refuse(&[COMPONENT, &section(7, &types)].concat()).await;
    assert!(reason.contains("nests"), "{reason}");
    // Values in values are another way down: an option of the one before, 100 000 times.
    let mut options = leb(100_000);
    options.extend([0x6b, 0x7f]);
    for index in 0..99_999_u32 {
        options.push(0x6b);
        options.extend(leb(index));
    }
    let reason = stage.refuse(&[COMPONENT, &section(7, &options)].concat()).await;
    assert!(!reason.is_empty());
    let mut options = leb(10_000);
    options.extend([0x6b, 0x7f]);
    for index in 0..9_999_u32 {
        options.push(0x6b);
        options.extend(leb(index));
    }
    let reason = stage.refuse(&[COMPONENT, &section(7, &options)].concat()).await;
    assert!(!reason.is_empty());
    stage.control().await;
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("a section is small");
    [&[id][..], &leb(length), content].concat()
}

fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[tokio::test]
async fn g06_memories_and_tables_of_another_kind_or_of_all_the_world_are_refused() {
    let stage = Stage::start().await;
    for (items, word) in [
        ("(table 4294967295 funcref)", "table"),
        ("(table i64 10 funcref)", "table"),
        ("(memory i64 1)", "memory"),
        ("(memory 1 1 shared)", "memory"),
        ("(memory 1) (memory 1)", "memor"),
        ("(tag (param i32))", "exception"),
        ("(func (result i32) (i32.atomic.load (i32.const 0)))", "thread"),
        ("(type (struct (field i32)))", "gc"),
        ("(type $f (func)) (type $c (cont $f))", "stack switching"),
    ] {
        let written = Written { items: items.to_owned(), ..Written::default() };
        let reason = stage.refuse(&written.bytes()).await;
        assert!(reason.to_lowercase().contains(word), "{items}: {reason}");
    }
    stage.control().await;
}

// Handles are numbers in the guest; one that it never got must be nobody's.
#[tokio::test]
async fn g23_a_forged_handle_is_a_trap() {
    let stage = Stage::start().await;
    let number = |run: &str| Written {
        before: "(type $thing (resource (rep i32)))
            (core func $make (canon resource.new $thing))
            (core func $look (canon resource.rep $thing))
            (core func $drop (canon resource.drop $thing))"
            .to_owned(),
        imports: "(import \"thing\" \"make\" (func $make (param i32) (result i32)))
            (import \"thing\" \"look\" (func $look (param i32) (result i32)))
            (import \"thing\" \"drop\" (func $drop (param i32)))"
            .to_owned(),
        with: "(with \"thing\" (instance
            (export \"make\" (func $make)) (export \"look\" (func $look)) (export \"drop\" (func $drop))))"
            .to_owned(),
        run: run.to_owned(),
        ..Written::default()
    };
    let own = number("(call $number (call $look (call $make (i32.const 7))))");
    stage.accept("own", &own.bytes()).await;
    let answer = stage.alice.call("own.run", json!({})).await.expect("an answer");
    assert_eq!(answer.json()["result"], 7, "{}", answer.text());
    for (index, handle) in ["0", "1", "2", "1048576", "0x7fffffff", "-1"].into_iter().enumerate() {
        for (kind, run) in [
            ("look", format!("(call $number (call $look (i32.const {handle})))")),
            ("drop", format!("(call $drop (i32.const {handle})) (call $number (i32.const 1))")),
        ] {
            let name = format!("{kind}-{index}");
            stage.accept(&name, &number(&run).bytes()).await;
            let answer = stage.alice.call(&format!("{name}.run"), json!({})).await.expect("an answer");
            assert!(!trap(&answer).is_empty(), "{handle}");
        }
    }
    stage.control().await;
}

#[tokio::test]
async fn w10_only_what_a_trusted_signer_signed_is_published() {
    let stage = Stage::start().await;
    let (text, component) = (manifest("signed"), Written::default().bytes());
    let sound = bundle(&stage.built, &text, &component);
    let folder = tempfile::tempdir().expect("a folder");
    let stranger = folder.path().join("key");
    ran(std::process::Command::new(&stage.built.binary).args(["tool", "keygen"]).arg(&stranger));
    // The same functions, and one byte more in a section of its own that nobody runs.
    let longer = [&component[..], &section(0, b"\x01xy")].concat();
    let other = bundle(&stage.built, &manifest("other"), &component);
    let others = {
        let mut taken = None;
        altered(&other, |bundle| taken = bundle.signature.clone());
        taken
    };
    for (what, bytes) in [
        ("unsigned", signed(&stage.built, &text, &component, None)),
        ("a stranger's", signed(&stage.built, &text, &component, Some(&stranger))),
        ("stripped", altered(&sound, |bundle| bundle.signature = None)),
        ("another component", altered(&sound, |bundle| bundle.component = longer)),
        ("another manifest", altered(&sound, |bundle| bundle.manifest.push('\n'))),
        ("another package's signature", altered(&sound, |bundle| bundle.signature = others)),
        (
            "another signer's name",
            altered(&sound, |bundle| {
                bundle.signature.as_mut().expect("it is signed")["signer"] = "00".repeat(32).into();
            }),
        ),
    ] {
        let answer = stage.publish_bundle(bytes).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "signature_refused"), "{what}: {}", answer.text());
    }
    assert_eq!(stage.publish_bundle(sound).await.status, 201);
}

#[tokio::test]
async fn w12_w13_a_version_is_neither_rolled_back_nor_widened_in_silence() {
    let stage = Stage::start().await;
    let component = Written::default().bytes();
    let text = |version: &str, more: &str| manifest("grows").replace("0.1.0", version) + more;
    assert_eq!(stage.publish(&text("1.0.1", ""), &component).await.status, 201);
    stage.alice.allow("grows").await.expect("a grant");
    let answer = stage.publish(&text("1.0.0", ""), &component).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"), "{}", answer.text());
    // A newer one wants out: what was granted does not cover it, and the old one goes on.
    let out = "\n[[allow]]\nhost = \"elsewhere.test\"\nmethods = [\"GET\"]\npaths = [\"/{rest...}\"]\n";
    let wider = stage.publish(&text("1.0.2", out), &component).await;
    assert_eq!(wider.status, 201, "{}", wider.text());
    let answer = stage.alice.call("grows.run", json!({})).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.json()["package"], wider.json()["digest"], "nobody approved the newer one");
    let body = json!({"tool": "grows.run", "arguments": {}, "package": wider.json()["digest"]});
    let answer = stage.alice.client.post("/v1/calls", &body).await.expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (403, "grant_missing"), "{}", answer.text());
}

// Compiled code on disk is code that runs in the server: a byte of it that somebody else wrote must
// never be mapped.
#[tokio::test]
async fn w14_compiled_code_that_was_touched_on_disk_is_made_anew() {
    let mut stage = Stage::start().await;
    stage.control().await;
    for touch in [
        (|bytes: &mut Vec<u8>| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
        }) as fn(&mut Vec<u8>),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| bytes.clear(),
        |bytes| {
            let at = bytes.len() - 1;
            bytes[at] ^= 0x80;
        },
        |bytes| bytes[0] ^= 0xff,
    ] {
        stage.restart(|server| touch_compiled(&server.home().join("cache"), touch));
        stage.control().await;
    }
}

/// Has this done to every piece of compiled code in the folder.
fn touch_compiled(cache: &Path, touch: fn(&mut Vec<u8>)) {
    let mut touched = 0;
    for entry in std::fs::read_dir(cache).expect("compiled code is kept") {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("a file");
        if bytes.len() > 1000 {
            touch(&mut bytes);
            std::fs::write(&path, &bytes).expect("it is written");
            touched += 1;
        }
    }
    assert!(touched > 0, "there is compiled code in {}", cache.display());
}
