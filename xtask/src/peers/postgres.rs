//! PostgreSQL, for which OpenBao makes accounts: a new cluster in a folder of its own, whose owner is
//! nobody's account, for it does not run as root.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use keybearer_tests::Reserved;
use serde_json::json;

use crate::children;
use crate::peers::Running;
use crate::peers::install;
use crate::peers::yard::Yard;

/// Whom it runs as where we are root: its own account, or nobody's.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// What it says when it is ready.
const READY: &str = "database system is ready to accept connections";

/// A cluster of databases, with one superuser whose password is in `postgres.json` of the yard.
pub(super) async fn start(yard: &Yard, installed: &install::Postgres) -> anyhow::Result<Running> {
    let folder = tempfile::Builder::new().prefix("keybearer-postgres-").tempdir()?;
    let account = account(folder.path()).await?;
    let programs = within_reach(folder.path(), installed).await?;
    let program = |name: &str| {
        let mut command = Command::new(programs.folder.join(name));
        command.env("LC_ALL", "C").env("LD_LIBRARY_PATH", &programs.libraries);
        if let Some((user, group)) = account {
            command.uid(user).gid(group);
        }
        command
    };
    let password = keybearer_tests::canary("superuser-");
    // Read by the account, in a folder that is the account's alone.
    std::fs::write(folder.path().join("password"), &password)?;
    let mut create = program("initdb");
    create.arg("--pgdata").arg(folder.path().join("data")).arg("--pwfile").arg(folder.path().join("password"));
    create.args(["--auth", "scram-sha-256", "--username", "keybearer", "--encoding", "UTF8", "--no-sync"]);
    let created = yard.run_in(folder.path(), create, "initdb")?.wait().await?;
    anyhow::ensure!(created.success(), "initdb: {created}\n{}", children::tail(&yard.log("initdb")));

    let port = Reserved::new()?;
    let mut serve = program("postgres");
    serve.arg("-D").arg(folder.path().join("data")).arg("-p").arg(port.port().to_string());
    serve.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c"]);
    serve.arg(format!("unix_socket_directories={}", folder.path().display()));
    let mut child = yard.run_in(folder.path(), serve, "postgres")?;
    let log = yard.log("postgres");
    let ready = async || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(READY)).then_some(());
    yard.until("postgres", &mut child, ready).await?;
    let state = json!({"password": password, "psql": programs.folder.join("psql"), "libraries": programs.libraries});
    keybearer_tests::secret_file(&yard.folder().join("postgres.json"), &state.to_string())?;
    let environment = vec![("KEYBEARER_TEST_POSTGRES", port.address().to_string())];
    Ok(Running { child, environment, _folder: Some(folder) })
}

/// The account's user and group, which own the folder from now on; none if we are not root.
async fn account(folder: &Path) -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    for account in ACCOUNTS {
        let ask = |what: &'static str| {
            let mut id = Command::new("id");
            id.args([what, account]);
            async { children::printed(id).await.and_then(|text| text.trim().parse::<u32>().ok()) }
        };
        if let (Some(user), Some(group)) = (ask("-u").await, ask("-g").await) {
            std::os::unix::fs::chown(folder, Some(user), Some(group))?;
            return Ok(Some((user, group)));
        }
    }
    anyhow::bail!("PostgreSQL does not run as root, and there is no other account")
}

struct Programs {
    folder: PathBuf,
    libraries: PathBuf,
}

/// Programs that the account can run: what was unpacked may lie where it must not look, so that it gets a
/// copy.
async fn within_reach(folder: &Path, installed: &install::Postgres) -> anyhow::Result<Programs> {
    let Some(unpacked) = &installed.unpacked else {
        return Ok(Programs { folder: installed.programs.clone(), libraries: PathBuf::new() });
    };
    let copy = folder.join("unpacked");
    let mut copying = Command::new("cp");
    copying.arg("--recursive").arg(unpacked).arg(&copy);
    children::printed(copying).await.context("PostgreSQL cannot be copied")?;
    let within = installed.programs.strip_prefix(unpacked).context("programs lie among what was unpacked")?;
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    Ok(Programs { folder: copy.join(within), libraries: copy.join("usr/lib").join(triplet) })
}
