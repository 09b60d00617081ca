//! Sessions in a role: requests of guests that are signed by a key which STS made for this tenant, tool and run.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

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
use serde_json::Value;
use serde_json::json;

use super::form::field;
use super::form::form;

const STORE: &str = "bucket.s3.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/reader";

fn manifest() -> String {
    let placement = "{ kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\" }";
    probe::manifest("probe", "1.0.0", &probe::slot("store", placement, &[STORE]))
}

fn role(more: &Value) -> Value {
    let mut kind = json!({"kind": "aws_role", "region": "eu-west-1", "role_arn": ROLE});
    more.as_object().into_iter().flatten().for_each(|(name, value)| kind[name] = value.clone());
    kind
}

struct Stage {
    server: Server,
    tenant: Tenant,
    sts: Upstream,
    store: Upstream,
    /// Of the sessions that are given, one after the other.
    sessions: Arc<Vec<Sigv4>>,
    secret: String,
}

/// An STS that refuses what is not signed, and a store that takes what a session of it signed.
async fn stage(kind: Value, value: Option<&str>) -> anyhow::Result<Stage> {
    let authority = Authority::new()?;
    let secret = canary("aws/secret");
    let sessions: Vec<_> = (0..8)
        .map(|n| Sigv4 {
            id: format!("ASIASESSION{n:09}"),
            secret: canary("session/secret"),
            token: Some(canary("session+token/")),
            region: "eu-west-1",
            service: "s3",
        })
        .collect();
    let sessions = Arc::new(sessions);
    let signer = Sigv4 {
        id: "AKIATAKERTAKERTAKER1".to_owned(),
        secret: secret.clone(),
        token: None,
        region: "eu-west-1",
        service: "sts",
    };
    let (given, known, is_web) = (AtomicUsize::new(0), Arc::clone(&sessions), value.is_some());
    let sts = Upstream::start(&authority, &[STS], move |request: Recorded| {
        let checked = if is_web { Ok(()) } else { signer.check(&request) };
        let action = if is_web { "AssumeRoleWithWebIdentity" } else { "AssumeRole" };
        let reply = match checked {
            Ok(()) => {
                let Sigv4 { id, secret, token, .. } = &known[given.fetch_add(1, Ordering::SeqCst) % known.len()];
                let token = token.as_deref().unwrap_or_default();
                format!(
                    "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
                     <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
                     <SessionToken>{token}</SessionToken></Credentials></{action}Result></{action}Response>"
                )
            }
            Err(why) => format!("<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>{why}</Message></Error></ErrorResponse>"),
        };
        let status = if reply.starts_with("<ErrorResponse") { 403 } else { 200 };
        async move { Reply { status, headers: Vec::new(), body: reply.into_bytes() } }
    })
    .await?;
    let known = Arc::clone(&sessions);
    let store = Upstream::start(&authority, &[STORE], move |request: Recorded| {
        let is_known = known.iter().any(|session| session.check(&request).is_ok());
        let said: serde_json::Map<_, _> =
            request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        async move { Reply::json(if is_known { 200 } else { 403 }, &Value::Object(said)) }
    })
    .await?;
    let options = ServerOptions::default().pin(STORE, &store).pin(STS, &sts);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish_as("hostile", &manifest()).await?;
    let tenant = server.tenant("acme").await?;
    let value = value.map_or_else(|| format!("AKIATAKERTAKERTAKER1\n{secret}"), ToOwned::to_owned);
    tenant.grant_as(kind, &value, json!({"package": "probe", "slot": "store"})).await?;
    Ok(Stage { server, tenant, sts, store, sessions, secret })
}

// If it failed, a tool would sign with a key that may do more than its call, or with a session of another tool's.
#[tokio::test(flavor = "multi_thread")]
async fn p09_x10_a_session_is_made_for_tenant_and_tool_and_narrowed_to_the_call() -> anyhow::Result<()> {
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::bucket/{tenant}/{tool}/*"},
    ]});
    let stage = stage(role(&json!({"policy": policy, "external_id": "acme-7"})), None).await?;
    let url = format!("https://{STORE}/key");
    let (mut everything, mut call) = (String::new(), String::new());
    for _ in 0..2 {
        let heard = stage.tenant.hear_get("probe", &url).await?;
        assert_eq!(heard.outcome, "200", "{}", heard.text());
        everything += &heard.text();
        call = if call.is_empty() { heard.call } else { call };
    }
    assert_eq!(stage.sts.recorded().len(), 1, "one session for both");
    assert_eq!(stage.tenant.outcomes("probe", &[&url]).await?, ["200"]);
    let asked = stage.sts.recorded();
    assert_eq!(asked.len(), 2, "another tool has a session of its own");
    let (first, second) = (form(&asked[0]), form(&asked[1]));
    let tenant = field(&first, "Tags.member.1.Value").expect("a tag");
    let said = |name: &str| field(&first, name).unwrap_or_default();
    assert_eq!(
        (said("Action"), said("RoleArn"), said("DurationSeconds")),
        ("AssumeRole".into(), ROLE.into(), "900".into())
    );
    assert_eq!((said("ExternalId"), said("RoleSessionName")), ("acme-7".into(), format!("keybearer-{tenant}")));
    assert_eq!(
        (said("Tags.member.1.Key"), said("Tags.member.2.Key")),
        ("keybearer-tenant".into(), "keybearer-tool".into())
    );
    assert_eq!(said("Tags.member.2.Value"), "probe.echo_back");
    assert_eq!((said("Tags.member.3.Key"), said("Tags.member.3.Value").as_str()), ("keybearer-call".into(), &*call));
    assert!(field(&first, "Tags.member.4.Key").is_none(), "outside of a run");
    assert_eq!(field(&second, "Tags.member.2.Value").as_deref(), Some("probe.url_tricks"));
    assert!(said("Policy").contains(&format!("arn:aws:s3:::bucket/{tenant}/probe.echo_back/*")), "{}", said("Policy"));
    // The recipe allows more than the slot binds, or less: what is sent is what both allow.
    let sent: Value = serde_json::from_str(&said("Policy"))?;
    let denials = sent["Statement"].as_array().expect("statements").iter().filter(|said| said["Effect"] == "Deny");
    assert!(denials.count() >= 3 && said("Policy").contains("aws:RequestedRegion"), "{sent}");
    assert_eq!(stage.store.recorded().len(), 3);

    everything += &format!("{:?}{}", stage.server.ledger()?, stage.server.log());
    let used = stage.sessions.iter().take(2);
    for secret in
        used.flat_map(|session| [Some(&session.secret), session.token.as_ref()]).flatten().chain([&stage.secret])
    {
        assert!(!everything.contains(secret.as_str()), "{secret} was heard or written down");
    }
    Ok(())
}

// If it failed, an identity that AWS trusts would be heard by a tool, or would have to be an access key after all.
#[tokio::test(flavor = "multi_thread")]
async fn x10_a_role_is_taken_by_a_jwt_too_which_no_guest_hears() -> anyhow::Result<()> {
    let jwt = format!("eyJhbGciOiJFUzI1NiJ9.{}.{}", canary("claims"), canary("signature"));
    let stage = stage(role(&json!({"proof": "web_identity"})), Some(&jwt)).await?;
    let heard = stage.tenant.hear_get("probe", &format!("https://{STORE}/key")).await?;
    assert_eq!(heard.outcome, "200", "{}", heard.text());
    let asked = stage.sts.recorded();
    let said = form(&asked[0]);
    assert_eq!(field(&said, "Action").as_deref(), Some("AssumeRoleWithWebIdentity"));
    assert_eq!(field(&said, "WebIdentityToken"), Some(jwt.clone()));
    assert!(field(&said, "Tags.member.1.Key").is_none() && asked[0].header("authorization").is_none());
    let everything = format!("{}{:?}{}", heard.text(), stage.server.ledger()?, stage.server.log());
    assert!(!everything.contains(&jwt));
    Ok(())
}

// If it failed, a session would do what its slot's requests never need, and be good for hours after its run; or a run
// that has ended would still have a key that signs.
#[tokio::test(flavor = "multi_thread")]
async fn p09_a_session_is_made_for_the_length_of_its_run_and_forgotten_with_it() -> anyhow::Result<()> {
    let stage = stage(role(&json!({})), None).await?;
    let call = json!({"tool": "probe.echo_back", "arguments": {"url": format!("https://{STORE}/key")}});
    let mut proofs = Vec::new();
    for (life_s, expected) in [(60, 900..=900), (1_800, 1_840..=1_861)] {
        let opened =
            stage.tenant.client.post("/v1/runs", &json!({"agent": "reader", "life_ms": life_s * 1_000})).await?;
        assert_eq!(opened.status, 201, "{}", opened.text());
        let opened = opened.json();
        let (run, token) = (opened["id"].as_str().unwrap_or("?"), opened["token"].as_str().unwrap_or("?"));
        let agent = stage.server.public().bearing(token);
        for _ in 0..2 {
            let called = agent.post("/v1/calls", &call).await?;
            assert_eq!(called.status, 200, "{}", called.text());
            assert_eq!(called.json()["result"]["outcome"], "200");
        }
        let asked = stage.sts.recorded();
        assert_eq!(asked.len(), proofs.len() + 1, "one session for the run's calls, and none of another run's");
        let said = form(asked.last().expect("asked"));
        let duration: u64 = field(&said, "DurationSeconds").unwrap_or_default().parse()?;
        assert!(expected.contains(&duration), "{duration} for a run of {life_s} s");
        assert_eq!(field(&said, "Tags.member.4.Value").as_deref(), Some(run));
        let policy: Value = serde_json::from_str(&field(&said, "Policy").unwrap_or_default())?;
        assert_eq!(
            policy["Statement"][0],
            json!({
                "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"],
                "Condition": {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}},
            })
        );
        let proof = stage.store.recorded().pop().and_then(|arrived| arrived.header("authorization").map(str::to_owned));
        proofs.push(proof.unwrap_or_default());
        let ended = stage.tenant.client.post(&format!("/v1/runs/{run}/end"), &json!({})).await?;
        assert_eq!(ended.status, 200, "{}", ended.text());
        let (sent, refused) = (stage.store.recorded().len(), agent.post("/v1/calls", &call).await?);
        assert_eq!((refused.status, stage.store.recorded().len()), (401, sent), "nothing is signed for it any more");
    }
    for (proof, session) in proofs.iter().zip(stage.sessions.iter()) {
        assert!(proof.contains(&session.id), "{proof}");
    }
    Ok(())
}

// If it failed, the first call would find out, or a session would be made that may do more than its slot.
#[tokio::test(flavor = "multi_thread")]
async fn p09_a_grant_for_which_no_policy_can_be_said_is_refused() -> anyhow::Result<()> {
    let stage = stage(role(&json!({})), None).await?;
    let resources: Vec<_> = (0..30).map(|n| format!("\"arn:aws:s3:::bucket/{}/{n}/*\"", "long".repeat(20))).collect();
    let placement = format!(
        "{{ kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\", actions = [\"s3:GetObject\"], resources = [{}] }}",
        resources.join(", ")
    );
    let manifest = probe::manifest("wordy", "1.0.0", &probe::slot("store", &placement, &[STORE]));
    stage.server.publish_as("hostile", &manifest).await?;
    let refused = stage
        .tenant
        .grant_as(
            role(&json!({})),
            &format!("AKIATAKERTAKERTAKER1\n{}", canary("aws/")),
            json!({"package": "wordy", "slot": "store"}),
        )
        .await;
    let refused = refused.expect_err("refused").to_string();
    assert!(refused.contains("grant: 400") && refused.contains("2048 characters that AWS takes"), "{refused}");
    assert!(stage.sts.recorded().is_empty());
    Ok(())
}

mod needs_moto {
    use keybearer_tests::Peer;

    use super::*;

    // If it failed, what STS really answers would not be read.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_moto_gives_signs() -> anyhow::Result<()> {
        let moto = Peer::moto()?;
        let store =
            Upstream::start(moto.authority(), &[STORE], |_: Recorded| async { Reply::json(200, &json!({})) }).await?;
        let options = ServerOptions::default().pin(STORE, &store).pin_at(STS, 443, moto.address());
        let server = Server::start(&Built::find()?, moto.authority(), options)?;
        server.publish_as("hostile", &manifest()).await?;
        let secret = canary("aws/secret");
        let cases = [
            (
                "keys",
                json!({"policy": {"Version": "2012-10-17", "Statement": []}}),
                format!("AKIATAKERTAKERTAKER1\n{secret}"),
            ),
            ("web", json!({"proof": "web_identity"}), format!("a.{secret}.c")),
        ];
        for (name, more, value) in cases {
            let tenant = server.tenant(name).await?;
            tenant.grant_as(role(&more), &value, json!({"package": "probe", "slot": "store"})).await?;
            let heard = tenant.hear_get("probe", &format!("https://{STORE}/key")).await?;
            assert_eq!(heard.outcome, "200", "{name}: {}", tenant.explain(&heard.call).await?);
            let arrived = store.recorded().pop().expect("sent");
            let proof = arrived.header("authorization").unwrap_or_default().to_owned();
            assert!(proof.starts_with("AWS4-HMAC-SHA256 Credential=ASIA"), "a session's key: {proof}");
            assert!(
                proof.contains("/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date;"),
                "{proof}"
            );
            assert!(arrived.header("x-amz-security-token").is_some_and(|token| token.len() > 16));
        }
        Ok(())
    }
}
