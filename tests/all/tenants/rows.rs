//! How much may be stored. If it were not bounded, one tenant's administrator could fill the disk and the
//! memory of all.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use serde_json::json;

/// The problem of one too many: it names the limit and the number.
fn is_one_too_many(answer: &Answer, name: &str, number: u64) {
    assert_eq!((answer.status, answer.code().as_str()), (409, "too_many"), "{name}: {}", answer.text());
    let body = answer.json();
    assert_eq!((&body["limit"]["name"], &body["limit"]["value"]), (&json!(name), &json!(number)), "{body}");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(&number.to_string()) && detail.contains(&format!("limits.rows.{name}")), "{detail}");
}

async fn issue(tenant: &Tenant) -> anyhow::Result<Answer> {
    tenant.client.post("/v1/tokens", &json!({"label": "agent", "scopes": ["call"], "life_s": 3600})).await
}

async fn store(tenant: &Tenant, name: &str) -> anyhow::Result<Answer> {
    let new =
        json!({"name": name, "kind": {"kind": "bearer"}, "owner": "o", "justification": "j", "value": canary(name)});
    tenant.client.post("/v1/credentials", &new).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_stores_as_much_as_it_may_and_takes_nothing_from_another() -> anyhow::Result<()> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let rows = "[limits.rows]\ncredentials = 2\ngrants = 2\ntokens = 3\npackages = 3";
    let server = Server::start(&built, &authority, ServerOptions::default().with(rows))?;
    for name in ["echo", "http-get", "stripe"] {
        server.publish(name).await?;
    }
    is_one_too_many(&server.offer(built.bundle("github")?).await?, "packages", 3);
    assert_eq!(server.offer(built.bundle("stripe")?).await?.status, 201, "the same once more takes no place");
    let (acme, globex) = (server.tenant("acme").await?, server.tenant("globex").await?);

    let mut tokens = Vec::new();
    for _ in 0..2 {
        let issued = issue(&acme).await?;
        assert_eq!(issued.status, 201, "{}", issued.text());
        tokens.push(issued.json());
    }
    is_one_too_many(&issue(&acme).await?, "tokens", 3);
    let path = format!("/v1/tokens/{}/revoke", tokens[0]["id"].as_str().unwrap_or_default());
    assert_eq!(acme.client.post(&path, &json!({})).await?.status, 200);
    assert_eq!(issue(&acme).await?.status, 201, "what was revoked makes room");
    let revoked = server.public().bearing(tokens[0]["text"].as_str().unwrap_or_default());
    assert_eq!(revoked.get("/v1/tools").await?.code(), "unauthenticated", "and is refused for good");
    let kept = server.public().bearing(tokens[1]["text"].as_str().unwrap_or_default());
    assert_eq!(kept.get("/v1/tools").await?.status, 200);

    // Many at once find two places, not more.
    let names: Vec<_> = (0..8).map(|count| format!("credential-{count}")).collect();
    let stored = futures_util::future::join_all(names.iter().map(|name| store(&acme, name))).await;
    let stored = stored.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    assert_eq!(stored.iter().filter(|answer| answer.status == 201).count(), 2);
    stored.iter().filter(|answer| answer.status != 201).for_each(|answer| is_one_too_many(answer, "credentials", 2));

    let give = |package: &'static str| {
        let client = &acme.client;
        async move { client.post("/v1/grants", &json!({"package": package})).await }
    };
    assert_eq!((give("echo").await?.status, give("http-get").await?.status), (201, 201));
    is_one_too_many(&give("stripe").await?, "grants", 2);
    assert_eq!(give("echo").await?.status, 201, "one that is replaced takes no further place");

    assert_eq!(
        (issue(&globex).await?.status, store(&globex, "own").await?.status),
        (201, 201),
        "it has its own places"
    );
    globex.allow("echo").await
}
