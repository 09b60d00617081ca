//! Refresh tokens that are used once: the real server ends the whole family when one is used twice.

use keybearer_tests::ServerOptions;
use keybearer_tests::Signer;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

const GRANT: &[&str] = &["refresh_token"];

/// A stage, a client of its own, the credential, and the grant at the issuer.
async fn held(stage: &Stage, more: Value) -> anyhow::Result<(String, String, String, String)> {
    let secret = canary("client-secret-");
    let mut client = json!({"client_secret": secret});
    if let (Some(client), Value::Object(more)) = (client.as_object_mut(), more) {
        client.extend(more);
    }
    let client = stage.oidc.client(GRANT, client).await?;
    let (token, grant) = stage.oidc.refresh_token(&client, "anna").await?;
    let kind = recipe("oauth_refresh_token", &client, json!({}));
    let credential = stage.hold(kind, &format!("{secret}\n{token}")).await?;
    Ok((client, credential, token, grant))
}

// If it failed, two calls at once would use one refresh token twice, and the account would have to consent again.
#[tokio::test(flavor = "multi_thread")]
async fn r08_many_calls_at_once_refresh_once_and_every_new_token_is_stored() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    // Of 4 s, one is kept in reserve.
    let (client, credential, first, _) = held(&stage, json!({"test_access_ttl_s": 4})).await?;
    for round in 1..=3_usize {
        let answers = futures_util::future::join_all((0..12).map(|_| stage.get())).await;
        for answer in answers {
            let answer = answer?;
            assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        }
        assert_eq!(stage.happened(&client, "refresh_token.consumed").await?, round, "one refresh a round");
        let shown = stage.show(&credential).await?;
        assert_eq!((shown["state"].as_str(), shown["epoch"].as_u64()), (Some("active"), Some(round as u64 + 1)));
        assert_eq!(shown["versions"].as_array().map(Vec::len), Some(round + 1), "{shown}");
        // Time itself is what is waited for.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    }
    let shown = stage.show(&credential).await?;
    let states: Vec<_> = shown["versions"].as_array().into_iter().flatten().map(|it| it["state"].clone()).collect();
    assert_eq!(states, ["destroyed", "destroyed", "retired", "current"], "what is used up is destroyed");
    assert_eq!(stage.happened(&client, "grant.revoked").await?, 0, "the family lives");
    assert_eq!(stage.happened(&client, "grant.error").await?, 0);
    let mut secrets = vec![first];
    secrets.extend(stage.arrived());
    stage.assert_unseen(&secrets.iter().map(String::as_str).collect::<Vec<_>>(), &[])?;

    stage.act(&credential, "revoke").await?;
    assert!(stage.happened(&client, "refresh_token.destroyed").await? >= 1, "given back at its issuer");
    Ok(())
}

// If it failed, a refresh token that nobody uses would grow as old as its issuer allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_is_overdue_is_rotated_at_its_issuer_by_itself() -> anyhow::Result<()> {
    let mut stage = Stage::new().await?;
    let (client, credential, first, _) = held(&stage, json!({})).await?;
    let terms = format!("/v1/credentials/{credential}/terms");
    let changed = stage.tenant.client.post(&terms, &json!({"rotation": {"sensitive": true}})).await?;
    assert_eq!(changed.status, 200, "{}", changed.text());
    stage.server.make_older(&credential, 25.0)?;
    stage.tenant.client = stage.server.public().bearing(&stage.tenant.token);
    let renewed = async {
        loop {
            let acts = stage.server.ledger()?;
            if let Some(act) = acts.into_iter().find(|record| record["what"] == "credential_renewed") {
                return anyhow::Ok(act);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    let act = tokio::time::timeout(std::time::Duration::from_secs(30), renewed).await??;
    let of = (&act["subject"], &act["version"], &act["principal"]);
    assert_eq!(of, (&json!(credential), &json!(2), &json!("host")), "{act}");
    assert_eq!(stage.happened(&client, "refresh_token.consumed").await?, 1);
    assert_eq!(stage.get().await?.status, 200);
    assert!(!stage.server.ledger()?.iter().any(|record| record["what"] == "rotation_asked"), "nobody is asked");
    stage.assert_unseen(&[&first], &[])
}

// If it failed, a dead refresh token would be tried for ever, or a caller would not learn what has to be done.
#[tokio::test(flavor = "multi_thread")]
async fn r08_a_token_that_its_account_took_back_is_tried_once_and_says_reauthorise() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let (client, credential, _, grant) = held(&stage, json!({})).await?;
    stage.oidc.withdraw(&grant).await?;
    let answers = futures_util::future::join_all((0..4).map(|_| stage.get())).await;
    for answer in answers {
        assert_ne!(answer?.status, 200);
    }
    assert_eq!(stage.show(&credential).await?["state"], "reauthorise");
    let answer = stage.get().await?;
    assert_eq!(answer.code(), "credential_unusable");
    assert!(answer.text().contains("must be authorized again"), "{}", answer.text());
    assert_eq!(stage.happened(&client, "grant.error").await?, 1, "asked once");
    assert!(stage.site.recorded().is_empty(), "nothing was sent without a credential");
    let acts = stage.server.ledger()?;
    assert!(
        acts.iter().any(|record| record["what"] == "credential_lapsed" && record["subject"] == credential.as_str())
    );
    // A new value makes it good again.
    let (token, _) = stage.oidc.refresh_token(&client, "anna").await?;
    let path = format!("/v1/credentials/{credential}/versions");
    let secret = stage.oidc.events(&client).await?.len().to_string();
    let wrong = stage.tenant.client.post(&path, &json!({"value": format!("wrong-secret-0123456789{secret}")})).await?;
    assert_eq!(wrong.code(), "credential_refused", "a value has two parts: {}", wrong.text());
    let value = format!("a-client-secret-that-is-wrong\n{token}");
    assert_eq!(stage.tenant.client.post(&path, &json!({"value": value})).await?.status, 201);
    assert_eq!(stage.show(&credential).await?["state"], "active");
    Ok(())
}

// If it failed, a server that is killed between asking and storing would lose the account, or burn it by asking again
// and again.
#[tokio::test(flavor = "multi_thread")]
async fn r08_a_crash_while_a_refresh_is_under_way_is_survived_or_says_reauthorise() -> anyhow::Result<()> {
    let mut stage = Stage::with(ServerOptions { grace_ms: Some(200), ..ServerOptions::default() }, |_| 200).await?;
    // Nothing was done at the issuer: the same token is good the next time.
    let (client, credential, ..) = held(&stage, json!({})).await?;
    stage.oidc.spoil(&client, &["hang"]).await?;
    let (call, asked) = tokio::join!(tokio::time::timeout(std::time::Duration::from_secs(3), stage.get()), async {
        while stage.server.ledger()?.iter().all(|record| record["purpose"] != "mint") {
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    });
    asked?;
    drop(call);
    stage.server.kill()?;
    stage.server.restart()?;
    stage.tenant.client = stage.server.public().bearing(&stage.tenant.token);
    assert!(stage.settled().await?, "the token was not used up, and is used now");
    assert_eq!(stage.show(&credential).await?["state"], "active");

    // The issuer used it up, and its answer was lost.
    let (client, credential, ..) = held_again(&stage).await?;
    stage.oidc.spoil(&client, &["lost"]).await?;
    assert_ne!(stage.get().await?.status, 200);
    assert!(!stage.settled().await?);
    assert_eq!(stage.show(&credential).await?["state"], "reauthorise");
    assert_eq!(stage.happened(&client, "grant.error").await?, 1, "asked once more, and never again");
    Ok(())
}

/// Another credential in the place of the first.
async fn held_again(stage: &Stage) -> anyhow::Result<(String, String)> {
    let grants = stage.tenant.client.get("/v1/grants").await?.json();
    for grant in grants["items"].as_array().into_iter().flatten() {
        let id = grant["id"].as_str().unwrap_or_default();
        stage.tenant.client.send("DELETE", &format!("/v1/grants/{id}"), &[], Vec::new()).await?;
    }
    let secret = canary("client-secret-");
    let client = stage.oidc.client(GRANT, json!({"client_secret": secret})).await?;
    let (token, _) = stage.oidc.refresh_token(&client, "anna").await?;
    let new = json!({
        "name": "another", "owner": "tests", "justification": "a case", "value": format!("{secret}\n{token}"),
        "kind": recipe("oauth_refresh_token", &client, json!({})),
    });
    let stored = stage.tenant.client.post("/v1/credentials", &new).await?.json();
    let credential = stored["id"].as_str().unwrap_or_default().to_owned();
    let grant = json!({"package": "http-get", "slot": "site", "credential": credential});
    assert_eq!(stage.tenant.client.post("/v1/grants", &grant).await?.status, 201);
    Ok((client, credential))
}

// If it failed, a client with a key, or one without any secret, could not act for an account.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_key_and_a_public_one_refresh_too() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let signer = Signer::new()?;
    let keys = json!({"jwks": signer.key_set(), "token_endpoint_auth_method": "private_key_jwt"});
    let client = stage.oidc.client(GRANT, keys).await?;
    let (token, _) = stage.oidc.refresh_token(&client, "anna").await?;
    let by_key = json!({"client_auth": {"method": "private_key_jwt", "alg": "ES256"}});
    let value = format!("{}\n{token}", signer.private_pem()?.trim_end());
    let credential = stage.hold(recipe("oauth_refresh_token", &client, by_key), &value).await?;
    assert_eq!(stage.get().await?.status, 200);
    assert_eq!(stage.show(&credential).await?["versions"].as_array().map(Vec::len), Some(2));

    let other = stage.server.tenant("public").await?;
    let client = stage.oidc.client(GRANT, json!({"token_endpoint_auth_method": "none"})).await?;
    let (token, _) = stage.oidc.refresh_token(&client, "anna").await?;
    let kind = recipe("oauth_refresh_token", &client, json!({"client_auth": {"method": "none"}}));
    other.grant_as(kind, &token, json!({"package": "http-get", "slot": "site"})).await?;
    assert_eq!(other.call("http-get.get", json!({"path": "/anything"})).await?.status, 200);
    Ok(())
}

// If it failed, an account at a server that keeps its refresh tokens would wait after every restart, or get a version
// for every access token.
#[tokio::test(flavor = "multi_thread")]
async fn r08_a_refresh_token_that_is_kept_stays_the_version_that_it_is_also_after_a_restart() -> anyhow::Result<()> {
    let mut stage = Stage::new().await?;
    let (_, credential, ..) = held(&stage, json!({"test_keeps_refresh_token": true})).await?;
    assert_eq!(stage.get().await?.status, 200);
    stage.server.kill()?;
    stage.server.restart()?;
    stage.tenant.client = stage.server.public().bearing(&stage.tenant.token);
    let answer = stage.get().await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = stage.show(&credential).await?;
    assert_eq!((shown["versions"].as_array().map(Vec::len), shown["epoch"].as_u64()), (Some(1), Some(1)), "{shown}");
    Ok(())
}
