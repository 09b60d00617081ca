//! Logins by JWT and by client certificate.

mod needs_openbao {
    use keybearer_tests::Signer;
    use serde_json::Value;
    use serde_json::json;

    use super::super::stage::Stage;

    // If it failed, the JWT of a workload would be of no use, or would be told to the guest.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_bearer_of_a_jwt_logs_in_and_another_one_does_not() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (value, _) = stage.put("stripe").await?;
        let signer = Signer::new()?;
        stage.bao.enable_jwt("jwt", &signer, "keybearer", json!({"token_policies": ["keybearer"]})).await?;
        let jwt = signer.jwt(&Signer::claims("tests", "executor", "openbao"))?;
        let server = stage.place(json!({"method": "jwt", "role": "keybearer"}));
        let kind = stage.kv("stripe", json!({"server": server}));
        let credential = stage.grant_with(kind, &jwt).await?;
        let heard = stage.get().await?;
        assert_eq!((heard.outcome.as_str(), stage.arrived()), ("200", vec![value.clone()]));
        stage.assert_nowhere(&[&jwt, &value], &[&heard])?;

        let stranger = Signer::new()?.jwt(&Signer::claims("tests", "executor", "openbao"))?;
        let path = format!("/v1/credentials/{credential}/versions");
        assert_eq!(stage.tenant.client.post(&path, &json!({"value": stranger})).await?.status, 201);
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        Ok(())
    }

    // If it failed, a connection that proved one tenant's certificate would carry another's login, or the key
    // would be asked for and not be there.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_holder_of_a_certificate_logs_in_by_its_connection_and_another_one_does_not() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (value, _) = stage.put("stripe").await?;
        let id = "spiffe://keybearer.test/executor";
        let more = json!({"allowed_uri_sans": [id], "token_policies": ["keybearer"]});
        stage.bao.enable_cert("cert", "keybearer", more).await?;
        let server = stage.place(json!({"method": "cert", "role": "keybearer"}));
        let kind = |server: &Value| stage.kv("stripe", json!({"server": server}));
        let issue = |uri: &str| stage.bao.authority().issue(&[], &[uri]);
        let (certificate, key) = issue(id)?;
        let identity = format!("{key}{certificate}");
        let credential = stage.grant_with(kind(&server), &identity).await?;
        let heard = stage.get().await?;
        assert_eq!((heard.outcome.as_str(), stage.arrived()), ("200", vec![value]));
        stage.assert_nowhere(&[key.lines().nth(1).unwrap_or(&key)], &[&heard])?;

        // The connection of the first one is still open.
        let (certificate, key) = issue("spiffe://keybearer.test/other")?;
        let other = format!("{certificate}{key}");
        let path = format!("/v1/credentials/{credential}/versions");
        assert_eq!(stage.tenant.client.post(&path, &json!({"value": other})).await?.status, 201);
        assert_eq!(stage.get().await?.outcome, "upstream: unreachable, not sent");
        // A certificate without its key is found out when it is stored.
        let refused = stage.tenant.client.post(&path, &json!({"value": certificate})).await?;
        assert_eq!(refused.code(), "credential_refused", "{}", refused.text());
        Ok(())
    }
}
