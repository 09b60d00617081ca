//! The process of an OpenBao: its folder, its configuration, signals, sealing. What is asked of it over
//! HTTP is elsewhere.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Stdio;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::json;

use crate::Authority;
use crate::OpenBao;

/// Names in double braces are filled in.
const CONFIGURATION: &str = r#"# Storage that outlives a crash; a performance multiplier of one, since it is alone and nobody waits for others.
storage "raft" {
  path = "{{folder}}/raft"
  node_id = "n1"
  performance_multiplier = 1
}
listener "tcp" {
  address = "{{address}}"
  cluster_address = "{{cluster}}"
  tls_cert_file = "{{folder}}/server.pem"
  tls_key_file = "{{folder}}/server.key"
  tls_client_ca_file = "{{folder}}/ca.pem"
}
api_addr = "https://openbao.test:8200"
cluster_addr = "https://{{cluster}}"
audit "file" "file" {
  options {
    file_path = "{{folder}}/audit.log"
  }
}
"#;

/// A child in a folder of its own, killed at the end.
pub(super) struct Process {
    binary: PathBuf,
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    pub(super) fn start(binary: &Path, authority: &Authority) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keybearer-openbao-").tempdir()?;
        configure(folder.path(), authority)?;
        let child = spawn(binary, folder.path())?;
        Ok(Self { binary: binary.to_owned(), child, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(self.folder.path().join("openbao.log")).unwrap_or_default();
                anyhow::bail!("OpenBao ended ({status}): {log}")
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do about a child that is gone already; one that is paused ends too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(binary: &Path, folder: &Path) -> anyhow::Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("openbao.log"))?;
    let mut command = OpenBao::command(binary, folder);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("`{}` cannot be started", binary.display()))
}

pub(super) fn configure(folder: &Path, authority: &Authority) -> anyhow::Result<()> {
    let (address, cluster) = addresses();
    let (certificate, key) = authority.issue(&[OpenBao::NAME, "localhost"], &[])?;
    std::fs::create_dir_all(folder.join("raft"))?;
    std::fs::write(folder.join("ca.pem"), authority.pem())?;
    std::fs::write(folder.join("server.pem"), certificate)?;
    crate::secret_file(&folder.join("server.key"), &key)?;
    let configuration = CONFIGURATION
        .replace("{{folder}}", &folder.display().to_string())
        .replace("{{address}}", &address.to_string())
        .replace("{{cluster}}", &cluster.to_string());
    std::fs::write(folder.join("openbao.hcl"), configuration)?;
    std::fs::write(folder.join("address"), address.to_string())?;
    Ok(())
}

/// Where it listens, and where a cluster would. It does not take a port that the kernel chooses, and one
/// that was free a moment ago may be taken; each process has loopback addresses of its own.
fn addresses() -> (SocketAddr, SocketAddr) {
    static STARTED: AtomicU8 = AtomicU8::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // 4 Mi processes at most (proc(5), pid_max): 22 bits, in 127.64.0.0/10.
    let address = Ipv4Addr::new(127, 64 | (high & 63), middle, low);
    let port = 8200 + 10 * u16::from(STARTED.fetch_add(1, Ordering::SeqCst));
    (SocketAddr::from((address, port)), SocketAddr::from((address, port + 1)))
}

impl OpenBao {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(self.pid, Process::id)
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
        let process = self.process.as_ref().context("the shared one is for all cases: start one")?;
        let pid = Pid::from_raw(process.id().cast_signed()).context("a process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// If it is shared.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let process = self.process.as_mut().context("the shared one is for all cases: start one")?;
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// Starts it again in the same folder and at the same address, after it was killed; it is sealed.
    ///
    /// # Errors
    /// If it is shared, or does not come up.
    pub async fn restart_sealed(&mut self) -> anyhow::Result<()> {
        let process = self.process.as_mut().context("the shared one is for all cases: start one")?;
        process.child = spawn(&process.binary, process.folder.path())?;
        self.until(&[503]).await
    }

    /// Starts it again and unseals it.
    ///
    /// # Errors
    /// If it is shared, or does not come up.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_sealed().await?;
        self.unseal().await
    }

    /// Seals it: every request is answered 503 from now on.
    ///
    /// # Errors
    /// If it is shared.
    pub async fn seal(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(self.process.is_some(), "the shared one is for all cases: start one");
        self.write("sys/seal", &json!({})).await?;
        self.until(&[503]).await
    }

    /// Unseals it and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub async fn unseal(&mut self) -> anyhow::Result<()> {
        self.write("sys/unseal", &json!({"key": self.unseal_key})).await?;
        self.until(&[200]).await
    }
}
