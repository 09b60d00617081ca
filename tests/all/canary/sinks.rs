//! Everything that comes out of a server, by name.

use std::path::Path;

use keybearer_tests::Answer;
use keybearer_tests::Heard;
use keybearer_tests::Server;
use keybearer_tests::Traces;

#[derive(Default)]
pub(super) struct Sinks(Vec<(String, Vec<u8>)>);

/// What is there to hold a secret: only its owner reads it, and each is looked at by name in a case of its own.
const SECRET_FILES: &[&str] = &["operator.token", "master.key"];

impl Sinks {
    pub(super) fn add(&mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((name.into(), bytes.into()));
    }

    pub(super) fn add_all(&mut self, name: &str, all: Vec<Vec<u8>>) {
        all.into_iter().for_each(|bytes| self.add(name, bytes));
    }

    /// An answer of the API: status, fields and body.
    pub(super) fn add_answer(&mut self, name: &str, answer: &Answer) {
        let fields: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        self.add(format!("answer to {name}"), [fields.as_bytes(), &answer.body].concat());
    }

    /// What a guest heard, and what the caller was told of it.
    pub(super) fn add_heard(&mut self, name: &str, heard: &Heard) {
        self.add(format!("guest at {name}"), heard.bytes.clone());
    }

    /// What other processes of the machine see of the server.
    pub(super) fn add_process(&mut self, server: &Server) -> anyhow::Result<()> {
        let folder = format!("/proc/{}", server.pid());
        for file in ["cmdline", "environ", "status", "comm", "limits", "maps"] {
            self.add(format!("{folder}/{file}"), std::fs::read(format!("{folder}/{file}"))?);
        }
        let limits = std::fs::read_to_string(format!("{folder}/limits"))?;
        let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        anyhow::ensure!(cores.split_whitespace().nth(4) == Some("0"), "a crash would leave a core: {cores}");
        Ok(())
    }

    /// Every file below a folder: store, journal, ledger, cache, logs, configuration.
    pub(super) fn add_folder(&mut self, when: &str, folder: &Path) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                self.add_folder(when, &path)?;
                continue;
            }
            anyhow::ensure!(!name.starts_with("core"), "a core was left: {}", path.display());
            if !SECRET_FILES.contains(&name.as_str()) {
                // A file of the journal may go while we look.
                let bytes = std::fs::read(&path).unwrap_or_default();
                self.add(format!("{} {when}", path.display()), bytes);
            }
        }
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// What was found where.
    pub(super) fn search(&self, traces: &Traces) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(name, bytes)| Some(format!("{name}: {}", traces.find(bytes)?)))
    }
}
