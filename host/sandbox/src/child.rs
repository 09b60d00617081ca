//! Compiling in a process of its own: one component a child, the child limited before it reads the first
//! byte (threats W03). It inherits no environment, no file but its three pipes, and never sees the
//! cache's key; what it answers becomes code in the parent, which is why nothing but one component can
//! influence it.

use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::timeout;

use crate::cache::CODE_BYTES_MAX;
use crate::confine;
use crate::engine;
use crate::frame::Bytes;
use crate::frame::LENGTH_BYTES;
use crate::frame::length;
use crate::inspect::COMPONENT_BYTES_MAX;
use crate::refused::ComponentRefused;
use crate::refused::LoadFailed;

/// How long a child may take in all. Its processor time is limited by itself, to as much.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a child may take to end once its pipe is closed.
const GRACE: Duration = Duration::from_secs(1);

/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;

/// What a frame has beside the bytes that it carries.
const FRAME_OVERHEAD: usize = 1 << 10;

/// What the parent asks.
#[derive(Serialize, Deserialize)]
struct Order {
    component: Bytes,
}

/// What the child answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    /// Here is the code.
    Code(Bytes),
    /// The component is at fault.
    Refused(String),
    /// The child itself is: it could not be limited, or made no engine.
    Unfit(String),
}

/// Compiles one component in a child.
///
/// # Errors
/// [`LoadFailed::Refused`] if the compiler refused the component or gave up on it; [`LoadFailed::Host`]
/// if the child could not be started or did not speak as it should.
pub(crate) async fn compile(exe: &Path, args: &[String], component: Vec<u8>) -> Result<Vec<u8>, LoadFailed> {
    let order = crate::frame::encode(&Order { component: Bytes(component) })
        .map_err(|error| LoadFailed::Host(format!("the order does not encode: {error}")))?;
    let mut child = Command::new(exe)
        .args(args)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LoadFailed::Host(format!("the compiler does not start: {error}")))?;
    let answer = timeout(DEADLINE, exchange(&mut child, &order)).await;
    let Ok(answer) = answer else {
        let _ = child.kill().await;
        return Err(ComponentRefused::new("it took the compiler too long").into());
    };
    match answer {
        Ok(Answer::Code(Bytes(code))) => Ok(code),
        Ok(Answer::Refused(reason)) => Err(ComponentRefused::new(reason).into()),
        Ok(Answer::Unfit(reason)) => Err(LoadFailed::Host(reason)),
        Err(error) => Err(post_mortem(child, &error).await),
    }
}

/// Who is to blame that there is no answer: a component at which the compiler ran out of memory, time or
/// stack, or panicked, ends the child by a signal or with Rust's own code; anything else is not a
/// compiler of ours.
async fn post_mortem(mut child: Child, error: &std::io::Error) -> LoadFailed {
    match timeout(GRACE, child.wait()).await {
        Ok(Ok(status)) if status.code().is_none_or(|code| code == PANICKED) => {
            ComponentRefused::new("the compiler gave up on it: it took too much time or memory").into()
        }
        Ok(Ok(status)) => LoadFailed::Host(format!("the compiler does not answer ({status}): {error}")),
        _ => LoadFailed::Host(format!("the compiler does not answer: {error}")),
    }
}

async fn exchange(child: &mut Child, order: &[u8]) -> std::io::Result<Answer> {
    let mut to = child.stdin.take().expect("it was piped");
    let mut from = child.stdout.take().expect("it was piped");
    // A child that is unfit answers without reading: that its pipe broke is not the news.
    let _ = to.write_all(order).await;
    drop(to);
    let mut header = [0; LENGTH_BYTES];
    from.read_exact(&mut header).await?;
    let mut frame = vec![0; length(header, CODE_BYTES_MAX + FRAME_OVERHEAD)?];
    from.read_exact(&mut frame).await?;
    crate::frame::decode(&frame)
}

/// The whole of the child: limits itself, reads one component, compiles it, answers, ends. The binary
/// calls this first thing for a hidden subcommand, before it starts a thread or reads a setting.
#[must_use]
pub fn compile_child_main() -> ExitCode {
    let answer = match ready() {
        Ok(engine) => match read_order() {
            Ok(order) => work(&engine, &order),
            Err(error) => Answer::Unfit(format!("the order does not read: {error}")),
        },
        Err(reason) => Answer::Unfit(reason),
    };
    let sent = crate::frame::encode(&answer).and_then(|frame| std::io::stdout().lock().write_all(&frame));
    if sent.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes the engine, which asks things of the system that nothing later needs, and closes the door.
fn ready() -> Result<wasmtime::Engine, String> {
    let engine = engine::compiling().map_err(|error| format!("no engine: {error:#}"))?;
    confine::confine().map_err(|error| format!("the compiler cannot be confined: {error}"))?;
    Ok(engine)
}

fn read_order() -> std::io::Result<Order> {
    let mut from = std::io::stdin().lock();
    let mut header = [0; LENGTH_BYTES];
    from.read_exact(&mut header)?;
    let mut frame = vec![0; length(header, COMPONENT_BYTES_MAX + FRAME_OVERHEAD)?];
    from.read_exact(&mut frame)?;
    crate::frame::decode(&frame)
}

fn work(engine: &wasmtime::Engine, order: &Order) -> Answer {
    match engine.precompile_component(&order.component.0) {
        Ok(code) => Answer::Code(Bytes(code)),
        Err(error) => Answer::Refused(ComponentRefused::of(&error).reason),
    }
}
