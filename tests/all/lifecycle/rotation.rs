//! Rotation under load, and what becomes of the values that were rotated out.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::json;

use super::assert_audited;
use super::assert_order;
use super::bearer;

/// Callers at once, and rotations under them.
const CALLERS: usize = 12;
const ROTATIONS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn r01_under_load_each_request_carries_one_version_and_none_an_old_one_after_the_rotation() -> anyhow::Result<()>
{
    // If this failed, a value that was rotated out because it had leaked would still be sent, or a rotation would
    // break the calls that run.
    let site = Arc::new(Site::start().await?);
    let new = json!({"name": "acme", "calls_per_second": 100_000, "concurrent_calls": 64});
    let holder = Arc::new(site.holder_with(new).await?);
    // Which values may be used by a call that begins now: those from this index on.
    let current = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (holder, current, done) = (Arc::clone(&holder), Arc::clone(&current), Arc::clone(&done));
            tokio::spawn(async move {
                let mut count = 0;
                while done.load(Ordering::SeqCst) == 0 {
                    let floor = current.load(Ordering::SeqCst);
                    let answer = holder.get(&format!("/anything/{caller}-{count}/from-{floor}")).await?;
                    anyhow::ensure!(answer.status == 200, "a call under rotation: {}", answer.text());
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    let mut values = vec![holder.value.clone()];
    for index in 1..=ROTATIONS {
        let seen = site.upstream.recorded().len();
        values.push(canary("rotated-"));
        let raised = holder.rotate(&values[index]).await?;
        assert_eq!(raised["version"], index + 1);
        current.store(index, Ordering::SeqCst);
        // At least one call of each caller between two rotations.
        while site.upstream.recorded().len() < seen + 2 * CALLERS {
            tokio::task::yield_now().await;
        }
    }
    done.store(1, Ordering::SeqCst);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await??;
    }
    let recorded = site.upstream.recorded();
    assert_eq!(recorded.len(), calls, "one request a call");
    for request in &recorded {
        let sent: Vec<_> = request.headers.iter().filter(|(name, _)| name == "authorization").collect();
        assert_eq!(sent.len(), 1, "one credential on a request");
        let version = values.iter().position(|value| bearer(request) == Some(value)).expect("a known value");
        let floor: usize = request.target.rsplit("from-").next().expect("a number").parse()?;
        assert!(version >= floor, "version {version} on {} after the rotation to {floor}", request.target);
    }
    assert_audited(&site)?;
    assert_order(&site.ledger()?, &holder.credential)
}

/// Calls that are under way when it is rotated.
const IN_FLIGHT: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn r01_with_1000_calls_in_flight_the_ledger_names_the_version_that_the_upstream_saw() -> anyhow::Result<()> {
    // If this failed, the record could not say which requests a value that leaked was on.
    let options = ServerOptions::default().with("[limits]\nconcurrent_calls = 1100\n[sandbox]\ninstances = 1100\n");
    let site = Arc::new(Site::start_with(options).await?);
    let new = json!({"name": "acme", "calls_per_second": 100_000, "concurrent_calls": 1100});
    let holder = Arc::new(site.holder_with(new).await?);
    let (mut calls, mut numbers) = (tokio::task::JoinSet::new(), 0..IN_FLIGHT);
    let mut send = |count: usize| {
        for number in numbers.by_ref().take(count) {
            let holder = Arc::clone(&holder);
            calls.spawn(async move { holder.get(&format!("/anything/hold/{number}")).await });
        }
    };
    let at_once = IN_FLIGHT / (ROTATIONS + 1);
    let mut values = vec![holder.value.clone()];
    for _ in 0..ROTATIONS {
        // Some of them are with the upstream when it is rotated, the others anywhere on their way.
        send(at_once);
        site.arrived("/hold/").await?;
        let value = canary("rotated-");
        holder.rotate(&value).await?;
        values.push(value);
    }
    send(IN_FLIGHT);
    while site.upstream.recorded().len() < IN_FLIGHT {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    site.let_go();
    while let Some(answer) = calls.join_next().await {
        let answer = answer??;
        anyhow::ensure!(answer.status == 200, "a call under rotation: {}", answer.text());
    }
    let recorded = site.upstream.recorded();
    assert_eq!(recorded.len(), IN_FLIGHT, "one request a call");
    let ledger = site.ledger()?;
    let mut used = std::collections::BTreeSet::new();
    for request in &recorded {
        let version = 1 + values.iter().position(|value| bearer(request) == Some(value)).context("a known value")?;
        let sent = ledger.iter().filter(|record| {
            record["kind"] == "dispatch_closed"
                && record["status"] == 200
                && record["place"].as_str().is_some_and(|place| place.ends_with(&request.target))
        });
        let named: Vec<_> = sent.map(|record| (record["version"].as_u64(), record["epoch"].as_u64())).collect();
        let version = Some(u64::try_from(version)?);
        // A first version has the first epoch, and every rotation raises both by one.
        assert_eq!(named, [(version, version)], "{}", request.target);
        used.insert(version);
    }
    // The last calls began behind the last rotation.
    let last = Some(u64::try_from(values.len())?);
    assert!(used.contains(&Some(1)) && used.contains(&last), "calls before and behind the rotations: {used:?}");
    assert_audited(&site)?;
    assert_order(&ledger, &holder.credential)
}

#[tokio::test]
async fn r04_x28_an_old_version_is_scrubbed_until_it_is_destroyed_and_a_bad_new_one_leaves_it_in_use()
-> anyhow::Result<()> {
    // If this failed, a value that the upstream had stored would come back to the guest after a rotation, or a typing
    // error would leave a tenant without its credential.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    let credential = format!("/v1/credentials/{}", holder.credential);
    for bad in ["tiny-7Q", "a line\nand another one", "ümlaut-ümlaut-ümlaut"] {
        let refused = client.post(&format!("{credential}/versions"), &json!({"value": bad})).await?;
        assert_eq!(refused.code(), "credential_refused", "{bad:?}: {}", refused.text());
        assert!(!refused.text().contains(bad.split('\n').next().unwrap_or(bad)), "{}", refused.text());
    }
    assert_eq!(holder.get("/anything").await?.status, 200, "the old version stays in use");
    assert_eq!(bearer(&site.upstream.recorded()[0]), Some(holder.value.as_str()));
    assert_eq!(client.get(&credential).await?.json()["versions"].as_array().map(Vec::len), Some(1));

    let current = client.send("DELETE", &format!("{credential}/versions/1"), &[], Vec::new()).await?;
    assert_eq!(current.code(), "conflict", "the current version is not destroyed");
    let next = canary("next-");
    holder.rotate(&next).await?;
    // The upstream echoes the target: a path that holds the old value comes back in its answer.
    let reflects = format!("/anything/{}", holder.value);
    let scrubbed = holder.get(&reflects).await?;
    assert_eq!(scrubbed.status, 200, "{}", scrubbed.text());
    assert!(!scrubbed.text().contains(&holder.value), "a retired version is scrubbed: {}", scrubbed.text());
    let destroyed = client.send("DELETE", &format!("{credential}/versions/1"), &[], Vec::new()).await?;
    assert_eq!(destroyed.json()["versions"][0]["state"], "destroyed", "{}", destroyed.text());
    assert!(holder.get(&reflects).await?.text().contains(&holder.value), "what is destroyed is known no more");
    assert_eq!(bearer(&site.upstream.recorded()[2]), Some(next.as_str()));
    for version in ["1", "9", "x", "-1", "4294967296"] {
        let path = format!("{credential}/versions/{version}");
        let answer = client.send("DELETE", &path, &[], Vec::new()).await?;
        assert!(version == "1" || answer.code() == "not_found", "{version}: {}", answer.text());
    }
    Ok(())
}
