//! A client of a tenant's own is registered at the real server, used, and taken back.

use anyhow::Context as _;
use keybearer_tests::Oidc;
use keybearer_tests::canary;
use keybearer_tests::secret_file;
use serde_json::Value;
use serde_json::json;

use super::super::Stage;

/// A recipe for a client that does not exist yet.
fn recipe(kind: &str, more: Value) -> Value {
    let mut recipe = super::super::recipe(kind, "", more);
    if let Some(recipe) = recipe.as_object_mut() {
        recipe.remove("client_id");
    }
    recipe
}

fn asking(name: &str, kind: &Value, initial: &str) -> Value {
    json!({
        "name": name, "kind": kind, "owner": "the tests", "justification": "a case needs it", "value": initial,
        "registration_url": format!("{}/reg", Oidc::ISSUER), "client": {"client_name": "Keybearer of the tests"},
    })
}

/// Has a client registered and grants its credential: its id, and the client's.
async fn register(stage: &Stage, name: &str, kind: &Value) -> anyhow::Result<(String, String)> {
    let asked = asking(name, kind, stage.oidc.registration_token());
    let answer = stage.tenant.client.post("/v1/credentials/register", &asked).await?;
    anyhow::ensure!(answer.status == 201, "{} {}", answer.status, answer.text());
    let (shown, text) = (answer.json(), answer.text());
    assert_eq!((&shown["state"], &shown["registration"]["managed"]), (&json!("active"), &json!(true)), "{text}");
    let id = shown["id"].as_str().context("an id")?.to_owned();
    let known = if kind["client"].is_object() { &shown["kind"]["client"] } else { &shown["kind"] };
    let client = known["client_id"].as_str().filter(|id| !id.is_empty()).context("the client's id")?.to_owned();
    if let Some(secret) = stage.oidc.metadata(&client).await?["client_secret"].as_str() {
        assert!(!text.contains(secret), "the answer shows the secret");
    }
    let grant = json!({"package": "http-get", "slot": "site", "credential": id});
    assert_eq!(stage.tenant.client.post("/v1/grants", &grant).await?.status, 201);
    Ok((id, client))
}

// If it failed, a tenant's administrator would have to carry client secrets about by hand, and they would be forgotten
// at the issuer when their credential ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_client_is_used_without_anybody_having_seen_its_secret_and_is_taken_back() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    for method in ["client_secret_basic", "client_secret_post"] {
        let kind = recipe("oauth_client_credentials", json!({"client_auth": {"method": method}}));
        let (credential, client) = register(&stage, method, &kind).await?;
        let registered = stage.oidc.metadata(&client).await?;
        assert_eq!(registered["client_name"], "Keybearer of the tests");
        assert_eq!(
            (&registered["grant_types"], &registered["token_endpoint_auth_method"]),
            (&json!(["client_credentials"]), &json!(method))
        );
        let secret = registered["client_secret"].as_str().context("a secret")?.to_owned();
        let called = stage.get().await?;
        assert_eq!(called.status, 200, "{}", called.text());
        let token = stage.arrived().pop().context("a token")?;
        let shown = stage.show(&credential).await?;
        assert!(!shown.to_string().contains(&secret));
        stage.act(&credential, "revoke").await?;
        assert_eq!(
            stage.happened(&client, "client_credentials.destroyed").await?,
            1,
            "by the client, while it was one"
        );
        assert_eq!(stage.oidc.metadata(&client).await?, json!({}), "no such client any more");
        assert_eq!(stage.show(&credential).await?["registration"]["managed"], false);
        stage.assert_unseen(&[&secret, &token, stage.oidc.registration_token()], &[&called])?;
        let grants = stage.tenant.client.get("/v1/grants").await?.json();
        let grant = grants["items"][0]["id"].as_str().context("a grant")?.to_owned();
        let taken = stage.tenant.client.send("DELETE", &format!("/v1/grants/{grant}"), &[], Vec::new()).await?;
        assert_eq!(taken.status, 200, "{}", taken.text());
    }
    let acts = stage.server.ledger()?;
    let notes: Vec<_> = acts.iter().filter(|act| act["what"] == "credential_revoked").map(|act| &act["note"]).collect();
    assert_eq!(notes, ["its client was deregistered"; 2]);
    assert_eq!(acts.iter().filter(|act| act["what"] == "credential_registered").count(), 2);
    Ok(())
}

// If it failed, a client's key would have to be made by somebody, and carried here.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_makes_a_clients_key_and_its_issuer_gets_the_public_half() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let by_key = |alg: &str| json!({"client_auth": {"method": "private_key_jwt", "alg": alg}});
    let exchange = json!({
        "kind": "oauth_token_exchange", "subject": "client_credentials",
        "client": {"token_url": format!("{}/token", Oidc::ISSUER), "issuer": Oidc::ISSUER, "audience": "urn:billing",
            "client_auth": {"method": "private_key_jwt", "alg": "ES256"}},
    });
    let assertion = json!({
        "kind": "oauth_jwt_bearer", "alg": "ES256", "subject": "anna",
        "client": {"token_url": format!("{}/token", Oidc::ISSUER), "issuer": Oidc::ISSUER, "scope": "api:read",
            "client_auth": {"method": "none"}},
    });
    for (name, kind) in [
        ("es256", recipe("oauth_client_credentials", by_key("ES256"))),
        ("eddsa", recipe("oauth_client_credentials", by_key("EdDSA"))),
        ("exchange", exchange),
        ("assertion", assertion),
    ] {
        let (credential, client) = register(&stage, name, &kind).await?;
        let registered = stage.oidc.metadata(&client).await?;
        let key = &registered["jwks"]["keys"][0];
        assert!(key["kid"].is_string() && key.get("d").is_none(), "{name}: {key}");
        assert!(registered.get("client_secret").is_none());
        let called = stage.get().await?;
        assert_eq!(called.status, 200, "{name}: {}", called.text());
        stage.act(&credential, "revoke").await?;
        assert_eq!(stage.oidc.metadata(&client).await?, json!({}), "{name}");
        let grants = stage.tenant.client.get("/v1/grants").await?.json();
        let grant = grants["items"][0]["id"].as_str().context("a grant")?.to_owned();
        stage.tenant.client.send("DELETE", &format!("/v1/grants/{grant}"), &[], Vec::new()).await?;
    }
    Ok(())
}

// If it failed, a mistake in a registration would cost the name, or a tenant that left would leave clients behind.
#[tokio::test(flavor = "multi_thread")]
async fn p11_a_refused_registration_is_tried_again_and_a_tenant_that_leaves_takes_its_clients_along()
-> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let kind = recipe("oauth_client_credentials", json!({}));
    let post = async |asked: &Value| stage.tenant.client.post("/v1/credentials/register", asked).await;
    let wrong = canary("no-such-token-");
    let refused = post(&asking("crm", &kind, &wrong)).await?;
    assert_eq!((refused.status, refused.code().as_str()), (422, "credential_refused"), "{}", refused.text());
    assert!(refused.text().contains("401") && refused.text().contains("invalid_token"), "{}", refused.text());
    let unknown = recipe("oauth_client_credentials", json!({"scope": "no:such"}));
    let refused = post(&asking("crm", &unknown, stage.oidc.registration_token())).await?;
    assert!(refused.text().contains("invalid_client_metadata"), "{}", refused.text());
    let listed = stage.tenant.client.get("/v1/credentials").await?.json();
    assert_eq!((&listed["items"][0]["state"], listed["items"].as_array().map(Vec::len)), (&json!("pending"), Some(1)));

    let id = listed["items"][0]["id"].as_str().context("an id")?;
    let path = format!("/v1/credentials/{id}/versions");
    let value = stage.tenant.client.post(&path, &json!({"value": canary("by-hand-")})).await?;
    assert_eq!(value.code(), "conflict", "a value without a client is none: {}", value.text());
    // The next try may be for another way.
    let by_key =
        recipe("oauth_client_credentials", json!({"client_auth": {"method": "private_key_jwt", "alg": "ES256"}}));
    let refused = post(&asking("crm", &by_key, &wrong)).await?;
    assert_eq!(refused.code(), "credential_refused", "{}", refused.text());

    for (field, value) in [
        ("registration_url", json!("http://oidc.test/reg")),
        ("registration_url", json!("https://127.0.0.1/reg")),
        ("client", json!({"client_secret": "mine"})),
        ("kind", super::super::recipe("oauth_client_credentials", "mine", json!({}))),
        ("kind", recipe("oauth_refresh_token", json!({}))),
        ("kind", json!({"kind": "bearer"})),
    ] {
        let mut asked = asking("other", &kind, stage.oidc.registration_token());
        asked[field] = value;
        let refused = post(&asked).await?;
        assert_eq!(refused.status, 400, "{asked}: {}", refused.text());
    }
    let stored = stage.tenant.client.get("/v1/credentials").await?.json();
    assert_eq!(stored["items"].as_array().map(Vec::len), Some(1), "nothing was stored for these");

    let (_, client) = register(&stage, "crm", &kind).await?;
    let again = post(&asking("crm", &kind, stage.oidc.registration_token())).await?;
    assert_eq!(again.code(), "conflict", "{}", again.text());
    assert_eq!(stage.get().await?.status, 200);
    assert_ne!(stage.oidc.metadata(&client).await?, json!({}));
    let path = format!("/v1/tenants/{}", stage.tenant.id);
    let left = stage.server.operator().send("DELETE", &path, &[], Vec::new()).await?;
    assert_eq!(left.status, 200, "{}", left.text());
    assert_eq!(stage.oidc.metadata(&client).await?, json!({}), "its client left with it");
    let acts = stage.server.ledger()?;
    let note = acts.iter().find(|act| act["what"] == "tenant_offboarded").and_then(|act| act["note"].as_str());
    assert!(note.is_some_and(|note| note.contains("clients deregistered: 1, left: 0")), "{note:?}");
    stage.assert_unseen(&[&wrong, stage.oidc.registration_token()], &[&refused, &again])
}

// If it failed, whoever works with the command line would have to send the token that opens an issuer by hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_registers_a_client_with_a_token_from_stdin() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let at = |name: &str| stage.server.folder().join(name);
    secret_file(&at("acme.token"), &stage.tenant.token)?;
    std::fs::write(at("kind.json"), recipe("oauth_client_credentials", json!({})).to_string())?;
    let (token, kind) = (at("acme.token").display().to_string(), at("kind.json").display().to_string());
    let url = format!("{}/reg", Oidc::ISSUER);
    let arguments = [
        "--json",
        "--token-file",
        &token,
        "credential",
        "register",
        "crm",
        "--kind-file",
        &kind,
        "--registration-url",
        &url,
        "--owner",
        "sales",
        "--justification",
        "the CRM",
        "--client-name",
        "Acme",
        "--contact",
        "a@example.com",
        "--initial-token-file",
        "-",
    ];
    let initial = format!("{}\n", stage.oidc.registration_token());
    let (went_well, out, err) = stage.server.cli(&arguments, initial.as_bytes())?;
    assert!(went_well, "{out}{err}");
    let shown: Value = serde_json::from_str(&out)?;
    assert_eq!((&shown["state"], &shown["registration"]["managed"]), (&json!("active"), &json!(true)), "{out}");
    assert!(!format!("{out}{err}").contains(stage.oidc.registration_token()));
    let client = shown["kind"]["client_id"].as_str().context("the client's id")?;
    assert_eq!(stage.oidc.metadata(client).await?["contacts"], json!(["a@example.com"]));
    Ok(())
}
