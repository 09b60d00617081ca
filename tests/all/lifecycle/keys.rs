//! The master key: rotated in place under use, and never another one's.

use keybearer_tests::Site;
use serde_json::json;

use super::bearer;

#[tokio::test(flavor = "multi_thread")]
async fn p7_the_master_key_is_rotated_in_place_and_the_old_one_opens_nothing_any_more() -> anyhow::Result<()> {
    // If this failed, a copied master key could never be made worthless, or a rotation would lose every credential.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let key = site.server.home().join("master.key");
    let old = std::fs::read(&key)?;
    assert_eq!(mode(&key)?, 0o600);
    let (during, rotated) = tokio::join!(
        async {
            let mut codes = Vec::new();
            for count in 0..20 {
                codes.push(holder.get(&format!("/anything/{count}")).await?.status);
            }
            anyhow::Ok(codes)
        },
        async {
            for _ in 0..3 {
                let rotated = site.server.operator().post("/v1/master-key/rotate", &json!({})).await?;
                anyhow::ensure!(rotated.status == 204, "{}", rotated.text());
            }
            Ok(())
        }
    );
    rotated?;
    let during = during?;
    assert!(during.iter().all(|status| *status == 200), "calls go on meanwhile: {during:?}");
    let new = std::fs::read(&key)?;
    assert!(new != old && mode(&key)? == 0o600, "another key, as well kept");
    site.server.stop()?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/after"}});
    let answer = client.post("/v1/calls", &call).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(site.upstream.recorded().iter().all(|request| bearer(request) == Some(holder.value.as_str())));

    site.server.stop()?;
    std::fs::write(&key, &old)?;
    let refused = site.server.restart().expect_err("the old key opens nothing").to_string();
    assert!(refused.contains("master key") && refused.contains("put the key back"), "{refused}");
    std::fs::write(&key, &new)?;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    let refused = site.server.restart().expect_err("a key that others can read is refused").to_string();
    assert!(refused.contains("master.key"), "{refused}");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    site.server.restart()
}

fn mode(path: &std::path::Path) -> anyhow::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o777)
}
