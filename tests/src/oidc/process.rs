//! The process of an oidc-provider of a case's own: its folder, signals. What it knows is in its memory: one that is
//! started again knows no client.

use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::Authority;
use crate::Oidc;
use crate::Peer;
use crate::Secure;
use crate::peers;

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// A child in a folder of its own, killed at the end.
pub(super) struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do about a child that is gone already; one that is paused ends too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts one; port 0 is for the kernel to choose.
fn spawn(folder: &Path, port: u16) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("oidc.log"))?;
    let ready = folder.join("oidc.ready");
    if ready.exists() {
        std::fs::remove_file(ready)?;
    }
    let mut command = Command::new(peers::told("KEYBEARER_TEST_OIDC_NODE")?);
    command.arg(peers::folder()?.join("oidc/op.mjs")).arg(folder).arg(port.to_string());
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().context("oidc-provider cannot be started")
}

async fn listening(folder: &Path, child: &mut Child) -> anyhow::Result<u16> {
    let started = Instant::now();
    loop {
        if let Ok(port) = std::fs::read_to_string(folder.join("oidc.ready")) {
            return Ok(port.parse()?);
        }
        let ended = child.try_wait()?;
        let log = || std::fs::read_to_string(folder.join("oidc.log")).unwrap_or_default();
        anyhow::ensure!(ended.is_none() && started.elapsed() < START_MAX, "oidc-provider does not start: {}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Oidc {
    /// A new one of this case's own, which proves its name by the same authority as the shared one.
    ///
    /// # Errors
    /// If it is not installed or does not start; what it printed is in the error.
    pub async fn start() -> anyhow::Result<Self> {
        let (authority, token) = (peers::authority()?, crate::canary("registration-"));
        let folder = tempfile::Builder::new().prefix("keybearer-oidc-").tempdir()?;
        let (certificate, key) = authority.issue(&[Self::NAME, "localhost"], &[])?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        std::fs::write(folder.path().join("server.pem"), certificate)?;
        crate::secret_file(&folder.path().join("server.key"), &key)?;
        crate::secret_file(&folder.path().join("oidc.token"), &token)?;
        let child = spawn(folder.path(), 0)?;
        let mut process = Process { child, folder };
        let port = listening(process.folder.path(), &mut process.child).await?;
        let peer = Peer::at(([127, 0, 0, 1], port).into(), Authority::of_key(&authority.key_pem())?);
        let secure = Secure::new(peer.address(), peer.authority(), None)?.named(Self::NAME);
        Ok(Self { peer, secure, token, process: Some(process) })
    }

    /// Stops it where it is (SIGSTOP): connections are accepted by the kernel, nothing is answered.
    ///
    /// # Errors
    /// If it is shared.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after a pause.
    ///
    /// # Errors
    /// If it is shared.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.process.as_ref().context(SHARED)?;
        let pid = Pid::from_raw(process.child.id().cast_signed()).context("a process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// If it is shared.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let process = self.process.as_mut().context(SHARED)?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address, after it was killed; it knows nothing of before.
    ///
    /// # Errors
    /// If it is shared, or does not come up.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let port = self.peer.address().port();
        let process = self.process.as_mut().context(SHARED)?;
        process.child = spawn(process.folder.path(), port)?;
        listening(process.folder.path(), &mut process.child).await.map(drop)
    }
}

const SHARED: &str = "the shared one is for all cases: start one";
