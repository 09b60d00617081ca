//! What happens when an upstream does not take a stored value.

use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::json;
use tokio::sync::Semaphore;

use super::bearer;

// If it failed, an upstream that takes nothing would be asked again and again with the same value, or a call that was
// overtaken by a rotation would fail although the new value was there.
#[tokio::test(flavor = "multi_thread")]
async fn r02_a_401_to_a_stored_value_is_tried_once_more_with_a_newer_one_and_not_without() -> anyhow::Result<()> {
    let (authority, old, new) = (Authority::new()?, canary("old-value-"), canary("new-value-"));
    // Each answer waits until the case lets it go.
    let (arrived, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (seen, let_go) = (Arc::clone(&arrived), Arc::clone(&answers));
    let site = Upstream::start(&authority, &["httpbin.org"], move |_: Recorded| {
        let (seen, let_go) = (Arc::clone(&seen), Arc::clone(&let_go));
        async move {
            seen.add_permits(1);
            if let Ok(permit) = let_go.acquire().await {
                permit.forget();
            }
            Reply::json(401, &json!({"error": "not you"}))
        }
    })
    .await?;
    let server = Server::start(&Built::find()?, &authority, ServerOptions::default().pin("httpbin.org", &site))?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let (credential, _) = tenant.grant("http-get", "site", &old).await?;
    let get = || tenant.call("http-get.get", json!({"path": "/anything"}));

    answers.add_permits(1);
    let answer = get().await?;
    assert!(answer.text().contains("401"), "{}", answer.text());
    assert_eq!(site.recorded().len(), 1, "nothing newer is there: no second try");

    let rotating = async {
        // The second request is at the upstream, with the old value.
        tokio::time::timeout(Duration::from_secs(30), async {
            arrived.acquire_many(2).await.map(tokio::sync::SemaphorePermit::forget)
        })
        .await??;
        let path = format!("/v1/credentials/{credential}/versions");
        let rotated = tenant.client.post(&path, &json!({"value": new})).await?;
        anyhow::ensure!(rotated.status == 201, "{}", rotated.text());
        answers.add_permits(8);
        Ok(())
    };
    let (answer, rotated) = tokio::join!(get(), rotating);
    rotated?;
    let answer = answer?;
    assert!(answer.text().contains("401"), "{}", answer.text());
    let carried: Vec<_> = site.recorded().iter().filter_map(bearer).map(str::to_owned).collect();
    assert_eq!(carried, [old.clone(), old.clone(), new.clone()], "one more try with the newer value, and no third");
    let ledger = server.ledger()?;
    let intents = ledger.iter().filter(|record| record["kind"] == "dispatch_intended").count();
    assert_eq!(intents, 3, "each with an intent of its own");
    assert!(!answer.text().contains(&new) && !format!("{ledger:?}").contains(&new));
    Ok(())
}
