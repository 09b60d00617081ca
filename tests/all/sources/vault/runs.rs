//! A run that holds a key of the Vault API: read when it opens, and once more for every run.

mod needs_openbao {
    use serde_json::json;

    use super::super::stage::Stage;

    // If it failed, an agent would find out halfway that a credential of its run cannot be read, or one run would
    // go on with what was read for another.
    #[tokio::test(flavor = "multi_thread")]
    async fn a01_p3_a_run_reads_its_keys_when_it_opens_and_does_not_open_without_them() -> anyhow::Result<()> {
        let mut stage = Stage::own().await?;
        let (value, _) = stage.put("of-a-run").await?;
        stage.grant(stage.kv("of-a-run", json!({"ttl_s": 3600}))).await?;
        let open = async || stage.tenant.client.post("/v1/runs", &json!({"agent": "reader"})).await;
        let opened = open().await?;
        assert_eq!(opened.status, 201, "{}", opened.text());
        assert_eq!(stage.asked("kv/data/acme/of-a-run")?, 2, "written, and read as the run opened");
        let token = opened.json()["token"].as_str().unwrap_or_default().to_owned();
        let agent = stage.server.public().bearing(&token);
        let call = json!({"tool": "probe.echo_back", "arguments": {"url": "https://api.test/"}});
        let called = agent.post("/v1/calls", &call).await?;
        assert_eq!((called.status, stage.arrived()), (200, vec![value.clone()]), "{}", called.text());
        assert_eq!(stage.asked("kv/data/acme/of-a-run")?, 2, "and not read again for its dispatch");
        assert_eq!(open().await?.status, 201);
        assert_eq!(stage.asked("kv/data/acme/of-a-run")?, 3, "another run reads for itself");

        stage.bao.seal().await?;
        let refused = open().await?;
        assert_eq!(refused.code(), "credential_unusable", "{}", refused.text());
        stage.bao.unseal().await?;
        // A failure is the answer for a second.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        assert_eq!(open().await?.status, 201, "and it opens again without a restart");
        stage.assert_nowhere(&[&value], &[])
    }
}
