//! Client credentials, by secret and by key.

use keybearer_tests::Oidc;
use keybearer_tests::Signer;
use keybearer_tests::canary;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

// If it failed, a token that was minted with a revoked secret would go on being taken until it ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn x10_a_token_of_the_real_server_is_shown_to_nobody_and_given_back_at_its_credentials_end() -> anyhow::Result<()>
{
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    let credential = stage.hold(recipe("oauth_client_credentials", &client, json!({})), &secret).await?;
    let answers = [stage.get().await?, stage.get().await?];
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("redacted"), "{}", answer.text());
    }
    let tokens = stage.arrived();
    assert_eq!((tokens.len(), tokens[0] == tokens[1]), (2, true), "one token serves both");
    let introspect = async || {
        let path = "/token/introspection";
        stage.oidc.form(path, Some((&client, &secret)), &[("token", &tokens[0])]).await
    };
    assert_eq!(introspect().await?.json()["active"], true);
    stage.act(&credential, "revoke").await?;
    assert_eq!(introspect().await?.json()["active"], false, "given back before the revocation was acknowledged");
    assert_eq!(stage.get().await?.code(), "credential_unusable");
    stage.assert_unseen(&[&secret, &tokens[0]], &answers.iter().collect::<Vec<_>>())
}

// If it failed, a client whose server wants a signature could not be used without handing its key to somebody.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_proves_itself_by_a_key_that_never_leaves() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let signer = Signer::new()?;
    let keys = json!({"jwks": signer.key_set(), "token_endpoint_auth_method": "private_key_jwt"});
    let client = stage.oidc.client(&["client_credentials"], keys).await?;
    let by_key = json!({"client_auth": {"method": "private_key_jwt", "alg": "ES256", "kid": "tests"}});
    let pem = signer.private_pem()?;
    let credential = stage.hold(recipe("oauth_client_credentials", &client, by_key), &pem).await?;
    let answer = stage.get().await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    stage.act(&credential, "revoke").await?;
    assert_eq!(stage.happened(&client, "client_credentials.destroyed").await?, 1, "given back by an assertion");
    let line = pem.lines().nth(1).unwrap_or_default();
    stage.assert_unseen(&[line, &stage.arrived()[0]], &[&answer])?;

    let wrong = json!({
        "name": "no-key", "owner": "tests", "justification": "a case", "value": canary("no-key-at-all-"),
        "kind": {"kind": "oauth_client_credentials", "token_url": format!("{}/token", Oidc::ISSUER), "client_id": "c",
            "client_auth": {"method": "private_key_jwt", "alg": "ES256"}},
    });
    let refused = stage.tenant.client.post("/v1/credentials", &wrong).await?;
    assert_eq!(refused.code(), "credential_refused", "{}", refused.text());
    Ok(())
}
