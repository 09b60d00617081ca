//! Child processes: what is run is named, timed, and stopped when nobody waits for it any more. Not for
//! the server under test, which the harness in `tests/` starts.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use indicatif::ProgressBar;
use rustix::process::Pid;
use rustix::process::Signal;

/// How long a child may take to stop when asked, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How often a step that shows nothing says that it is still at it, where there is no terminal.
const STILL_EVERY: Duration = Duration::from_secs(30);

/// How much of a log is shown when its step fails.
const TAIL_LINES: usize = 30;

/// A child that is stopped when this is dropped.
pub(crate) struct Child {
    child: tokio::process::Child,
    /// It leads a process group of its own: its children are stopped with it, and an interrupt at the
    /// terminal does not reach it.
    group: bool,
}

impl Child {
    /// Starts one that shares the terminal.
    pub(crate) fn start(command: Command) -> anyhow::Result<Self> {
        Self::spawn(command, false)
    }

    /// Starts one in the background, with a process group of its own.
    pub(crate) fn start_aside(mut command: Command) -> anyhow::Result<Self> {
        command.process_group(0);
        Self::spawn(command, true)
    }

    fn spawn(command: Command, group: bool) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = tokio::process::Command::from(command)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("`{name}` cannot be started"))?;
        Ok(Self { child, group })
    }

    /// Its process id, as long as it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has ended already.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to stop, and does not wait: that is done when it is dropped.
    pub(crate) fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for it to end.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    fn signal(&self, signal: Signal) {
        let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
        // One that has ended meanwhile needs no signal.
        let _ended = match self.group {
            true => rustix::process::kill_process_group(pid, signal),
            false => rustix::process::kill_process(pid, signal),
        };
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let asked = Instant::now();
        self.signal(Signal::TERM);
        while asked.elapsed() < STOP_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(Signal::KILL);
    }
}

/// Runs a step whose output is shown; an error if it does not succeed.
pub(crate) async fn shown(what: &str, command: Command) -> anyhow::Result<()> {
    let started = begin(what);
    let status = Child::start(command)?.wait().await?;
    anyhow::ensure!(status.success(), "{what}: {status}");
    done(what, started);
    Ok(())
}

/// Runs a step whose output goes to a log; its end is shown if it does not succeed.
pub(crate) async fn logged(what: &str, mut command: Command, log: &Path) -> anyhow::Result<()> {
    let started = begin(what);
    std::fs::create_dir_all(log.parent().expect("a log lies in a folder"))?;
    let file = File::create(log).with_context(|| format!("the log {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file);
    let mut child = Child::start(command)?;
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if std::io::stderr().is_terminal() {
        spinner.enable_steady_tick(Duration::from_millis(100));
    }
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = tokio::time::sleep(STILL_EVERY) => {
                spinner.suspend(|| eprintln!("   {what}: still at it after {:.0} s", started.elapsed().as_secs_f64()));
            }
        }
    };
    spinner.finish_and_clear();
    anyhow::ensure!(status.success(), "{what}: {status}\n{}\n(all of it: {})", tail(log), log.display());
    done(what, started);
    Ok(())
}

/// Runs a command for what it prints; none if it cannot be run or does not succeed.
pub(crate) async fn printed(command: Command) -> Option<String> {
    let output = tokio::process::Command::from(command).stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    // Some programs print their version as an error.
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    output.status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Says what begins.
pub(crate) fn begin(what: &str) -> Instant {
    eprintln!("{} {what}", coloured("1;36", "──"));
    Instant::now()
}

/// Says what is done, and how long it took.
pub(crate) fn done(what: &str, started: Instant) {
    eprintln!("   {what}: done in {:.1} s", started.elapsed().as_secs_f64());
}

/// Something to be seen, in red on a terminal.
pub(crate) fn bad(text: &str) -> String {
    coloured("1;31", text)
}

/// Something that went well, in green on a terminal.
pub(crate) fn good(text: &str) -> String {
    coloured("1;32", text)
}

fn coloured(code: &str, text: &str) -> String {
    if std::io::stderr().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
