//! nginx, and behind it httpbin and moto.

use std::path::Path;
use std::process::Command;

use keybearer_tests::Client;
use keybearer_tests::Reserved;

use crate::children::Child;
use crate::peers::Running;
use crate::peers::yard::Yard;

const CONFIGURATION: &str = include_str!("../../peers/nginx.conf");

/// What moto runs as.
const MOTO: &str = include_str!("../../peers/moto_app.py");

/// nginx, which runs whatever is behind it.
pub(super) struct Nginx {
    child: Child,
    ports: Ports,
}

struct Ports {
    httpbin: Reserved,
    moto: Reserved,
    nginx: Reserved,
    health: Reserved,
}

impl Nginx {
    pub(super) async fn start(yard: &Yard, nginx: &Path) -> anyhow::Result<Self> {
        let ports = Ports {
            httpbin: Reserved::new()?,
            moto: Reserved::new()?,
            nginx: Reserved::new()?,
            health: Reserved::new()?,
        };
        let folder = yard.folder();
        std::fs::create_dir(folder.join("www"))?;
        std::fs::write(folder.join("www/hello.txt"), "hello\n")?;
        std::fs::write(folder.join("www/data.json"), "{\"hello\":\"world\"}\n")?;
        std::fs::write(folder.join("www/large.txt"), "a line of thirty-two characters\n".repeat(1 << 15))?;
        // A root's worker would be nobody, who cannot read the folder.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = CONFIGURATION
            .replace("{{folder}}", &folder.display().to_string())
            .replace("{{user}}", user)
            .replace("{{httpbin}}", &ports.httpbin.port().to_string())
            .replace("{{moto}}", &ports.moto.port().to_string())
            .replace("{{nginx}}", &ports.nginx.port().to_string())
            .replace("{{health}}", &ports.health.port().to_string());
        std::fs::write(folder.join("nginx.conf"), configuration)?;
        let mut command = Command::new(nginx);
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
        let mut child = yard.run(command, "nginx")?;
        let health = health(&ports);
        yard.until("nginx", &mut child, async || answers(&health, "nginx").await).await?;
        Ok(Self { child, ports })
    }

    /// httpbin, through this.
    pub(super) async fn httpbin(&self, yard: &Yard, gunicorn: &Path) -> anyhow::Result<Running> {
        let mut command = Command::new(gunicorn);
        command.arg("httpbin:app");
        let child = self.behind(yard, "httpbin", command).await?;
        let address = self.ports.httpbin.address().to_string();
        Ok(Running::new(child, vec![("KEYBEARER_TEST_HTTPBIN", address)]))
    }

    /// moto, through this.
    pub(super) async fn moto(&self, yard: &Yard, gunicorn: &Path) -> anyhow::Result<Running> {
        std::fs::write(yard.folder().join("moto_app.py"), MOTO)?;
        let mut command = Command::new(gunicorn);
        command.arg("--chdir").arg(yard.folder()).arg("moto_app:app");
        let child = self.behind(yard, "moto", command).await?;
        let address = self.ports.moto.address().to_string();
        let program = gunicorn.display().to_string();
        Ok(Running::new(child, vec![("KEYBEARER_TEST_MOTO", address), ("KEYBEARER_TEST_MOTO_PROGRAM", program)]))
    }

    async fn behind(&self, yard: &Yard, name: &str, mut command: Command) -> anyhow::Result<Child> {
        command.arg("--bind").arg(format!("unix:{}/{name}.sock", yard.folder().display()));
        command.args(["--workers", "1", "--threads", "8", "--no-control-socket"]);
        let mut child = yard.run(command, name)?;
        let health = health(&self.ports);
        yard.until(name, &mut child, async || answers(&health, name).await).await?;
        Ok(child)
    }

    pub(super) fn running(self) -> Running {
        let address = self.ports.nginx.address().to_string();
        Running::new(self.child, vec![("KEYBEARER_TEST_NGINX", address)])
    }
}

fn health(ports: &Ports) -> Client {
    Client::new(ports.health.address())
}

async fn answers(health: &Client, name: &str) -> Option<()> {
    let answer = health.get(&format!("/{name}")).await;
    answer.is_ok_and(|answer| answer.status < 300).then_some(())
}
