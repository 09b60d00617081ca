//! Tokens for tokens (RFC 8693), and tokens for assertions (RFC 7523).

use keybearer_tests::Signer;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// The client's part of a recipe.
fn client_of(client: &str, more: Value) -> Value {
    let mut recipe = recipe("", client, more);
    recipe.as_object_mut().map(|recipe| recipe.remove("kind"));
    recipe
}

// If it failed, a tool would get the wide token instead of the narrow one, or see either.
#[tokio::test(flavor = "multi_thread")]
async fn x10_a_token_is_exchanged_for_a_narrower_one_and_neither_is_seen() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let new = json!({"client_secret": secret});
    let client = stage.oidc.client(&["client_credentials", EXCHANGE], new).await?;
    let own = [("grant_type", "client_credentials"), ("scope", "api:read api:write")];
    let wide = stage.oidc.form("/token", Some((&client, &secret)), &own).await?.json();
    let wide = wide["access_token"].as_str().unwrap_or_default().to_owned();

    let part = client_of(&client, json!({"audience": "urn:billing"}));
    let kind = json!({"kind": "oauth_token_exchange", "client": part});
    let credential = stage.hold(kind, &format!("{secret}\n{wide}")).await?;
    let answer = stage.get().await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let narrow = stage.arrived().pop().unwrap_or_default();
    assert_ne!(narrow, wide);
    let introspected = async || {
        let form = [("token", narrow.as_str())];
        Ok::<_, anyhow::Error>(stage.oidc.form("/token/introspection", Some((&client, &secret)), &form).await?.json())
    };
    assert_eq!(introspected().await?["scope"], "api:read");
    stage.act(&credential, "revoke").await?;
    assert_eq!(introspected().await?["active"], false, "given back");
    stage.assert_unseen(&[&secret, &wide, &narrow], &[&answer])?;

    // The subject is minted first.
    let other = stage.server.tenant("other").await?;
    let part = client_of(&client, json!({"audience": "urn:billing"}));
    let kind = json!({"kind": "oauth_token_exchange", "client": part, "subject": "client_credentials"});
    other.grant_as(kind, &secret, json!({"package": "http-get", "slot": "site"})).await?;
    let answer = other.call("http-get.get", json!({"path": "/anything"})).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stage.assert_unseen(&[&secret, &stage.arrived()[1]], &[&answer])
}

// If it failed, an account that trusts a key could not be acted for, or an assertion would be used twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_signed_anew_each_time_and_exchanged_for_a_token() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let signer = Signer::new()?;
    let open = json!({
        "jwks": signer.key_set(), "token_endpoint_auth_method": "none", "test_access_ttl_s": 2,
    });
    let client = stage.oidc.client(&[BEARER], open).await?;
    let part = client_of(&client, json!({"client_auth": {"method": "none"}}));
    let kind = json!({
        "kind": "oauth_jwt_bearer", "client": part, "alg": "ES256", "kid": "tests", "subject": "anna",
    });
    stage.hold(kind, &signer.private_pem()?).await?;
    let first = stage.get().await?;
    assert_eq!(first.status, 200, "{}", first.text());
    // Time itself is what is waited for.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(stage.get().await?.status, 200, "another assertion, with an id of its own");
    let tokens = stage.arrived();
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(stage.happened(&client, "grant.success").await?, 2);
    assert_eq!(stage.happened(&client, "grant.error").await?, 0, "the server takes an assertion once");
    let pem = signer.private_pem()?;
    stage.assert_unseen(&[pem.lines().nth(1).unwrap_or_default(), &tokens[0], &tokens[1]], &[&first])
}
