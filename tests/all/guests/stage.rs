//! What the cases of hostile guests share: a server of their own with the guests published and granted
//! to two tenants, upstreams that answer whatever a guest could wish for, and the control call that
//! must succeed whatever the guests do.

use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

/// The longest that a control call may take while guests rage, on a machine with two busy processors.
pub(super) const CONTROL_MAX: Duration = Duration::from_secs(5);

/// A server with the hostile guests, and two tenants who may call them.
pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) built: Built,
    /// Demands nothing and echoes everything.
    pub(super) upstream: Upstream,
    /// Where nothing that carries a credential goes.
    pub(super) open: Upstream,
    /// The one whose guests rage.
    pub(super) alice: Tenant,
    /// The one who must not notice.
    pub(super) bob: Tenant,
    /// Alice's token for the upstream.
    pub(super) secret: String,
}

impl Stage {
    /// With an upstream that echoes.
    pub(super) async fn start() -> Self {
        Self::start_with(ServerOptions::default(), |request| async move { echo(&request) }).await
    }

    /// With an upstream that answers like this.
    pub(super) async fn start_with<Answering, Answered>(options: ServerOptions, answer: Answering) -> Self
    where
        Answering: Fn(Recorded) -> Answered + Send + Sync + 'static,
        Answered: Future<Output = Reply> + Send + 'static,
    {
        let built = Built::find().expect("what the cases need is built");
        let authority = Authority::new().expect("an authority");
        let upstream = Upstream::start(&authority, &["upstream.test"], answer).await.expect("an upstream");
        let open = Upstream::start(&authority, &["open.test"], |request| async move { echo(&request) });
        let open = open.await.expect("another upstream");
        let options = options.pin("upstream.test", &upstream).pin("open.test", &open);
        let server = Server::start(&built, &authority, options).expect("a server");
        server.publish("hostile").await.expect("the guests are published");
        let alice = server.tenant("alice").await.expect("a tenant");
        let bob = server.tenant("bob").await.expect("another tenant");
        let secret = canary("alice-");
        alice.grant("hostile", "api", &secret).await.expect("a grant");
        bob.grant("hostile", "api", &canary("bob-")).await.expect("another grant");
        Self { server, built, upstream, open, alice, bob, secret }
    }

    /// Alice calls a hostile guest.
    pub(super) async fn call(&self, guest: &str, arguments: Value) -> Answer {
        self.alice.call(&format!("hostile.{guest}"), arguments).await.expect("an answer")
    }

    /// The result of a guest that is expected to come to its end.
    pub(super) async fn result(&self, guest: &str, arguments: Value) -> Value {
        let answer = self.call(guest, arguments).await;
        assert_eq!(answer.status, 200, "{guest}: {}", answer.text());
        answer.json()["result"].clone()
    }

    /// A guest that is expected to reach a limit: its name.
    pub(super) async fn limit(&self, guest: &str, arguments: Value) -> String {
        limit(&self.call(guest, arguments).await)
    }

    /// A guest that is expected to trap: the problem's detail.
    pub(super) async fn trap(&self, guest: &str, arguments: Value) -> String {
        trap(&self.call(guest, arguments).await)
    }

    /// Bob's call, which must succeed, and soon (O4); and with it the server is alive (O6).
    pub(super) async fn control(&self) {
        let started = Instant::now();
        let answer = self.bob.call("hostile.calm", json!({})).await.expect("an answer");
        assert_eq!(answer.json()["result"], "calm", "bob is served: {}", answer.text());
        assert!(started.elapsed() < CONTROL_MAX, "bob waited {:?}", started.elapsed());
    }

    /// Stops the server and starts it again; it may listen elsewhere afterwards.
    pub(super) fn restart(&mut self, between: impl FnOnce(&Server)) {
        assert!(self.server.stop().expect("it is there"), "it stops cleanly");
        between(&self.server);
        self.server.restart().expect("it starts again");
        for tenant in [&mut self.alice, &mut self.bob] {
            tenant.client = self.server.public().bearing(&tenant.token);
        }
    }

    /// Publishes a component: the operator's answer.
    pub(super) async fn publish(&self, manifest: &str, component: &[u8]) -> Answer {
        self.publish_bundle(bundle(&self.built, manifest, component)).await
    }

    /// Publishes these bytes.
    pub(super) async fn publish_bundle(&self, bundle: Vec<u8>) -> Answer {
        let headers = [("content-type", "application/octet-stream")];
        self.server.operator().send("POST", "/v1/packages", &headers, bundle).await.expect("an answer")
    }

    /// Publishes a component that is accepted, and lets alice call it as `NAME.run`.
    pub(super) async fn accept(&self, name: &str, component: &[u8]) {
        let answer = self.publish(&manifest(name), component).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text());
        self.alice.allow(name).await.expect("a grant");
    }

    /// Publishes a component that is refused: the sentence that says why.
    pub(super) async fn refuse(&self, component: &[u8]) -> String {
        let answer = self.publish(&manifest("refused"), component).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "package_invalid"), "{}", answer.text());
        answer.json()["detail"].as_str().expect("a problem has a detail").to_owned()
    }

    /// What `tool check` says against a component that is refused.
    pub(super) fn check(&self, component: &[u8]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("component.wasm"), component).expect("a file");
        std::fs::write(path("manifest.toml"), manifest("refused")).expect("a file");
        let mut check = Command::new(&self.built.binary);
        check.args(["tool", "check", "--component"]).arg(path("component.wasm"));
        let output = check.arg("--manifest").arg(path("manifest.toml")).output().expect("it starts");
        assert!(!output.status.success(), "it is refused: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Kilobytes of the server that are in memory, and its open files.
    pub(super) fn size(&self) -> (u64, usize) {
        let process = format!("/proc/{}", self.server.pid());
        let status = std::fs::read_to_string(format!("{process}/status")).expect("the server is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a size");
        let kilobytes = line.trim().trim_end_matches(" kB").parse().expect("a number");
        (kilobytes, std::fs::read_dir(format!("{process}/fd")).expect("its files").count())
    }
}

/// The limit that an answer names.
pub(super) fn limit(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.code().as_str()), (502, "tool_limit"), "{}", answer.text());
    answer.json()["limit"]["name"].as_str().unwrap_or_else(|| panic!("no limit: {}", answer.text())).to_owned()
}

/// The detail of a problem that says: it trapped.
pub(super) fn trap(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.code().as_str()), (502, "tool_trapped"), "{}", answer.text());
    answer.json()["detail"].as_str().expect("a problem has a detail").to_owned()
}

/// A manifest that asks for nothing.
pub(super) fn manifest(name: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"Written as text.\"\n\n\
         [limits]\nwall_ms = 10000\ncpu_ms = 1000\nmemory_bytes = 16777216\ntable_elements = 10000\nhandles = 100\n"
    )
}

/// A signed bundle, made by the command line as a publisher would.
pub(super) fn bundle(built: &Built, manifest: &str, component: &[u8]) -> Vec<u8> {
    signed(built, manifest, component, Some(&built.packages.join("key")))
}

/// A bundle, signed by this key or by nobody.
pub(super) fn signed(built: &Built, manifest: &str, component: &[u8], key: Option<&std::path::Path>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("component.wasm"), component).expect("a file");
    std::fs::write(path("manifest.toml"), manifest).expect("a file");
    let mut pack = Command::new(&built.binary);
    pack.args(["tool", "pack", "--component"]).arg(path("component.wasm")).arg("--manifest");
    ran(pack.arg(path("manifest.toml")).arg("--out").arg(path("package.kbp")));
    if let Some(key) = key {
        let mut sign = Command::new(&built.binary);
        ran(sign.args(["tool", "sign"]).arg(path("package.kbp")).arg("--key-file").arg(key));
    }
    std::fs::read(path("package.kbp")).expect("a package")
}

/// Runs a command that must succeed.
pub(super) fn ran(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The tools that a package describes.
pub(super) fn described(built: &Built, package: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let component = built.packages.join(format!("{package}.wasm"));
    let manifest = folder.path().join("manifest.toml");
    std::fs::write(&manifest, self::manifest(package)).expect("a file");
    let mut check = Command::new(&built.binary);
    check.args(["--json", "tool", "check", "--component"]).arg(component).arg("--manifest").arg(manifest);
    let output = check.output().expect("it starts");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tools = value["tools"].as_array().expect("the tools");
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// Everything that was sent, the token too, as JSON.
pub(super) fn echo(request: &Recorded) -> Reply {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| json!([name, value])).collect();
    Reply::json(
        200,
        &json!({"target": request.target, "headers": headers, "body": String::from_utf8_lossy(&request.body)}),
    )
}

/// The bearer token of a request.
pub(super) fn token(request: &Recorded) -> String {
    let header = request.header("authorization").unwrap_or_default();
    header.strip_prefix("Bearer ").unwrap_or_default().to_owned()
}
