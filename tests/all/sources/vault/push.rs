//! What a hook says of a key, and what holds while no hook says anything.

mod needs_openbao {
    use keybearer_tests::send_event;
    use serde_json::Value;
    use serde_json::json;

    use super::super::stage::Stage;

    // If it failed, a value that was rotated in Vault would be used for as long as its recipe allows, though Vault's
    // owner had said that it changed.
    #[tokio::test(flavor = "multi_thread")]
    async fn r03_a_key_that_a_hook_names_is_read_anew_and_no_other() -> anyhow::Result<()> {
        let stage = Stage::shared().await?;
        let (first, _) = stage.put("pushed").await?;
        stage.grant(stage.kv("pushed", json!({"ttl_s": 3600}))).await?;
        let made = stage.tenant.client.post("/v1/hooks", &json!({"label": "vault", "heartbeat_s": 3600})).await?.json();
        let member = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        let (hook, secret, public) = (member("id"), member("text"), stage.server.public());
        let send = async |id: &str, body: Value| send_event(&public, &hook, &secret, id, &body).await;
        send("msg_ping", json!({"type": "ping"})).await?;
        stage.get().await?;
        let (second, _) = stage.put("pushed").await?;
        for (id, reference) in [("msg_1", "kv/acme/other"), ("msg_2", "kv/acme"), ("msg_3", "acme/pushed")] {
            let event = json!({"type": "credential.changed", "data": {"reference": reference}});
            assert_eq!(send(id, event).await?.json()["invalidated"], 0, "{reference}");
        }
        stage.get().await?;
        assert_eq!(stage.arrived(), [first.clone(), first], "it was not said to have changed");
        let event = json!({"type": "credential.changed", "data": {"reference": "kv/acme/pushed"}});
        assert_eq!(send("msg_4", event).await?.json()["invalidated"], 1);
        stage.get().await?;
        assert_eq!(stage.arrived(), [second]);
        Ok(())
    }
}
