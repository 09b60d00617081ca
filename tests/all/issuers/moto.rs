//! moto: what Secrets Manager and STS answer.

use keybearer_tests::Answer;
use keybearer_tests::Peer;
use keybearer_tests::Secure;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

const SECRETS: &str = "secretsmanager.eu-west-1.amazonaws.com";
const TOKENS: &str = "sts.amazonaws.com";

fn named(name: &'static str) -> anyhow::Result<Secure> {
    let moto = Peer::moto()?;
    Ok(Secure::new(moto.address(), moto.authority(), None)?.named(name))
}

/// As signed by somebody; moto does not look.
fn authorization(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/eu-west-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    )
}

async fn secrets(action: &str, body: &Value) -> anyhow::Result<Answer> {
    let (target, signed) = (format!("secretsmanager.{action}"), authorization("secretsmanager"));
    let headers =
        [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", &*target), ("authorization", &*signed)];
    named(SECRETS)?.send("POST", "/", &headers, body.to_string().into_bytes()).await
}

async fn tokens(form: &str) -> anyhow::Result<Answer> {
    let signed = authorization("sts");
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", &*signed)];
    named(TOKENS)?.send("POST", "/", &headers, format!("Version=2011-06-15&{form}").into_bytes()).await
}

mod needs_moto {
    use super::*;

    // If it failed, the cases of Secrets Manager would not notice that a new version is not fetched.
    #[tokio::test]
    async fn a_secret_has_a_current_and_a_previous_version() -> anyhow::Result<()> {
        let (name, old, new) = (canary("case/"), canary("old_"), canary("new_"));
        let made =
            secrets("CreateSecret", &json!({"Name": name, "SecretString": old, "ClientRequestToken": canary("")}))
                .await?;
        assert_eq!(made.status, 200, "{}", made.text());
        let put = json!({"SecretId": name, "SecretString": new, "ClientRequestToken": canary("")});
        let stored = secrets("PutSecretValue", &put).await?;
        assert_eq!(stored.status, 200, "{}", stored.text());
        for (stage, value) in [("AWSCURRENT", &new), ("AWSPREVIOUS", &old)] {
            let got = secrets("GetSecretValue", &json!({"SecretId": name, "VersionStage": stage})).await?;
            assert_eq!(got.json()["SecretString"], json!(value), "{stage}: {}", got.text());
        }
        let unknown = secrets("GetSecretValue", &json!({"SecretId": canary("none/")})).await?;
        // The service itself says 400; moto's status is another, its words are the same.
        assert_eq!(unknown.json()["__type"], "ResourceNotFoundException", "{} {}", unknown.status, unknown.text());
        Ok(())
    }

    // If it failed, the cases of roles would have no session to sign with.
    #[tokio::test]
    async fn a_role_is_taken_for_a_session_that_ends() -> anyhow::Result<()> {
        let role =
            "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Freader&RoleSessionName=a-case&DurationSeconds=900";
        for form in [
            format!("Action=AssumeRole&{role}"),
            format!("Action=AssumeRoleWithWebIdentity&{role}&WebIdentityToken=a.b.c"),
        ] {
            let answer = tokens(&form).await?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            for field in ["<AccessKeyId>ASIA", "<SecretAccessKey>", "<SessionToken>", "<Expiration>"] {
                assert!(answer.text().contains(field), "{field}: {}", answer.text());
            }
        }
        assert!(tokens("Action=GetCallerIdentity").await?.text().contains("<Account>123456789012</Account>"));
        Ok(())
    }
}
