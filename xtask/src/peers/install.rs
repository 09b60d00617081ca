//! Getting the servers: nginx from the system or, unpacked into the checkout, from its package; httpbin
//! into a Python environment of the checkout's own, at pinned versions. Nothing of the system is changed,
//! but that Python's `venv` is installed where it is missing and that can be done.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::children;
use crate::place::Place;

/// httpbin and what it imports.
const REQUIREMENTS: &str = include_str!("../../peers/httpbin.txt");

/// The oldest Python that the pinned versions run on is 3.10.
const PYTHON_WORKS: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10)); ";

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
    let venv = place.tools.join("httpbin");
    let gunicorn = venv.join("bin/gunicorn");
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == REQUIREMENTS)
        && runs(&gunicorn, &["--version"]).await
    {
        return Ok(gunicorn);
    }
    python(place).await?;
    let mut create = Command::new("python3");
    create.args(["-m", "venv", "--clear"]).arg(&venv);
    children::logged("make a Python environment for httpbin", create, &place.log("venv")).await?;
    let mut install = Command::new(venv.join("bin/pip"));
    install.args(["install", "--no-deps", "--disable-pip-version-check", "--requirement"]);
    install.arg(place.root.join("xtask/peers/httpbin.txt"));
    children::logged("install httpbin", install, &place.log("pip")).await?;
    std::fs::write(installed, REQUIREMENTS)?;
    Ok(gunicorn)
}

async fn python(place: &Place) -> anyhow::Result<()> {
    let python = Path::new("python3");
    if runs(python, &["-c", PYTHON_WORKS]).await {
        return Ok(());
    }
    let advice = "httpbin needs Python 3.10 or newer with `venv`: install python3-venv";
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
