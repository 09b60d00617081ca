//! The processes beside the real server: they say where they listen, and end when the run does, however
//! that ends. What a process uses of the machine is read here, too, from the kernel.

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use tokio::sync::oneshot;

/// A process of this program in another role.
pub(crate) struct Role {
    child: Child,
    address: SocketAddr,
}

impl Role {
    /// Starts one; it is ready when this returns.
    ///
    /// # Errors
    /// If it ends instead.
    pub(crate) fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("where this program is")?;
        let mut child = Command::new(own).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("`{}` did not start", arguments.join(" ")));
        match address {
            Ok(address) => Ok(Self { child, address }),
            Err(error) => {
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Its input ends, and so does it: in its own time, as a build that counts writes its counts at its end.
        drop(self.child.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < END_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // One that is gone by now needs no end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a process may take to end.
const END_MAX: Duration = Duration::from_secs(10);

/// Ready when whoever started this process has ended, or needs it no longer.
pub(crate) async fn no_longer_needed() {
    let (ended, waiting) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        // Nothing is written there: it ends, or fails, which is an end as well.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let _ended = waiting.await;
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Time on processors, all threads.
    pub(crate) cpu: Duration,
    /// Resident memory, MiB.
    pub(crate) rss_mib: f64,
}

/// `USER_HZ`: the unit of times in /proc, on every architecture that Linux still runs on.
const TICKS_PER_SECOND: u64 = 100;

impl Usage {
    /// Of this process.
    ///
    /// # Errors
    /// If it is gone.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
        // The name, in parentheses, may hold anything; fields are counted behind it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        let cpu = Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        let rss_kib: f64 = rss.trim().trim_end_matches(" kB").parse().unwrap_or_default();
        Ok(Self { cpu, rss_mib: rss_kib / 1024.0 })
    }
}
