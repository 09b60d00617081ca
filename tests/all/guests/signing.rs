//! Guests that ask for signatures: what was signed is taken out of all that they say and hear, and what their manifest and
//! grants do not say is not signed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
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
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

const KEY: &str = "https://bucket.s3.eu-west-1.amazonaws.com/reports/2026";
const OPEN: &str = "https://open.test/x";

const SLOTS: &str = r#"
[[slots]]
name = "mac"
description = "For tests."
placement = { kind = "function", signs = { kind = "hmac", algorithm = "hmac-sha256", context = "orders-v1.", max_bytes = 64 } }

[[slots]]
name = "ungranted"
description = "For tests."
placement = { kind = "function", signs = { kind = "hmac", algorithm = "hmac-sha256", context = "other-v1.", max_bytes = 64 } }

[[slots]]
name = "jwt"
description = "For tests."
placement = { kind = "function", signs = { kind = "jwt", algorithm = "ES256", claims = { iss = "us", aud = "them" }, may_claim = ["sub"], lifetime_s = 60 } }

[[slots]]
name = "url"
description = "For tests."
placement = { kind = "function", signs = { kind = "sigv4", region = "eu-west-1", service = "s3", max_expires_s = 300 } }
bindings = [{ host = "bucket.s3.eu-west-1.amazonaws.com", methods = ["GET"], paths = ["/reports/{key}"] }]

[[slots]]
name = "plain"
description = "For tests."
placement = { kind = "bearer" }
bindings = [{ host = "api.test", methods = ["GET"], paths = ["/{rest...}"] }]

[[allow]]
host = "open.test"
methods = ["POST"]
paths = ["/{rest...}"]
"#;

struct Stage {
    server: Server,
    tenant: Tenant,
    open: Upstream,
    mac_key: String,
    mac_credential: String,
    /// At `/hold` it waits for the second, after it told the first.
    hold: Arc<(Notify, Notify)>,
    secrets: Vec<String>,
}

impl Stage {
    async fn start() -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let hold = Arc::new((Notify::new(), Notify::new()));
        let holding = Arc::clone(&hold);
        let names = ["open.test", "bucket.s3.eu-west-1.amazonaws.com", "api.test"];
        let open = Upstream::start(&authority, &names, move |request: Recorded| {
            let holding = Arc::clone(&holding);
            async move {
                if request.target == "/hold" {
                    holding.0.notify_one();
                    holding.1.notified().await;
                }
                // Says back what it was sent.
                Reply::json(200, &json!({"said": String::from_utf8_lossy(&request.body)}))
            }
        })
        .await?;
        let options = ServerOptions::default().pin(names[0], &open).pin(names[1], &open).pin(names[2], &open);
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish_as("hostile", &probe::manifest("probe", "1.0.0", SLOTS)).await?;
        let tenant = server.tenant("acme").await?;
        let (mac_key, private, aws_secret) = (canary("mac/"), Signer::new()?.private_pem()?, canary("s3/+secret"));
        let slot = |slot: &str| json!({"package": "probe", "slot": slot});
        let (mac_credential, _) = tenant.grant_as(json!({"kind": "hmac_key"}), &mac_key, slot("mac")).await?;
        tenant.grant_as(json!({"kind": "jwt_key", "alg": "ES256"}), &private, slot("jwt")).await?;
        let keys = format!("AKIASTORESTORESTORE1\n{aws_secret}");
        tenant.grant_as(json!({"kind": "aws_keys"}), &keys, slot("url")).await?;
        tenant.grant("probe", "plain", &canary("plain/")).await?;
        let mut secrets = vec![mac_key.clone(), aws_secret];
        secrets.extend(private.lines().nth(1).map(str::to_owned));
        Ok(Self { server, tenant, open, mac_key, mac_credential, hold, secrets })
    }

    async fn sign(&self, arguments: Value) -> anyhow::Result<Value> {
        let answer = self.tenant.call("probe.sign", arguments.clone()).await?;
        anyhow::ensure!(answer.status == 200, "{arguments}: {}", answer.text());
        Ok(answer.json())
    }

    /// What a guest hears that asks for one signature, and the sentences of `explain`.
    async fn heard(&self, arguments: Value) -> anyhow::Result<(String, String)> {
        let answer = self.sign(arguments).await?;
        let explained = self.tenant.explain(answer["call"].as_str().unwrap_or_default()).await?;
        Ok((answer["result"]["outcomes"][0].as_str().unwrap_or_default().to_owned(), explained))
    }
}

/// What was signed, in the forms in which the guest says it openly.
fn forms(masked: &Value) -> Vec<String> {
    let made = unmask(masked);
    let mut forms = vec![hex::encode(&made)];
    // Of a JWT the signature, of a URL its signature: without it, the rest is of no use.
    let text = String::from_utf8(made).ok();
    forms.extend(text.and_then(|text| text.rsplit(['.', '=']).next().map(str::to_owned)));
    forms
}

fn unmask(masked: &Value) -> Vec<u8> {
    let bytes = hex::decode(masked.as_str().unwrap_or_default()).expect("what was made is hex");
    bytes.into_iter().map(|byte| byte ^ 0x5a).collect()
}

/// One of each function.
fn each() -> [Value; 3] {
    [
        json!({"slot": "mac", "message": "order 7"}),
        json!({"slot": "jwt", "claims": [["sub", "order-7"]]}),
        json!({"slot": "url", "url": KEY, "expires_s": 60}),
    ]
}

fn with(mut asked: Value, more: Value) -> Value {
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        asked[name] = value;
    }
    asked
}

// If it failed, a signature of a tenant's could be read in a log or by a model, and sent again by whoever reads it.
#[tokio::test]
pub(super) async fn x10_what_was_signed_is_taken_out_of_all_that_a_guest_says_and_hears() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let mut everything = String::new();
    for asked in each() {
        let then = json!([
            {"url": OPEN, "method": "POST"},
            {"url": format!("{OPEN}/{{made}}/y"), "method": "POST"},
            {"url": "https://api.test/{made}"},
            {"url": "https://nobody.test/{made}"},
            {"url": "https://open.test/./{made}"},
            {"url": OPEN, "method": "POST", "headers": [["{made}", "1"]]},
        ]);
        let claim = ["jwt", "x{made}"];
        let answer = stage.sign(with(asked.clone(), json!({"openly": true, "then": then, "claim": claim}))).await?;
        assert_eq!(answer["result"]["outcomes"], json!(["signed", "denied"]), "{answer}");
        let heard: Vec<_> = (0..6).map(|at| unmask(&answer["result"]["heard"][at])).collect();
        let heard = heard.into_iter().map(String::from_utf8).collect::<Result<Vec<_>, _>>()?;
        assert_eq!(heard[3..5], ["denied", "malformed url"]);
        assert!(["denied", "malformed header"].contains(&heard[5].as_str()), "{}", heard[5]);
        let forms = forms(&answer["result"]["masked"]);
        let sent = stage.open.recorded();
        let said = |request: &Recorded| String::from_utf8_lossy(&request.body).contains(&forms[0]);
        assert!(sent.iter().rev().take(3).all(said), "what was signed is the guest's to send");
        let led = |request: &Recorded| forms.iter().any(|form| request.target.contains(form));
        assert!(sent.last().is_some_and(led), "a path, too");
        let explained = stage.tenant.explain(answer["call"].as_str().unwrap_or_default()).await?;
        assert!(explained.contains("[redacted]/y is on the allowlist"), "{explained}");
        assert!(explained.contains("no binding names GET https://nobody.test/"), "{explained}");
        // A JWT's signature is behind what is repeated of so long a name.
        assert!(asked["slot"] == "jwt" || explained.contains("claim `x[redacted]` is not"), "{explained}");
        assert!(!forms.iter().any(|form| explained.contains(form)), "{explained}");
        let heard = heard.concat();
        let told = [answer["result"]["openly"].to_string(), answer["logs"].to_string(), heard];
        for told in &told {
            assert!(told.contains("[redacted]"), "{asked}: {told}");
            assert!(!forms.iter().any(|form| told.contains(form)), "{asked}: {told}");
        }
        let failed = stage.tenant.call("probe.sign", with(asked.clone(), json!({"fail": true}))).await?;
        assert!(failed.code() == "tool_failed" && failed.text().contains("[redacted]"), "{}", failed.text());
        everything += &failed.text();
        // A list of numbers is no text from which something can be taken out: the result does not pass.
        if asked["slot"] == "mac" {
            let answer = stage.tenant.call("probe.sign", with(asked, json!({"numbers": true}))).await?;
            assert_eq!(answer.code(), "result_invalid", "{}", answer.text());
        }
        everything += &format!(" {} ", forms.join(" "));
    }
    let inventory = stage.tenant.client.get("/v1/inventory").await?.text();
    assert!(inventory.contains("api.test"), "where a credential goes is noted: {inventory}");
    let kept = format!("{:?}{}{inventory}", stage.server.ledger()?, stage.server.log());
    for made in everything.split([' ', '"']).filter(|word| word.len() > 40) {
        assert!(!kept.contains(made), "{made} was written down");
    }
    assert!(!kept.contains("order 7") && !kept.contains("order-7"), "what was signed is a digest in the ledger");
    for secret in &stage.secrets {
        assert!(!everything.contains(secret.as_str()) && !kept.contains(secret.as_str()));
    }
    Ok(())
}

// If it failed, a tool could have anything signed, for anybody, and for as long as it likes.
#[tokio::test]
async fn p09_what_neither_manifest_nor_grant_says_is_not_signed() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let mac = |slot: &str| json!({"slot": slot, "message": "m"});
    let jwt = |name: &str| json!({"slot": "jwt", "claims": [["sub", "s"], [name, "1"]]});
    let url = |url: &str| json!({"slot": "url", "url": url, "expires_s": 60});
    for (asked, outcome, reason) in [
        (mac("other"), "denied", "no slot of that name"),
        (mac("../mac"), "denied", "no slot of that name"),
        (mac("plain"), "denied", "does not sign that"),
        (mac("jwt"), "denied", "does not sign that"),
        (mac("ungranted"), "denied", "has no grant"),
        (json!({"slot": "mac", "claims": []}), "denied", "does not sign that"),
        (with(url(KEY), json!({"slot": "mac"})), "denied", "does not sign that"),
        (json!({"slot": "mac", "bytes": 65}), "message too large", "longer than the 64 bytes"),
        (jwt("exp"), "denied", "claim `exp` is not the guest's"),
        (jwt("iss"), "denied", "claim `iss` is not the guest's"),
        (jwt("aud"), "denied", "claim `aud` is not the guest's"),
        (jwt("admin"), "denied", "claim `admin` is not the guest's"),
        (jwt("sub"), "malformed claim", "claim 1 is not fit"),
        (with(url(KEY), json!({"put": true})), "denied", "no binding names PUT"),
        (url(&KEY.replace("reports", "other")), "denied", "no binding names GET"),
        (url(&KEY.replace("bucket", "other")), "denied", "no binding names GET"),
        (url("https://iam.amazonaws.com/reports/2026"), "denied", "no binding names GET"),
        (url(&KEY.replace("reports", "reports/../other")), "malformed url", "canonical"),
        (url(&KEY.replace("reports", "reports/%2e%2e")), "malformed url", "canonical"),
        (url(&format!("{KEY}\r\nx-amz-acl: public")), "malformed url", "canonical"),
        (url(&format!("{KEY}?X-Amz-Expires=604800")), "denied", "not the guest's to set"),
        (url(&format!("{KEY}?prefix=b;x-amz-credential=c")), "denied", "not the guest's to set"),
        (url(&format!("{KEY}?versionId=v")), "denied", "not the guest's to set"),
        (with(url(KEY), json!({"expires_s": 301})), "expires out of range", "1 to 300 seconds"),
        (with(url(KEY), json!({"expires_s": 0})), "expires out of range", "1 to 300 seconds"),
    ] {
        let (heard, explained) = stage.heard(asked.clone()).await?;
        assert_eq!(heard, outcome, "{asked}: {explained}");
        assert!(explained.contains(reason), "{asked}: {explained}");
    }
    // The call's own limit, which the operator's ceiling lowers: a signature is one of its requests.
    let answer = stage.sign(json!({"slot": "mac", "message": "m", "times": 40})).await?;
    let outcomes = answer["result"]["outcomes"].as_array().cloned().unwrap_or_default();
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "signed").count(), 32);
    assert!(outcomes[32..].iter().all(|outcome| outcome == "too many requests"), "{answer}");
    // A slot that signs puts nothing on a request, and lets none go where it binds.
    assert_eq!(stage.tenant.hear_get("probe", KEY).await?.outcome, "denied");
    assert!(stage.open.recorded().is_empty(), "nothing was sent");
    Ok(())
}

// If it failed, a key that was found stolen would go on signing for those who hold a call open.
#[tokio::test(flavor = "multi_thread")]
async fn r05_a_version_that_was_revoked_signs_nothing_even_in_a_call_that_began_before() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    let held = json!({"url": "https://open.test/hold", "method": "POST"});
    let asked = json!({"slot": "mac", "message": "m", "then": [held], "again": true});
    // Rotated in between: the second is of the new key.
    let versions = format!("/v1/credentials/{}/versions", stage.mac_credential);
    let next = canary("next/");
    let (answer, rotated) = tokio::join!(stage.sign(asked.clone()), async {
        stage.hold.0.notified().await;
        let rotated = stage.tenant.client.post(&versions, &json!({"value": next})).await;
        stage.hold.1.notify_one();
        rotated
    });
    assert_eq!((rotated?.status, &answer?["result"]["outcomes"]), (201, &json!(["signed", "signed"])));
    let answer = stage.sign(json!({"slot": "mac", "message": "m"})).await?;
    let made = unmask(&answer["result"]["masked"]);
    let verified =
        |key: &str| hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), b"orders-v1.m", &made).is_ok();
    assert!(verified(&next) && !verified(&stage.mac_key));
    // Revoked in between: there is none.
    let revoke = format!("/v1/credentials/{}/revoke", stage.mac_credential);
    let (answer, revoked) = tokio::join!(stage.sign(asked.clone()), async {
        stage.hold.0.notified().await;
        let revoked = stage.tenant.client.post(&revoke, &json!({})).await;
        stage.hold.1.notify_one();
        revoked
    });
    assert_eq!((revoked?.status, &answer?["result"]["outcomes"]), (200, &json!(["signed", "denied"])));
    assert_eq!(stage.tenant.call("probe.sign", asked).await?.code(), "credential_unusable");
    let (is_clean, audited, error) = stage.server.cli(&["ledger", "audit", "--json"], b"")?;
    assert!(is_clean, "the ledger shows no use of what was ended: {audited} {error}");
    Ok(())
}

// If it failed, a grant that was taken would go on signing; or a key would sign what it was not stored for, or a
// session's token stand in a URL.
#[tokio::test(flavor = "multi_thread")]
async fn p03_a_grant_that_was_taken_signs_nothing_and_a_key_of_another_kind_is_not_granted() -> anyhow::Result<()> {
    let stage = Stage::start().await?;
    for (index, (kind, value, slot)) in [
        (json!({"kind": "bearer"}), canary("bearer/"), "mac"),
        (json!({"kind": "hmac_key"}), canary("mac/"), "jwt"),
        (json!({"kind": "hmac_key"}), canary("mac/"), "url"),
        (json!({"kind": "jwt_key", "alg": "ES256"}), Signer::new()?.private_pem()?, "mac"),
    ]
    .into_iter()
    .enumerate()
    {
        // Each of its own, for the key is stored before it is refused for the slot.
        let tenant = stage.server.tenant(&format!("other-{index}")).await?;
        let refused = tenant.grant_as(kind.clone(), &value, json!({"package": "probe", "slot": slot})).await;
        let why = refused.err().map(|why| why.to_string()).unwrap_or_default();
        assert!(why.contains("of another kind than the slot places"), "{kind} is no key for {slot}: {why}");
    }
    let other = stage.server.tenant("other").await?;
    let role = json!({
        "name": "role", "owner": "the tests", "justification": "a case", "value": format!("AKIAROLEROLEROLEROLE\n{}", canary("role/")),
        "kind": {"kind": "aws_role", "region": "eu-west-1", "role_arn": "arn:aws:iam::123456789012:role/r", "proof": "access_key"},
    });
    let stored = other.client.post("/v1/credentials", &role).await?;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let grant = json!({"package": "probe", "slot": "url", "credential": stored.json()["id"]});
    let refused = other.client.post("/v1/grants", &grant).await?;
    assert!(refused.text().contains("of another kind"), "a role has sessions only: {}", refused.text());
    let session = format!("ASIASTORESTORESTORE1\n{}\n{}", canary("s3/"), canary("token/"));
    other.grant_as(json!({"kind": "aws_keys"}), &session, json!({"package": "probe", "slot": "url"})).await?;
    let answer = other.call("probe.sign", each()[2].clone()).await?.json();
    assert_eq!(answer["result"]["outcomes"], json!(["denied"]), "{answer}");
    assert!(other.explain(answer["call"].as_str().unwrap_or_default()).await?.contains("is of a session"));

    let (mac, grant) = other
        .grant_as(json!({"kind": "hmac_key"}), &canary("mac/"), json!({"package": "probe", "slot": "mac"}))
        .await?;
    assert!(mac.starts_with("cred_"));
    let held = json!({"url": "https://open.test/hold", "method": "POST"});
    let asked = json!({"slot": "mac", "message": "m", "then": [held], "again": true});
    let (answer, taken) = tokio::join!(other.call("probe.sign", asked), async {
        stage.hold.0.notified().await;
        let taken = other.client.send("DELETE", &format!("/v1/grants/{grant}"), &[], Vec::new()).await;
        stage.hold.1.notify_one();
        taken
    });
    assert!(taken?.status < 300);
    let answer = answer?;
    assert_eq!(answer.json()["result"]["outcomes"], json!(["signed", "denied"]), "{}", answer.text());
    // Whom the call belongs to is the host's to know: another tenant's slot of the same name is another key.
    tokio::time::timeout(Duration::from_secs(5), stage.heard(each()[0].clone())).await??;
    Ok(())
}
