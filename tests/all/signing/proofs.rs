//! MACs and JWTs over guests' requests, against upstreams that check them and refuse another one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use anyhow::ensure;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Signer;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::probe;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

const HOOK: &str = "hook.example.com";
const TIMED: &str = "timed.example.com";
const API: &str = "api.example.com";

const SLOTS: &str = r#"
[[slots]]
name = "hook"
description = "For tests."
placement = { kind = "hmac", header = "x-hub-signature-256", algorithm = "hmac-sha256", over = "body", encoding = "hex", prefix = "sha256=" }
[[slots.bindings]]
host = "hook.example.com"
methods = ["GET", "POST"]
paths = ["/{rest...}"]
headers = ["x-hub-signature-256", "x-other"]

[[slots]]
name = "timed"
description = "For tests."
placement = { kind = "hmac", header = "x-signature", algorithm = "hmac-sha256", over = "timestamp_body", encoding = "base64", timestamp_header = "x-timestamp" }
[[slots.bindings]]
host = "timed.example.com"
methods = ["POST"]
paths = ["/{rest...}"]
headers = ["x-signature", "x-timestamp"]

[[slots]]
name = "api"
description = "For tests."
placement = { kind = "jwt", algorithm = "ES256", claims = { iss = "app-7", aud = "https://api.example.com", sub = "reports" }, lifetime_s = 60 }
[[slots.bindings]]
host = "api.example.com"
methods = ["GET", "POST"]
paths = ["/{rest...}"]
"#;

/// What the upstreams know: the keys of MACs, the public half of the one that signs, the JWTs that were there before.
struct Known {
    hook: String,
    timed: String,
    point: Vec<u8>,
    seen: Mutex<BTreeSet<String>>,
}

impl Known {
    fn check(&self, request: &Recorded) -> anyhow::Result<()> {
        let field = |name: &str| request.header(name).with_context(|| format!("no `{name}`"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        match field("host")? {
            HOOK => {
                let proof = field("x-hub-signature-256")?.strip_prefix("sha256=").context("no prefix")?;
                verify(&self.hook, &request.body, &hex::decode(proof)?)
            }
            TIMED => {
                let time = field("x-timestamp")?;
                ensure!(time.parse::<u64>()?.abs_diff(now) < 60, "another time: {time}");
                let message = [time.as_bytes(), b".", &request.body].concat();
                verify(&self.timed, &message, &STANDARD.decode(field("x-signature")?)?)
            }
            _ => self.check_jwt(field("authorization")?.strip_prefix("Bearer ").context("no bearer")?, now),
        }
    }

    fn check_jwt(&self, jwt: &str, now: u64) -> anyhow::Result<()> {
        let (signed, signature) = jwt.rsplit_once('.').context("no signature")?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        ensure!(public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?).is_ok(), "another key's");
        let (head, claims) = signed.split_once('.').context("no claims")?;
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head)?)?;
        ensure!(head == json!({"alg": "ES256", "typ": "JWT", "kid": "key-1"}), "another header: {head}");
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        let (from, id) = (claims["iat"].as_u64().context("iat")?, claims["jti"].take());
        let expected = json!({
            "iss": "app-7", "aud": "https://api.example.com", "sub": "reports", "iat": from, "exp": from + 60, "jti": null,
        });
        ensure!(claims == expected && from.abs_diff(now) < 60, "claims another thing: {claims}");
        ensure!(self.seen.lock().insert(id.to_string()), "was there before: {id}");
        Ok(())
    }
}

fn verify(key: &str, message: &[u8], tag: &[u8]) -> anyhow::Result<()> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::verify(&key, message, tag).map_err(|_| anyhow::anyhow!("the MAC is another's, or another body's"))
}

struct Stage {
    server: Server,
    tenant: Tenant,
    upstream: Upstream,
    known: Arc<Known>,
    private: String,
}

async fn stage() -> anyhow::Result<Stage> {
    let signer = Signer::new()?;
    let public = &signer.key_set()["keys"][0];
    let half = |name: &str| URL_SAFE_NO_PAD.decode(public[name].as_str().unwrap_or_default());
    let point = [&[4][..], &half("x")?, &half("y")?].concat();
    let known = Known { hook: canary("hook key "), timed: canary("timed/"), point, seen: Mutex::default() };
    let known = Arc::new(known);
    let authority = Authority::new()?;
    let judge = Arc::clone(&known);
    let upstream = Upstream::start(&authority, &[HOOK, TIMED, API], move |request: Recorded| {
        // Says back all that it was sent.
        let fields: serde_json::Map<_, _> =
            request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let reply = match judge.check(&request) {
            Ok(()) => Reply::json(200, &json!({"fields": fields})),
            Err(why) => Reply::json(403, &json!({"why": format!("{why:#}")})),
        };
        async move { reply }
    })
    .await?;
    let options = ServerOptions::default().pin(HOOK, &upstream).pin(TIMED, &upstream).pin(API, &upstream);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish_as("hostile", &probe::manifest("probe", "1.0.0", SLOTS)).await?;
    let tenant = server.tenant("acme").await?;
    let private = signer.private_pem()?;
    let mac = || json!({"kind": "hmac_key"});
    for (slot, kind, value) in [
        ("hook", mac(), &known.hook),
        ("timed", mac(), &known.timed),
        ("api", json!({"kind": "jwt_key", "alg": "ES256", "kid": "key-1"}), &private),
    ] {
        tenant.grant_as(kind, value, json!({"package": "probe", "slot": slot})).await?;
    }
    Ok(Stage { server, tenant, upstream, known, private })
}

/// What of a request is of use to whoever hears it.
fn signature(request: &Recorded) -> Option<String> {
    let after = |field: &str, mark: char| {
        request.header(field).and_then(|value| value.rsplit_once(mark)).map(|(_, signature)| signature.to_owned())
    };
    match request.header("host")? {
        HOOK => after("x-hub-signature-256", '='),
        TIMED => request.header("x-signature").map(str::to_owned),
        _ => after("authorization", '.'),
    }
}

// If it failed, a tool would hear the key or a signature with which it could send a request of its own past this host,
// or have signed what its manifest does not say.
#[tokio::test]
async fn p09_x10_a_body_is_under_the_mac_of_its_slot_and_a_jwt_claims_what_its_slot_says() -> anyhow::Result<()> {
    let stage = stage().await?;
    let requests = [
        json!({"url": format!("https://{HOOK}/push"), "method": "POST", "body": "{\"a\": 1}\r\n"}),
        json!({"url": format!("https://{HOOK}/push?a=b"), "method": "GET"}),
        json!({"url": format!("https://{TIMED}/v1"), "method": "POST", "body": "what is sent"}),
        json!({"url": format!("https://{TIMED}/v1"), "method": "POST", "body": ""}),
        json!({"url": format!("https://{API}/reports"), "method": "GET"}),
        json!({"url": format!("https://{API}/reports"), "method": "POST", "body": "{}"}),
    ];
    let mut everything = String::new();
    for request in requests.iter().chain(&requests) {
        let heard = stage.tenant.hear("probe", request.clone()).await?;
        assert_eq!(heard.outcome, "200", "{request}: {}", heard.text());
        assert!(heard.body().contains("[redacted]"), "the signature that came back was taken out: {}", heard.body());
        everything += &heard.text();
    }
    let arrived = stage.upstream.recorded();
    assert_eq!(arrived.len(), 2 * requests.len());
    let mut secrets = vec![stage.known.hook.clone(), stage.known.timed.clone()];
    // The longest line of a key, without its ends.
    secrets.extend(stage.private.lines().nth(1).map(str::to_owned));
    secrets.extend(arrived.iter().filter_map(signature));
    assert_eq!(secrets.len(), 3 + arrived.len());
    everything += &format!("{:?}{}", stage.server.ledger()?, stage.server.log());
    for secret in &secrets {
        assert!(!everything.contains(secret.as_str()), "{secret} was heard or written down");
    }
    Ok(())
}

// If it failed, a tool could send a signature of another's making, or a time at which a stolen one is good again.
#[tokio::test]
async fn p09_n20_the_fields_of_a_proof_are_no_guests_to_set() -> anyhow::Result<()> {
    let stage = stage().await?;
    for (host, field) in [
        (HOOK, "x-hub-signature-256"),
        (HOOK, "X-Hub-Signature-256"),
        (HOOK, "authorization"),
        (TIMED, "x-signature"),
        (TIMED, "x-timestamp"),
        (TIMED, "X-Timestamp"),
        (API, "authorization"),
        (API, "Authorization"),
    ] {
        let request = json!({
            "url": format!("https://{host}/x"), "method": "POST", "body": "{}", "headers": [[field, "mine"]],
        });
        assert_eq!(stage.tenant.hear("probe", request).await?.outcome, "denied", "{host} {field}");
    }
    assert!(stage.upstream.recorded().is_empty(), "nothing was sent");
    // What is not the slot's own is the guest's, where its binding says so.
    let request = json!({"url": format!("https://{HOOK}/x"), "headers": [["x-other", "mine"]]});
    assert_eq!(stage.tenant.hear("probe", request).await?.outcome, "200");
    Ok(())
}

// If it failed, a rotated key would go on signing, a wrong one be taken for a right one by the tests above, or a key be
// had to sign what it was not stored for.
#[tokio::test]
async fn r01_a_key_that_was_rotated_proves_no_more_and_one_of_another_kind_never() -> anyhow::Result<()> {
    let stage = stage().await?;
    let request = json!({"url": format!("https://{HOOK}/x"), "method": "POST", "body": "{}"});
    assert_eq!(stage.tenant.hear("probe", request.clone()).await?.outcome, "200");
    let listed = stage.tenant.client.get("/v1/credentials").await?.json();
    let items = listed["items"].as_array().cloned().unwrap_or_default();
    let id = |name: &str| {
        let item = items.iter().find(|item| item["name"] == name).expect("stored");
        item["id"].as_str().unwrap_or_default().to_owned()
    };
    let versions = |name: &str| format!("/v1/credentials/{}/versions", id(name));
    for (name, value) in [("probe-hook", "too-short"), ("probe-api", "no private key, 0123456789")] {
        let refused = stage.tenant.client.post(&versions(name), &json!({"value": value})).await?;
        assert!((400..500).contains(&refused.status), "{}", refused.text());
    }
    for (name, host) in [("probe-hook", HOOK), ("probe-api", API)] {
        let value = if host == HOOK { canary("another ") } else { Signer::new()?.private_pem()? };
        assert_eq!(stage.tenant.client.post(&versions(name), &json!({"value": value})).await?.status, 201);
        let request = json!({"url": format!("https://{host}/x"), "method": "POST", "body": "{}"});
        let heard = stage.tenant.hear("probe", request).await?;
        assert_eq!(heard.outcome, "403", "the upstream tells one key from another: {}", heard.text());
    }
    let other = stage.server.tenant("other").await?;
    for (kind, value, slot) in [
        (json!({"kind": "hmac_key"}), canary("mac/"), "api"),
        (json!({"kind": "jwt_key", "alg": "ES256"}), stage.private.clone(), "hook"),
        (json!({"kind": "header"}), canary("header/"), "timed"),
    ] {
        let refused = other.grant_as(kind.clone(), &value, json!({"package": "probe", "slot": slot})).await;
        assert!(refused.is_err(), "{kind} is no key for {slot}");
    }
    Ok(())
}
