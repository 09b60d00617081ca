//! nginx, and httpbin behind it.

use std::path::Path;
use std::process::Command;

use keybearer_tests::Client;

use crate::children::Child;
use crate::peers::Running;
use crate::peers::yard::Yard;
use crate::peers::yard::free_port;

const CONFIGURATION: &str = include_str!("../../peers/nginx.conf");

/// nginx, which runs whatever is behind it.
pub(super) struct Nginx {
    child: Child,
    ports: Ports,
}

struct Ports {
    httpbin: u16,
    nginx: u16,
    health: u16,
}

impl Nginx {
    pub(super) async fn start(yard: &Yard, nginx: &Path) -> anyhow::Result<Self> {
        let ports = Ports { httpbin: free_port()?, nginx: free_port()?, health: free_port()? };
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
            .replace("{{httpbin}}", &ports.httpbin.to_string())
            .replace("{{nginx}}", &ports.nginx.to_string())
            .replace("{{health}}", &ports.health.to_string());
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
        command.arg("--bind").arg(format!("unix:{}/httpbin.sock", yard.folder().display()));
        command.args(["--workers", "1", "--threads", "8", "--no-control-socket", "httpbin:app"]);
        let mut child = yard.run(command, "httpbin")?;
        let health = health(&self.ports);
        yard.until("httpbin", &mut child, async || answers(&health, "httpbin").await).await?;
        let address = format!("127.0.0.1:{}", self.ports.httpbin);
        Ok(Running { child, environment: vec![("KEYBEARER_TEST_HTTPBIN", address)] })
    }

    pub(super) fn running(self) -> Running {
        let address = format!("127.0.0.1:{}", self.ports.nginx);
        Running { child: self.child, environment: vec![("KEYBEARER_TEST_NGINX", address)] }
    }
}

fn health(ports: &Ports) -> Client {
    Client::new(([127, 0, 0, 1], ports.health).into())
}

async fn answers(health: &Client, name: &str) -> Option<()> {
    let answer = health.get(&format!("/{name}")).await;
    answer.is_ok_and(|answer| answer.status == 204).then_some(())
}
