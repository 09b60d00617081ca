//! Secrets of Secrets Manager: which version a request carries, what makes it another one, and what becomes of a
//! request when the service gives none.

use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Peer;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Secure;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Sigv4;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::send_event;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

const SERVICE: &str = "secretsmanager.eu-west-1.amazonaws.com";
const KEY_ID: &str = "AKIAREADERREADERREAD";

async fn site(authority: &Authority) -> anyhow::Result<Upstream> {
    Upstream::start(authority, &["httpbin.org"], |request: Recorded| async move {
        Reply::json(200, &json!({"said": request.header("authorization")}))
    })
    .await
}

async fn get(tenant: &Tenant) -> anyhow::Result<keybearer_tests::Answer> {
    tenant.call("http-get.get", json!({"path": "/anything"})).await
}

fn last_token(site: &Upstream) -> Option<String> {
    Some(site.recorded().last()?.header("authorization")?.strip_prefix("Bearer ")?.to_owned())
}

mod needs_moto {
    use super::*;

    async fn ask(moto: &Peer, action: &str, body: &Value) -> anyhow::Result<Value> {
        let target = format!("secretsmanager.{action}");
        let signed = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/secretsmanager/aws4_request, \
                      SignedHeaders=host, Signature=0";
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target), ("authorization", signed)];
        let client = Secure::new(moto.address(), moto.authority(), None)?.named(SERVICE);
        let answer = client.send("POST", "/", &headers, body.to_string().into_bytes()).await?;
        anyhow::ensure!(answer.status == 200, "{action}: {}", answer.text());
        Ok(answer.json())
    }

    // If it failed, a secret that was rotated in AWS would go on being used here, or an old one would come back.
    #[tokio::test(flavor = "multi_thread")]
    async fn r03_the_current_version_goes_out_and_another_one_after_an_event_or_its_time() -> anyhow::Result<()> {
        let moto = Peer::moto()?;
        let site = site(moto.authority()).await?;
        let options = ServerOptions::default().pin("httpbin.org", &site).pin_at(SERVICE, 443, moto.address());
        let server = Server::start(&Built::find()?, moto.authority(), options)?;
        server.publish("http-get").await?;
        let tenant = server.tenant("acme").await?;
        let (name, access_secret) = (canary("case/"), canary("aws/secret"));
        let values: Vec<_> = (0..4).map(|_| canary("sm_")).collect();
        let stored = |value: &str| json!({"token": value, "note": "of the tests"}).to_string();
        let made = json!({"Name": name, "SecretString": stored(&values[0]), "ClientRequestToken": canary("")});
        let arn = ask(&moto, "CreateSecret", &made).await?["ARN"].as_str().unwrap_or_default().to_owned();
        let kind =
            json!({"kind": "aws_secret", "region": "eu-west-1", "secret_id": name, "field": "token", "ttl_s": 2});
        let value = format!("{KEY_ID}\n{access_secret}");
        tenant.grant_as(kind, &value, json!({"package": "http-get", "slot": "site"})).await?;

        let answer = get(&tenant).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(last_token(&site).as_ref(), Some(&values[0]));

        // A new version, and nobody tells: its time is waited for.
        let put =
            |value: &str| json!({"SecretId": name, "SecretString": stored(value), "ClientRequestToken": canary("")});
        ask(&moto, "PutSecretValue", &put(&values[1])).await?;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(get(&tenant).await?.status, 200);
        assert_eq!(last_token(&site).as_ref(), Some(&values[1]));

        // A new version, and EventBridge tells: the next request carries it.
        let hook = tenant.client.post("/v1/hooks", &json!({"label": "eventbridge"})).await?.json();
        let (id, secret) = (hook["id"].as_str().unwrap_or("?"), hook["text"].as_str().unwrap_or("?"));
        ask(&moto, "PutSecretValue", &put(&values[2])).await?;
        let event = json!({
            "version": "0", "detail-type": "AWS Service Event via CloudTrail", "source": "aws.secretsmanager",
            "detail": {"eventName": "RotationSucceeded", "additionalEventData": {"SecretId": arn}},
        });
        let heard = send_event(&server.public(), id, secret, "msg_1", &event).await?;
        assert_eq!((heard.status, heard.json()["invalidated"].as_u64()), (200, Some(1)), "{}", heard.text());
        let answer = get(&tenant).await?;
        assert_eq!(last_token(&site).as_ref(), Some(&values[2]));
        let everything = format!("{}{:?}{}", answer.text(), server.ledger()?, server.log());
        for secret in values.iter().chain([&access_secret]) {
            assert!(!everything.contains(secret.as_str()), "{secret} was heard or written down");
        }

        // What was current before has a label of its own.
        let kind = json!({
            "kind": "aws_secret", "region": "eu-west-1", "secret_id": arn, "field": "token", "version_stage": "AWSPREVIOUS",
        });
        let other = server.tenant("globex").await?;
        other.grant_as(kind, &value, json!({"package": "http-get", "slot": "site"})).await?;
        assert_eq!(get(&other).await?.status, 200);
        assert_eq!(last_token(&site).as_ref(), Some(&values[1]));
        Ok(())
    }
}

struct Stage {
    server: Server,
    tenant: Tenant,
    service: Upstream,
    site: Upstream,
    answer: Arc<Mutex<Reply>>,
    secret: String,
}

/// A service that refuses what is not signed for it, and answers what the case says.
async fn stage() -> anyhow::Result<Stage> {
    let authority = Authority::new()?;
    let secret = canary("aws/secret");
    let answer = Arc::new(Mutex::new(Reply::json(500, &json!({}))));
    let signer = Sigv4 {
        id: KEY_ID.to_owned(),
        secret: secret.clone(),
        token: None,
        region: "eu-west-1",
        service: "secretsmanager",
    };
    let said = Arc::clone(&answer);
    let service = Upstream::start(&authority, &["secrets.internal.test"], move |request: Recorded| {
        let reply = match signer.check(&request) {
            Ok(()) => said.lock().clone(),
            Err(why) => Reply::json(400, &json!({"__type": "InvalidSignatureException", "why": format!("{why:#}")})),
        };
        async move { reply }
    })
    .await?;
    let site = site(&authority).await?;
    let options = ServerOptions::default().pin("httpbin.org", &site).pin("secrets.internal.test", &service);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let kind = json!({
        "kind": "aws_secret", "region": "eu-west-1", "secret_id": "acme/stripe",
        "endpoint": "https://secrets.internal.test/", "ttl_s": 3600,
    });
    let grant = json!({"package": "http-get", "slot": "site"});
    tenant.grant_as(kind, &format!("{KEY_ID}\n{secret}"), grant).await?;
    Ok(Stage { server, tenant, service, site, answer, secret })
}

// If it failed, AWS would refuse every request of ours, or a request would leave without a credential, or with
// another's, when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a01_a04_a_secret_is_asked_for_by_signature_and_only_the_one_that_was_asked_for_is_used() -> anyhow::Result<()>
{
    let stage = stage().await?;
    let value = canary("sm_");
    let of = |name: &str| {
        let arn = format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:{name}-a1B2c3");
        Reply::json(200, &json!({"ARN": arn, "Name": name, "VersionId": "1", "SecretString": value}))
    };
    for reply in [
        of("globex/stripe"),
        Reply::json(200, &json!({"Name": "acme/stripe", "SecretBinary": "AAAA"})),
        Reply::json(200, &json!({"SecretString": value})),
        Reply::json(400, &json!({"__type": "ResourceNotFoundException", "Message": "what it says itself"})),
        Reply::json(400, &json!({"__type": "AccessDeniedException", "Message": "what it says itself"})),
        Reply { status: 200, headers: Vec::new(), body: b"<html>what it says itself".to_vec() },
    ] {
        *stage.answer.lock() = reply;
        let answer = get(&stage.tenant).await?;
        assert!(answer.status >= 400 && !answer.text().contains("what it says itself"), "{}", answer.text());
        // A failure is the answer for a second.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert!(stage.site.recorded().is_empty(), "nothing is sent without its credential");
    *stage.answer.lock() = of("acme/stripe");
    assert_eq!(get(&stage.tenant).await?.status, 200);
    assert_eq!(last_token(&stage.site), Some(value));
    let asked = stage.service.recorded().pop().expect("asked");
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/"));
    assert_eq!(asked.header("x-amz-target"), Some("secretsmanager.GetSecretValue"));
    assert_eq!(asked.header("content-type"), Some("application/x-amz-json-1.1"));
    let body: Value = serde_json::from_slice(&asked.body)?;
    assert_eq!(body, json!({"SecretId": "acme/stripe", "VersionStage": "AWSCURRENT"}));
    assert!(!format!("{:?}{}", stage.server.ledger()?, stage.server.log()).contains(&stage.secret));
    Ok(())
}
