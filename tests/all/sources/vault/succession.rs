//! What is stored, made by Vault itself: a secret that comes wrapped, and one that is rotated where it is.

mod needs_openbao {
    use serde_json::Value;
    use serde_json::json;

    use keybearer_tests::Server;

    use super::super::stage::Stage;

    /// Waits until the ledger has this act.
    async fn happened(server: &Server, what: &str) -> anyhow::Result<Value> {
        let found = async {
            loop {
                if let Some(act) = server.ledger()?.into_iter().find(|record| record["what"] == what) {
                    return anyhow::Ok(act);
                }
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), found).await?
    }

    /// The status of a login with this `role_id:secret_id`.
    async fn login_with(stage: &Stage, pair: &str) -> anyhow::Result<u16> {
        let (role_id, secret_id) = pair.split_once(':').unwrap_or_default();
        let body = json!({"role_id": role_id, "secret_id": secret_id});
        Ok(stage.bao.send("POST", "auth/approle/login", None, Some(&body)).await?.status)
    }

    impl Stage {
        /// Has something wrapped, as an administrator would who hands it over: the wrapping token.
        async fn wrapped(&self, path: &str) -> anyhow::Result<String> {
            let made = self.bao.wrap(path, &json!({"a": "b"})).await?;
            Ok(made["wrap_info"]["token"].as_str().unwrap_or_default().to_owned())
        }

        async fn act(&self, credential: &str, what: &str) -> anyhow::Result<(u16, Value)> {
            let path = format!("/v1/credentials/{credential}/{what}");
            let answer = self.tenant.client.post(&path, &json!({})).await?;
            Ok((answer.status, answer.json()))
        }
    }

    // If it failed, a secret would have to be handed over in the open, or nobody would notice that somebody else had
    // opened its wrapping first.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_comes_wrapped_and_a_wrapping_that_was_opened_before_is_refused() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (value, _) = stage.put("stripe").await?;
        let role_id = stage.login.split(':').next().unwrap_or_default();
        let token = stage.wrapped("auth/approle/role/keybearer/secret-id").await?;
        let credential = stage.grant_with(stage.kv("stripe", json!({})), &format!("{role_id}:{token}")).await?;
        let (status, raised) = stage.act(&credential, "unwrap").await?;
        assert_eq!((status, &raised["version"]), (200, &json!(2)), "{raised}");
        let shown = stage.tenant.client.get(&format!("/v1/credentials/{credential}")).await?.json();
        assert_eq!(shown["versions"][0]["state"], "destroyed", "{shown}");
        let heard = stage.get().await?;
        assert_eq!((heard.outcome.as_str(), stage.arrived()), ("200", vec![value]));
        stage.assert_nowhere(&[&token], &[&heard])?;

        // The same token once more; one that wraps something else.
        let other = stage.wrapped("sys/wrapping/wrap").await?;
        for token in [token, other] {
            let path = format!("/v1/credentials/{credential}/versions");
            let rotation = json!({"value": format!("{role_id}:{token}")});
            assert_eq!(stage.tenant.client.post(&path, &rotation).await?.status, 201);
            let (status, problem) = stage.act(&credential, "unwrap").await?;
            assert_eq!((status, &problem["code"]), (422, &json!("credential_refused")), "{problem}");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("used before")), "{problem}");
        }
        Ok(())
    }

    // If it failed, the host's own way into Vault would be as old as its installation, or be lost by being renewed.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_is_made_anew_at_its_source_and_the_one_before_logs_nobody_in() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (value, _) = stage.put("stripe").await?;
        let server = stage.place(json!({"method": "approle", "role": "keybearer"}));
        let credential = stage.grant(stage.kv("stripe", json!({"server": server}))).await?;
        assert_eq!(stage.get().await?.outcome, "200");
        assert_eq!(login_with(&stage, &stage.login).await?, 200);

        let arguments = ["credential", "rotate", "probe-api", "--at-source", "--token-file"];
        let token_file = stage.server.folder().join("acme.token");
        keybearer_tests::secret_file(&token_file, &stage.tenant.token)?;
        let arguments = [&arguments[..], &[token_file.to_str().unwrap_or_default()]].concat();
        let (went_well, told, error) = stage.server.cli(&arguments, b"")?;
        assert!(went_well && told.contains("previous destroyed  true"), "{told}{error}");
        assert_ne!(login_with(&stage, &stage.login).await?, 200, "the one before is destroyed");
        stage.arrived();
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![value]));

        // As often as one likes.
        let (status, rotated) = stage.act(&credential, "rotate-at-source").await?;
        assert_eq!((status, &rotated["version"], &rotated["previous_destroyed"]), (200, &json!(3), &json!(true)));
        let left = stage.bao.list("auth/approle/role/keybearer/secret-id").await?;
        assert_eq!(left.len(), 1, "no secret is left lying about");
        stage.assert_nowhere(&[&stage.login], &[])
    }

    // If it failed, the host's own way into Vault would be rotated only when somebody thinks of it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_that_is_overdue_is_made_anew_at_its_source_by_itself() -> anyhow::Result<()> {
        let mut stage = Stage::shared().await?;
        let (value, _) = stage.put("stripe").await?;
        let server = stage.place(json!({"method": "approle", "role": "keybearer"}));
        let credential = stage.grant(stage.kv("stripe", json!({"server": server}))).await?;
        let terms = format!("/v1/credentials/{credential}/terms");
        let changed = stage.tenant.client.post(&terms, &json!({"rotation": {"sensitive": true}})).await?;
        assert_eq!(changed.json()["rotation"]["every_h"], 24, "{}", changed.text());
        stage.server.make_older(&credential, 25.0)?;
        stage.tenant.client = stage.server.public().bearing(&stage.tenant.token);
        let act = happened(&stage.server, "credential_rotated").await?;
        let of = (&act["subject"], &act["version"], &act["principal"]);
        assert_eq!(of, (&json!(credential), &json!(2), &json!("host")), "{act}");
        let gone = async {
            while login_with(&stage, &stage.login).await? == 200 {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), gone).await??;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![value]));
        assert!(!stage.server.ledger()?.iter().any(|record| record["what"] == "rotation_asked"), "nobody is asked");
        stage.assert_nowhere(&[&stage.login], &[])
    }
}
