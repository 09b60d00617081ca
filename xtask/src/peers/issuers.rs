//! The servers that issue credentials, OpenBao and oidc-provider.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use keybearer_tests::OpenBao;

use crate::children;
use crate::peers::Running;
use crate::peers::yard::Yard;

/// What oidc-provider runs as.
const OIDC: [(&str, &str); 3] = [
    ("op.mjs", include_str!("../../peers/oidc/op.mjs")),
    ("grants.mjs", include_str!("../../peers/oidc/grants.mjs")),
    ("store.mjs", include_str!("../../peers/oidc/store.mjs")),
];

/// The OpenBao that all cases share, initialised and unsealed. Cases that need one of their own start it
/// from the same binary.
pub(super) async fn openbao(yard: &Yard, binary: &Path) -> anyhow::Result<Running> {
    let folder = yard.folder().join("openbao");
    std::fs::create_dir(&folder)?;
    let authority = yard.authority()?;
    OpenBao::configure(&folder, &authority)?;
    let mut child = yard.run(OpenBao::command(binary, &folder), "openbao")?;
    let pid = child.id().context("OpenBao ended at once")?;
    let bao = tokio::select! {
        bao = OpenBao::initialise(&folder, pid, authority) => bao,
        status = child.wait() => Err(anyhow::anyhow!("OpenBao ended at once ({})", status?)),
    };
    let bao = bao.with_context(|| children::tail(&yard.log("openbao")))?;
    let environment = vec![
        ("KEYBEARER_TEST_OPENBAO", bao.address().to_string()),
        ("KEYBEARER_TEST_OPENBAO_BINARY", binary.display().to_string()),
    ];
    Ok(Running::new(child, environment))
}

/// oidc-provider, which listens on a port that the kernel chooses.
pub(super) async fn oidc(yard: &Yard, node: &Path, modules: &Path) -> anyhow::Result<Running> {
    let folder = yard.folder().join("oidc");
    std::fs::create_dir(&folder)?;
    for (name, text) in OIDC {
        std::fs::write(folder.join(name), text)?;
    }
    std::os::unix::fs::symlink(modules, folder.join("node_modules"))?;
    keybearer_tests::secret_file(&yard.folder().join("oidc.token"), &keybearer_tests::canary("registration-"))?;
    let mut command = Command::new(node);
    command.arg(folder.join("op.mjs")).arg(yard.folder());
    let mut child = yard.run(command, "oidc")?;
    let ready = yard.folder().join("oidc.ready");
    let port = yard.until("oidc", &mut child, async || std::fs::read_to_string(&ready).ok()).await?;
    let environment = vec![
        ("KEYBEARER_TEST_OIDC", format!("127.0.0.1:{port}")),
        ("KEYBEARER_TEST_OIDC_NODE", node.display().to_string()),
    ];
    Ok(Running::new(child, environment))
}
