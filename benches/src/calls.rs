//! What a call costs over HTTP: `POST /v1/calls` of the real server, with authentication and ledger,
//! against the bare server. Without a way out (`echo`), and with one credentialed request to a loopback
//! upstream (`http-get`); for both durabilities of the ledger.

use std::path::Path;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::canary;
use serde_json::json;
use serde_json::value::RawValue;

use crate::breakdown;
use crate::children::Role;
use crate::floor::outbound::Upstream;
use crate::instance;
use crate::load;
use crate::load::Target;
use crate::plan::Plan;
use crate::report::CALL_RATIO_MIN;
use crate::report::Report;
use crate::stats::Slices;

/// The name under which tools know the upstream.
pub(crate) const UPSTREAM: &str = "httpbin.org";

/// What the ledger survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Process,
    Power,
}

/// What is kept under load for a profiler.
#[derive(clap::Args)]
pub(crate) struct Held {
    /// What is called: `echo`, or with one credentialed request `http-get`.
    #[arg(value_enum)]
    kind: Kind,
    /// Keep-alive connections, each with one request under way.
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// The ledger syncs before every effect.
    #[arg(long)]
    power: bool,
    /// The bare server instead of the real one.
    #[arg(long)]
    floor: bool,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `echo`: no way out.
    #[value(name = "echo")]
    Bare,
    /// `http-get`: one credentialed request.
    #[value(name = "http-get")]
    Credentialed,
}

/// Files and processes that both sides share.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) token: String,
    pub(crate) upstream: Role,
}

/// Measures, and writes the rows.
///
/// # Errors
/// If a call fails.
pub(crate) fn measure(plan: &Plan, built: &Built, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set(built)?;
    // The load is one thread: it leaves of two processors what it does not need.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for durability in [Durability::Process, Durability::Power] {
        let ours = runtime.block_on(Prepared::start(built, &stage, durability))?;
        for kind in [Kind::Bare, Kind::Credentialed] {
            let floor = stage.floor(kind, durability)?;
            for &concurrency in plan.concurrency {
                let name = format!("{}.{}.c{concurrency}", kind.letter(), durability.name());
                eprintln!("{name}");
                let targets = Targets { ours: ours.target(kind), floor: kind.floor(&floor) };
                let slices = runtime.block_on(alternate(&targets, concurrency, plan))?;
                let target = (durability == Durability::Process).then_some(CALL_RATIO_MIN);
                report.load(&name, slices, target);
            }
        }
        if durability == Durability::Process {
            breakdown::measure(plan, built, &stage, ours, report)?;
        }
    }
    Ok(())
}

/// One long slice of load on one side, for a profiler.
///
/// # Errors
/// If a call fails.
pub(crate) fn hold(plan: &Plan, built: &Built, held: &Held) -> anyhow::Result<()> {
    let stage = Stage::set(built)?;
    let durability = if held.power { Durability::Power } else { Durability::Process };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut side = match held.floor {
        true => Side::Floor(stage.floor(held.kind, durability)?),
        false => Side::Ours(Box::new(runtime.block_on(Prepared::start(built, &stage, durability))?)),
    };
    let target = match &side {
        Side::Floor(floor) => held.kind.floor(floor),
        Side::Ours(ours) => ours.target(held.kind),
    };
    eprintln!("the server is process {}", target.pid);
    let slice = runtime.block_on(load::slice(&target, held.concurrency, plan))?;
    eprintln!("{:.0} calls/s, {:.0} µs of processor a call", slice.per_second(), slice.cpu_us);
    if let Side::Ours(ours) = &mut side {
        anyhow::ensure!(ours.server.stop()?, "the server did not stop well: {}", ours.server.log());
    }
    Ok(())
}

/// What is held.
enum Side {
    Floor(Role),
    Ours(Box<Prepared>),
}

/// Both sides of one comparison.
struct Targets {
    ours: Target,
    floor: Target,
}

/// Slices of both sides in turn, the order swapped each time. One pair more than counts: the first warms
/// both sides up.
async fn alternate(targets: &Targets, concurrency: usize, plan: &Plan) -> anyhow::Result<Slices> {
    let mut slices = Slices::default();
    for index in 0..=plan.slices {
        for ours in [index % 2 == 0, index % 2 == 1] {
            let target = if ours { &targets.ours } else { &targets.floor };
            let slice = load::slice(target, concurrency, plan).await?;
            if index > 0 {
                if ours { slices.ours.push(slice) } else { slices.floor.push(slice) }
            }
        }
    }
    Ok(slices)
}

impl Stage {
    fn set(built: &Built) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("keybearer-bench-").tempdir()?;
        let authority = Authority::new()?;
        let token = canary("bench-");
        let (certificate, key) = authority.issue(&[UPSTREAM], &[])?;
        let place = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        for (name, text) in [("certificate.pem", &certificate), ("key.pem", &key), ("token", &token)] {
            std::fs::write(folder.path().join(name), text)?;
        }
        let upstream = Role::start(&[
            "upstream",
            "--certificate",
            &place("certificate.pem"),
            "--key",
            &place("key.pem"),
            "--token-file",
            &place("token"),
        ])?;
        for name in ["echo", "http-get"] {
            std::fs::write(folder.path().join(name), instance::bundle(built, name)?.component())?;
        }
        let description = Upstream {
            address: upstream.address(),
            name: UPSTREAM.to_owned(),
            authority: authority.pem().to_owned(),
            token: token.clone(),
        };
        std::fs::write(folder.path().join("upstream.json"), serde_json::to_vec(&description)?)?;
        Ok(Self { folder, authority, token, upstream })
    }

    fn floor(&self, kind: Kind, durability: Durability) -> anyhow::Result<Role> {
        let place = |name: &str| self.path().join(name).to_string_lossy().into_owned();
        let (component, tool) = match kind {
            Kind::Bare => (place("echo"), "echo"),
            Kind::Credentialed => (place("http-get"), "get"),
        };
        let (upstream, commit) = (place("upstream.json"), place("commits"));
        let mut arguments = vec!["floor", "--component", &component, "--tool", tool];
        if kind == Kind::Credentialed {
            arguments.extend(["--upstream", &upstream]);
        }
        if durability == Durability::Power {
            arguments.extend(["--commit", &commit]);
        }
        Role::start(&arguments)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Kind {
    fn letter(self) -> &'static str {
        match self {
            Self::Bare => "b",
            Self::Credentialed => "c",
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Bare => "echo.echo",
            Self::Credentialed => "http-get.get",
        }
    }

    fn arguments(self) -> String {
        match self {
            Self::Bare => instance::arguments(),
            Self::Credentialed => json!({ "path": "/anything/bench" }).to_string(),
        }
    }

    fn floor(self, floor: &Role) -> Target {
        Target { address: floor.address(), request: load::post("/", None, &self.arguments()), pid: floor.pid() }
    }
}

impl Durability {
    fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Power => "power",
        }
    }
}

/// The real server, with the tools published, and a tenant that may call both.
pub(crate) struct Prepared {
    pub(crate) server: Server,
    /// The tenant's token.
    pub(crate) token: String,
}

impl Prepared {
    async fn start(built: &Built, stage: &Stage, durability: Durability) -> anyhow::Result<Self> {
        let mut options = ServerOptions::default().with(&format!("[ledger]\ndurability = \"{}\"", durability.name()));
        options.pins.push((UPSTREAM.to_owned(), 443, stage.upstream.address()));
        let server = Server::start(built, &stage.authority, options)?;
        server.publish("echo").await?;
        server.publish("http-get").await?;
        // Every limit is on, and none of the tenant's is the one that is measured.
        let new = json!({ "name": "bench", "calls_per_second": 10_000_000, "concurrent_calls": 256 });
        let tenant = server.tenant_with(new).await?;
        tenant.allow("echo").await?;
        tenant.grant("http-get", "site", &stage.token).await?;
        Ok(Self { server, token: tenant.token })
    }

    fn target(&self, kind: Kind) -> Target {
        let arguments = RawValue::from_string(kind.arguments()).expect("arguments are JSON");
        let body = json!({ "tool": kind.tool(), "arguments": arguments }).to_string();
        Target {
            address: self.server.public().address(),
            request: load::post("/v1/calls", Some(&self.token), &body),
            pid: self.server.pid(),
        }
    }
}
