//! Accounts of PostgreSQL that OpenBao makes for a tool, and takes away again.

mod needs_openbao {
    mod needs_postgres {
        use std::time::Duration;
        use std::time::Instant;

        use keybearer_tests::Postgres;
        use keybearer_tests::Recorded;
        use keybearer_tests::probe;
        use serde_json::json;

        use super::super::super::stage::Stage;

        struct Leasing {
            stage: Stage,
            postgres: Postgres,
            credential: String,
        }

        /// A name and a password.
        type Account = (String, String);

        impl Leasing {
            async fn new(ttl_s: u32) -> anyhow::Result<Self> {
                let (stage, postgres) = (Stage::shared().await?, Postgres::find()?);
                stage.bao.enable_postgres("database", &postgres, "reader", ttl_s, json!({})).await?;
                let slot = probe::slot("basic", "{ kind = \"basic\" }", &["api.test"]);
                stage.server.publish_as("hostile", &probe::manifest("basic", "1.0.0", &slot)).await?;
                let server = stage.place(json!({"method": "approle"}));
                let kind = json!({"kind": "vault_database", "server": server, "role": "reader"});
                let grant = json!({"package": "basic", "slot": "basic"});
                let (credential, _) = stage.tenant.grant_as(kind, &stage.login, grant).await?;
                Ok(Self { stage, postgres, credential })
            }

            /// Makes a call: the account that arrived.
            async fn account(&self) -> anyhow::Result<Account> {
                let heard = self.stage.tenant.hear_get("basic", "https://api.test/").await?;
                assert_eq!(heard.outcome, "200");
                let account = self.stage.site.recorded().last().map(account).unwrap_or_default();
                self.stage.assert_nowhere(&[&account.1], &[&heard])?;
                Ok(account)
            }

            fn lets_in(&self, (name, password): &Account) -> bool {
                self.postgres.lets_in(name, password)
            }
        }

        fn account(request: &Recorded) -> Account {
            let blob = request.header("authorization").and_then(|value| value.strip_prefix("Basic "));
            let engine = base64::engine::general_purpose::STANDARD;
            let text = base64::Engine::decode(&engine, blob.unwrap_or_default()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned())).unwrap_or_default()
        }

        // If it failed, an account that was made for a tool would outlive the act that took the tool's right away.
        #[tokio::test(flavor = "multi_thread")]
        async fn an_account_is_used_while_it_lives_and_closed_before_its_end_is_acknowledged() -> anyhow::Result<()> {
            let leasing = Leasing::new(600).await?;
            let first = leasing.account().await?;
            assert!(leasing.lets_in(&first), "it is an account of the database");
            assert_eq!(leasing.account().await?, first, "and is used again while it lives");

            let client = &leasing.stage.tenant.client;
            let path = format!("/v1/credentials/{}", leasing.credential);
            let made = leasing.stage.bao.write("auth/approle/role/keybearer/secret-id", &json!({})).await?;
            let secret = made["data"]["secret_id"].as_str().unwrap_or_default();
            let id = leasing.stage.login.split(':').next().unwrap_or_default();
            let rotation = json!({"value": format!("{id}:{secret}")});
            assert_eq!(client.post(&format!("{path}/versions"), &rotation).await?.status, 201);
            assert!(!leasing.lets_in(&first), "a rotation gives back what the old version minted");

            let second = leasing.account().await?;
            assert!(second != first && leasing.lets_in(&second));
            assert_eq!(client.post(&format!("{path}/revoke"), &json!({})).await?.status, 200);
            assert!(!leasing.lets_in(&second), "so does a revocation");
            assert_eq!(leasing.stage.asked("sys/leases/revoke")?, 2);
            leasing.stage.assert_nowhere(&[&first.1, &second.1, secret], &[])
        }

        // If it failed, a lease that ended by itself would be used on, and calls would fail until a restart.
        #[tokio::test(flavor = "multi_thread")]
        async fn another_account_is_asked_for_before_one_ends() -> anyhow::Result<()> {
            let leasing = Leasing::new(4).await?;
            let first = leasing.account().await?;
            // Three quarters of its life; time itself is what is waited for.
            tokio::time::sleep(Duration::from_millis(3_100)).await;
            let second = leasing.account().await?;
            assert!(second != first && leasing.lets_in(&second));
            assert_eq!(leasing.stage.asked("auth/approle/login")?, 1, "with the same login");
            Ok(())
        }

        // If it failed, an agent's account would be open after its run, or two runs would share one.
        #[tokio::test(flavor = "multi_thread")]
        async fn a_run_has_an_account_of_its_own_that_ends_with_it() -> anyhow::Result<()> {
            let leasing = Leasing::new(600).await?;
            let outside = leasing.account().await?;
            let client = &leasing.stage.tenant.client;
            let opened = client.post("/v1/runs", &json!({"agent": "reader"})).await?.json();
            let text = |name: &str| opened[name].as_str().unwrap_or_default().to_owned();
            let agent = leasing.stage.server.public().bearing(&text("token"));
            let call = json!({"tool": "basic.echo_back", "arguments": {"url": "https://api.test/"}});
            assert_eq!(agent.post("/v1/calls", &call).await?.status, 200);
            let inside = leasing.stage.site.recorded().last().map(account).unwrap_or_default();
            assert!(inside != outside && leasing.lets_in(&inside));
            let ended = client.post(&format!("/v1/runs/{}/end", text("id")), &json!({})).await?;
            assert_eq!(ended.status, 200, "{}", ended.text());
            assert!(!leasing.lets_in(&inside), "it is closed before the end is acknowledged");
            assert!(leasing.lets_in(&outside), "the other one is not the run's");
            Ok(())
        }

        // If it failed, every crash would leave accounts open for as long as their leases last.
        #[tokio::test(flavor = "multi_thread")]
        async fn r13_an_account_that_a_killed_server_left_is_closed_after_the_next_start() -> anyhow::Result<()> {
            let mut leasing = Leasing::new(600).await?;
            let left = leasing.account().await?;
            leasing.stage.server.kill()?;
            assert!(leasing.lets_in(&left), "nobody was there to close it");
            leasing.stage.restart()?;
            let began = Instant::now();
            while leasing.lets_in(&left) {
                assert!(began.elapsed() < Duration::from_secs(10), "it is still open");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // And it is closed once: what was given back is noted no more.
            assert_ne!(leasing.account().await?, left);
            assert_eq!(leasing.stage.asked("sys/leases/revoke")?, 1);
            Ok(())
        }

        // If it failed, an account that was made in the moment of a crash, before anybody had heard of it, would stay open.
        #[tokio::test(flavor = "multi_thread")]
        async fn r13_a_login_that_a_killed_server_left_ends_with_all_that_was_leased_to_it() -> anyhow::Result<()> {
            let mut leasing = Leasing::new(600).await?;
            let left = leasing.account().await?;
            leasing.stage.server.kill()?;
            // Nothing can be done about the lease itself, as if it were not known.
            let policy = "path \"auth/token/revoke-accessor\" { capabilities = [\"update\"] }";
            leasing.stage.bao.policy("keybearer", policy).await?;
            leasing.stage.restart()?;
            let began = Instant::now();
            while leasing.lets_in(&left) {
                assert!(began.elapsed() < Duration::from_secs(10), "it is still open");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    }
}
