//! Disks and systems that fail in other ways than by being full: nothing is sent without a record, it is
//! said why, and what failed is all that has to be mended.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Answer;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Wire;
use serde_json::json;

use super::disk::SmallDisk;

fn call(path: &str) -> serde_json::Value {
    json!({"tool": "http-get.get", "arguments": {"path": path}})
}

/// Waits until the server says that it is ready again.
async fn ready_again(site: &Site) -> anyhow::Result<()> {
    let began = Instant::now();
    while site.server.admin().get("/readyz").await?.status != 200 {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(20), "it does not come back by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A library that takes the place of the syncs: while the file is there, they fail as on a disk that is full.
fn failing_syncs(folder: &Path, flag: &Path) -> anyhow::Result<std::path::PathBuf> {
    const SOURCE: &str = "#define _GNU_SOURCE\n#include <errno.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
        static int fails(void) { if (access(FLAG, F_OK)) return 0; errno = ENOSPC; return 1; }\n\
        int fsync(int fd) { return fails() ? -1 : syscall(SYS_fsync, fd); }\n\
        int fdatasync(int fd) { return fails() ? -1 : syscall(SYS_fdatasync, fd); }\n";
    let (source, library) = (folder.join("syncs.c"), folder.join("syncs.so"));
    std::fs::write(&source, SOURCE)?;
    let flag = format!("-DFLAG=\"{}\"", flag.display());
    let made = Command::new("cc").args(["-shared", "-fPIC", &flag, "-o"]).arg(&library).arg(&source).output();
    anyhow::ensure!(
        made.as_ref().is_ok_and(|made| made.status.success()),
        "NOT RUN: syncs that fail need a C compiler, and `cc` said {made:?}"
    );
    Ok(library)
}

#[tokio::test(flavor = "multi_thread")]
async fn a06_p6_where_syncs_fail_nothing_is_sent_and_it_recovers_by_itself() -> anyhow::Result<()> {
    // If this failed, `durability = "power"` would be a word: requests would leave whose record is not on the disk.
    let folder = tempfile::tempdir()?;
    let flag = folder.path().join("syncs-fail");
    // The flag's path is in quotes of C.
    let library = failing_syncs(folder.path(), Path::new(&flag))?;
    let mut options = ServerOptions::default().with("[ledger]\ndurability = \"power\"");
    options.environment.push(("LD_PRELOAD".to_owned(), library.display().to_string()));
    let site = Site::start_with(options).await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    std::fs::write(&flag, "")?;
    let arrived = site.upstream.recorded().len();
    for count in 0..20 {
        let refused = holder.get(&format!("/anything/unsynced-{count}")).await?;
        assert_eq!((refused.status, refused.code().as_str()), (503, "ledger_unavailable"), "{}", refused.text());
    }
    assert_eq!(site.upstream.recorded().len(), arrived, "nothing was sent");
    let ready = site.server.admin().get("/readyz").await?;
    assert!(ready.status == 503 && !ready.text().is_empty(), "{}", ready.text());
    std::fs::remove_file(&flag)?;
    ready_again(&site).await?;
    assert_eq!(holder.get("/anything/again").await?.status, 200);
    let verified = site.server.cli(&["ledger", "verify"], b"")?;
    assert!(verified.0, "{verified:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a06_a_ledger_on_a_read_only_disk_is_refused_with_words_and_left_as_it_is() -> anyhow::Result<()> {
    // If this failed, a disk that the kernel made read-only would end in a server that acts without a record.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    site.server.stop()?;
    let ledger = site.server.home().join("ledger");
    let aside = site.server.folder().join("aside");
    super::copy(&ledger, &aside)?;
    let disk = SmallDisk::mount(&ledger)?;
    super::copy(&aside, &ledger)?;
    disk.read_only(true)?;
    let refused = format!("{:#}", site.server.restart().err().ok_or_else(|| anyhow::anyhow!("it starts"))?);
    let last = refused.lines().last().unwrap_or_default();
    assert!(last.contains("ledger") && last.to_lowercase().contains("read-only"), "{last}");
    assert!(!last.contains("panicked"), "{last}");
    disk.read_only(false)?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    assert_eq!(client.post("/v1/calls", &call("/anything/again")).await?.status, 200);
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "the chain goes on");
    site.server.stop()?;
    Ok(())
}

/// One call on a connection that stays open.
async fn on(wire: &mut Wire, token: &str, path: &str) -> anyhow::Result<Answer> {
    let body = call(path).to_string();
    let head = format!(
        "POST /v1/calls HTTP/1.1\r\nhost: k\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    wire.write(format!("{head}{body}").as_bytes()).await;
    wire.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a06_c04_without_descriptors_calls_fail_in_words_and_come_back() -> anyhow::Result<()> {
    // If this failed, a burst of connections would kill the server, or make it act without a record.
    let site = Site::start().await?;
    let (warm, cold) = (site.holder("warm").await?, site.holder("cold").await?);
    let address = site.server.public().address();
    let (mut of_warm, mut of_cold) = (Wire::connect(address).await?, Wire::connect(address).await?);
    assert_eq!(on(&mut of_warm, &warm.tenant.token, "/anything/warm").await?.status, 200);
    // A connection of the other's to the listener, and none to the upstream.
    assert_eq!(on(&mut of_cold, "kb_nobody", "/anything").await?.status, 401);
    let limit = |soft: &str| {
        let limited = Command::new("prlimit")
            .args(["--pid", &site.server.pid().to_string(), &format!("--nofile={soft}:")])
            .status();
        anyhow::ensure!(limited.is_ok_and(|status| status.success()), "NOT RUN: `prlimit --nofile` failed");
        Ok(())
    };
    // Those that are open stay; there is none for anything new.
    limit("3")?;
    assert_eq!(on(&mut of_warm, &warm.tenant.token, "/anything/still").await?.status, 200, "what is open is used");
    for count in 0..5 {
        let refused = on(&mut of_cold, &cold.tenant.token, &format!("/anything/no-{count}")).await?;
        assert!(refused.status >= 500 && refused.code() != "internal", "{} {}", refused.status, refused.text());
        assert!(!refused.text().contains(&cold.value), "{}", refused.text());
    }
    assert!(site.upstream.recorded().iter().all(|request| !request.target.contains("/no-")), "nothing was sent");
    let client = site.server.public().bearing(&warm.tenant.token);
    let waiting = tokio::spawn(async move { client.post("/v1/calls", &call("/anything/waited")).await });
    assert_eq!(on(&mut of_warm, &warm.tenant.token, "/anything/meanwhile").await?.status, 200);
    limit("1024")?;
    assert_eq!(waiting.await??.status, 200, "who waited to be accepted is answered");
    assert_eq!(on(&mut of_cold, &cold.tenant.token, "/anything/again").await?.status, 200);
    ready_again(&site).await?;
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "the chain is whole");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_log_rotation_loses_no_record_and_stops_nobody() -> anyhow::Result<()> {
    // If this failed, the nightly rotation of logs would end the server, or tear a hole into the ledger.
    let site = Site::start().await?;
    let holder = site.holder_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
    let segment = super::segments(&site.server.home().join("ledger"))?.pop().ok_or_else(|| anyhow::anyhow!("none"))?;
    let away = segment.with_extension("1");
    let log = site.server.folder().join("server.log");
    let mut calls = 0;
    for round in 0..4 {
        let turning = async {
            // Renamed while records are written; then the log is cut as by `copytruncate`, and the signal comes.
            std::fs::rename(&segment, &away)?;
            std::fs::OpenOptions::new().write(true).truncate(true).open(&log)?;
            let pid = site.server.pid().to_string();
            anyhow::ensure!(Command::new("kill").args(["-HUP", &pid]).status()?.success(), "no signal");
            assert_eq!(holder.get("/anything/renamed").await?.status, 200);
            Ok(std::fs::rename(&away, &segment)?)
        };
        let paths: Vec<_> = (0..16).map(|count| format!("/anything/{round}-{count}")).collect();
        let calling = futures_util::future::join_all(paths.iter().map(|path| holder.get(path)));
        let (turned, answers) = tokio::join!(turning, calling);
        turned?;
        for answer in answers {
            assert_eq!(answer?.status, 200);
        }
        calls += 17;
    }
    let verified = site.server.cli(&["ledger", "verify"], b"")?;
    assert!(verified.0, "{verified:?}");
    let ledger = site.ledger()?;
    let count = |kind: &str| ledger.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!((count("call_closed"), count("dispatch_closed")), (calls, calls), "each record once");
    assert!(!std::fs::read(&log)?.contains(&0), "the log goes on at its new beginning");
    Ok(())
}
