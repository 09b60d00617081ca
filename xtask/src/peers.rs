//! Real servers for the cases, as they are: httpbin, and nginx before it and beside it. They are
//! installed into the checkout, started on free ports of loopback with a throw-away authority's
//! certificates, and stopped at the end. One that cannot be had is missing, and said to be.

mod install;

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use keybearer_tests::Authority;
use keybearer_tests::Client;
use rustix::process::Pid;
use rustix::process::Signal;

use crate::children;
use crate::children::Child;
use crate::place::Place;

/// How long a server may take to answer on a busy machine.
const READY_MAX: Duration = Duration::from_secs(60);

const CONFIGURATION: &str = include_str!("../peers/nginx.conf");

/// The servers that run.
pub(crate) struct Peers {
    running: Vec<Child>,
    environment: Vec<(&'static str, String)>,
    missing: Vec<Missing>,
    folder: tempfile::TempDir,
    /// Which processes to stop if this one was killed before it could.
    pids: PathBuf,
}

/// A server that does not run.
pub(crate) struct Missing {
    /// Which; cases that need it have `needs_` and this in their name.
    pub(crate) name: &'static str,
    /// Why.
    pub(crate) because: anyhow::Error,
}

struct Ports {
    httpbin: u16,
    nginx: u16,
    health: u16,
}

impl Peers {
    /// Installs and starts what can be had.
    ///
    /// # Errors
    /// If no temporary folder can be made; a server that is missing is none.
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Self> {
        let pids = place.target.join("xtask/peers");
        std::fs::create_dir_all(&pids)?;
        stop_leftovers(&pids)?;
        let pids = pids.join(std::process::id().to_string());
        let folder = tempfile::Builder::new().prefix("keybearer-peers-").tempdir()?;
        let mut peers = Self { running: Vec::new(), environment: Vec::new(), missing: Vec::new(), folder, pids };
        if let Err(because) = peers.start_all(place).await {
            peers.environment.clear();
            let alone = anyhow::anyhow!("nginx, through which it is reached, does not run");
            peers.missing = vec![Missing { name: "nginx", because }, Missing { name: "httpbin", because: alone }];
        }
        Ok(peers)
    }

    /// What tells the cases where the servers are.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// The servers that do not run.
    pub(crate) fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// An error if nginx does not run.
    async fn start_all(&mut self, place: &Place) -> anyhow::Result<()> {
        let nginx = install::nginx(place).await?;
        let httpbin = match install::httpbin(place).await {
            Ok(gunicorn) => self.start_httpbin(&gunicorn),
            Err(because) => Err(because),
        };
        children::begin("start nginx and httpbin");
        let ports = Ports { httpbin: free_port()?, nginx: free_port()?, health: free_port()? };
        self.start_nginx(&nginx, &ports)?;
        let health = Client::new(([127, 0, 0, 1], ports.health).into());
        self.answers(&health, "nginx").await?;
        let certificate = self.folder.path().join("ca.pem").display().to_string();
        self.environment.push(("KEYBEARER_TEST_CA", certificate));
        self.environment.push(("KEYBEARER_TEST_NGINX", format!("127.0.0.1:{}", ports.nginx)));
        let httpbin = match httpbin {
            Ok(()) => self.answers(&health, "httpbin").await,
            Err(because) => Err(because),
        };
        match httpbin {
            Ok(()) => self.environment.push(("KEYBEARER_TEST_HTTPBIN", format!("127.0.0.1:{}", ports.httpbin))),
            Err(because) => self.missing.push(Missing { name: "httpbin", because }),
        }
        Ok(())
    }

    fn start_httpbin(&mut self, gunicorn: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(gunicorn);
        command.arg("--bind").arg(format!("unix:{}/httpbin.sock", self.folder.path().display()));
        command.args(["--workers", "1", "--threads", "8", "--no-control-socket", "httpbin:app"]);
        self.run(command, "httpbin")
    }

    fn start_nginx(&mut self, nginx: &Path, ports: &Ports) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let authority = Authority::new()?;
        let (certificate, key) = authority.issue(&["httpbin.org", "nginx.test"], &[])?;
        // The cases make the same authority of its key.
        std::fs::write(folder.join("ca.pem"), authority.pem())?;
        std::fs::write(folder.join("ca.key"), authority.key_pem())?;
        std::fs::write(folder.join("server.pem"), certificate)?;
        std::fs::write(folder.join("server.key"), key)?;
        std::fs::create_dir(folder.join("www"))?;
        std::fs::write(folder.join("www/hello.txt"), "hello\n")?;
        std::fs::write(folder.join("www/data.json"), "{\"hello\":\"world\"}\n")?;
        std::fs::write(folder.join("www/large.txt"), "a line of thirty-two characters\n".repeat(1 << 15))?;
        // A root's worker would be nobody, who cannot read the folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = CONFIGURATION
            .replace("{{folder}}", &folder.display().to_string())
            .replace("{{user}}", user)
            .replace("{{httpbin}}", &ports.httpbin.to_string())
            .replace("{{nginx}}", &ports.nginx.to_string())
            .replace("{{health}}", &ports.health.to_string());
        std::fs::write(folder.join("nginx.conf"), configuration)?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
        self.run(command, "nginx")
    }

    /// Starts a server whose output goes to a log in the folder.
    fn run(&mut self, mut command: Command, name: &str) -> anyhow::Result<()> {
        let log = File::create(self.log(name))?;
        command.current_dir(self.folder.path()).stdout(log.try_clone()?).stderr(log);
        self.running.push(Child::start_aside(command)?);
        let pids = self.running.iter().filter_map(Child::id);
        let lines: String = pids.map(|pid| format!("{pid} {}\n", self.folder.path().display())).collect();
        Ok(std::fs::write(&self.pids, lines)?)
    }

    /// Waits until a server answers.
    async fn answers(&mut self, health: &Client, name: &str) -> anyhow::Result<()> {
        let path = format!("/{name}");
        let started = Instant::now();
        loop {
            if health.get(&path).await.is_ok_and(|answer| answer.status == 204) {
                return Ok(());
            }
            for child in &mut self.running {
                if let Some(status) = child.ended()? {
                    anyhow::bail!("a server ended at once ({status}): {}", children::tail(&self.log(name)));
                }
            }
            let waited = started.elapsed() > READY_MAX;
            anyhow::ensure!(!waited, "{name} does not answer: {}", children::tail(&self.log(name)));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.running.clear();
        // All of them are stopped: there is nothing left to remember, and nobody to tell if that fails.
        drop(std::fs::remove_file(&self.pids));
    }
}

/// Starts them and says where they are, until the command is interrupted.
pub(crate) async fn hold(place: &Place) -> anyhow::Result<()> {
    let peers = Peers::start(place).await?;
    for missing in peers.missing() {
        eprintln!("{} {}: {:#}", children::bad("NOT RUN"), missing.name, missing.because);
    }
    for (name, value) in peers.environment() {
        eprintln!("export {name}={value}");
    }
    std::future::pending().await
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("loopback cannot be listened on")?;
    Ok(listener.local_addr()?.port())
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
