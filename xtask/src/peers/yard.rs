//! Where the servers run: a temporary folder with the throw-away authority, a log for each, and a note of
//! their processes for the case that nobody is left to stop them.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Authority;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::children;
use crate::children::Child;
use crate::place::Place;

/// How long a server may take to answer on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

/// The names that the one certificate proves, OpenBao's apart.
const NAMES: [&str; 9] = [
    "httpbin.org",
    "nginx.test",
    "oidc.test",
    "moto.test",
    "sts.amazonaws.com",
    "sts.eu-west-1.amazonaws.com",
    "sts.us-east-1.amazonaws.com",
    "secretsmanager.eu-west-1.amazonaws.com",
    "secretsmanager.us-east-1.amazonaws.com",
];

/// Where the servers run.
pub(super) struct Yard {
    folder: tempfile::TempDir,
    authority: Authority,
    /// Which processes to stop if this one was killed before it could.
    pids: PathBuf,
    noted: Mutex<String>,
}

impl Yard {
    pub(super) fn new(place: &Place) -> anyhow::Result<Self> {
        let pids = place.target.join("xtask/peers");
        std::fs::create_dir_all(&pids)?;
        stop_leftovers(&pids)?;
        let pids = pids.join(std::process::id().to_string());
        let folder = tempfile::Builder::new().prefix("keybearer-peers-").tempdir()?;
        let authority = Authority::new()?;
        let (certificate, key) = authority.issue(&NAMES, &[])?;
        // The cases make the same authority of its key.
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        std::fs::write(folder.path().join("ca.key"), authority.key_pem())?;
        std::fs::write(folder.path().join("server.pem"), certificate)?;
        std::fs::write(folder.path().join("server.key"), key)?;
        Ok(Self { folder, authority, pids, noted: Mutex::default() })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Who proves the names of all of them.
    pub(super) fn authority(&self) -> anyhow::Result<Authority> {
        Authority::of_key(&self.authority.key_pem())
    }

    /// Starts a server whose output goes to a log in the folder. The folder is named on its command line.
    pub(super) fn run(&self, command: Command, name: &str) -> anyhow::Result<Child> {
        self.run_in(self.folder(), command, name)
    }

    /// The same in another folder, which is removed if nobody else is left to.
    pub(super) fn run_in(&self, folder: &Path, mut command: Command, name: &str) -> anyhow::Result<Child> {
        let log = File::create(self.log(name))?;
        command.current_dir(folder).stdout(log.try_clone()?).stderr(log);
        let child = Child::start_aside(command)?;
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.extend(child.id().map(|pid| format!("{pid} {}\n", folder.display())));
        std::fs::write(&self.pids, noted.as_str())?;
        Ok(child)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }

    /// Waits until a server of ours is ready.
    pub(super) async fn until<T>(
        &self,
        name: &str,
        child: &mut Child,
        mut ready: impl AsyncFnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = ready().await {
                return Ok(found);
            }
            if let Some(status) = child.ended()? {
                anyhow::bail!("{name} ended at once ({status}): {}", children::tail(&self.log(name)));
            }
            let waited = started.elapsed() > READY_MAX;
            anyhow::ensure!(!waited, "{name} does not answer: {}", children::tail(&self.log(name)));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Nothing runs here any more.
    pub(super) fn forget(&self) {
        // There is nothing left to remember, and nobody to tell if that fails.
        drop(std::fs::remove_file(&self.pids));
    }
}

/// Stops the servers of runs that were killed: files named for a process that is gone, with lines for
/// processes that still name the folder they were started in.
fn stop_leftovers(runs: &Path) -> anyhow::Result<()> {
    for run in std::fs::read_dir(runs)? {
        let run = run?;
        if command_line(&run.file_name().to_string_lossy()).contains("xtask") {
            continue;
        }
        let text = std::fs::read_to_string(run.path())?;
        for (pid, folder) in text.lines().filter_map(|line| line.split_once(' ')) {
            let ours = command_line(pid).contains(folder);
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw).filter(|_| ours) {
                // One that has ended meanwhile needs no signal.
                let _ended = rustix::process::kill_process_group(pid, Signal::TERM);
                // The folder may be gone; if it is not, it is in nobody's way.
                drop(std::fs::remove_dir_all(folder));
            }
        }
        std::fs::remove_file(run.path())?;
    }
    Ok(())
}

/// The command line of a process; empty if there is none.
fn command_line(pid: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
