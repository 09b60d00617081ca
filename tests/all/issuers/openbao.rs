//! OpenBao, shared and of a case's own.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::OpenBao;
use keybearer_tests::Secure;
use keybearer_tests::Signer;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

async fn get(bao: &OpenBao, path: &str, token: &str) -> anyhow::Result<Answer> {
    bao.send("GET", path, Some(token), None).await
}

/// One secret at `kv/site`, and a policy that reads it.
async fn with_a_secret(bao: &OpenBao) -> anyhow::Result<String> {
    let value = canary("kept_");
    bao.enable_kv("kv").await?;
    bao.kv_put("kv", "site", &json!({"value": value})).await?;
    bao.policy("reads-site", "path \"kv/data/site\" { capabilities = [\"read\"] }").await?;
    Ok(value)
}

mod needs_openbao {
    use super::*;

    // If it failed, the cases that fetch secrets would be about a server that nobody can log in to.
    #[tokio::test]
    async fn a_workload_logs_in_by_jwt_approle_or_certificate_and_reads_what_its_policy_allows() -> anyhow::Result<()> {
        let bao = OpenBao::shared().await?;
        let value = with_a_secret(&bao).await?;
        let signer = Signer::new()?;
        bao.enable_jwt("jwt", &signer, "executor", json!({"token_policies": ["reads-site"], "token_ttl": "5m"}))
            .await?;
        let jwt = signer.jwt(&Signer::claims("tests", "executor", "openbao"))?;
        let (by_jwt, answer) = bao.log_in("jwt", &json!({"role": "executor", "jwt": jwt})).await?;
        assert_eq!(answer["auth"]["lease_duration"], 300, "{answer}");
        let (role_id, secret_id) =
            bao.enable_approle("approle", "executor", json!({"token_policies": ["reads-site"]})).await?;
        let (by_approle, _) = bao.log_in("approle", &json!({"role_id": role_id, "secret_id": secret_id})).await?;
        for token in [&by_jwt, &by_approle] {
            let read = get(&bao, "kv/data/site", token).await?;
            assert_eq!((read.status, &read.json()["data"]["data"]["value"]), (200, &json!(value)), "{}", read.text());
            assert_eq!(get(&bao, "kv/data/other", token).await?.status, 403);
        }

        let id = "spiffe://keybearer.test/executor";
        bao.enable_cert("cert", "executor", json!({"allowed_uri_sans": [id], "token_policies": ["reads-site"]}))
            .await?;
        let headers = [("x-vault-namespace", bao.namespace())];
        for (uri, status) in [(id, 200), ("spiffe://keybearer.test/other", 400)] {
            let certificate = bao.authority().issue(&[], &[uri])?;
            let with = Secure::new(bao.address(), bao.authority(), Some(&certificate))?.named(OpenBao::NAME);
            let answer = with.send("POST", "/v1/auth/cert/login", &headers, b"{}".to_vec()).await?;
            assert_eq!(answer.status, status, "{uri}: {}", answer.text());
        }
        let stranger = Authority::new()?;
        let untrusting = Secure::new(bao.address(), &stranger, None)?.named(OpenBao::NAME);
        assert!(untrusting.send("GET", "/v1/sys/health", &[], Vec::new()).await.is_err(), "its name is proven");
        Ok(())
    }

    // If it failed, one case would read or break what another wrote.
    #[tokio::test]
    async fn each_case_has_a_namespace_of_its_own() -> anyhow::Result<()> {
        let (one, other) = (OpenBao::shared().await?, OpenBao::shared().await?);
        with_a_secret(&one).await?;
        assert!(one.read("kv/data/site").await.is_ok());
        assert!(other.read("kv/data/site").await.is_err());
        let token = one.token(&["reads-site"], json!({})).await?;
        assert_eq!(get(&one, "kv/data/site", &token).await?.status, 200);
        assert_eq!(get(&other, "kv/data/site", &token).await?.status, 403);
        assert!(one.pause().is_err(), "the shared process is left alone");
        Ok(())
    }

    // If it failed, the cases of outages would try nothing.
    #[tokio::test]
    async fn one_of_a_cases_own_is_sealed_paused_killed_and_started_again() -> anyhow::Result<()> {
        let mut bao = OpenBao::start(&Authority::new()?).await?;
        let value = with_a_secret(&bao).await?;
        let token = bao.token(&["reads-site"], json!({})).await?;
        bao.seal().await?;
        assert_eq!(get(&bao, "kv/data/site", &token).await?.status, 503);
        bao.unseal().await?;
        assert_eq!(get(&bao, "kv/data/site", &token).await?.status, 200);

        bao.pause()?;
        let short = std::time::Duration::from_millis(300);
        assert!(tokio::time::timeout(short, get(&bao, "kv/data/site", &token)).await.is_err(), "it is silent");
        bao.resume()?;
        assert_eq!(get(&bao, "kv/data/site", &token).await?.status, 200);

        bao.kill()?;
        assert!(get(&bao, "kv/data/site", &token).await.is_err(), "it is gone");
        bao.restart().await?;
        let read = get(&bao, "kv/data/site", &token).await?;
        assert_eq!((read.status, &read.json()["data"]["data"]["value"]), (200, &json!(value)), "{}", read.text());
        let asked = |entry: &Value| entry["type"] == "request" && entry["request"]["path"] == "kv/data/site";
        assert!(bao.audit()?.iter().any(asked), "what it was asked is written down");
        Ok(())
    }

    // If it failed, a case could not have certificates that another authority issues and takes back.
    #[tokio::test]
    async fn an_authority_inside_it_issues_certificates_with_the_names_of_workloads() -> anyhow::Result<()> {
        let bao = OpenBao::shared().await?;
        let root = bao.enable_pki("pki", "workload", json!({})).await?;
        let wanted = json!({"uri_sans": "spiffe://keybearer.test/executor"});
        let issued = bao.write("pki/issue/workload", &wanted).await?;
        let certificate = issued["data"]["certificate"].as_str().unwrap_or_default();
        assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----") && certificate != root, "{issued}");
        assert_eq!(issued["data"]["issuing_ca"], json!(root.trim()));
        Ok(())
    }
}
