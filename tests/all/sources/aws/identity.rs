//! Roles that the host takes with an identity of its own: no value is stored, and the operator says for whom.

use std::sync::Arc;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Signer;
use keybearer_tests::Upstream;
use keybearer_tests::Workload;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::json;

use super::form::field;
use super::form::form;

const STORE: &str = "bucket.s3.eu-west-1.amazonaws.com";
const STS: &str = "sts.eu-west-1.amazonaws.com";
const SERVICE: &str = "secretsmanager.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/reader";
const ID: &str = "spiffe://keybearer.test/executor";

// If it failed, AWS would need a stored key beside the identity that the host already has, or one tenant could take a role
// as another's host.
#[tokio::test(flavor = "multi_thread")]
async fn x10_a_role_is_taken_by_a_jwt_svid_for_the_tenants_that_the_operator_named() -> anyhow::Result<()> {
    let (authority, folder) = (Authority::new()?, tempfile::tempdir()?);
    let workload = Workload::start(&folder.path().join("agent.sock"), Arc::new(Signer::new()?))?;
    let (session, value) = ([canary("session/"), canary("token+")], canary("sm_"));
    let [secret, token] = session.clone();
    let sts = Upstream::start(&authority, &[STS], move |_: Recorded| {
        let root = "AssumeRoleWithWebIdentity";
        let body = format!(
            "<{root}Response><{root}Result><Credentials><AccessKeyId>ASIAIDENTITY00000001</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken></Credentials>\
             </{root}Result></{root}Response>"
        );
        async move { Reply { status: 200, headers: Vec::new(), body: body.into_bytes() } }
    })
    .await?;
    let kept = value.clone();
    let service = Upstream::start(&authority, &[SERVICE], move |_: Recorded| {
        let answer = Reply::json(200, &json!({"Name": "acme/stripe", "VersionId": "1", "SecretString": kept}));
        async move { answer }
    })
    .await?;
    let site = Upstream::start(&authority, &[STORE, "api.test"], |_: Recorded| async { Reply::json(200, &json!({})) });
    let site = site.await?;
    let table = format!("[workload_api]\nsocket = \"{}\"\ntenants = {{ \"{ID}\" = [\"acme\"] }}\n", workload.address());
    let options = ServerOptions::default()
        .pin(STORE, &site)
        .pin("api.test", &site)
        .pin(STS, &sts)
        .pin(SERVICE, &service)
        .with(&table)
        .with("[telemetry]\nlevel = \"trace\"");
    let mut server = Server::start(&Built::find()?, &authority, options)?;
    let slots = [
        probe::slot("store", "{ kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\" }", &[STORE]),
        probe::slot("api", "{ kind = \"bearer\" }", &["api.test"]),
    ];
    server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slots.concat())).await?;
    let (mut tenant, mut other) = (server.tenant("acme").await?, server.tenant("globex").await?);
    // The operator's table names tenants that are there when the server starts.
    server.stop()?;
    server.restart()?;
    let proof = json!({"spiffe_jwt": {"spiffe_id": ID, "audience": "sts.amazonaws.com"}});
    let role = json!({"kind": "aws_role", "region": "eu-west-1", "role_arn": ROLE, "proof": proof});
    let reading = json!({
        "kind": "aws_secret", "region": "eu-west-1", "secret_id": "acme/stripe",
        "role": {"role_arn": ROLE, "proof": proof},
    });
    for tenant in [&mut tenant, &mut other] {
        tenant.client = server.public().bearing(&tenant.token);
        tenant.grant_as(role.clone(), "", json!({"package": "probe", "slot": "store"})).await?;
        tenant.grant_as(reading.clone(), "", json!({"package": "probe", "slot": "api"})).await?;
    }
    let places = [format!("https://{STORE}/key"), "https://api.test/".to_owned()];
    for place in &places {
        assert_eq!(other.hear_get("probe", place).await?.outcome, "denied");
    }
    assert_eq!(
        (sts.recorded().len(), workload.jwts(), site.recorded().len()),
        (0, 0, 0),
        "the id is not that tenant's"
    );

    for (index, place) in places.iter().enumerate() {
        let heard = tenant.hear_get("probe", place).await?;
        assert_eq!(heard.outcome, "200", "{}", tenant.explain(&heard.call).await?);
        assert_eq!(workload.jwts(), index + 1);
    }
    let proofs: Vec<_> =
        site.recorded().iter().filter_map(|sent| sent.header("authorization").map(str::to_owned)).collect();
    assert!(proofs[0].starts_with("AWS4-HMAC-SHA256 Credential=ASIAIDENTITY00000001/"), "{}", proofs[0]);
    assert_eq!(proofs[1], format!("Bearer {value}"));
    let asked = sts.recorded();
    let jwts: Vec<_> = asked.iter().filter_map(|request| field(&form(request), "WebIdentityToken")).collect();
    assert!(jwts.len() == 2 && jwts.iter().all(|jwt| jwt.split('.').count() == 3), "{}", jwts.len());
    assert!(asked.iter().all(|request| field(&form(request), "Policy").is_some()), "each is narrowed");
    let everything = format!("{:?}{}", server.ledger()?, server.log());
    for secret in session.iter().chain(&jwts).chain([&value]) {
        assert!(!everything.contains(secret.as_str()), "{secret} was written down");
    }
    Ok(())
}
