//! AWS Signature Version 4 over guests' requests, against upstreams that compute it again and refuse another one.

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
use keybearer_tests::probe;
use serde_json::json;

const STORE: &str = "bucket.s3.eu-west-1.amazonaws.com";
const API: &str = "api.execute-api.us-east-1.amazonaws.com";

const SLOTS: &str = r#"
[[slots]]
name = "store"
description = "For tests."
placement = { kind = "sigv4", region = "eu-west-1", service = "s3" }
[[slots.bindings]]
host = "bucket.s3.eu-west-1.amazonaws.com"
methods = ["GET", "PUT"]
paths = ["/", "/{rest...}"]
headers = ["x-amz-acl", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"]

[[slots]]
name = "api"
description = "For tests."
placement = { kind = "sigv4", region = "us-east-1", service = "execute-api" }
[[slots.bindings]]
host = "api.execute-api.us-east-1.amazonaws.com"
methods = ["GET", "POST"]
paths = ["/", "/{rest...}"]
"#;

struct Stage {
    server: Server,
    tenant: Tenant,
    upstream: Upstream,
    store: Sigv4,
    api: Sigv4,
}

/// Takes what is signed for its own scope, and says back all that it was sent.
fn answer(request: &Recorded, store: &Sigv4, api: &Sigv4) -> Reply {
    let signer = if request.header("host") == Some(STORE) { store } else { api };
    match signer.check(request) {
        Ok(()) => {
            let fields: serde_json::Map<_, _> =
                request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
            Reply::json(200, &json!({"fields": fields, "body": String::from_utf8_lossy(&request.body)}))
        }
        Err(why) => Reply::json(403, &json!({"error": "SignatureDoesNotMatch", "why": format!("{why:#}")})),
    }
}

async fn stage() -> anyhow::Result<Stage> {
    let (store_secret, api_secret) = (canary("s3/+secret"), canary("api/secret"));
    let store = Sigv4 {
        id: "ASIASTORESTORESTORE1".to_owned(),
        secret: store_secret,
        token: Some(canary("session/+token==")),
        region: "eu-west-1",
        service: "s3",
    };
    let api = Sigv4 {
        id: "AKIAAPIAPIAPIAPIAPI1".to_owned(),
        secret: api_secret,
        token: None,
        region: "us-east-1",
        service: "execute-api",
    };
    let authority = Authority::new()?;
    let known = (store.clone(), api.clone());
    let upstream = Upstream::start(&authority, &[STORE, API], move |request: Recorded| {
        let reply = answer(&request, &known.0, &known.1);
        async move { reply }
    })
    .await?;
    let options = ServerOptions::default().pin(STORE, &upstream).pin(API, &upstream);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish_as("hostile", &probe::manifest("probe", "1.0.0", SLOTS)).await?;
    let tenant = server.tenant("acme").await?;
    for (slot, keys) in [("store", &store), ("api", &api)] {
        let token = keys.token.as_ref().map(|token| format!("\n{token}")).unwrap_or_default();
        let value = format!("{}\n{}{token}\n", keys.id, keys.secret);
        tenant.grant_as(json!({"kind": "aws_keys"}), &value, json!({"package": "probe", "slot": slot})).await?;
    }
    Ok(Stage { server, tenant, upstream, store, api })
}

// If it failed, a tool that may read one bucket could use its tenant's key for anything that the key may do, or would
// hear a signature with which it could send a request of its own past this host.
#[tokio::test]
async fn p09_x10_a_request_is_signed_for_the_region_and_service_of_its_slot_and_for_no_other() -> anyhow::Result<()> {
    let stage = stage().await?;
    let requests = [
        json!({"url": format!("https://{STORE}/a%20key/with:colon?list-type=2&prefix=a%2Fb&uploads"), "method": "GET"}),
        json!({"url": format!("https://{STORE}/key"), "method": "PUT", "body": "what is stored",
               "headers": [["x-amz-acl", "private"], ["content-type", "text/plain"]]}),
        json!({"url": format!("https://{API}/stage/a%20b:c?z=1&a=2"), "method": "POST", "body": "{}"}),
        json!({"url": format!("https://{API}/"), "method": "GET"}),
    ];
    for request in &requests {
        let heard = stage.tenant.hear("probe", request.clone()).await?;
        assert_eq!(heard.outcome, "200", "{request}: {}", heard.text());
        assert!(heard.body().contains("[redacted]"), "the signature that came back was taken out: {}", heard.body());
    }
    let arrived = stage.upstream.recorded();
    assert_eq!(arrived.len(), requests.len());
    let mut secrets = vec![stage.store.secret.clone(), stage.api.secret.clone()];
    secrets.extend(stage.store.token.clone());
    for request in &arrived {
        let proof = request.header("authorization").unwrap_or_default();
        secrets.extend(proof.rsplit_once("Signature=").map(|(_, signature)| signature.to_owned()));
    }
    assert_eq!(secrets.len(), 3 + requests.len());
    // Each again, now to hear what there is to hear; and all that the host keeps.
    let mut everything = format!("{:?}{}", stage.server.ledger()?, stage.server.log());
    for request in &requests {
        everything += &stage.tenant.hear("probe", request.clone()).await?.text();
    }
    for secret in &secrets {
        assert!(!everything.contains(secret.as_str()), "{secret} was heard or written down");
    }
    Ok(())
}

// If it failed, a tool could sign for another day, another body or another service than it is bound to.
#[tokio::test]
async fn p09_n20_what_a_signature_is_made_of_is_no_guests_to_say() -> anyhow::Result<()> {
    let stage = stage().await?;
    for field in ["authorization", "Authorization", "x-amz-date", "X-Amz-Content-SHA256", "x-amz-security-token"] {
        let request = json!({"url": format!("https://{STORE}/key"), "headers": [[field, "mine"]]});
        assert_eq!(stage.tenant.hear("probe", request).await?.outcome, "denied", "{field}");
    }
    for query in [
        "X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fiam%2Faws4_request",
        "prefix=b&x-amz-signature=00",
        "X-Amz-SignedHeaders=host",
        "X-Amz-Security-Token=mine",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "acl",
        "prefix=b&versionId=v",
        "prefix=b;X-Amz-Date=20150830T123600Z",
    ] {
        let heard = stage.tenant.hear_get("probe", &format!("https://{STORE}/key?{query}")).await?;
        assert_eq!(heard.outcome, "denied", "{query}");
        assert!(stage.tenant.explain(&heard.call).await?.contains("not the guest's to set"), "{query}");
    }
    // Another service's, another region's, another bucket's host has no binding.
    for host in ["iam.amazonaws.com", "bucket.s3.us-east-1.amazonaws.com", "other.s3.eu-west-1.amazonaws.com"] {
        assert_eq!(stage.tenant.hear_get("probe", &format!("https://{host}/")).await?.outcome, "denied", "{host}");
    }
    assert!(stage.upstream.recorded().is_empty(), "nothing was sent");
    Ok(())
}

// If it failed, a revoked key would go on signing, or a wrong one would be taken for a right one by the tests above.
#[tokio::test]
async fn r01_a_key_that_was_rotated_signs_no_more() -> anyhow::Result<()> {
    let stage = stage().await?;
    let url = format!("https://{API}/");
    assert_eq!(stage.tenant.hear_get("probe", &url).await?.outcome, "200");
    let listed = stage.tenant.client.get("/v1/credentials").await?.json();
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    let api = items.iter().find(|item| item["name"] == "probe-api").expect("stored");
    let path = format!("/v1/credentials/{}/versions", api["id"].as_str().unwrap_or_default());
    let value = format!("{}\n{}", stage.api.id, canary("another/secret"));
    assert_eq!(stage.tenant.client.post(&path, &json!({"value": value})).await?.status, 201);
    let heard = stage.tenant.hear_get("probe", &url).await?;
    assert_eq!(heard.outcome, "403", "the upstream tells one key from another: {}", heard.text());
    for value in ["one line of text", "AKIA:no-lines-here-0123", "AKIA\n\nsecret-secret-secret"] {
        let refused = stage.tenant.client.post(&path, &json!({"value": value})).await?;
        assert!((400..500).contains(&refused.status), "{}", refused.text());
    }
    Ok(())
}
