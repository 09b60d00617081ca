//! An authorization server of the case's own hangs, dies, and comes back.

use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Oidc;
use keybearer_tests::ServerOptions;
use keybearer_tests::canary;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

/// A request to a source gets 10 s; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(20);

// If it failed, an issuer that hangs would hold calls for ever, or those of tenants that have nothing to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn a02_an_issuer_that_hangs_holds_its_own_calls_for_a_bounded_time_and_nobody_elses() -> anyhow::Result<()> {
    let stage = Stage::at(Oidc::start().await?, ServerOptions::default(), |_| 200).await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    stage.hold(recipe("oauth_client_credentials", &client, json!({})), &secret).await?;
    let other = stage.server.tenant("globex").await?;
    other.grant("http-get", "site", &canary("static-")).await?;

    stage.oidc.pause()?;
    let started = Instant::now();
    let hanging = async {
        let answers = futures_util::future::join_all((0..4).map(|_| stage.get())).await;
        (answers, started.elapsed())
    };
    let others = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..8 {
            let began = Instant::now();
            let answer = other.call("http-get.get", json!({"path": "/anything"})).await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            slowest = slowest.max(began.elapsed());
        }
        Ok(slowest)
    };
    let ((answers, took), slowest) = tokio::join!(hanging, others);
    for answer in answers {
        let answer = answer?;
        assert!(answer.status >= 400 && answer.code() != "internal", "{} {}", answer.status, answer.text());
        assert!(!answer.text().contains(Oidc::NAME), "{}", answer.text());
    }
    assert!(took < BOUND, "{took:?}");
    let slowest = slowest?;
    assert!(slowest < took && slowest < Duration::from_secs(5), "others waited {slowest:?} of {took:?}");
    assert_eq!(stage.arrived().len(), 8, "nothing was sent without a token");

    stage.oidc.resume()?;
    assert!(stage.settled().await?, "it goes on without a restart");
    Ok(())
}

// If it failed, an issuer that crashed would have to be waited for by a restart of this host.
#[tokio::test(flavor = "multi_thread")]
async fn a01_an_issuer_that_died_and_came_back_is_asked_again() -> anyhow::Result<()> {
    let mut stage = Stage::at(Oidc::start().await?, ServerOptions::default(), |_| 200).await?;
    let secret = canary("client-secret-");
    let metadata = json!({"client_secret": secret});
    let client = stage.oidc.client(&["client_credentials"], metadata).await?;
    stage.hold(recipe("oauth_client_credentials", &client, json!({})), &secret).await?;
    stage.oidc.kill()?;
    let started = Instant::now();
    let answer = stage.get().await?;
    assert!(answer.status >= 400 && answer.code() != "internal", "{} {}", answer.status, answer.text());
    assert!(started.elapsed() < BOUND);
    stage.oidc.restart().await?;
    stage.oidc.client(&["client_credentials"], json!({"client_secret": secret, "client_id": client})).await?;
    assert!(stage.settled().await?);
    assert_eq!(stage.arrived().len(), 1);
    Ok(())
}
