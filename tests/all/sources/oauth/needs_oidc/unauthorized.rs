//! What happens when the upstream does not take a token.

use keybearer_tests::ServerOptions;
use keybearer_tests::canary;
use serde_json::json;
use std::sync::Arc;
use std::sync::Mutex;

use super::super::Stage;
use super::super::recipe;

// If it failed, a token that was withdrawn early would fail every call until it ends by itself, or an upstream that
// takes none would make us storm the token endpoint.
#[tokio::test(flavor = "multi_thread")]
async fn r02_a_401_is_answered_by_one_refresh_and_one_more_try() -> anyhow::Result<()> {
    let withdrawn: Arc<Mutex<Vec<String>>> = Arc::default();
    let known = Arc::clone(&withdrawn);
    let stage = Stage::with(ServerOptions::default(), move |request| {
        let known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bearer = request.header("authorization").unwrap_or_default();
        if known.iter().any(|token| bearer.ends_with(token.as_str())) { 401 } else { 200 }
    })
    .await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    stage.hold(recipe("oauth_client_credentials", &client, json!({})), &secret).await?;
    assert_eq!(stage.get().await?.status, 200);
    let withdraw = |tokens: Vec<String>| {
        *withdrawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = tokens;
    };
    withdraw(stage.arrived());
    for answer in futures_util::future::join_all((0..12).map(|_| stage.get())).await {
        let answer = answer?;
        assert_eq!((answer.status, answer.text().contains("\"status\":200")), (200, true), "{}", answer.text());
    }
    assert_eq!(stage.happened(&client, "client_credentials.saved").await?, 2, "one refresh for all");
    // One whose token was refreshed between its intent and its use is intended anew, and was not sent.
    let sent = |it: &&serde_json::Value| it["kind"] == "dispatch_closed" && it["status"].is_u64();
    let tries = stage.server.ledger()?.iter().filter(sent).filter(|it| it["purpose"] != "mint").count();
    assert_eq!(tries, stage.site.recorded().len(), "each try has a record of its own");

    // An upstream that takes none.
    withdraw(vec![String::new()]);
    let before = stage.site.recorded().len();
    for _ in 0..4 {
        let answer = stage.get().await?;
        assert!(answer.text().contains("401"), "{}", answer.text());
    }
    assert!(stage.happened(&client, "client_credentials.saved").await? <= 3, "no storm");
    assert!(stage.site.recorded().len() - before <= 5, "no second try without another token");
    Ok(())
}
