//! A disk that is full: on a small file system of its own, which only root can mount. Where that cannot be
//! done this fails, and says so: what was not tried is not shown.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Site;

/// A small file system in memory, for as long as the case runs.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(super) fn mount(at: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "keybearer-test"]).arg(at).status();
        anyhow::ensure!(
            mounted.is_ok_and(|status| status.success()),
            "NOT RUN: a full disk needs a file system of its own, and `mount -t tmpfs` failed: run the tests as root"
        );
        Ok(Self(at.to_owned()))
    }

    /// Writes until there is no room for another byte.
    fn fill(&self) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut filler = std::fs::File::create(self.0.join("filler"))?;
        while filler.write(&[0; 512]).is_ok_and(|written| written > 0) {}
        Ok(())
    }

    /// Lets nobody write any more, or again. Nobody may have a file open for writing.
    pub(super) fn read_only(&self, on: bool) -> anyhow::Result<()> {
        let how = if on { "remount,ro" } else { "remount,rw" };
        let mounted = Command::new("mount").args(["-o", how]).arg(&self.0).status()?;
        anyhow::ensure!(mounted.success(), "`mount -o {how}` failed");
        Ok(())
    }

    fn empty(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.0.join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server may still hold its files for a moment.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a06_p6_on_a_full_disk_nothing_is_sent_and_room_is_all_that_it_needs() -> anyhow::Result<()> {
    // If this failed, calls would act without a record while the disk is full, or the server would have to be mended
    // by hand after.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    site.server.stop()?;
    let ledger = site.server.home().join("ledger");
    let aside = site.server.folder().join("aside");
    super::copy(&ledger, &aside)?;
    let disk = SmallDisk::mount(&ledger)?;
    super::copy(&aside, &ledger)?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = |path: &str| {
        let call = serde_json::json!({"tool": "http-get.get", "arguments": {"path": path}});
        let client = client.clone();
        async move { client.post("/v1/calls", &call).await }
    };
    assert_eq!(call("/anything").await?.status, 200);

    let (held, filled) = tokio::join!(call("/anything/hold"), async {
        site.arrived("/hold").await?;
        disk.fill()?;
        // What is left of the last page may take some records yet.
        for count in 0..400 {
            if call(&format!("/anything/{count}")).await?.code() == "ledger_unavailable" {
                site.let_go();
                return Ok(());
            }
        }
        anyhow::bail!("calls go on without a ledger")
    });
    filled?;
    let held = held?;
    assert_eq!((held.status, held.code().as_str()), (503, "ledger_unavailable"), "no answer without a record");
    let arrived = site.upstream.recorded().len();
    for count in 0..20 {
        let refused = call(&format!("/anything/full-{count}")).await?;
        assert_eq!((refused.status, refused.code().as_str()), (503, "ledger_unavailable"), "{}", refused.text());
    }
    let other = site.server.operator().post("/v1/tenants", &serde_json::json!({"name": "other"})).await?;
    assert_eq!(other.code(), "ledger_unavailable", "an act is not acknowledged either: {}", other.text());
    assert_eq!(site.upstream.recorded().len(), arrived, "nothing was sent");
    let ready = site.server.admin().get("/readyz").await?;
    assert!(ready.status == 503 && !ready.text().is_empty(), "{}", ready.text());
    assert_eq!(site.server.admin().get("/healthz").await?.status, 200, "the process is well");

    disk.empty()?;
    let began = Instant::now();
    while site.server.admin().get("/readyz").await?.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not come back by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(call("/anything/again").await?.status, 200);
    let verified = site.server.cli(&["ledger", "verify"], b"")?;
    assert!(verified.0, "{verified:?}");
    let records = site.ledger()?;
    // A background write may find a last free page in between: then there are two gaps, and each is recorded.
    let gaps: Vec<_> = records.iter().filter(|record| record["kind"] == "resumed").collect();
    let refused: u64 = gaps.iter().filter_map(|gap| gap["refused"].as_u64()).sum();
    assert!(refused >= 20, "{gaps:?}");
    site.server.stop()?;
    site.server.restart()?;
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0);
    site.server.stop()?;
    Ok(())
}
