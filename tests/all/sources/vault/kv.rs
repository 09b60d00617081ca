//! Keys of a KV engine with versions, and logins by AppRole.

mod needs_openbao {
    use std::time::Duration;
    use std::time::Instant;

    use keybearer_tests::canary;
    use keybearer_tests::probe;
    use serde_json::json;

    use super::super::stage::Stage;
    use super::super::stage::ttl;

    // If it failed, a value that was rotated in Vault would go on being used here, or a guest would get hold of it.
    #[tokio::test(flavor = "multi_thread")]
    async fn p3_what_stands_under_a_key_goes_out_and_a_new_version_within_the_time_to_live() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (first, _) = stage.put("stripe").await?;
        let credential = stage.grant(stage.kv("stripe", json!({}))).await?;
        let one = stage.get().await?;
        assert_eq!((one.outcome.as_str(), stage.arrived()), ("200", vec![first.clone()]));
        assert!(one.body().contains("[redacted]"), "the echoed value was taken out: {}", one.body());

        let (second, _) = stage.put("stripe").await?;
        ttl().await;
        let two = stage.get().await?;
        assert_eq!((two.outcome.as_str(), stage.arrived()), ("200", vec![second.clone()]));
        assert_eq!(stage.asked("kv/data/acme/stripe")?, 4, "written twice, read twice");
        assert_eq!(stage.asked("auth/approle/login")?, 1, "a login is used as long as it lives");

        let logins = stage.logins().await?;
        let path = format!("/v1/credentials/{credential}/revoke");
        assert_eq!(stage.tenant.client.post(&path, &json!({})).await?.status, 200);
        assert_eq!(stage.logins().await?, logins - 1, "the login ends before the revocation is acknowledged");
        let refused = stage.tenant.call("probe.echo_back", json!({"url": "https://api.test/"})).await?;
        assert_eq!((refused.code(), stage.arrived().len()), ("credential_unusable".into(), 0));
        stage.assert_nowhere(&[&first, &second, &stage.login], &[&one, &two])
    }

    // If it failed, two fields would go out in a form that the upstream does not know, or one of them would leak.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_user_and_a_password_are_read_together() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let password = canary("pw-");
        stage.bao.kv_put("kv", "acme/basic", &json!({"user": "svc", "pass": password})).await?;
        let slot = probe::slot("basic", "{ kind = \"basic\" }", &["api.test"]);
        stage.server.publish_as("hostile", &probe::manifest("basic", "1.0.0", &slot)).await?;
        let more = json!({"user_field": "user", "field": "pass", "yields": "basic"});
        let grant = json!({"package": "basic", "slot": "basic"});
        stage.tenant.grant_as(stage.kv("basic", more), &stage.login, grant).await?;
        let heard = stage.tenant.hear_get("basic", "https://api.test/").await?;
        let pair = format!("svc:{password}");
        let blob = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair);
        assert_eq!(stage.site.recorded()[0].header("authorization"), Some(format!("Basic {blob}").as_str()));
        assert!(!heard.text().contains(&blob), "{}", heard.text());
        stage.assert_nowhere(&[&password], &[&heard])
    }

    // If it failed, a path that was mixed up in Vault would send one customer's key on another's behalf, and a
    // replica that lags behind would bring a key back that was rotated out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a04_a_value_of_another_tenant_or_an_older_version_does_not_go_out() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        stage.put("shared").await?;
        let metadata = |tenant: &str| json!({"custom_metadata": {"tenant": tenant}});
        stage.bao.write("kv/metadata/acme/shared", &metadata("globex")).await?;
        stage.grant(stage.kv("shared", json!({"tenant": "acme"}))).await?;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        stage.bao.write("kv/metadata/acme/shared", &metadata("acme")).await?;
        stage.put("shared").await?;
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "200");
        assert_eq!(stage.arrived().len(), 1);

        // Begun anew, as a restored backup would be: version 1 after version 2.
        stage.bao.delete("kv/metadata/acme/shared").await?;
        stage.bao.write("kv/metadata/acme/shared", &metadata("acme")).await?;
        let (_, version) = stage.put("shared").await?;
        assert_eq!(version, 1);
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        stage.put("shared").await?;
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "200", "and it is used again when it has caught up");
        assert_eq!(stage.arrived().len(), 1);
        Ok(())
    }

    // If it failed, a server that is started while a replica lags behind would send a key that was rotated out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a04_an_older_version_does_not_go_out_after_a_restart_either() -> anyhow::Result<()> {
        let mut stage = Stage::shared().await?;
        for _ in 0..3 {
            stage.put("restarted").await?;
        }
        stage.grant(stage.kv("restarted", json!({}))).await?;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived().len()), ("200", 1));
        stage.server.kill()?;
        stage.bao.delete("kv/metadata/acme/restarted").await?;
        for behind in [1, 2] {
            assert_eq!(stage.put("restarted").await?.1, behind);
        }
        stage.restart()?;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        let (value, version) = stage.put("restarted").await?;
        ttl().await;
        assert_eq!(
            (stage.get().await?.outcome.as_str(), stage.arrived()),
            ("200", vec![value]),
            "at version {version}"
        );
        Ok(())
    }

    // If it failed, a key that was begun anew, or a server that once named a huge number, would leave a credential that is
    // good for nothing, and nobody could do anything about it.
    #[tokio::test(flavor = "multi_thread")]
    async fn a04_an_administrator_has_a_version_forgotten_and_what_comes_next_is_taken() -> anyhow::Result<()> {
        let mut stage = Stage::shared().await?;
        for _ in 0..3 {
            stage.put("anew").await?;
        }
        let credential = stage.grant(stage.kv("anew", json!({}))).await?;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived().len()), ("200", 1));
        stage.bao.delete("kv/metadata/acme/anew").await?;
        let (value, version) = stage.put("anew").await?;
        assert_eq!(version, 1);
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        let path = format!("/v1/credentials/{credential}/forget-source-version");
        let forgotten = stage.tenant.client.post(&path, &json!({})).await?;
        assert_eq!((forgotten.status, forgotten.json()), (200, json!({"id": credential, "version": 3})));
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![value.clone()]));
        let again = stage.put("anew").await?.0;
        ttl().await;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![again]));
        let acts = stage.server.ledger()?;
        let forgot: Vec<_> = acts.iter().filter(|act| act["what"] == "source_version_forgotten").collect();
        assert!(
            forgot.len() == 1 && forgot[0]["note"] == "version 3" && forgot[0]["subject"] == credential,
            "{forgot:?}"
        );
        stage.server.kill()?;
        stage.restart()?;
        assert_eq!(stage.get().await?.outcome, "200", "also after a restart");
        Ok(())
    }

    // If it failed, a pinned version would silently become another one.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_pinned_version_stays_what_it_is() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (first, _) = stage.put("pinned").await?;
        stage.put("pinned").await?;
        stage.grant(stage.kv("pinned", json!({"version": 1}))).await?;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![first]));
        stage.bao.write("kv/destroy/acme/pinned", &json!({"versions": [1]})).await?;
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        Ok(())
    }

    // If it failed, a token that was taken away would stop all calls for as long as it was thought to live; or each
    // call would log in once more, and lock the role out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_login_that_the_server_forgot_is_made_anew_once() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        stage.put("stripe").await?;
        stage.grant(stage.kv("stripe", json!({}))).await?;
        assert_eq!(stage.get().await?.outcome, "200");
        for accessor in stage.bao.list("auth/token/accessors").await? {
            stage.bao.write("auth/token/revoke-accessor", &json!({"accessor": accessor})).await?;
        }
        ttl().await;
        assert_eq!(stage.get().await?.outcome, "200");
        assert_eq!(stage.asked("auth/approle/login")?, 2);

        // What the policy forbids is asked for with a new token once, and then not again for a second.
        stage.bao.policy("keybearer", "path \"kv/data/other\" { capabilities = [\"read\"] }").await?;
        ttl().await;
        for _ in 0..4 {
            assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        }
        assert!(stage.asked("auth/approle/login")? <= 4, "{}", stage.asked("auth/approle/login")?);
        Ok(())
    }
    // If it failed, a sealed server would let requests out without a credential, with one that may have been rotated,
    // or hold calls up.
    #[tokio::test(flavor = "multi_thread")]
    async fn a01_nothing_goes_out_while_the_server_is_sealed_and_it_goes_on_by_itself() -> anyhow::Result<()> {
        let mut stage = Stage::own().await?;
        let (value, _) = stage.put("stripe").await?;
        stage.grant(stage.kv("stripe", json!({}))).await?;
        assert_eq!(stage.get().await?.outcome, "200");
        stage.arrived();
        stage.bao.seal().await?;
        ttl().await;
        let began = Instant::now();
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(stage.arrived().len(), 0);
        stage.bao.unseal().await?;
        ttl().await;
        assert_eq!((stage.get().await?.outcome.as_str(), stage.arrived()), ("200", vec![value]));
        Ok(())
    }
}
