//! The real server is asked whether what it issued is good.

use keybearer_tests::Oidc;
use keybearer_tests::canary;
use keybearer_tests::secret_file;
use serde_json::Value;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

fn at(path: &str) -> Value {
    json!({"introspection_url": format!("{}{path}", Oidc::ISSUER)})
}

const INTROSPECTION: &str = "/token/introspection";

/// What a check says, and nothing else.
async fn said(stage: &Stage, credential: &str) -> anyhow::Result<(String, String, bool)> {
    let said = stage.act(credential, "check").await?;
    let members = said.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let known = ["about", "expires", "id", "scope", "state"];
    assert!(members.iter().all(|member| known.contains(&member.as_str())), "{said}");
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("about"), said["scope"] == "api:read" && said["expires"].as_u64().is_some()))
}

fn is(state: &str, about: &str, is_whole: bool) -> (String, String, bool) {
    (state.to_owned(), about.to_owned(), is_whole)
}

// If it failed, a tenant could find out whether a credential is still good only by breaking a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_the_issuer_says_of_a_minted_token_and_nothing_else() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    let credential = stage.hold(recipe("oauth_client_credentials", &client, at(INTROSPECTION)), &secret).await?;
    assert_eq!(said(&stage, &credential).await?, is("active", "minted", true));
    assert_eq!(stage.get().await?.status, 200);
    assert_eq!(
        stage.happened(&client, "client_credentials.saved").await?,
        1,
        "one token serves the check and the call"
    );
    let token = stage.arrived()[0].clone();
    stage.oidc.form("/token/revocation", Some((&client, &secret)), &[("token", &token)]).await?;
    assert_eq!(said(&stage, &credential).await?, is("inactive", "minted", false));
    let acts = stage.server.ledger()?;
    let notes: Vec<_> = acts.iter().filter(|act| act["what"] == "credential_checked").map(|act| &act["note"]).collect();
    assert_eq!(notes, ["active", "inactive"]);
    stage.assert_unseen(&[&secret, &token], &[])?;

    let (token_file, name) = (stage.server.folder().join("acme.token"), "http-get-site");
    secret_file(&token_file, &stage.tenant.token)?;
    let arguments = ["--json", "--token-file", &token_file.display().to_string(), "credential", "check", name];
    let (went_well, out, err) = stage.server.cli(&arguments, b"")?;
    assert!(went_well, "{out}{err}");
    assert_eq!(serde_json::from_str::<Value>(&out)?["state"], "inactive");
    Ok(())
}

// If it failed, an account that withdrew would be found out by the agent that needs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_of_a_refresh_token_is_about_the_token_and_uses_nothing_up() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["refresh_token"], json!({"client_secret": secret})).await?;
    let (token, grant) = stage.oidc.refresh_token(&client, "anna").await?;
    let kind = recipe("oauth_refresh_token", &client, at(INTROSPECTION));
    let credential = stage.hold(kind, &format!("{secret}\n{token}")).await?;
    for _ in 0..2 {
        let (state, about, _) = said(&stage, &credential).await?;
        assert_eq!((state.as_str(), about.as_str()), ("active", "stored"));
    }
    assert_eq!(stage.happened(&client, "refresh_token.consumed").await?, 0);
    stage.oidc.withdraw(&grant).await?;
    assert_eq!(said(&stage, &credential).await?, is("inactive", "stored", false));
    assert_eq!(stage.show(&credential).await?["state"], "active", "a check decides nothing");
    stage.assert_unseen(&[&secret, &token], &[])
}

// If it failed, an issuer that is silent would be taken for one that said yes, or for one that said no.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_cannot_be_made_says_so() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let secret = canary("client-secret-");
    let client = stage.oidc.client(&["client_credentials"], json!({"client_secret": secret})).await?;
    let store = async |name: &str, kind: Value, value: &str| {
        let new = json!({"name": name, "kind": kind, "owner": "tests", "justification": "a case", "value": value});
        let stored = stage.tenant.client.post("/v1/credentials", &new).await?;
        anyhow::ensure!(stored.status == 201, "{}", stored.text());
        Ok(stored.json()["id"].as_str().unwrap_or_default().to_owned())
    };
    let elsewhere =
        store("elsewhere", recipe("oauth_client_credentials", &client, at("/no/such/place")), &secret).await?;
    assert_eq!(said(&stage, &elsewhere).await?, is("unknown", "minted", false));
    let wrong = canary("another-secret-");
    let wrong = store("wrong", recipe("oauth_client_credentials", &client, at(INTROSPECTION)), &wrong).await?;
    assert_eq!(said(&stage, &wrong).await?, is("inactive", "minted", false), "its issuer mints nothing with it");
    let unasked = store("unasked", recipe("oauth_client_credentials", &client, json!({})), &secret).await?;
    let bearer = store("bearer", json!({"kind": "bearer"}), &canary("static-")).await?;
    stage.act(&elsewhere, "revoke").await?;
    for id in [&unasked, &bearer, &elsewhere] {
        let refused = stage.tenant.client.post(&format!("/v1/credentials/{id}/check"), &json!({})).await?;
        assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"), "{}", refused.text());
    }
    Ok(())
}
