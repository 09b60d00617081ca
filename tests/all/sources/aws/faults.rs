//! A Secrets Manager that hangs, is gone, throttles, or answers what it was not asked for: nothing goes out without its
//! credential, nothing is held up for longer than is said, nobody else notices, and it goes on by itself.

mod needs_moto {
    use std::time::Duration;
    use std::time::Instant;

    use keybearer_tests::Built;
    use keybearer_tests::Heard;
    use keybearer_tests::Moto;
    use keybearer_tests::Peer;
    use keybearer_tests::Recorded;
    use keybearer_tests::Reply;
    use keybearer_tests::Secure;
    use keybearer_tests::Server;
    use keybearer_tests::ServerOptions;
    use keybearer_tests::Tenant;
    use keybearer_tests::Upstream;
    use keybearer_tests::canary;
    use keybearer_tests::probe;
    use serde_json::json;

    const KEY_ID: &str = "AKIAREADERREADERREAD";

    /// Of the moto that works on.
    const ELSEWHERE: &str = "secretsmanager.us-east-1.amazonaws.com";

    /// For how long the host waits for the first byte of an answer.
    const WAITS: Duration = Duration::from_secs(2);

    struct Stage {
        moto: Moto,
        server: Server,
        site: Upstream,
        /// Its secret is in the moto of the case.
        tenant: Tenant,
        value: String,
        /// One whose secret is in another, and one that has nothing to do with AWS.
        others: [Tenant; 2],
    }

    impl Stage {
        async fn new() -> anyhow::Result<Self> {
            let shared = Peer::moto()?;
            let authority = shared.authority();
            let moto = Moto::start(authority).await?;
            let site = Upstream::start(authority, &["api.test"], |_: Recorded| async { Reply::json(200, &json!({})) });
            let site = site.await?;
            let options = ServerOptions::default()
                .pin("api.test", &site)
                .pin_at(Moto::SECRETS, 443, moto.address())
                .pin_at(ELSEWHERE, 443, shared.address())
                .with_egress(&format!("first_byte_ms = {0}\ntls_ms = {0}", WAITS.as_millis()));
            let server = Server::start(&Built::find()?, authority, options)?;
            let slot = probe::slot("api", "{ kind = \"bearer\" }", &["api.test"]);
            server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slot)).await?;
            let (name, value, there) = (canary("case/"), canary("sm_"), canary("elsewhere_"));
            let client = Secure::new(shared.address(), authority, None)?.named(ELSEWHERE);
            let signed = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/secretsmanager/aws4_request, \
                          SignedHeaders=host, Signature=0";
            let headers = [
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", "secretsmanager.CreateSecret"),
                ("authorization", signed),
            ];
            let made = json!({"Name": name, "SecretString": there, "ClientRequestToken": canary("")});
            let made = client.send("POST", "/", &headers, made.to_string().into_bytes()).await?;
            anyhow::ensure!(made.status == 200, "{}", made.text());

            let keys = format!("{KEY_ID}\n{}", canary("aws/secret"));
            let kind =
                |region: &str, id: &str| json!({"kind": "aws_secret", "region": region, "secret_id": id, "ttl_s": 1});
            let grant = || json!({"package": "probe", "slot": "api"});
            let tenant = server.tenant("acme").await?;
            tenant.grant_as(kind("eu-west-1", "acme/stripe"), &keys, grant()).await?;
            let elsewhere = server.tenant("globex").await?;
            elsewhere.grant_as(kind("us-east-1", &name), &keys, grant()).await?;
            let fixed = server.tenant("initech").await?;
            fixed.grant("probe", "api", &canary("static_")).await?;
            let stage = Self { moto, server, site, tenant, value, others: [elsewhere, fixed] };
            stage.fill().await?;
            Ok(stage)
        }

        async fn fill(&self) -> anyhow::Result<()> {
            let made = json!({"Name": "acme/stripe", "SecretString": self.value, "ClientRequestToken": canary("")});
            self.moto.secrets("CreateSecret", &made).await.map(drop)
        }

        async fn get(&self) -> anyhow::Result<Heard> {
            self.tenant.hear_get("probe", "https://api.test/").await
        }

        /// How often the tenant's own value arrived.
        fn arrived(&self) -> usize {
            let own = format!("Bearer {}", self.value);
            self.site.recorded().iter().filter(|request| request.header("authorization") == Some(&own)).count()
        }

        async fn works(&self) -> anyhow::Result<()> {
            let before = self.arrived();
            let heard = self.get().await?;
            assert_eq!(heard.outcome, "200", "{}", self.tenant.explain(&heard.call).await?);
            assert_eq!(self.arrived(), before + 1);
            Ok(())
        }

        /// The tenant's calls end with this in bounded time, and nothing of them leaves; others go on.
        async fn fails(&self, outcome: &str) -> anyhow::Result<()> {
            ttl().await;
            let (before, began) = (self.site.recorded().len(), Instant::now());
            let failing = futures_util::future::join_all((0..4).map(|_| self.get()));
            let others = async {
                for _ in 0..3 {
                    for other in &self.others {
                        let began = Instant::now();
                        assert_eq!(other.hear_get("probe", "https://api.test/").await?.outcome, "200");
                        assert!(
                            began.elapsed() < Duration::from_secs(2),
                            "another tenant waited: {:?}",
                            began.elapsed()
                        );
                    }
                }
                anyhow::Ok(())
            };
            let (failed, others) = tokio::join!(failing, others);
            others?;
            for heard in failed {
                assert_eq!(heard?.outcome, outcome);
            }
            assert!(began.elapsed() < 3 * WAITS, "{:?}", began.elapsed());
            let sent = self.site.recorded().split_off(before);
            assert_eq!(sent.len(), 6, "the others', and nothing without its credential");
            let log = self.server.log();
            assert!(!log.contains(&self.value), "a value was logged");
            Ok(())
        }

        async fn recovers(&self) -> anyhow::Result<()> {
            ttl().await;
            self.works().await
        }
    }

    /// Longer than a value is used, and than a failure is remembered.
    async fn ttl() {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }

    // If it failed, one tenant's Secrets Manager that hangs or is gone would hang another tenant's calls, or this one's for
    // ever, or would need a restart when it is back.
    #[tokio::test(flavor = "multi_thread")]
    async fn a01_a02_a_service_that_hangs_or_is_gone_is_given_up_and_asked_again_by_itself() -> anyhow::Result<()> {
        let mut stage = Stage::new().await?;
        stage.works().await?;
        stage.moto.pause()?;
        stage.fails("upstream: timeout, not sent").await?;
        stage.moto.resume()?;
        stage.recovers().await?;
        stage.moto.kill()?;
        stage.fails("upstream: unreachable, not sent").await?;
        stage.moto.restart().await?;
        stage.fails("upstream: unreachable, not sent").await?;
        stage.fill().await?;
        stage.recovers().await
    }

    // If it failed, a throttled service would be stormed, a proxy's page would go out as a credential, or one tenant's
    // requests would carry what another keeps there.
    #[tokio::test(flavor = "multi_thread")]
    async fn a01_a04_what_is_not_the_secret_that_was_asked_for_is_not_used() -> anyhow::Result<()> {
        let stage = Stage::new().await?;
        stage.works().await?;
        let foreign = canary("foreign_");
        let of = |name: &str, more: serde_json::Value| {
            let arn = format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-a1B2c3");
            let mut said = json!({"ARN": arn, "Name": name, "VersionId": "1"});
            more.as_object().into_iter().flatten().for_each(|(name, value)| said[name] = value.clone());
            said.to_string()
        };
        for (status, body) in [
            (400, json!({"__type": "ThrottlingException", "message": "Rate exceeded"}).to_string()),
            (503, "busy".to_owned()),
            (200, "<html>It works!</html>".to_owned()),
            (200, of("globex/stripe", json!({"SecretString": foreign}))),
            (200, of("acme/stripe", json!({"SecretBinary": "AAAA"}))),
        ] {
            stage.moto.spoil(status, &body)?;
            stage.fails("upstream: unreachable, not sent").await?;
            stage.moto.mend()?;
            stage.recovers().await?;
        }
        let sent = stage.site.recorded();
        let carried = sent.iter().filter_map(|request| request.header("authorization"));
        assert!(!carried.into_iter().any(|field| field.contains(&foreign)), "another's secret went out");
        Ok(())
    }
}
