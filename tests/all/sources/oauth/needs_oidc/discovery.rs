//! A recipe names its issuer, and the real server's metadata says the rest, once.

use anyhow::Context as _;
use keybearer_tests::Oidc;
use keybearer_tests::canary;
use serde_json::json;

use super::super::Stage;

// If it failed, a tenant would copy endpoints by hand, or a change of the metadata would move where its secret is sent.
#[tokio::test(flavor = "multi_thread")]
async fn p11_an_issuers_endpoints_are_found_once_and_frozen_in_the_recipe() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    let kind =
        json!({"kind": "oauth_client_credentials", "issuer": Oidc::ISSUER, "client_id": client, "scope": "api:read"});
    let credential = stage.hold(kind, &secret).await?;
    let shown = stage.show(&credential).await?;
    for (field, path) in [
        ("token_url", "/token"),
        ("revocation_url", "/token/revocation"),
        ("introspection_url", "/token/introspection"),
    ] {
        assert_eq!(shown["kind"][field], format!("{}{path}", Oidc::ISSUER), "{shown}");
    }
    assert_eq!(shown["kind"]["iss_in_response"], true, "{shown}");
    for _ in 0..2 {
        let called = stage.get().await?;
        assert_eq!(called.status, 200, "{}", called.text());
    }
    assert_eq!(stage.act(&credential, "check").await?["state"], "active");
    let ledger = stage.server.ledger()?;
    let asked: Vec<_> = ledger
        .iter()
        .filter(|record| record["kind"] == "dispatch_intended" && record["purpose"] == "discover")
        .collect();
    assert!((1..=2).contains(&asked.len()), "at onboarding, and not again: {asked:?}");
    for record in &asked {
        assert!(record["credential"].is_null(), "{record}");
        assert!(record["place"].as_str().is_some_and(|place| place.contains("/.well-known/")), "{record}");
    }
    let unknown = json!({
        "name": "unknown", "owner": "tests", "justification": "a case", "value": secret,
        "kind": {"kind": "oauth_client_credentials", "issuer": format!("{}/nobody", Oidc::ISSUER), "client_id": client},
    });
    let refused = stage.tenant.client.post("/v1/credentials", &unknown).await?;
    assert_eq!((refused.status, refused.code().as_str()), (502, "upstream_failed"), "{}", refused.text());
    Ok(())
}

// If it failed, an account's answer would be taken from another issuer than the one that was asked (mix-up).
#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_asked_where_its_issuer_says_and_the_answer_must_name_that_issuer() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let redirect = "https://keys.example.com/v1/oauth/callback";
    let more = json!({"client_secret": secret, "redirect_uris": [redirect], "response_types": ["code"]});
    let client = stage.oidc.client(&["authorization_code", "refresh_token"], more).await?;
    let asking = |name: &str| {
        json!({
            "name": name, "owner": "the tests", "justification": "a case needs it", "value": secret, "redirect_uri": redirect,
            "kind": {"kind": "oauth_refresh_token", "issuer": Oidc::ISSUER, "client_id": client,
                "scope": "openid offline_access api:read"},
        })
    };
    for (name, keeps_issuer) in [("named", true), ("unnamed", false)] {
        let begun = stage.tenant.client.post("/v1/credentials/authorize", &asking(name)).await?;
        assert_eq!(begun.status, 201, "{}", begun.text());
        let begun = begun.json();
        let url = begun["authorization_url"].as_str().context("a URL")?;
        assert!(url.starts_with(&format!("{}/auth?", Oidc::ISSUER)), "{url}");
        let back = stage.oidc.browse(&format!("{url}&prompt=consent&login_hint=anna")).await?;
        let query = back.split_once('?').map(|(_, query)| query).context("a query")?;
        assert!(query.contains("iss="), "{query}");
        let kept: Vec<_> = query.split('&').filter(|pair| keeps_issuer || !pair.starts_with("iss=")).collect();
        let page = stage.server.public().get(&format!("/v1/oauth/callback?{}", kept.join("&"))).await?;
        assert_eq!(page.status, if keeps_issuer { 200 } else { 400 }, "{name}");
    }
    Ok(())
}

// If it failed, a client could be registered only by who knows where.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_registered_where_its_issuer_says() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let asked = json!({
        "name": "crm", "owner": "the tests", "justification": "a case needs it", "value": stage.oidc.registration_token(),
        "kind": {"kind": "oauth_client_credentials", "issuer": Oidc::ISSUER, "scope": "api:read"},
    });
    let stored = stage.tenant.client.post("/v1/credentials/register", &asked).await?;
    assert_eq!(stored.status, 201, "{}", stored.text());
    let shown = stored.json();
    assert_eq!(shown["registration"]["place"], format!("{}/reg", Oidc::ISSUER));
    let grant = json!({"package": "http-get", "slot": "site", "credential": shown["id"]});
    assert_eq!(stage.tenant.client.post("/v1/grants", &grant).await?.status, 201);
    let called = stage.get().await?;
    assert_eq!(called.status, 200, "{}", called.text());
    let mut lacking = asked;
    lacking["name"] = json!("other");
    lacking["kind"]["token_url"] = json!(format!("{}/token", Oidc::ISSUER));
    let refused = stage.tenant.client.post("/v1/credentials/register", &lacking).await?;
    assert_eq!(refused.status, 400, "nothing is looked up that was written: {}", refused.text());
    Ok(())
}
