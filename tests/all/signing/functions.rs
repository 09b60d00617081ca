//! Signing by functions: what the tool `signer` delivers, and what callers get of it, against verifiers of the tests' own.

use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use anyhow::ensure;
use aws_lc_rs::hmac;
use aws_lc_rs::rsa;
use aws_lc_rs::signature;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::UnparsedPublicKey;
use aws_lc_rs::signature::VerificationAlgorithm;
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
use keybearer_tests::Sigv4;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

const EVENTS: &str = "events.example.com";

/// What a receiver of events does: verifies the MAC over its own context and the event's text, and parses it only then.
fn receive(key: &str, request: &Recorded) -> anyhow::Result<Value> {
    let body: Value = serde_json::from_slice(&request.body)?;
    let event = body["event"].as_str().context("an event")?;
    let mac = hex::decode(body["mac"].as_str().context("a MAC")?)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let message = format!("orders-v1.{event}");
    ensure!(hmac::verify(&key, message.as_bytes(), &mac).is_ok(), "another key's, or another event's");
    Ok(serde_json::from_str(event)?)
}

/// The claims of a JWT, if it is signed by this key and its header says so.
fn claims(
    jwt: &str,
    algorithm: &'static dyn VerificationAlgorithm,
    public: &[u8],
    header: &Value,
) -> anyhow::Result<Value> {
    let (signed, signature) = jwt.rsplit_once('.').context("no signature")?;
    let verified =
        UnparsedPublicKey::new(algorithm, public).verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?);
    ensure!(verified.is_ok(), "another key's: {jwt}");
    let (head, claims) = signed.split_once('.').context("no claims")?;
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head)?)?;
    ensure!(head == *header, "another header: {head}");
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

fn check_time(claims: &Value, life_s: u64) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let from = claims["iat"].as_u64().context("iat")?;
    ensure!(from.abs_diff(now) < 60 && claims["exp"] == json!(from + life_s), "another time: {claims}");
    ensure!(claims["jti"].as_str().is_some_and(|id| id.len() == 32), "no id: {claims}");
    Ok(())
}

/// The point of a key on P-256, uncompressed.
fn point(signer: &Signer) -> Vec<u8> {
    let public = &signer.key_set()["keys"][0];
    let half = |name: &str| URL_SAFE_NO_PAD.decode(public[name].as_str().unwrap_or_default()).unwrap_or_default();
    [&[4][..], &half("x"), &half("y")].concat()
}

struct Stage {
    server: Server,
    tenant: Tenant,
    upstream: Upstream,
    signer: Signer,
    keys: Sigv4,
    mac_key: Arc<String>,
}

async fn stage() -> anyhow::Result<Stage> {
    let mac_key = Arc::new(canary("events/"));
    let authority = Authority::new()?;
    let known = Arc::clone(&mac_key);
    let upstream = Upstream::start(&authority, &[EVENTS], move |request: Recorded| {
        let reply = match receive(&known, &request) {
            Ok(event) => Reply::json(202, &json!({"taken": event, "mac": String::from_utf8_lossy(&request.body)})),
            Err(why) => Reply::json(403, &json!({"why": format!("{why:#}")})),
        };
        async move { reply }
    })
    .await?;
    let server = Server::start(&Built::find()?, &authority, ServerOptions::default().pin(EVENTS, &upstream))?;
    server.publish("signer").await?;
    let tenant = server.tenant("acme").await?;
    let signer = Signer::new()?;
    let keys = Sigv4 {
        id: "AKIAREPORTSREPORTS01".to_owned(),
        secret: canary("s3/+secret"),
        token: None,
        region: "eu-west-1",
        service: "s3",
    };
    for (slot, kind, value) in [
        ("events", json!({"kind": "hmac_key"}), mac_key.to_string()),
        ("tickets", json!({"kind": "jwt_key", "alg": "ES256", "kid": "2026-11"}), signer.private_pem()?),
        ("reports", json!({"kind": "aws_keys"}), format!("{}\n{}", keys.id, keys.secret)),
    ] {
        tenant.grant_as(kind, &value, json!({"package": "signer", "slot": slot})).await?;
    }
    Ok(Stage { server, tenant, upstream, signer, keys, mac_key })
}

impl Stage {
    async fn served(&self, tool: &str, arguments: Value) -> anyhow::Result<(Value, String)> {
        let answer = self.tenant.call(tool, arguments).await?;
        ensure!(answer.status == 200, "{tool}: {}", answer.text());
        let explained = self.tenant.explain(answer.json()["call"].as_str().unwrap_or_default()).await?;
        Ok((answer.json()["result"].clone(), explained))
    }
}

// If it failed, receivers would refuse what our tools tell them, or callers hold tickets and links that open nothing; or
// a key would be in a tool's hands after all.
#[tokio::test]
async fn p09_x10_events_tickets_and_links_are_good_where_they_go_and_the_keys_are_nowhere() -> anyhow::Result<()> {
    let stage = stage().await?;
    let (result, explained) = stage.served("signer.deliver", json!({"order": 7, "state": "paid"})).await?;
    assert_eq!(result, json!({"status": 202}));
    assert!(explained.contains("signing:mac was asked of slot `events`: version 1 of cred_"), "{explained}");
    assert!(explained.contains("signing:mac was signed"), "{explained}");
    let sent: Value = serde_json::from_slice(&stage.upstream.recorded()[0].body)?;
    let mac = sent["mac"].as_str().context("a MAC")?.to_owned();

    let (result, _) = stage.served("signer.ticket", json!({"subject": "visitor-1"})).await?;
    let ticket = result["ticket"].as_str().context("a ticket")?.to_owned();
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "2026-11"});
    let claimed = claims(&ticket, &signature::ECDSA_P256_SHA256_FIXED, &point(&stage.signer), &header)?;
    check_time(&claimed, 120)?;
    assert_eq!((&claimed["iss"], &claimed["aud"]), (&json!("our-shop"), &json!("https://partner.example.com")));
    assert_eq!((&claimed["sub"], claimed.as_object().map(serde_json::Map::len)), (&json!("visitor-1"), Some(6)));

    let (result, explained) = stage.served("signer.link", json!({"key": "2026/a b.csv", "expires_s": 60})).await?;
    let link = result["url"].as_str().context("a link")?.to_owned();
    stage.keys.check_url("GET", &link, 60)?;
    assert!(stage.keys.check_url("PUT", &link, 60).is_err(), "the verifier tells methods apart");
    assert!(link.starts_with("https://reports.s3.eu-west-1.amazonaws.com/2026/a%20b.csv?X-Amz-Algorithm="), "{link}");
    assert!(
        explained.contains("GET https://reports.s3.eu-west-1.amazonaws.com/2026/a%20b.csv was asked"),
        "{explained}"
    );

    let records = stage.server.ledger()?;
    let of = |what: &str| {
        records.iter().find(|record| record["kind"] == "dispatch_intended" && record["place"] == what).cloned()
    };
    let recorded = of("signing:mac").context("the intent")?;
    let message = br#"orders-v1.{"order":7,"state":"paid"}"#;
    let (digest, signed) = (blake3::hash(message).to_string(), &recorded["signed"]);
    assert_eq!((&signed["keyed"], &signed["bytes"]), (&json!(true), &json!(message.len())), "{recorded}");
    assert_ne!(signed["blake3"], digest.as_str(), "whoever reads the ledger could try orders until one fits");
    assert_eq!((&recorded["purpose"], &recorded["version"]), (&json!("sign"), &json!(1)));
    let text = ticket.split('.').nth(1).context("claims")?;
    let digest = blake3::hash(&URL_SAFE_NO_PAD.decode(text)?).to_string();
    assert_eq!(
        of("signing:jwt").context("the intent")?["signed"]["blake3"],
        digest.as_str(),
        "a leaked ticket is found"
    );
    let kept = format!("{records:?}{}", stage.server.log());
    for made in [mac.as_str(), &ticket, &link, "order\":7", "visitor-1"] {
        assert!(!kept.contains(made), "{made} was written down");
    }
    let said = kept + &explained + &ticket + &link + &sent.to_string();
    let private = stage.signer.private_pem()?;
    for key in [stage.mac_key.as_str(), &stage.keys.secret, private.lines().nth(1).unwrap_or_default()] {
        assert!(!said.contains(key), "a key was heard or written down");
    }
    let metrics = stage.server.admin().get("/metrics").await?.text();
    assert!(metrics.contains("keybearer_signatures_total 3\n"), "{metrics}");
    Ok(())
}

/// A slot for each algorithm, of which the caller has what is signed.
fn slot(algorithm: &str) -> String {
    let name = algorithm.to_ascii_lowercase();
    format!(
        "[[slots]]\nname = \"{name}\"\ndescription = \"For tests.\"\n[slots.placement]\nkind = \"function\"\nfor_caller = true\n\
         signs = {{ kind = \"jwt\", algorithm = \"{algorithm}\", claims = {{ iss = \"us\", aud = \"them\" }}, may_claim = [\"sub\"], lifetime_s = 60 }}\n\n"
    )
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

// If it failed, upstreams that know one algorithm only would refuse what a tool has signed for them.
#[tokio::test]
async fn p09_a_jwt_is_verified_by_the_public_half_of_its_key_whatever_the_algorithm() -> anyhow::Result<()> {
    let p256 = Signer::new()?;
    let ed25519 = Ed25519KeyPair::generate().context("a key")?;
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).context("a key")?;
    let der = |key: &rsa::KeyPair| {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'static> = aws_lc_rs::encoding::AsDer::as_der(key)?;
        anyhow::Ok(der.as_ref().to_vec())
    };
    let cases: [(&str, String, Vec<u8>, &'static dyn VerificationAlgorithm); 3] = [
        ("ES256", p256.private_pem()?, point(&p256), &signature::ECDSA_P256_SHA256_FIXED),
        (
            "EdDSA",
            pem(ed25519.to_pkcs8v1().context("its form")?.as_ref()),
            ed25519.public_key().as_ref().to_vec(),
            &signature::ED25519,
        ),
        ("RS256", pem(&der(&rsa)?), rsa.public_key().as_ref().to_vec(), &signature::RSA_PKCS1_2048_8192_SHA256),
    ];
    let authority = Authority::new()?;
    let server = Server::start(&Built::find()?, &authority, ServerOptions::default())?;
    let slots: String = cases.iter().map(|(algorithm, ..)| slot(algorithm)).collect();
    server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slots)).await?;
    let tenant = server.tenant("acme").await?;
    for (algorithm, private, public, verifies) in cases {
        let name = algorithm.to_ascii_lowercase();
        let grant = json!({"package": "probe", "slot": name});
        tenant.grant_as(json!({"kind": "jwt_key", "alg": algorithm}), &private, grant).await?;
        let asked = json!({"slot": name, "claims": [["sub", "s-1"]], "openly": true});
        let answer = tenant.call("probe.sign", asked).await?.json();
        let jwt = answer["result"]["openly"][0].as_str().context("a JWT")?;
        let claimed = claims(jwt, verifies, &public, &json!({"alg": algorithm, "typ": "JWT"}))?;
        check_time(&claimed, 60)?;
        assert_eq!((&claimed["sub"], &claimed["iss"], &claimed["aud"]), (&json!("s-1"), &json!("us"), &json!("them")));
        let logged = answer["logs"].to_string();
        assert!(logged.contains("[redacted]") && !logged.contains(jwt), "for the caller is not for the log: {logged}");
    }
    Ok(())
}

mod needs_moto {
    use keybearer_tests::Peer;
    use keybearer_tests::Secure;

    use super::*;

    const HOST: &str = "moto.test";

    // If it failed, a link would be one that our own verifier takes and the service does not understand.
    #[tokio::test]
    async fn what_lies_in_a_bucket_is_read_by_the_link_and_not_without_it() -> anyhow::Result<()> {
        let moto = Peer::moto()?;
        let server = Server::start(&Built::find()?, moto.authority(), ServerOptions::default())?;
        let slot = "[[slots]]\nname = \"url\"\ndescription = \"For tests.\"\n[slots.placement]\nkind = \"function\"\n\
                    for_caller = true\nsigns = { kind = \"sigv4\", region = \"us-east-1\", service = \"s3\", max_expires_s = 60 }\n\
                    [[slots.bindings]]\nhost = \"moto.test\"\nmethods = [\"GET\"]\npaths = [\"/{key...}\"]\n";
        server.publish_as("hostile", &probe::manifest("probe", "1.0.0", slot)).await?;
        let tenant = server.tenant("acme").await?;
        let keys = format!("AKIAREPORTSREPORTS01\n{}", canary("s3/"));
        tenant.grant_as(json!({"kind": "aws_keys"}), &keys, json!({"package": "probe", "slot": "url"})).await?;

        let service = Secure::new(moto.address(), moto.authority(), None)?.named(HOST);
        let root = "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let root = [("authorization", root)];
        // By the host, the bucket is called `moto`; it may be there from another case.
        let made = service.send("PUT", "/", &root, Vec::new()).await?;
        ensure!([200, 409].contains(&made.status), "{} {}", made.status, made.text());
        let (key, said) = (format!("/{}/a%20b.csv", canary("case-")), canary("report "));
        let put = service.send("PUT", &key, &root, said.clone().into_bytes()).await?;
        ensure!(put.status == 200, "{} {}", put.status, put.text());

        let asked = json!({"slot": "url", "url": format!("https://{HOST}{key}"), "expires_s": 60, "openly": true});
        let answer = tenant.call("probe.sign", asked).await?.json();
        let link = answer["result"]["openly"][0].as_str().context("a link")?;
        let target = link.strip_prefix("https://moto.test").context("the place that was asked for")?;
        let read = service.send("GET", target, &[], Vec::new()).await?;
        assert_eq!((read.status, read.text()), (200, said), "{link}");
        assert_eq!(service.send("GET", &key, &[], Vec::new()).await?.status, 403, "it is read by the link alone");
        Ok(())
    }
}
