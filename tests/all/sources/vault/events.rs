//! A Vault that tells of changes by itself: against a double of HashiCorp's event notifications, since no real server
//! that has them runs here.

use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Hold;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::TellingVault;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use serde_json::json;

use super::stage::bearer;

struct Stage {
    vault: TellingVault,
    server: Server,
    tenant: Tenant,
    site: Upstream,
    credential: String,
}

impl Stage {
    async fn start() -> anyhow::Result<(Self, String)> {
        let authority = Authority::new()?;
        let vault = TellingVault::start(&authority).await?;
        let first = vault.put("acme/stripe");
        let site =
            Upstream::start(&authority, &["httpbin.org"], |_: Recorded| async { Reply::json(200, &json!({})) }).await?;
        let options =
            ServerOptions::default().pin("httpbin.org", &site).pin_at(TellingVault::NAME, 8200, vault.address());
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish("http-get").await?;
        let tenant = server.tenant("acme").await?;
        let kind = json!({
            "kind": "vault_kv", "mount": "secret", "path": "acme/stripe", "field": "value", "ttl_s": 3600, "events": true,
            "server": {"url": format!("https://{}:8200/", TellingVault::NAME), "namespace": "team",
                "login": {"method": "approle"}},
        });
        let grant = json!({"package": "http-get", "slot": "site"});
        let (credential, _) = tenant.grant_as(kind, &vault.login(), grant).await?;
        Ok((Self { vault, server, tenant, site, credential }, first))
    }

    /// Calls, and says which value was sent.
    async fn sent(&self) -> anyhow::Result<String> {
        let answer = self.tenant.call("http-get.get", json!({"path": "/x"})).await?;
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        let recorded = self.site.recorded();
        Ok(recorded.last().map(bearer).unwrap_or_default())
    }

    /// Waits until metrics count so many subscriptions that are heard, and so many that are broken.
    async fn counted(&self, live: u64, broken: u64) -> anyhow::Result<()> {
        let counted = async {
            loop {
                let metrics = self.server.admin().get("/metrics").await?.text();
                if metrics.contains(&format!("keybearer_subscriptions{{state=\"live\"}} {live}\n"))
                    && metrics.contains(&format!("keybearer_subscriptions{{state=\"broken\"}} {broken}\n"))
                {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), counted).await?
    }

    /// Waits until the ledger has so many acts that ended what was fetched.
    async fn invalidated(&self, count: usize) -> anyhow::Result<()> {
        let invalidated = async {
            loop {
                let ledger = self.server.ledger()?;
                let of = |record: &&serde_json::Value| {
                    record["what"] == "credential_invalidated" && record["subject"] == *self.credential
                };
                if ledger.iter().filter(of).count() >= count {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), invalidated).await?
    }
}

// If it failed, a value that was rotated in Vault would be used for as long as its recipe allows, though Vault tells.
#[tokio::test(flavor = "multi_thread")]
async fn r03_what_a_source_tells_is_fetched_anew_and_its_silence_is_seen() -> anyhow::Result<()> {
    let (stage, first) = Stage::start().await?;
    stage.vault.subscribed(1).await?;
    stage.counted(1, 0).await?;
    assert!(!stage.server.admin().get("/readyz").await?.text().contains("subscriptions"));
    let asked = stage.vault.subscriptions();
    assert_eq!(asked[0], ("/v1/sys/events/subscribe/kv-v2/*?json=true".to_owned(), Some("team".to_owned())));
    assert_eq!(stage.sent().await?, first);

    // Of other keys it hears, too; and nothing is read because of them.
    stage.vault.tell("acme/other");
    let second = stage.vault.put("acme/stripe");
    assert_eq!((stage.sent().await?, stage.vault.reads()), (first.clone(), 1), "nobody told yet");
    stage.vault.tell("acme/stripe");
    stage.invalidated(1).await?;
    assert_eq!(stage.sent().await?, second);
    // It listens on, with a login of its own: the one before ended with what was fetched by it.
    stage.vault.subscribed(2).await?;
    stage.counted(1, 0).await?;

    // What it does not understand may have been about this key.
    stage.vault.say("{\"data\": 1}");
    stage.vault.subscribed(3).await?;
    stage.counted(1, 0).await?;

    stage.vault.refuse_events(Some(503));
    stage.counted(0, 1).await?;
    let ready = stage.server.admin().get("/readyz").await?;
    assert!(ready.status == 200 && ready.text().contains("1 of 1 subscriptions"), "{}", ready.text());
    assert_eq!(stage.sent().await?, second, "it can still be asked");
    stage.vault.refuse_events(None);
    stage.counted(1, 0).await?;

    // Logins that the server forgot are replaced; a credential that is revoked is not listened for.
    stage.vault.forget_logins();
    stage.vault.refuse_events(Some(500));
    stage.counted(0, 1).await?;
    stage.vault.refuse_events(None);
    stage.counted(1, 0).await?;
    let revoked = stage.tenant.client.post(&format!("/v1/credentials/{}/revoke", stage.credential), &json!({})).await?;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    stage.counted(0, 0).await?;

    let everything = format!("{:?}{}", stage.server.ledger()?, stage.server.log());
    let login = stage.vault.login();
    for secret in
        login.split(':').skip(1).chain(stage.vault.tokens().iter().map(String::as_str)).chain([&*first, &*second])
    {
        assert!(!everything.contains(secret), "a secret is in the ledger or the log");
    }
    Ok(())
}

impl Stage {
    /// Waits until this value is sent: no longer than the published 30 seconds, of which time itself is what is waited for.
    async fn sent_within_30_s(&self, value: &str) -> anyhow::Result<()> {
        let changed = async {
            while self.sent().await? != value {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(Duration::from_secs(33), changed).await?
    }
}

// If it failed, a value that leaked and was changed twice within seconds would be used for as long as its recipe allows,
// and everything would look as if its source were listened to.
#[tokio::test(flavor = "multi_thread")]
async fn a14_what_changes_while_a_subscription_is_made_anew_is_seen_within_30_s() -> anyhow::Result<()> {
    let while_it_is_acted_on = async {
        let (stage, first) = Stage::start().await?;
        stage.counted(1, 0).await?;
        assert_eq!(stage.sent().await?, first);
        stage.vault.hold(Hold::Logouts);
        let second = stage.vault.put("acme/stripe");
        stage.vault.tell("acme/stripe");
        stage.vault.holds_one().await?;
        assert_eq!(stage.sent().await?, second);
        let third = stage.vault.put("acme/stripe");
        stage.vault.tell("acme/stripe");
        stage.vault.release();
        stage.vault.subscribed(2).await?;
        stage.counted(1, 0).await?;
        stage.sent_within_30_s(&third).await
    };
    let after_a_rotation = async {
        let (stage, first) = Stage::start().await?;
        stage.counted(1, 0).await?;
        stage.vault.hold(Hold::Subscriptions);
        let versions = format!("/v1/credentials/{}/versions", stage.credential);
        let rotated = stage.tenant.client.post(&versions, &json!({"value": stage.vault.login()})).await?;
        anyhow::ensure!(rotated.status == 201, "{}", rotated.text());
        assert_eq!(stage.sent().await?, first);
        stage.vault.holds_one().await?;
        let second = stage.vault.put("acme/stripe");
        stage.vault.release();
        stage.counted(1, 0).await?;
        stage.sent_within_30_s(&second).await
    };
    let while_it_is_read = async {
        let (stage, first) = Stage::start().await?;
        stage.counted(1, 0).await?;
        stage.vault.hold(Hold::Reads);
        let reading = stage.sent();
        let breaking = async {
            stage.vault.holds_one().await?;
            stage.vault.refuse_events(Some(503));
            stage.counted(0, 1).await?;
            let second = stage.vault.put("acme/stripe");
            stage.vault.refuse_events(None);
            stage.counted(1, 0).await?;
            stage.vault.release();
            anyhow::Ok(second)
        };
        let (read, second) = tokio::try_join!(reading, breaking)?;
        assert_eq!(read, first, "it was read before it changed");
        stage.sent_within_30_s(&second).await
    };
    let (acting, rotating, reading) = tokio::join!(while_it_is_acted_on, after_a_rotation, while_it_is_read);
    assert!(acting.is_ok() && rotating.is_ok() && reading.is_ok(), "{acting:?}\n{rotating:?}\n{reading:?}");
    Ok(())
}

// If it failed, a value that was fetched while nobody told would be used for as long as if somebody did.
#[tokio::test(flavor = "multi_thread")]
async fn a14_while_a_source_tells_nothing_what_is_fetched_is_used_for_a_short_time_only() -> anyhow::Result<()> {
    let (stage, first) = Stage::start().await?;
    stage.counted(1, 0).await?;
    assert_eq!(stage.sent().await?, first);
    stage.vault.refuse_events(Some(503));
    stage.counted(0, 1).await?;
    let began = std::time::Instant::now();
    let second = stage.vault.put("acme/stripe");
    assert_eq!(stage.sent().await?, first, "for a short time it is good");
    // Time itself is what is waited for: the published 30 seconds, of which the recipe's hour leaves no more now.
    let changed = async {
        while stage.sent().await? != second {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(35), changed).await??;
    assert!(began.elapsed() <= Duration::from_secs(32), "{:?}", began.elapsed());
    Ok(())
}

// If it failed, a replica that lags behind would give the old value once more, and it would be used for as long as its
// recipe allows: nobody tells of one change twice.
#[tokio::test(flavor = "multi_thread")]
async fn a04_a_version_from_before_what_was_told_is_not_used() -> anyhow::Result<()> {
    let (stage, first) = Stage::start().await?;
    stage.counted(1, 0).await?;
    assert_eq!(stage.sent().await?, first);
    let second = stage.vault.put("acme/stripe");
    stage.vault.lag(true);
    stage.vault.tell("acme/stripe");
    stage.invalidated(1).await?;
    let (reads, sent) = (stage.vault.reads(), stage.site.recorded().len());
    assert!(stage.sent().await.is_err(), "what it was told of is not there yet");
    assert_eq!(
        (stage.vault.reads(), stage.site.recorded().len()),
        (reads + 1, sent),
        "it was asked, and nothing was sent"
    );
    stage.vault.lag(false);
    let caught_up = async {
        loop {
            if let Ok(sent) = stage.sent().await {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), caught_up).await?, second);
    Ok(())
}

// If it failed, a tenant that names a server of its own as its Vault could keep every thread busy, outside of every quota.
#[tokio::test(flavor = "multi_thread")]
async fn a14_a_source_that_tells_without_pause_is_heard_no_more_and_slows_nobody() -> anyhow::Result<()> {
    let (stage, first) = Stage::start().await?;
    stage.counted(1, 0).await?;
    let other = stage.server.tenant("other").await?;
    stage.vault.flood("acme/other");
    let began = std::time::Instant::now();
    stage.counted(0, 1).await?;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    for _ in 0..50 {
        let asked = std::time::Instant::now();
        assert_eq!(other.client.get("/v1/credentials").await?.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    assert_eq!(stage.sent().await?, first, "it can still be asked");
    assert_eq!(stage.vault.subscriptions().len(), 1, "it is not listened to again at once");
    Ok(())
}
