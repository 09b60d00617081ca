//! OpenBao as it is: the one that the test command keeps for all cases, of which each gets a namespace of
//! its own, and one of a case's own, which may be sealed, paused and killed. Storage, TLS and unsealing are
//! those of an installation, not of the development mode.

mod engines;
mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::Answer;
use crate::Authority;
use crate::Secure;
use crate::openbao::process::Process;
use crate::peers;

/// How long a start may take on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);

/// How long an answer may take; a paused server gives none.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// An OpenBao that runs.
pub struct OpenBao {
    address: SocketAddr,
    authority: Authority,
    folder: PathBuf,
    secure: Secure,
    root_token: String,
    unseal_key: String,
    pid: u32,
    namespace: String,
    /// None of the shared one.
    process: Option<Process>,
}

impl OpenBao {
    /// The name that its certificate proves.
    pub const NAME: &'static str = "openbao.test";

    /// The one that the test command keeps, in a new namespace: what is written here no other case sees.
    /// Nothing may be done to its process.
    ///
    /// # Errors
    /// A sentence that says how to start it.
    pub async fn shared() -> anyhow::Result<Self> {
        let folder = peers::folder()?.join("openbao");
        let mut shared = Self::open(&folder, peers::authority()?)?;
        let namespace = crate::canary("case-");
        shared.write(&format!("sys/namespaces/{namespace}"), &json!({})).await?;
        shared.namespace = namespace;
        Ok(shared)
    }

    /// A new one of this case's own, initialised and unsealed, whose certificate is this authority's. It
    /// accepts client certificates of that authority.
    ///
    /// # Errors
    /// If it is not installed or does not start; what it printed is in the error.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        Self::start_from(&PathBuf::from(peers::told("KEYBEARER_TEST_OPENBAO_BINARY")?), authority).await
    }

    /// The same, of this program.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_from(binary: &Path, authority: &Authority) -> anyhow::Result<Self> {
        let process = Process::start(binary, authority)?;
        let folder = process.folder().to_owned();
        let mut own = Self::initialise(&folder, process.id(), Authority::of_key(&authority.key_pem())?).await?;
        own.process = Some(process);
        Ok(own)
    }

    /// Writes what a new one needs into a folder: its configuration and certificate.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn configure(folder: &Path, authority: &Authority) -> anyhow::Result<()> {
        process::configure(folder, authority)
    }

    /// What runs the one of a folder.
    #[must_use]
    pub fn command(binary: &Path, folder: &Path) -> Command {
        let mut command = Command::new(binary);
        command.arg("server").arg(format!("-config={}", folder.join("openbao.hcl").display()));
        // It is asked about over HTTP; its own client's settings are nobody's here.
        command.env_clear();
        command
    }

    /// Waits for the one of a folder, which is new, initialises and unseals it. The root's token, the key and
    /// the process are written to `openbao.json` in its folder.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn initialise(folder: &Path, pid: u32, authority: Authority) -> anyhow::Result<Self> {
        let address: SocketAddr = std::fs::read_to_string(folder.join("address"))?.parse()?;
        let secure = Secure::new(address, &authority, None)?.named(Self::NAME);
        let (root_token, unseal_key, namespace) = (String::new(), String::new(), String::new());
        let folder = folder.to_owned();
        let mut bao =
            Self { address, authority, folder, secure, root_token, unseal_key, pid, namespace, process: None };
        bao.until(&[501]).await?;
        let made = bao.write("sys/init", &json!({"secret_shares": 1, "secret_threshold": 1})).await?;
        bao.root_token = made["root_token"].as_str().context("the root's token")?.to_owned();
        bao.unseal_key = made["keys_base64"][0].as_str().context("the key")?.to_owned();
        let state = json!({"root_token": bao.root_token, "unseal_key": bao.unseal_key, "pid": pid});
        crate::secret_file(&bao.state_file(), &state.to_string())?;
        bao.unseal().await?;
        Ok(bao)
    }

    fn open(folder: &Path, authority: Authority) -> anyhow::Result<Self> {
        let address: SocketAddr = std::fs::read_to_string(folder.join("address"))
            .context("OpenBao does not run: `cargo xtask test` starts it, `cargo xtask peers` keeps it")?
            .parse()?;
        let state: Value = serde_json::from_slice(&std::fs::read(folder.join("openbao.json"))?)?;
        let text = |name: &str| state[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        Ok(Self {
            address,
            secure: Secure::new(address, &authority, None)?.named(Self::NAME),
            authority,
            folder: folder.to_owned(),
            root_token: text("root_token")?,
            unseal_key: text("unseal_key")?,
            pid: state["pid"].as_u64().and_then(|pid| pid.try_into().ok()).context("no pid")?,
            namespace: String::new(),
            process: None,
        })
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("openbao.json")
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who proves its name.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The namespace that is written to and read here; empty for the outermost.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The root's token, which may do everything in every namespace.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// Its folder: `openbao.log`, `audit.log` and what it stores.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that it was asked so far: a line of JSON for each request and answer, secrets hashed.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join("audit.log"))?;
        // The last one may be on its way.
        Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Any request under `/v1/`, in this namespace, with a token or without.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        self.send_with(method, path, token, body, &[]).await
    }

    async fn send_with(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend_from_slice(more);
        headers.extend(token.map(|token| ("x-vault-token", token)));
        if !self.namespace.is_empty() {
            headers.push(("x-vault-namespace", &self.namespace));
        }
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let path = format!("/v1/{path}");
        let answer = self.secure.send(method, &path, &headers, body);
        tokio::time::timeout(ANSWER_MAX, answer).await.with_context(|| format!("OpenBao is silent on {path}"))?
    }

    /// Writes as root: the answer, null if there is none.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn write(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, Some(body)).await
    }

    /// Reads as root: the whole answer, with `data` in it.
    ///
    /// # Errors
    /// If it is refused or there is nothing.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, None).await
    }

    /// Lists as root: the keys.
    ///
    /// # Errors
    /// If it is refused or there is nothing.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(self.ask("LIST", path, None).await?["data"]["keys"].take())?)
    }

    /// Deletes as root.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.ask("DELETE", path, None).await.map(drop)
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let token = Some(self.root_token.as_str()).filter(|token| !token.is_empty());
        let answer = self.send(method, path, token, body).await?;
        anyhow::ensure!(answer.status < 300, "OpenBao, {method} {path}: {} {}", answer.status, answer.text());
        Ok(answer.json())
    }

    /// Waits until its health is one of these: 200 active, 501 not initialised, 503 sealed.
    async fn until(&mut self, wanted: &[u16]) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let status = match self.secure.send("GET", "/v1/sys/health", &[], Vec::new()).await {
                Ok(answer) if wanted.contains(&answer.status) => return Ok(()),
                Ok(answer) => answer.status.to_string(),
                Err(error) => format!("{error:#}"),
            };
            if let Some(process) = &mut self.process {
                process.still_runs()?;
            }
            let log = || std::fs::read_to_string(self.folder.join("openbao.log")).unwrap_or_default();
            anyhow::ensure!(started.elapsed() < START_MAX, "OpenBao does not become {wanted:?}: {status}\n{}", log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
