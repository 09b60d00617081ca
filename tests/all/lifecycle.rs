//! The life of what a tenant holds: credentials are stored, rotated, revoked, expire and are destroyed;
//! tokens and grants are given and taken; a tenant is suspended; the master key is rotated. The upstream's
//! own record says what was used, and the ledger in what order.

mod keys;
mod oauth;
mod overlap;
mod revocation;
mod revoking;
mod rotation;
mod tokens;
mod unauthorized;
mod values;

use anyhow::Context as _;
use keybearer_tests::Recorded;
use serde_json::Value;

/// The bearer token that a request carried.
fn bearer(request: &Recorded) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

/// The ledger shows no use of what had been ended.
fn assert_audited(site: &keybearer_tests::Site) -> anyhow::Result<()> {
    let (is_clean, audited, error) = site.server.cli(&["ledger", "audit", "--json"], b"")?;
    anyhow::ensure!(is_clean, "the audit: {audited} {error}");
    let audited: Value = serde_json::from_str(&audited)?;
    anyhow::ensure!(audited["dispatches"].as_u64() > Some(0), "nothing was audited: {audited}");
    Ok(())
}

/// Every dispatch of a credential that the upstream answered was intended before the act that ended its
/// version was recorded, and every act raised the epoch by one.
fn assert_order(ledger: &[Value], credential: &str) -> anyhow::Result<()> {
    let (mut version, mut epoch) = (Some(1), 0);
    let mut intended = std::collections::HashMap::new();
    let mut answered = 0;
    for record in ledger {
        match record["kind"].as_str().context("a kind")? {
            "act" if record["subject"] == credential && record["epoch"].is_u64() => {
                assert_eq!(record["epoch"].as_u64(), Some(epoch + 1), "{record}");
                epoch += 1;
                version = record["version"].as_u64();
            }
            "dispatch_intended" if record["credential"] == credential => {
                let dispatch = record["dispatch"].as_str().context("a dispatch")?.to_owned();
                intended.insert(dispatch, (version, record["version"].as_u64()));
            }
            "dispatch_closed" if record["credential"] == credential && record["status"].is_u64() => {
                let dispatch = record["dispatch"].as_str().context("a dispatch")?;
                let (at_intent, used) = intended.get(dispatch).context("an outcome has an intent")?;
                // The store takes an act before the ledger does: a request may be a version ahead of the
                // record, and never one behind.
                assert!(used >= at_intent && at_intent.is_some(), "a version that had ended was used: {record}");
                assert_eq!(&record["version"].as_u64(), used, "intent and outcome name one version: {record}");
                answered += 1;
            }
            _ => {}
        }
    }
    anyhow::ensure!(answered > 0, "nothing was answered");
    Ok(())
}
