//! The child that compiles: it does, it is confined before it reads, and its end is nobody else's.

use std::process::Stdio;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::Wasi;
use keybearer_sandbox::CompileMode;
use keybearer_sandbox::LoadFailed;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::SandboxConfig;

use crate::support::Bench;
use crate::support::EXPORTS;
use crate::support::by_hand;
use crate::support::config;
use crate::support::echo;

const COMPILER: &str = env!("CARGO_BIN_EXE_keybearer-compile");

fn bench(exe: &str) -> Bench {
    let limits = Limits::default();
    let compile = CompileMode::Child { exe: exe.into(), args: Vec::new() };
    let sandbox = Sandbox::new(SandboxConfig { compile, ..config(limits, 2) }).expect("a sandbox");
    Bench { sandbox, limits }
}

#[tokio::test]
async fn what_the_child_compiled_runs() {
    assert_eq!(bench(COMPILER).run(&echo()).await.outcome.as_deref(), Ok("{}"));
}

#[tokio::test]
async fn a_component_that_is_not_valid_is_refused_by_the_child() {
    let reason = bench(COMPILER).refusal(&by_hand("(core module (func (result i32)))", EXPORTS)).await;
    assert!(reason.contains("type mismatch"), "{reason}");
}

#[tokio::test]
async fn a_compiler_that_is_none_is_the_hosts_fault() {
    for exe in ["/nonexistent", "/bin/false", "/bin/cat"] {
        let component = echo();
        let digest = Digest::of_package(&component, b"");
        let failed = bench(exe).sandbox.load(&digest, &component, &Wasi::default()).await;
        assert!(matches!(failed, Err(LoadFailed::Host(_))), "{exe}: {:?}", failed.err());
    }
}

#[tokio::test]
async fn w03_a_compiler_that_is_killed_refuses_its_component_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("killed");
    std::fs::write(&script, "#!/bin/sh\nkill -9 $$\n").expect("writes");
    let mut mode = std::fs::metadata(&script).expect("is there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o700);
    std::fs::set_permissions(&script, mode).expect("sets");
    let reason = bench(script.to_str().expect("text")).refusal(&echo()).await;
    assert!(reason.contains("gave up"), "{reason}");
}

#[tokio::test]
async fn w03_the_child_is_confined_before_it_reads_a_byte() {
    let mut child = tokio::process::Command::new(COMPILER)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("starts");
    let about = |file: &str| {
        let id = child.id().expect("it runs");
        std::fs::read_to_string(format!("/proc/{id}/{file}")).expect("reads")
    };
    // It has been sent nothing: whatever it is now, it is before the first byte.
    let confined = async {
        while !about("status").contains("Seccomp:\t2") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), confined).await.expect("it confines itself");
    assert!(about("status").contains("NoNewPrivs:\t1"));
    assert!(about("status").contains("Threads:\t1\n"), "a filter is one thread's");
    let limits = about("limits");
    for (name, value) in [
        ("Max address space", "2147483648"),
        ("Max cpu time", "60"),
        ("Max open files", "0"),
        ("Max file size", "0"),
        ("Max core file size", "0"),
        ("Max processes", "0"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).expect("a limit");
        let held: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
        assert_eq!(held, [value, value], "{name}");
    }
    child.kill().await.expect("ends");
}
