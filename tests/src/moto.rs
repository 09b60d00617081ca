//! A moto of a case's own: it may be paused, killed, started again, and made to answer what AWS would not. What it
//! keeps is in its memory, and gone when it is killed. The shared one is a [`crate::Peer`].

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;

use crate::Authority;
use crate::Reserved;
use crate::Secure;
use crate::peers;

const APPLICATION: &str = include_str!("../../xtask/peers/moto_app.py");

/// The names on its certificate.
const NAMES: &[&str] = &["moto.test", Moto::SECRETS, Moto::TOKENS];

/// How long a start may take on a busy machine: it imports a great deal.
const START_MAX: Duration = Duration::from_secs(60);

/// A moto that runs until it is dropped.
pub struct Moto {
    program: PathBuf,
    /// gunicorn, at the head of a group of processes.
    child: Child,
    folder: tempfile::TempDir,
    port: Reserved,
    secure: Secure,
}

impl Moto {
    /// Secrets Manager, of the region that the cases use.
    pub const SECRETS: &'static str = "secretsmanager.eu-west-1.amazonaws.com";

    /// STS, of the same.
    pub const TOKENS: &'static str = "sts.eu-west-1.amazonaws.com";

    /// A new one, whose certificate is this authority's.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let program = PathBuf::from(peers::told("KEYBEARER_TEST_MOTO_PROGRAM")?);
        let folder = tempfile::Builder::new().prefix("keybearer-moto-").tempdir()?;
        let (certificate, key) = authority.issue(NAMES, &[])?;
        std::fs::write(folder.path().join("moto_app.py"), APPLICATION)?;
        std::fs::write(folder.path().join("server.pem"), certificate)?;
        crate::secret_file(&folder.path().join("server.key"), &key)?;
        let port = Reserved::new()?;
        let secure = Secure::new(port.address(), authority, None)?.named(Self::SECRETS);
        let child = spawn(&program, &folder, port.address())?;
        let mut moto = Self { program, child, folder, port, secure };
        moto.until_it_answers().await?;
        Ok(moto)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Asks Secrets Manager, as somebody whom it believes.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn secrets(&self, action: &str, body: &Value) -> anyhow::Result<Value> {
        let target = format!("secretsmanager.{action}");
        let signed = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/secretsmanager/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target), ("authorization", signed)];
        let answer = self.secure.send("POST", "/", &headers, body.to_string().into_bytes()).await?;
        anyhow::ensure!(answer.status == 200, "{action}: {}", answer.text());
        Ok(answer.json())
    }

    /// Stops it where it is (SIGSTOP): connections are accepted by the kernel, nothing is answered.
    ///
    /// # Errors
    /// If it is gone.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after a pause.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again at the same address, after it was killed: it knows nothing.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child = spawn(&self.program, &self.folder, self.port.address())?;
        self.until_it_answers().await
    }

    /// It answers this, whatever it is asked, until [`Self::mend`].
    ///
    /// # Errors
    /// If it cannot be told.
    pub fn spoil(&self, status: u16, body: &str) -> anyhow::Result<()> {
        let (file, made) = (self.folder.path().join("spoil"), self.folder.path().join("spoil.new"));
        std::fs::write(&made, format!("{status}\n{body}"))?;
        Ok(std::fs::rename(made, file)?)
    }

    /// It answers as ever.
    ///
    /// # Errors
    /// If it was not spoilt.
    pub fn mend(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.folder.path().join("spoil"))?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let group = Pid::from_raw(self.child.id().cast_signed()).context("a process id")?;
        Ok(rustix::process::kill_process_group(group, signal)?)
    }

    async fn until_it_answers(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            if self.secrets("ListSecrets", &serde_json::json!({})).await.is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || started.elapsed() > START_MAX {
                let log = std::fs::read_to_string(self.folder.path().join("moto.log")).unwrap_or_default();
                anyhow::bail!("moto does not answer ({ended:?}): {log}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // One that is paused ends too. A group that is gone may have left its number to somebody else.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.kill());
        }
    }
}

fn spawn(program: &PathBuf, folder: &tempfile::TempDir, address: SocketAddr) -> anyhow::Result<Child> {
    let folder = folder.path();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("moto.log"))?;
    let mut command = Command::new(program);
    command.arg("--chdir").arg(folder).args(["--bind", &address.to_string()]);
    command.arg("--certfile").arg(folder.join("server.pem")).arg("--keyfile").arg(folder.join("server.key"));
    command.args(["--workers", "1", "--threads", "4", "--no-control-socket", "moto_app:app"]);
    command.env("SPOIL", folder.join("spoil")).process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("`{}` cannot be started", program.display()))
}
