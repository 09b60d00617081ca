//! The way back after a rotation: open for the overlap that was asked for, and shut after it.

use std::time::Duration;

use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::json;

use super::assert_audited;
use super::assert_order;
use super::bearer;

#[tokio::test]
async fn r01_r04_a_rotation_is_taken_back_while_its_overlap_lasts_and_dispatches_use_one_version_only()
-> anyhow::Result<()> {
    // If this failed, a new value that the upstream does not take would leave a tenant without its credential, or an
    // overlap would let the old one be sent.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    let credential = format!("/v1/credentials/{}", holder.credential);
    let too_long = json!({"value": canary("next-"), "overlap_s": 86_401});
    let refused = client.post(&format!("{credential}/versions"), &too_long).await?;
    assert_eq!(refused.code(), "malformed_request", "{}", refused.text());
    let none = client.post(&format!("{credential}/rollback"), &json!({})).await?;
    assert_eq!(none.code(), "conflict", "there is nothing to go back to: {}", none.text());

    let next = canary("next-");
    let rotated = client.post(&format!("{credential}/versions"), &json!({"value": next, "overlap_s": 600})).await?;
    assert!(rotated.json()["overlap_until"].is_u64(), "{}", rotated.text());
    assert_eq!(holder.get(&format!("/anything/{}", holder.value)).await?.status, 200);
    assert_eq!(bearer(&site.upstream.recorded()[0]), Some(next.as_str()), "the new version, at once");
    let other = client.post(&format!("{credential}/rollback"), &json!({"version": 2})).await?;
    assert_eq!(other.code(), "conflict", "the current version is none to go back to");
    let back = client.post(&format!("{credential}/rollback"), &json!({})).await?;
    assert_eq!((back.status, &back.json()["version"], &back.json()["epoch"]), (201, &json!(3), &json!(3)));
    let reflected = holder.get(&format!("/anything/{next}")).await?;
    assert_eq!(bearer(&site.upstream.recorded()[1]), Some(holder.value.as_str()), "the value before, again");
    assert!(!reflected.text().contains(&next), "what was taken back is still scrubbed: {}", reflected.text());
    assert_audited(&site)?;
    assert_order(&site.ledger()?, &holder.credential)
}

#[tokio::test]
async fn r01_when_an_overlap_is_over_the_old_version_is_gone_unless_it_was_pinned() -> anyhow::Result<()> {
    // If this failed, a leaked value that was rotated out would stay one click away from being used again.
    let site = Site::start().await?;
    let (brief, pinned) = (site.holder("brief").await?, site.holder("pinned").await?);
    for (holder, is_pinned) in [(&brief, false), (&pinned, true)] {
        let path = format!("/v1/credentials/{}/versions", holder.credential);
        let body = json!({"value": canary("next-"), "overlap_s": 1, "pinned": is_pinned});
        assert_eq!(holder.tenant.client.post(&path, &body).await?.status, 201);
        // Time itself is what is waited for.
        let state = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let shown = holder.tenant.client.get(&format!("/v1/credentials/{}", holder.credential)).await?.json();
                if shown["versions"][0]["overlap_until"].is_null() {
                    return anyhow::Ok(shown["versions"][0]["state"].clone());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert_eq!(state.await??, if is_pinned { "retired" } else { "destroyed" });
        let back = format!("/v1/credentials/{}/rollback", holder.credential);
        let back = holder.tenant.client.post(&back, &json!({"version": 1})).await?;
        assert_eq!(back.code(), "conflict", "the way back is shut: {}", back.text());
        let reflected = holder.get(&format!("/anything/{}", holder.value)).await?;
        assert_eq!(reflected.text().contains(&holder.value), !is_pinned, "pinned is scrubbed, destroyed is not known");
    }
    let destroyed: Vec<_> = site.ledger()?.into_iter().filter(|record| record["what"] == "version_destroyed").collect();
    assert_eq!(destroyed.len(), 1, "{destroyed:?}");
    assert_eq!((&destroyed[0]["subject"], &destroyed[0]["principal"]), (&json!(brief.credential), &json!("host")));
    Ok(())
}
