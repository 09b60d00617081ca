//! The host's own identities, from a Workload API whose SVIDs OpenBao's PKI issues.

mod needs_openbao {
    use std::sync::Arc;
    use std::time::Duration;

    use keybearer_tests::Built;
    use keybearer_tests::Heard;
    use keybearer_tests::OpenBao;
    use keybearer_tests::Recorded;
    use keybearer_tests::Reply;
    use keybearer_tests::Server;
    use keybearer_tests::ServerOptions;
    use keybearer_tests::Signer;
    use keybearer_tests::Svid;
    use keybearer_tests::Tenant;
    use keybearer_tests::Upstream;
    use keybearer_tests::Workload;
    use keybearer_tests::canary;
    use keybearer_tests::probe;
    use serde_json::Value;
    use serde_json::json;

    const ID: &str = "spiffe://keybearer.test/executor";

    struct Stage {
        bao: OpenBao,
        workload: Workload,
        server: Server,
        tenant: Tenant,
        /// The same tool, and not in the operator's table.
        other: Tenant,
        /// It lets in who proves an SVID.
        strict: Upstream,
        site: Upstream,
        signer: Arc<Signer>,
        _folder: tempfile::TempDir,
    }

    impl Stage {
        async fn new() -> anyhow::Result<Self> {
            let bao = OpenBao::shared().await?;
            let root = bao.enable_pki("pki", "workload", json!({})).await?;
            let (folder, signer) = (tempfile::tempdir()?, Arc::new(Signer::new()?));
            let workload = Workload::start(&folder.path().join("agent.sock"), Arc::clone(&signer))?;
            workload.serve(vec![Svid::issue(&bao, ID, 600).await?]);
            let echo =
                |request: Recorded| async move { Reply::json(200, &json!({"said": request.header("authorization")})) };
            let strict = Upstream::start_tls(bao.authority().server_for(&["api.test"], &root)?, echo).await?;
            let site = Upstream::start(bao.authority(), &["static.test", "kvjwt.test", "jwt.test"], echo).await?;
            let table =
                format!("[workload_api]\nsocket = \"{}\"\ntenants = {{ \"{ID}\" = [\"acme\"] }}\n", workload.address());
            let options = ServerOptions::default()
                .pin("api.test", &strict)
                .pin("static.test", &site)
                .pin("kvjwt.test", &site)
                .pin("jwt.test", &site)
                .pin_at(OpenBao::NAME, 8200, bao.address())
                .with(&table)
                .with("[telemetry]\nlevel = \"trace\"");
            let mut server = Server::start(&Built::find()?, bao.authority(), options)?;
            let slots = [
                probe::slot("api", "{ kind = \"mutual_tls\" }", &["api.test"]),
                probe::slot("static", "{ kind = \"bearer\" }", &["static.test"]),
                probe::slot("kvjwt", "{ kind = \"bearer\" }", &["kvjwt.test"]),
                probe::slot("jwt", "{ kind = \"bearer\" }", &["jwt.test"]),
            ];
            server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slots.concat())).await?;
            let (mut tenant, mut other) = (server.tenant("acme").await?, server.tenant("other").await?);
            // The operator's table names tenants that are there when the server starts.
            server.stop()?;
            server.restart()?;
            for tenant in [&mut tenant, &mut other] {
                tenant.client = server.public().bearing(&tenant.token);
            }
            let stage = Self { bao, workload, server, tenant, other, strict, site, signer, _folder: folder };
            stage.live(1).await?;
            Ok(stage)
        }

        /// Waits until the host holds what is served.
        async fn live(&self, live: u8) -> anyhow::Result<()> {
            self.until(&format!("keybearer_workload_api_live {live}\n")).await
        }

        async fn until(&self, line: &str) -> anyhow::Result<()> {
            for _ in 0..400 {
                if self.server.admin().get("/metrics").await?.text().contains(line) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            anyhow::bail!("no `{line}`: {}", self.server.admin().get("/metrics").await?.text())
        }

        /// Waits until the host says that it took up this one.
        async fn taken(&self, svid: &Svid) -> anyhow::Result<()> {
            let serial = serial(&svid.certificate);
            for _ in 0..400 {
                if self.server.log().contains(&serial) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            anyhow::bail!("{serial} was not taken up")
        }

        async fn grant(tenant: &Tenant, slot: &str, kind: Value) -> anyhow::Result<String> {
            Ok(tenant.grant_as(kind, "", json!({"package": "probe", "slot": slot})).await?.0)
        }

        async fn get(&self, host: &str) -> anyhow::Result<Heard> {
            self.tenant.hear_get("probe", &format!("https://{host}/")).await
        }

        /// The certificates that the strict upstream was shown, request by request.
        fn shown(&self) -> Vec<Vec<u8>> {
            let shown = self.strict.recorded().into_iter().filter_map(|request| request.certificate).collect();
            self.strict.forget();
            shown
        }

        /// How many requests the ledger says proved the SVID of this serial number.
        fn proved(&self, serial: &str) -> anyhow::Result<usize> {
            let ledger = self.server.ledger()?;
            let intended = ledger.iter().filter(|record| record["kind"] == "dispatch_intended");
            Ok(intended.filter(|record| record["svid"] == serial).count())
        }

        fn place(&self, login: Value) -> Value {
            let mut server = json!({"url": format!("https://{}:8200/", OpenBao::NAME), "login": login});
            if !self.bao.namespace().is_empty() {
                server["namespace"] = self.bao.namespace().into();
            }
            server
        }

        /// A value of a KV engine that the policy `keybearer` reads.
        async fn kv(&self, login: Value) -> anyhow::Result<(Value, String)> {
            self.bao.enable_kv("kv").await?;
            self.bao.policy("keybearer", "path \"kv/data/acme/*\" { capabilities = [\"read\"] }").await?;
            let value = canary("kv-");
            self.bao.kv_put("kv", "acme/stripe", &json!({"value": value})).await?;
            let kind = json!({
                "kind": "vault_kv", "server": self.place(login), "mount": "kv", "path": "acme/stripe",
                "field": "value", "ttl_s": 1,
            });
            Ok((kind, value))
        }
    }

    /// The serial number of a certificate, in hexadecimal: the first INTEGER after the version.
    fn serial(der: &[u8]) -> String {
        let at = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).expect("version 3") + 5;
        let length = usize::from(der[at + 1]);
        der[at + 2..at + 2 + length].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    // If it failed, a rotated identity would need a restart, or one tenant could act as the host for another.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_upstream_is_shown_the_newest_svid_and_only_for_tenants_that_the_operator_named() -> anyhow::Result<()> {
        let stage = Stage::new().await?;
        let kind = json!({"kind": "spiffe_x509", "spiffe_id": ID});
        Stage::grant(&stage.tenant, "api", kind.clone()).await?;
        let mut secrets = Vec::new();
        for _ in 0..3 {
            let svid = Svid::issue(&stage.bao, ID, 600).await?;
            stage.workload.serve(vec![svid.clone()]);
            stage.taken(&svid).await?;
            let heard = [stage.get("api.test").await?, stage.get("api.test").await?];
            assert_eq!(heard.each_ref().map(|heard| heard.outcome.as_str()), ["200", "200"], "{}", heard[0].text());
            assert_eq!(stage.shown(), [svid.certificate.clone(), svid.certificate.clone()]);
            let serial = serial(&svid.certificate);
            assert!(stage.tenant.explain(&heard[0].call).await?.contains(&serial), "which one was proved is on record");
            assert_eq!(stage.proved(&serial)?, 2, "and that of no other request");
            secrets.push(svid.key);
        }
        Stage::grant(&stage.other, "api", kind).await?;
        assert_eq!(stage.other.hear_get("probe", "https://api.test/").await?.outcome, "denied");
        assert!(stage.shown().is_empty());
        let everything = format!("{:?}{}", stage.server.ledger()?, stage.server.log());
        assert!(everything.contains("no_svid"), "the reason is on record");
        for key in &secrets {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(key);
            assert!(!everything.contains(&text[text.len() - 60..text.len() - 10]), "a key is in the ledger or the log");
        }
        Ok(())
    }

    // If it failed, an agent that restarts would stop every call, or an identity would be shown after its end.
    #[tokio::test(flavor = "multi_thread")]
    async fn r04_without_its_workload_api_the_host_uses_the_last_svid_until_it_ends_and_then_none() -> anyhow::Result<()>
    {
        let mut stage = Stage::new().await?;
        Stage::grant(&stage.tenant, "api", json!({"kind": "spiffe_x509", "spiffe_id": ID})).await?;
        let short = Svid::issue(&stage.bao, ID, 8).await?;
        stage.workload.serve(vec![short.clone()]);
        stage.taken(&short).await?;
        stage.workload.go().await;
        stage.live(0).await?;
        assert_eq!(stage.get("api.test").await?.outcome, "200");
        assert_eq!(stage.shown(), [short.certificate]);
        let ready = stage.server.admin().get("/readyz").await?;
        assert!(ready.status == 200 && ready.text().contains("Workload API"), "{}", ready.text());
        stage.until("keybearer_svids{state=\"over\"} 1\n").await?;
        assert_eq!(stage.get("api.test").await?.outcome, "denied");
        assert!(stage.shown().is_empty());

        let next = Svid::issue(&stage.bao, ID, 600).await?;
        stage.workload.serve(vec![next.clone()]);
        stage.workload.come()?;
        stage.live(1).await?;
        assert_eq!(stage.get("api.test").await?.outcome, "200");
        assert_eq!(stage.shown(), [next.certificate]);
        // What the agent takes away is not used until it ends.
        stage.workload.deny();
        stage.until("keybearer_svids{state=\"held\"} 0\n").await?;
        assert_eq!(stage.get("api.test").await?.outcome, "denied");
        Ok(())
    }

    // If it failed, Vault would need a secret of its own beside the identity that the host already has.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_host_logs_in_to_vault_by_its_x509_svid_and_by_a_jwt_svid() -> anyhow::Result<()> {
        let stage = Stage::new().await?;
        let svid = Svid::issue(&stage.bao, ID, 600).await?;
        stage.workload.serve(vec![svid.clone()]);
        stage.taken(&svid).await?;
        let root = stage.bao.read("pki/cert/ca").await?;
        let more = json!({
            "certificate": root["data"]["certificate"], "allowed_uri_sans": [ID], "token_policies": ["keybearer"],
        });
        stage.bao.enable_cert("cert", "keybearer", more).await?;
        stage.bao.enable_jwt("jwt", &stage.signer, "keybearer", json!({"token_policies": ["keybearer"]})).await?;
        let (kind, value) = stage.kv(json!({"method": "spiffe_x509", "role": "keybearer", "spiffe_id": ID})).await?;
        Stage::grant(&stage.tenant, "static", kind.clone()).await?;
        let said = |stage: &Stage| {
            let said = stage
                .site
                .recorded()
                .iter()
                .filter_map(|request| request.header("authorization").map(str::to_owned))
                .collect::<Vec<_>>();
            stage.site.forget();
            said
        };
        assert_eq!(stage.get("static.test").await?.outcome, "200");
        assert_eq!(said(&stage), [format!("Bearer {value}")]);
        assert_eq!(
            stage.proved(&serial(&svid.certificate))?,
            1,
            "the login, and neither the read nor the guest's request"
        );

        let mut by_jwt = kind.clone();
        by_jwt["server"]["login"] =
            json!({"method": "spiffe_jwt", "role": "keybearer", "spiffe_id": ID, "audience": "openbao"});
        Stage::grant(&stage.other, "static", by_jwt.clone()).await?;
        assert_eq!(stage.other.hear_get("probe", "https://static.test/").await?.outcome, "denied");
        assert_eq!((said(&stage).len(), stage.workload.jwts()), (0, 0), "the id is not that tenant's");
        Stage::grant(&stage.tenant, "kvjwt", by_jwt).await?;
        assert_eq!(stage.get("kvjwt.test").await?.outcome, "200");
        assert_eq!((said(&stage), stage.workload.jwts()), (vec![format!("Bearer {value}")], 1));

        // An upstream that takes a JWT-SVID itself: one is used for as long as it holds.
        let kind = json!({"kind": "spiffe_jwt", "spiffe_id": ID, "audience": "https://jwt.test"});
        Stage::grant(&stage.tenant, "jwt", kind).await?;
        let heard = [stage.get("jwt.test").await?, stage.get("jwt.test").await?];
        let tokens = said(&stage);
        assert_eq!((tokens.len(), stage.workload.jwts()), (2, 2));
        assert_eq!(tokens[0], tokens[1]);
        let token = tokens[0].trim_start_matches("Bearer ");
        assert_eq!(token.split('.').count(), 3);
        // The upstream said it; the guest does not hear it.
        assert!(heard.iter().all(|heard| heard.outcome == "200" && !heard.text().contains(token)));
        assert!(!format!("{:?}{}", stage.server.ledger()?, stage.server.log()).contains(token));
        Ok(())
    }
}
