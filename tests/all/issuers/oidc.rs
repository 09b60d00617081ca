//! oidc-provider: the grants of OAuth.

use keybearer_tests::Answer;
use keybearer_tests::Oidc;
use keybearer_tests::Secure;
use keybearer_tests::Signer;
use serde_json::Value;
use serde_json::json;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SECRET: &str = "a secret of the tests, with a colon: and a plus +";

fn text(answer: &Answer, field: &str) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()[field].as_str().unwrap_or_default().to_owned()
}

/// The error that an endpoint gives.
fn error(answer: &Answer) -> String {
    assert!(answer.status >= 400, "{}", answer.text());
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

async fn is_active(oidc: &Oidc, client: &str, token: &str) -> anyhow::Result<Value> {
    let answer = oidc.form("/token/introspection", Some((client, SECRET)), &[("token", token)]).await?;
    Ok(answer.json()["active"].clone())
}

fn assertion(signer: &Signer, issuer: &str, subject: &str) -> anyhow::Result<String> {
    signer.jwt(&Signer::claims(issuer, subject, Oidc::ISSUER))
}

mod needs_oidc {
    use super::*;

    // If it failed, the cases of client credentials would be about a double of our own only.
    #[tokio::test]
    async fn a_client_gets_a_token_of_the_life_it_registered_and_can_take_it_back() -> anyhow::Result<()> {
        let oidc = Oidc::find()?;
        let more = json!({"client_secret": SECRET, "test_access_ttl_s": 7});
        let client = oidc.client(&["client_credentials"], more).await?;
        let form = [("grant_type", "client_credentials"), ("scope", "api:read")];
        let answer = oidc.form("/token", Some((&client, SECRET)), &form).await?;
        let token = text(&answer, "access_token");
        assert_eq!((&answer.json()["expires_in"], &answer.json()["scope"]), (&json!(7), &json!("api:read")));
        assert_eq!(is_active(&oidc, &client, &token).await?, true);
        let revoked = oidc.form("/token/revocation", Some((&client, SECRET)), &[("token", &token)]).await?;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        assert_eq!(is_active(&oidc, &client, &token).await?, false);
        assert_eq!(error(&oidc.form("/token", Some((&client, "another")), &form).await?), "invalid_client");
        let names: Vec<_> = oidc.events(&client).await?.iter().map(|event| event["event"].clone()).collect();
        let expected = ["client_credentials.saved", "grant.success", "client_credentials.destroyed", "grant.error"];
        assert_eq!(names, expected.map(Value::from));
        let untrusting = Secure::new(oidc.address(), &keybearer_tests::Authority::new()?, None)?.named(Oidc::NAME);
        assert!(untrusting.send("GET", "/jwks", &[], Vec::new()).await.is_err(), "its name is proven");
        Ok(())
    }

    // If it failed, the cases of rotation would not notice that the token used up is offered again.
    #[tokio::test]
    async fn a_refresh_token_serves_once_and_a_second_use_takes_the_family_back() -> anyhow::Result<()> {
        let oidc = Oidc::find()?;
        let client = oidc.client(&["refresh_token"], json!({"client_secret": SECRET})).await?;
        let refresh = async |token: &str| {
            let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
            oidc.form("/token", Some((&client, SECRET)), &form).await
        };
        let (first, _) = oidc.refresh_token(&client, "somebody").await?;
        let answer = refresh(&first).await?;
        let (second, access) = (text(&answer, "refresh_token"), text(&answer, "access_token"));
        assert_ne!(first, second);
        assert_eq!(is_active(&oidc, &client, &access).await?, true);
        assert_eq!(error(&refresh(&first).await?), "invalid_grant");
        assert_eq!(error(&refresh(&second).await?), "invalid_grant", "the family is gone");
        assert_eq!(is_active(&oidc, &client, &access).await?, false);

        let (kept, grant) = oidc.refresh_token(&client, "somebody").await?;
        oidc.withdraw(&grant).await?;
        assert_eq!(error(&refresh(&kept).await?), "invalid_grant", "the account took it back");
        Ok(())
    }

    // If it failed, the cases of an answer that is lost would not be about a token that is used up.
    #[tokio::test]
    async fn answers_of_the_token_endpoint_are_lost_or_spoilt_as_asked() -> anyhow::Result<()> {
        let oidc = Oidc::find()?;
        let client = oidc.client(&["refresh_token"], json!({"client_secret": SECRET})).await?;
        let (token, _) = oidc.refresh_token(&client, "somebody").await?;
        oidc.spoil(&client, &["error", "lost"]).await?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        assert_eq!(oidc.form("/token", Some((&client, SECRET)), &form).await?.status, 503);
        assert!(oidc.form("/token", Some((&client, SECRET)), &form).await.is_err(), "the answer is lost");
        let events = oidc.events(&client).await?;
        assert!(events.iter().any(|event| event["event"] == "refresh_token.consumed"), "{events:?}");
        assert_eq!(error(&oidc.form("/token", Some((&client, SECRET)), &form).await?), "invalid_grant");
        Ok(())
    }

    // If it failed, the cases of assertions would not be about what a server verifies.
    #[tokio::test]
    async fn assertions_are_believed_once_of_the_clients_key_or_a_trusted_issuers() -> anyhow::Result<()> {
        let oidc = Oidc::find()?;
        let (own, workload, stranger) = (Signer::new()?, Signer::new()?, Signer::new()?);
        let keys = json!({"jwks": own.key_set(), "token_endpoint_auth_method": "private_key_jwt"});
        let client = oidc.client(&["client_credentials", EXCHANGE], keys).await?;
        let as_client = async |jwt: &str, more: &[(&str, &str)]| {
            let form = [more, &[("client_assertion_type", ASSERTION), ("client_assertion", jwt)]].concat();
            oidc.form("/token", None, &form).await
        };
        let credentials = [("grant_type", "client_credentials")];
        let jwt = assertion(&own, &client, &client)?;
        let access = text(&as_client(&jwt, &credentials).await?, "access_token");
        assert_eq!(error(&as_client(&jwt, &credentials).await?), "invalid_client", "an assertion serves once");
        let forged = assertion(&stranger, &client, &client)?;
        assert_eq!(error(&as_client(&forged, &credentials).await?), "invalid_client");

        let exchange = [("grant_type", EXCHANGE), ("subject_token", &access), ("subject_token_type", ACCESS_TOKEN)];
        let jwt = assertion(&own, &client, &client)?;
        let answer = as_client(&jwt, &[&exchange[..], &[("audience", "urn:billing")]].concat()).await?;
        assert_eq!(text(&answer, "issued_token_type"), ACCESS_TOKEN);
        assert!(!text(&answer, "access_token").is_empty());

        // The grant, by the client that the assertion names, and by another issuer.
        let issuer = keybearer_tests::canary("https://issuer.test/");
        oidc.trust(&issuer, &workload.key_set()).await?;
        let open = json!({"jwks": own.key_set(), "token_endpoint_auth_method": "none"});
        let client = oidc.client(&[BEARER], open).await?;
        let ask = async |jwt: &str, more: &[(&str, &str)]| {
            let form = [more, &[("grant_type", BEARER), ("assertion", jwt), ("scope", "api:read")]].concat();
            oidc.form("/token", None, &form).await
        };
        let answer = ask(&assertion(&own, &client, "somebody")?, &[]).await?;
        assert_eq!(text(&answer, "scope"), "api:read");
        let named = [("client_id", client.as_str())];
        let answer = ask(&assertion(&workload, &issuer, "somebody")?, &named).await?;
        assert!(!text(&answer, "access_token").is_empty());
        assert_eq!(error(&ask(&assertion(&stranger, &issuer, "somebody")?, &named).await?), "invalid_grant");
        Ok(())
    }

    // If it failed, the cases of consent would begin with tokens that no person has agreed to.
    #[tokio::test]
    async fn a_registered_client_sends_a_person_through_consent_and_gets_a_code_for_tokens() -> anyhow::Result<()> {
        let oidc = Oidc::find()?;
        let bearer = format!("Bearer {}", oidc.registration_token());
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let new = json!({"redirect_uris": ["https://app.test/back"], "grant_types": ["authorization_code", "refresh_token"],
            "scope": "openid offline_access api:read"});
        let made = oidc.send("POST", "/reg", &headers, new.to_string().into_bytes()).await?;
        assert_eq!(made.status, 201, "{}", made.text());
        let field = |name: &str| made.json()[name].as_str().unwrap_or_default().to_owned();
        let (client, secret) = (field("client_id"), field("client_secret"));
        // RFC 7636, appendix B.
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let url = format!(
            "{}/auth?response_type=code&client_id={client}&scope=openid%20offline_access%20api:read&prompt=consent\
             &redirect_uri=https://app.test/back&state=seven&code_challenge_method=S256&code_challenge={challenge}",
            Oidc::ISSUER,
        );
        let refused = oidc.browse(&format!("{url}&login_hint=nobody")).await?;
        assert!(refused.contains("error=access_denied") && refused.contains("state=seven"), "{refused}");
        let back = oidc.browse(&format!("{url}&login_hint=anna")).await?;
        assert!(back.starts_with("https://app.test/back?") && back.contains("state=seven"), "{back}");
        let code = back.split(['?', '&']).find_map(|pair| pair.strip_prefix("code=")).unwrap_or_default();
        let redeem = async |verifier: &str| {
            let form = [
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", "https://app.test/back"),
                ("code_verifier", verifier),
            ];
            oidc.form("/token", Some((&client, &secret)), &form).await
        };
        assert_eq!(error(&redeem(&"x".repeat(43)).await?), "invalid_grant", "the code is bound to its verifier");
        let answer = redeem(verifier).await?;
        assert!(!text(&answer, "refresh_token").is_empty() && !text(&answer, "access_token").is_empty());
        let events = oidc.events(&client).await?;
        assert!(events.iter().any(|event| event["account"] == "anna"), "{events:?}");
        Ok(())
    }
}
