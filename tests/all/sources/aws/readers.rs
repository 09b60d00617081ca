//! Secrets that are read in a role: an access key or the host's own identity takes it, and the session reads one secret.

use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Sigv4;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

use super::form::field;
use super::form::form;

const SERVICE: &str = "secretsmanager.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/secrets-reader";
const KEY_ID: &str = "AKIATAKERTAKERTAKER1";

async fn site(authority: &Authority) -> anyhow::Result<Upstream> {
    Upstream::start(authority, &["httpbin.org"], |_: Recorded| async { Reply::json(200, &json!({})) }).await
}

async fn get(tenant: &Tenant) -> anyhow::Result<u16> {
    Ok(tenant.call("http-get.get", json!({"path": "/anything"})).await?.status)
}

fn last_token(site: &Upstream) -> Option<String> {
    Some(site.recorded().last()?.header("authorization")?.strip_prefix("Bearer ")?.to_owned())
}

struct Stage {
    server: Server,
    tenant: Tenant,
    sts: Upstream,
    service: Upstream,
    site: Upstream,
    /// What the service answers to whom a session that holds has signed for.
    answer: Arc<Mutex<Reply>>,
    /// The sessions that were given; the service takes the last one.
    sessions: Arc<Mutex<Vec<Sigv4>>>,
    secret: String,
}

/// An STS that gives sessions to one access key, and a Secrets Manager that takes the newest session and nobody else.
async fn stage() -> anyhow::Result<Stage> {
    let authority = Authority::new()?;
    let (secret, sessions) = (canary("aws/secret"), Arc::new(Mutex::new(Vec::<Sigv4>::new())));
    let taker =
        Sigv4 { id: KEY_ID.to_owned(), secret: secret.clone(), token: None, region: "eu-west-1", service: "sts" };
    let given = Arc::clone(&sessions);
    let sts = Upstream::start(&authority, &[STS], move |request: Recorded| {
        let reply = match taker.check(&request) {
            Ok(()) => {
                let mut given = given.lock();
                let (id, secret, token) =
                    (format!("ASIAREADER{:010}", given.len()), canary("session/"), canary("token+"));
                let body = format!(
                    "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{id}</AccessKeyId>\
                     <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken></Credentials>\
                     </AssumeRoleResult></AssumeRoleResponse>"
                );
                given.push(Sigv4 { id, secret, token: Some(token), region: "eu-west-1", service: "secretsmanager" });
                Reply { status: 200, headers: Vec::new(), body: body.into_bytes() }
            }
            Err(why) => Reply { status: 403, headers: Vec::new(), body: why.to_string().into_bytes() },
        };
        async move { reply }
    })
    .await?;
    let answer = Arc::new(Mutex::new(Reply::json(500, &json!({}))));
    let (said, known) = (Arc::clone(&answer), Arc::clone(&sessions));
    let service = Upstream::start(&authority, &[SERVICE], move |request: Recorded| {
        let is_taken = known.lock().last().is_some_and(|session| session.check(&request).is_ok());
        let refused = Reply::json(400, &json!({"__type": "ExpiredTokenException"}));
        let reply = if is_taken { said.lock().clone() } else { refused };
        async move { reply }
    })
    .await?;
    let site = site(&authority).await?;
    let options = ServerOptions::default().pin("httpbin.org", &site).pin(SERVICE, &service).pin(STS, &sts);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let role = json!({"role_arn": ROLE, "external_id": "acme-7"});
    let kind =
        json!({"kind": "aws_secret", "region": "eu-west-1", "secret_id": "acme/stripe", "role": role, "ttl_s": 1});
    let grant = json!({"package": "http-get", "slot": "site"});
    tenant.grant_as(kind, &format!("{KEY_ID}\n{secret}"), grant).await?;
    Ok(Stage { server, tenant, sts, service, site, answer, sessions, secret })
}

/// Longer than a value is used.
async fn ttl() {
    tokio::time::sleep(Duration::from_millis(1_100)).await;
}

// If it failed, the platform's own access key would read every tenant's secrets itself, a session would read more than
// one, or a session that AWS had ended would stop the tenant until it ended by itself.
#[tokio::test(flavor = "multi_thread")]
async fn p09_r03_a_secret_is_read_by_a_session_that_reads_nothing_else() -> anyhow::Result<()> {
    let stage = stage().await?;
    let of = |value: &str| Reply::json(200, &json!({"Name": "acme/stripe", "VersionId": "1", "SecretString": value}));
    let values: Vec<_> = (0..3).map(|_| canary("sm_")).collect();
    for value in &values[..2] {
        *stage.answer.lock() = of(value);
        assert_eq!((get(&stage.tenant).await?, last_token(&stage.site).as_ref()), (200, Some(value)));
        ttl().await;
    }
    let asked = stage.sts.recorded();
    assert_eq!((asked.len(), stage.service.recorded().len()), (1, 2), "one session for both");
    let said = form(&asked[0]);
    let told = |name: &str| field(&said, name).unwrap_or_default();
    assert_eq!((told("RoleArn").as_str(), told("ExternalId").as_str()), (ROLE, "acme-7"));
    assert_eq!((told("DurationSeconds").as_str(), told("Tags.member.1.Value")), ("900", stage.tenant.id.clone()));
    let policy: Value = serde_json::from_str(&told("Policy"))?;
    assert_eq!(
        (&policy["Statement"][0]["Action"], &policy["Statement"][0]["Resource"]),
        (
            &json!("secretsmanager:GetSecretValue"),
            &json!("arn:aws:secretsmanager:eu-west-1:*:secret:acme/stripe-??????")
        )
    );

    // AWS takes it no more: another one is made, once.
    stage.sessions.lock().last_mut().expect("a session").token = Some("ended there".to_owned());
    *stage.answer.lock() = of(&values[2]);
    assert_eq!((get(&stage.tenant).await?, last_token(&stage.site).as_ref()), (200, Some(&values[2])));
    assert_eq!(stage.sts.recorded().len(), 2);
    ttl().await;

    // It may not read that secret: no storm, and nothing goes out.
    let (sent, before) = (stage.site.recorded().len(), stage.sts.recorded().len());
    *stage.answer.lock() = Reply::json(400, &json!({"__type": "AccessDeniedException"}));
    for _ in 0..5 {
        assert!(get(&stage.tenant).await? >= 400);
    }
    let made = stage.sts.recorded().len() - before;
    assert!(made <= 2, "{made} sessions for one that is refused");
    assert_eq!(stage.site.recorded().len(), sent);

    let everything = format!("{:?}{}", stage.server.ledger()?, stage.server.log());
    let sessions = stage.sessions.lock();
    let held = sessions.iter().map(|session| &session.secret).chain(&values).chain([&stage.secret]);
    for secret in held {
        assert!(!everything.contains(secret.as_str()), "{secret} was written down");
    }
    Ok(())
}

mod needs_moto {
    use keybearer_tests::Moto;

    use super::*;

    // If it failed, what STS and Secrets Manager really answer to each other's keys would not be read, or what was rotated in
    // AWS would go on being used.
    #[tokio::test(flavor = "multi_thread")]
    async fn r03_a_secret_of_moto_is_read_in_a_role_and_its_rotation_is_seen() -> anyhow::Result<()> {
        let authority = Authority::new()?;
        let moto = Moto::start(&authority).await?;
        let site = site(&authority).await?;
        let options = ServerOptions::default().pin("httpbin.org", &site).pin_at(SERVICE, 443, moto.address()).pin_at(
            STS,
            443,
            moto.address(),
        );
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish("http-get").await?;
        let (old, new) = (canary("old_"), canary("new_"));
        let made = json!({"Name": "acme/stripe", "SecretString": old, "ClientRequestToken": canary("")});
        moto.secrets("CreateSecret", &made).await?;
        let reading = |stage: &str, proof: Value| {
            json!({
                "kind": "aws_secret", "region": "eu-west-1", "secret_id": "acme/stripe", "version_stage": stage, "ttl_s": 1,
                "role": {"role_arn": ROLE, "proof": proof},
            })
        };
        let keys = format!("{KEY_ID}\n{}", canary("aws/secret"));
        let jwt = format!("a.{}.c", canary("jwt"));
        let grant = || json!({"package": "http-get", "slot": "site"});
        let current = server.tenant("acme").await?;
        current.grant_as(reading("AWSCURRENT", json!("access_key")), &keys, grant()).await?;
        let by_jwt = server.tenant("initech").await?;
        by_jwt.grant_as(reading("AWSCURRENT", json!("web_identity")), &jwt, grant()).await?;
        let previous = server.tenant("globex").await?;
        previous.grant_as(reading("AWSPREVIOUS", json!("access_key")), &keys, grant()).await?;

        for tenant in [&current, &by_jwt] {
            assert_eq!((get(tenant).await?, last_token(&site).as_ref()), (200, Some(&old)));
        }
        assert!(get(&previous).await? >= 400, "there is none yet, and nothing goes out in its place");
        let put = json!({"SecretId": "acme/stripe", "SecretString": new, "ClientRequestToken": canary("")});
        moto.secrets("PutSecretValue", &put).await?;
        ttl().await;
        for (tenant, value) in [(&current, &new), (&by_jwt, &new), (&previous, &old)] {
            assert_eq!((get(tenant).await?, last_token(&site).as_ref()), (200, Some(value)));
        }
        Ok(())
    }
}
