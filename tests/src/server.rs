//! The real server as a child process in a temporary folder: made by `keybearer init`, started by
//! `keybearer serve`, spoken to over HTTP, stopped at the end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::Answer;
use crate::Authority;
use crate::Built;
use crate::Client;
use crate::Upstream;

/// What a case wants of its server beyond the defaults.
#[derive(Default)]
pub struct ServerOptions {
    /// Upstreams by the name and port that tools know them by: `("api.stripe.com", 443)`.
    pub pins: Vec<(String, u16, SocketAddr)>,
    /// Further lines of configuration, whole tables, appended at the end.
    pub config: String,
    /// Further lines of the table `[egress]`.
    pub egress: String,
    /// Ranges that are not public and may be reached all the same; loopback, if none are named.
    pub allow_ranges: Option<Vec<String>>,
    /// How long a stop waits, in ms, if not for as long as by default.
    pub grace_ms: Option<u64>,
    /// Environment of the child, for the cases that set what must be ignored.
    pub environment: Vec<(String, String)>,
}

impl ServerOptions {
    /// With one upstream under a name.
    #[must_use]
    pub fn pin(mut self, name: &str, upstream: &Upstream) -> Self {
        self.pins.push((name.to_owned(), 443, upstream.address()));
        self
    }

    /// With one destination under a name and a port of its own.
    #[must_use]
    pub fn pin_at(mut self, name: &str, port: u16, address: SocketAddr) -> Self {
        self.pins.push((name.to_owned(), port, address));
        self
    }

    /// With further lines of the table `[egress]`.
    #[must_use]
    pub fn with_egress(mut self, lines: &str) -> Self {
        self.egress.push_str(lines);
        self.egress.push('\n');
        self
    }

    /// With further configuration.
    #[must_use]
    pub fn with(mut self, config: &str) -> Self {
        self.config.push_str(config);
        self.config.push('\n');
        self
    }
}

/// A running server.
pub struct Server {
    child: Option<Child>,
    folder: tempfile::TempDir,
    built: Built,
    environment: Vec<(String, String)>,
    public: SocketAddr,
    admin: SocketAddr,
    operator_token: String,
}

/// A tenant that was made for a case.
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// The public API, as its administrator.
    pub client: Client,
    /// The administrator's token.
    pub token: String,
}

/// How long a start may take on a busy machine before it counts as failed.
const START_MAX: Duration = Duration::from_secs(60);

impl Server {
    /// Makes a folder, configures and starts.
    ///
    /// # Errors
    /// If it does not start; what it printed is in the error.
    pub fn start(built: &Built, authority: &Authority, options: ServerOptions) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keybearer-").tempdir()?;
        let home = folder.path().join("home");
        let init = Command::new(&built.binary).arg("init").arg("--folder").arg(&home).output()?;
        anyhow::ensure!(init.status.success(), "init: {}", String::from_utf8_lossy(&init.stderr));
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        std::fs::write(folder.path().join("keybearer.toml"), config(folder.path(), &home, built, &options))?;
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child: None,
            folder,
            built: built.clone(),
            environment: options.environment,
            public: unknown,
            admin: unknown,
            operator_token: String::new(),
        };
        server.operator_token = std::fs::read_to_string(home.join("operator.token"))?.trim().to_owned();
        server.restart()?;
        Ok(server)
    }

    /// Starts it again in the same folder, after a stop.
    ///
    /// # Errors
    /// If it does not start; what it printed is in the error.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let ready = self.folder.path().join("ready.json");
        if ready.exists() {
            std::fs::remove_file(&ready)?;
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let mut child = Command::new(&self.built.binary)
            .args(["serve", "--config"])
            .arg(self.config_file())
            .arg("--ready-file")
            .arg(&ready)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let started = Instant::now();
        let text = loop {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("the server stopped at once ({status}): {}", self.log());
            }
            match std::fs::read_to_string(&ready) {
                Ok(text) if text.ends_with('\n') || serde_json::from_str::<Value>(&text).is_ok() => break text,
                _ if started.elapsed() > START_MAX => {
                    child.kill()?;
                    child.wait()?;
                    anyhow::bail!("the server did not get ready: {}", self.log());
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let ready: Value = serde_json::from_str(&text)?;
        self.public = ready["public"].as_str().context("the public address")?.parse()?;
        self.admin = ready["admin"].as_str().context("the admin address")?.parse()?;
        self.child = Some(child);
        Ok(())
    }

    /// The public listener, as nobody.
    #[must_use]
    pub fn public(&self) -> Client {
        Client::new(self.public)
    }

    /// The admin listener, as nobody.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::new(self.admin)
    }

    /// The admin listener, as the operator.
    #[must_use]
    pub fn operator(&self) -> Client {
        self.admin().bearing(&self.operator_token)
    }

    /// The operator's token.
    #[must_use]
    pub fn operator_token(&self) -> &str {
        &self.operator_token
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// The folder that holds everything it writes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's own folder.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Its configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("keybearer.toml")
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Runs the command line on this server's configuration: what it printed, and whether it went well.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn cli(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<(bool, String, String)> {
        let mut child = Command::new(&self.built.binary)
            .args(arguments)
            .arg("--config")
            .arg(self.config_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input)?;
        }
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
    }

    /// Publishes one of the packed tools.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn publish(&self, name: &str) -> anyhow::Result<Value> {
        expect(self.offer(self.built.bundle(name)?).await?, "publish")
    }

    /// Publishes a component that is packed already under another manifest.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn publish_as(&self, component: &str, manifest: &str) -> anyhow::Result<Value> {
        expect(self.offer(self.built.pack(component, manifest)?).await?, "publish")
    }

    /// Offers a bundle to the operator's listener: what it answers.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn offer(&self, bundle: Vec<u8>) -> anyhow::Result<Answer> {
        let headers = [("content-type", "application/octet-stream")];
        self.operator().send("POST", "/v1/packages", &headers, bundle).await
    }

    /// Makes a tenant with an administrator's token.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Tenant> {
        self.tenant_with(json!({"name": name})).await
    }

    /// Makes a tenant as described, with an administrator's token.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn tenant_with(&self, new: Value) -> anyhow::Result<Tenant> {
        let tenant = expect(self.operator().post("/v1/tenants", &new).await?, "tenant")?;
        let id = tenant["id"].as_str().context("the tenant's id")?.to_owned();
        let scopes = ["call", "credentials", "grants", "tokens", "audit", "runs"];
        let new = json!({"label": "administrator", "scopes": scopes, "life_s": 3600});
        let issued = expect(self.operator().post(&format!("/v1/tenants/{id}/tokens"), &new).await?, "token")?;
        let token = issued["text"].as_str().context("the token's text")?.to_owned();
        Ok(Tenant { id, client: self.public().bearing(&token), token })
    }

    /// Asks it to stop and waits: whether it went well.
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub fn stop(&mut self) -> anyhow::Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(true) };
        let signalled = Command::new("kill").args(["-TERM", &child.id().to_string()]).status()?;
        anyhow::ensure!(signalled.success(), "the server is gone already: {}", self.log());
        Ok(child.wait()?.success())
    }

    /// Waits for it to end by itself: whether it went well.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn wait(&mut self) -> anyhow::Result<bool> {
        let Some(mut child) = self.child.take() else { return Ok(true) };
        Ok(child.wait()?.success())
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing is left to do about a child that is gone already.
        drop(self.kill());
    }
}

impl Tenant {
    /// Stores a bearer credential and grants it for a slot: the ids of both.
    ///
    /// # Errors
    /// If either is refused.
    pub async fn grant(&self, package: &str, slot: &str, value: &str) -> anyhow::Result<(String, String)> {
        self.grant_as(json!({"kind": "bearer"}), value, json!({"package": package, "slot": slot})).await
    }

    /// Stores a credential of any kind and gives the grant with it.
    ///
    /// # Errors
    /// If either is refused.
    pub async fn grant_as(&self, kind: Value, value: &str, mut grant: Value) -> anyhow::Result<(String, String)> {
        let new = json!({
            "name": format!("{}-{}", grant["package"].as_str().unwrap_or("x"), grant["slot"].as_str().unwrap_or("x")),
            "kind": kind,
            "owner": "the tests",
            "justification": "a case needs it",
            "value": value,
        });
        let stored = expect(self.client.post("/v1/credentials", &new).await?, "credential")?;
        let credential = stored["id"].as_str().context("the credential's id")?.to_owned();
        grant["credential"] = credential.clone().into();
        let given = expect(self.client.post("/v1/grants", &grant).await?, "grant")?;
        Ok((credential, given["id"].as_str().context("the grant's id")?.to_owned()))
    }

    /// Lets a package run that needs no credential.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn allow(&self, package: &str) -> anyhow::Result<()> {
        expect(self.client.post("/v1/grants", &json!({"package": package})).await?, "grant").map(drop)
    }

    /// Submits a call.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn call(&self, tool: &str, arguments: Value) -> anyhow::Result<Answer> {
        self.client.post("/v1/calls", &json!({"tool": tool, "arguments": arguments})).await
    }
}

fn expect(answer: Answer, what: &str) -> anyhow::Result<Value> {
    anyhow::ensure!(answer.status < 300, "{what}: {} {}", answer.status, answer.text());
    Ok(answer.json())
}

fn config(folder: &Path, home: &Path, built: &Built, options: &ServerOptions) -> String {
    let pins: String =
        options.pins.iter().map(|(name, port, address)| format!("\"{name}:{port}\" = \"{address}\"\n")).collect();
    let ranges = options.allow_ranges.clone().unwrap_or_else(|| vec!["127.0.0.0/8".to_owned()]);
    let grace = options.grace_ms.map(|ms| format!("grace_ms = {ms}\n")).unwrap_or_default();
    format!(
        "[server]\nfolder = {home:?}\nlisten = \"127.0.0.1:0\"\n{grace}\n[admin]\nlisten = \"127.0.0.1:0\"\n\n\
         [packages]\ntrusted_signers = [\"{signer}\"]\n\n\
         [egress]\nextra_ca_files = [{ca:?}]\n{egress}\n[egress.dangerous]\nallow_ranges = {ranges:?}\n\n\
         [egress.dangerous.pin]\n{pins}\n{more}",
        signer = built.signer,
        ca = folder.join("ca.pem"),
        egress = options.egress,
        more = options.config,
    )
}
