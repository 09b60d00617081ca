//! The command line as people use it: in a folder of their own, with nothing but the binary.

mod first_tool;
mod lost;
mod mistakes;
mod once;
mod secrets;
mod stopping;

use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use keybearer_tests::Built;
use serde_json::Value;

/// Somebody's folder, and a server that he may have started in it.
struct Person {
    folder: tempfile::TempDir,
    built: Built,
    server: Option<Child>,
}

/// What a command came to.
#[derive(Debug)]
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// What it printed, if it went well.
    fn good(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.status == Some(0), "{:?}: {}{}", self.status, self.out, self.err);
        Ok(self.out)
    }

    /// What it printed, as JSON.
    fn json(self) -> anyhow::Result<Value> {
        let text = self.good()?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// What it said against it, if it did not go well.
    fn refused(self) -> anyhow::Result<String> {
        anyhow::ensure!(matches!(self.status, Some(1 | 2)), "{:?}: {}{}", self.status, self.out, self.err);
        Ok(self.err)
    }
}

impl Person {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keybearer-person-").tempdir()?;
        Ok(Self { folder, built: Built::find()?, server: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `keybearer` with these arguments, in the folder.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        self.run_in(self.folder.path(), arguments, "")
    }

    /// The same with something on stdin.
    fn run_with(&self, arguments: &[&str], input: &str) -> anyhow::Result<Ran> {
        self.run_in(self.folder.path(), arguments, input)
    }

    /// The same in another folder.
    fn run_in(&self, folder: &Path, arguments: &[&str], input: &str) -> anyhow::Result<Ran> {
        let mut command = Command::new(&self.built.binary);
        command.args(arguments).current_dir(folder);
        ran(command, input)
    }

    /// The same as a tenant's administrator.
    fn as_tenant(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        self.run(&[arguments, &["--token-file", "acme.token"]].concat())
    }

    /// Makes the tenant `acme`, and its token of these scopes in `acme.token`.
    fn acme(&self, scopes: &str) -> anyhow::Result<String> {
        self.run(&["tenant", "create", "acme"])?.good()?;
        let issue =
            ["token", "issue", "--tenant", "acme", "--label", "admin", "--scope", scopes, "--out", "acme.token"];
        self.run(&issue)?.good()
    }

    /// Replaces a line of the configuration, as with an editor.
    fn edit(&self, line: &str, by: &str) -> anyhow::Result<()> {
        let path = self.path("keybearer-data/keybearer.toml");
        let text = std::fs::read_to_string(&path)?;
        anyhow::ensure!(text.contains(line), "the example has no line `{line}`");
        Ok(std::fs::write(path, text.replacen(line, by, 1))?)
    }

    /// `keybearer init`, with ports that nobody else has.
    fn init(&self) -> anyhow::Result<()> {
        self.run(&["init"])?.good()?;
        self.edit("listen = \"127.0.0.1:7400\"", "listen = \"127.0.0.1:0\"")?;
        self.edit("listen = \"127.0.0.1:7401\"", "listen = \"127.0.0.1:0\"")
    }

    /// `keybearer serve &`: returns when it says that it is ready.
    fn serve(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.path("server.log"))?;
        let mut child = Command::new(&self.built.binary)
            .arg("serve")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let out = child.stdout.take().context("its stdout")?;
        self.server = Some(child);
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let log = std::fs::read_to_string(self.path("server.log"))?;
        anyhow::ensure!(line.contains("ready"), "it does not serve: {line}{log}");
        Ok(())
    }

    /// `kill %1`: how it ended.
    fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.server.take().context("a server")?;
        Command::new("kill").arg(child.id().to_string()).status()?;
        Ok(child.wait()?.code())
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            // Nothing is left to do about a child that is gone already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn ran(mut command: Command, input: &str) -> anyhow::Result<Ran> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that refuses its arguments does not read.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}
