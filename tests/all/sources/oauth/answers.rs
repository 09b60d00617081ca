//! Issuers that answer a registration, or a question for their metadata, with something else than was asked for: a double
//! says what no real server does.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

struct Stage {
    server: Server,
    issuer: Upstream,
    tenant: Tenant,
    token: String,
}

/// An issuer that answers a registration so; `answer` gets the names of things as a good one would have them.
async fn stage(answer: impl Fn(Value) -> Reply + Send + Sync + 'static) -> anyhow::Result<Stage> {
    let (authority, token) = (Authority::new()?, canary("registration-"));
    let good = json!({
        "client_id": "client-1", "client_secret": canary("client-secret-"), "client_secret_expires_at": 0,
        "registration_access_token": token, "registration_client_uri": "https://login.test/reg/client-1",
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let issuer = Upstream::start(&authority, &["login.test", "elsewhere.test"], move |request: Recorded| {
        let reply = match request.method.as_str() {
            "POST" => answer(good.clone()),
            _ => Reply::json(204, &json!({})),
        };
        async move { reply }
    })
    .await?;
    let options = ServerOptions::default().pin("login.test", &issuer).pin("elsewhere.test", &issuer);
    let server = Server::start(&Built::find()?, &authority, options)?;
    let tenant = server.tenant("acme").await?;
    Ok(Stage { server, issuer, tenant, token })
}

impl Stage {
    async fn register(&self) -> anyhow::Result<keybearer_tests::Answer> {
        let asked = json!({
            "name": "crm", "owner": "the tests", "justification": "a case needs it",
            "kind": {"kind": "oauth_client_credentials", "token_url": "https://login.test/token"},
            "registration_url": "https://login.test/reg",
        });
        self.tenant.client.post("/v1/credentials/register", &asked).await
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.issuer.recorded().into_iter().map(|request| (request.method, request.target)).collect()
    }
}

fn with(mut good: Value, name: &str, value: Value) -> Reply {
    good[name] = value;
    Reply::json(201, &good)
}

// If it failed, whoever may ask for a check, or look at a credential, would read a stored value that its issuer repeats.
#[tokio::test(flavor = "multi_thread")]
async fn x10_an_issuer_that_repeats_a_secret_hands_it_to_nobody() -> anyhow::Result<()> {
    let (authority, secret, token) = (Authority::new()?, canary("client-secret-"), canary("minted-"));
    let repeated = [secret.clone(), token.clone()];
    let issuer = Upstream::start(&authority, &["login.test"], move |request: Recorded| {
        let [secret, token] = &repeated;
        let reply = match request.target.as_str() {
            "/token" => Reply::json(200, &json!({"access_token": token, "token_type": "bearer", "expires_in": 600})),
            _ => Reply::json(200, &json!({"active": true, "scope": format!("read {token} {secret}"), "exp": 1})),
        };
        async move { reply }
    })
    .await?;
    let options = ServerOptions::default().pin("login.test", &issuer);
    let server = Server::start(&Built::find()?, &authority, options)?;
    let tenant = server.tenant("acme").await?;
    let new = json!({
        "name": "crm", "owner": "the tests", "justification": "a case needs it", "value": secret,
        "kind": {
            "kind": "oauth_client_credentials", "client_id": "me", "token_url": "https://login.test/token",
            "introspection_url": "https://login.test/introspect",
        },
    });
    let stored = tenant.client.post("/v1/credentials", &new).await?;
    let path = format!("/v1/credentials/{}/check", stored.json()["id"].as_str().unwrap_or_default());
    let said = tenant.client.post(&path, &json!({})).await?;
    assert_eq!(said.json()["scope"], "read [redacted] [redacted]", "{}", said.text());
    let kept = format!("{:?}{}{}", server.ledger()?, server.log(), said.text());
    assert!(!kept.contains(&secret) && !kept.contains(&token));

    let stage = self::stage(|good| with(good.clone(), "client_id", good["client_secret"].clone())).await?;
    let refused = stage.register().await?;
    assert_eq!((refused.status, refused.code().as_str()), (422, "credential_refused"), "{}", refused.text());
    assert_eq!(stage.asked().len(), 2, "taken back");
    let listed = stage.tenant.client.get("/v1/credentials").await?.text();
    assert!(!listed.contains("client-secret-"), "{listed}");
    Ok(())
}

// If it failed, a client would be used as what nobody asked for, or be left at its issuer for good.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_issuer_registered_instead_is_taken_back_and_not_stored() -> anyhow::Result<()> {
    for (name, value) in [
        ("token_endpoint_auth_method", json!("client_secret_post")),
        ("client_id", Value::Null),
        ("client_id", json!("")),
        ("client_secret", json!("short")),
        ("client_secret_expires_at", json!("never")),
    ] {
        let stage = stage({
            let value = value.clone();
            move |good| with(good, name, value.clone())
        })
        .await?;
        let refused = stage.register().await?;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (422, "credential_refused"),
            "{name}: {}",
            refused.text()
        );
        let expected =
            [("POST", "/reg"), ("DELETE", "/reg/client-1")].map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(stage.asked(), expected, "{name} {value}");
        let bearer = stage.issuer.recorded()[1].header("authorization").map(str::to_owned);
        assert_eq!(bearer, Some(format!("Bearer {}", stage.token)));
        let listed = stage.tenant.client.get("/v1/credentials").await?.json();
        assert_eq!(listed["items"][0]["state"], "pending", "{name}: {listed}");
        assert!(
            !format!("{:?}{}{}", stage.server.ledger()?, stage.server.log(), refused.text()).contains(&stage.token)
        );
    }
    Ok(())
}

// If it failed, an issuer could have this host send its requests, and a token, to a place of its choice.
#[tokio::test(flavor = "multi_thread")]
async fn p11_where_a_client_is_managed_is_not_taken_from_an_answer_that_points_elsewhere() -> anyhow::Result<()> {
    for elsewhere in [
        "https://elsewhere.test/reg/client-1",
        "https://login.test:8443/reg",
        "http://login.test/reg",
        "https://127.0.0.1/reg",
    ] {
        let stage = stage(move |good| with(good, "registration_client_uri", json!(elsewhere))).await?;
        let stored = stage.register().await?;
        assert_eq!(
            (stored.status, &stored.json()["registration"]["managed"]),
            (201, &json!(false)),
            "{}",
            stored.text()
        );
        let path = format!("/v1/credentials/{}/revoke", stored.json()["id"].as_str().unwrap_or_default());
        assert_eq!(stage.tenant.client.post(&path, &json!({})).await?.status, 200);
        assert_eq!(stage.asked().len(), 1, "nobody was asked but where it was registered");
    }
    Ok(())
}

// If it failed, a credential would go on being offered when its secret has ended, or a broken issuer would break us.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_ends_ends_its_credential_and_nonsense_is_no_registration() -> anyhow::Result<()> {
    let end_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() + 3 * 3_600;
    let stage = stage(move |good| with(good, "client_secret_expires_at", json!(end_s))).await?;
    let stored = self::Stage::register(&stage).await?.json();
    assert_eq!(stored["expires"], end_s * 1_000, "{stored}");
    assert!(stored["rotation"]["every_h"].as_u64().is_some_and(|hours| hours <= 3), "{stored}");

    for nonsense in ["not JSON", r#"{"client_id": "a", "client_id": "b", "client_secret": "c"}"#, &"x".repeat(70_000)] {
        let body = nonsense.as_bytes().to_vec();
        let stage = self::stage(move |_| Reply { body: body.clone(), ..Reply::json(201, &json!({})) }).await?;
        let refused = stage.register().await?;
        assert_eq!((refused.status, refused.code().as_str()), (502, "upstream_failed"), "{}", refused.text());
        assert_eq!(stage.asked().len(), 1);
    }
    let stage = self::stage(|_| {
        let location = ("location".to_owned(), "https://elsewhere.test/reg".to_owned());
        Reply { headers: vec![location], ..Reply::json(307, &json!({})) }
    })
    .await?;
    assert!(stage.register().await?.status >= 400);
    assert_eq!(stage.asked().len(), 1, "a redirect is not followed");
    Ok(())
}

// If it failed, an issuer's metadata could send a tenant's secret elsewhere, or have us ask within our own network.
#[tokio::test(flavor = "multi_thread")]
async fn p11_metadata_that_points_elsewhere_is_refused_and_nothing_is_stored() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    for (name, value, code) in [
        ("issuer", json!("https://elsewhere.test"), "credential_refused"),
        ("token_endpoint", json!("https://elsewhere.test/token"), "credential_refused"),
        ("token_endpoint", json!("https://127.0.0.1/token"), "credential_refused"),
        ("token_endpoint", json!("http://login.test/token"), "credential_refused"),
        ("introspection_endpoint", json!("https://10.0.0.1/introspect"), "credential_refused"),
        ("token_endpoint", json!(["https://login.test/token"]), "upstream_failed"),
    ] {
        let mut metadata = json!({
            "issuer": "https://login.test", "token_endpoint": "https://login.test/token",
            "revocation_endpoint": "https://login.test/revoke",
        });
        metadata[name] = value;
        let issuer = Upstream::start(&authority, &["login.test", "elsewhere.test"], move |_: Recorded| {
            let reply = Reply::json(200, &metadata);
            async move { reply }
        })
        .await?;
        let options = ServerOptions::default().pin("login.test", &issuer).pin("elsewhere.test", &issuer);
        let server = Server::start(&Built::find()?, &authority, options)?;
        let tenant = server.tenant("acme").await?;
        let secret = canary("client-secret-");
        let asked = json!({
            "name": "crm", "owner": "the tests", "justification": "a case needs it", "value": secret,
            "kind": {"kind": "oauth_client_credentials", "issuer": "https://login.test", "client_id": "me"},
        });
        let refused = tenant.client.post("/v1/credentials", &asked).await?;
        assert_eq!(refused.code(), code, "{name}: {}", refused.text());
        assert!(
            !refused.text().contains("elsewhere.test") && !refused.text().contains("10.0.0.1"),
            "{}",
            refused.text()
        );
        let listed = tenant.client.get("/v1/credentials").await?.json();
        assert_eq!(listed["items"], json!([]));
        let asked = issuer.recorded();
        assert!(asked.iter().all(|request| request.target.starts_with("/.well-known/")), "{asked:?}");
        assert!(asked.iter().all(|request| !format!("{request:?}").contains(&secret)));
    }
    Ok(())
}
