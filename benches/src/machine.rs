//! What a run was measured on, in words that a stranger can compare with his own machine. No names of
//! hosts, no paths.

use std::fs::read_to_string;
use std::process::Command;

use serde::Serialize;

/// The machine, and what was built on it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    /// The processor's model.
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// Memory, MiB.
    pub(crate) memory_mib: u64,
    /// The kernel's release.
    pub(crate) kernel: String,
    /// The file system of temporary folders, where ledgers are synced.
    pub(crate) file_system: String,
    /// The compiler.
    pub(crate) rustc: String,
    /// Keybearer's version and commit.
    pub(crate) keybearer: String,
    /// wasmtime's version, of the floor and of the sandbox.
    pub(crate) wasmtime: &'static str,
    /// How busy it was when the run began: the load average of a minute.
    pub(crate) load: String,
    /// The day, UTC.
    pub(crate) date: String,
}

/// Looks around.
pub(crate) fn describe() -> anyhow::Result<Machine> {
    let cores = std::thread::available_parallelism()?.get();
    let memory_kib: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let commit = printed("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    Ok(Machine {
        cpu: field("/proc/cpuinfo", "model name"),
        cores,
        memory_mib: memory_kib >> 10,
        kernel: read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        file_system: file_system(),
        rustc: printed("rustc", &["--version"]),
        keybearer: format!("{} ({commit})", env!("CARGO_PKG_VERSION")),
        wasmtime: "48.0.8",
        load: read_to_string("/proc/loadavg").unwrap_or_default().split(' ').next().unwrap_or_default().to_owned(),
        date: printed("date", &["-u", "+%F"]),
    })
}

impl Machine {
    /// A folder's name: the day and a few words.
    pub(crate) fn slug(&self) -> String {
        let plain = self.cpu.replace("(R)", "").replace("(TM)", "").replace("(tm)", "");
        let words = plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let known = words.filter(|word| !matches!(*word, "Processor" | "CPU")).take(4);
        let cpu = known.collect::<Vec<_>>().join("-").to_ascii_lowercase();
        format!("{}-{cpu}-{}c", self.date, self.cores)
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "date         {}", self.date)?;
        writeln!(formatter, "cpu          {}, {} cores", self.cpu, self.cores)?;
        writeln!(formatter, "memory       {} MiB", self.memory_mib)?;
        writeln!(formatter, "kernel       Linux {}", self.kernel)?;
        writeln!(formatter, "file system  {}", self.file_system)?;
        writeln!(formatter, "rustc        {}", self.rustc)?;
        writeln!(formatter, "keybearer    {}", self.keybearer)?;
        writeln!(formatter, "wasmtime     {}", self.wasmtime)?;
        write!(formatter, "load before  {}", self.load)
    }
}

fn field(path: &str, name: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.unwrap_or("unknown").trim().to_owned()
}

fn file_system() -> String {
    printed("stat", &["--file-system", "--format", "%T", &std::env::temp_dir().to_string_lossy()])
}

fn printed(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}
