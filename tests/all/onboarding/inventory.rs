//! The inventory, as a tenant and as the operator see it.

use keybearer_tests::Site;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

async fn items(client: &keybearer_tests::Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let answer = client.get(path).await?;
    anyhow::ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
    Ok(answer.json()["items"].as_array().cloned().unwrap_or_default())
}

fn find<'list>(items: &'list [Value], id: &str) -> &'list Value {
    items.iter().find(|item| item["id"] == id).unwrap_or(&Value::Null)
}

// If it failed, a secret that nobody answers for, or that nobody uses, would stay where nobody looks; or one tenant
// would see another's.
#[tokio::test]
async fn r14_the_inventory_lists_every_identity_with_its_uses_over_a_restart() -> anyhow::Result<()> {
    let mut site = Site::start().await?;
    let (holder, other) = (site.holder("acme").await?, site.holder("umbra").await?);
    let hook = holder.tenant.client.post("/v1/hooks", &json!({"label": "vault"})).await?.json();
    assert_eq!(holder.get("/anything/a").await?.status, 200);
    assert_eq!(holder.get("/anything/b").await?.status, 200);

    let seen = items(&holder.tenant.client, "/v1/inventory").await?;
    let credential = find(&seen, &holder.credential);
    assert!(credential["last_use"].is_u64() && credential["last_rotation"].is_u64(), "{credential}");
    assert!(credential["rotation_due"].is_u64() && credential["owner"].as_str().is_some_and(|owner| !owner.is_empty()));
    let used = &credential["used_binding"][0];
    assert_eq!((&used["host"], &used["methods"]), (&json!("httpbin.org"), &json!(["GET"])));
    assert_eq!(used["paths"], json!(["/anything/a", "/anything/b"]));
    assert!(find(&seen, hook["id"].as_str().unwrap_or_default())["last_use"].is_null());
    assert!(seen.iter().any(|item| item["kind"] == "api_token" && item["last_use"].is_u64()), "{seen:?}");
    let foreign = seen.iter().find(|item| item["id"] == json!(other.credential) || item["tenant"].is_string());
    assert!(foreign.is_none() && !json!(seen).to_string().contains(&holder.value), "{foreign:?}");

    site.server.stop()?;
    site.server.restart()?;
    let kept = items(&site.server.public().bearing(&holder.tenant.token), "/v1/inventory").await?;
    assert_eq!(find(&kept, &holder.credential)["used_binding"], credential["used_binding"]);
    Ok(())
}

// If it failed, a token would be found years later, and nobody would know whether it may be revoked.
#[tokio::test]
async fn r14_tokens_and_hooks_say_who_answers_for_them_and_why_or_are_found() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let client = site.server.tenant("acme").await?.client;
    let said = json!({"owner": "payments team", "justification": "the nightly settlement"});
    let mut made = Vec::new();
    for (path, plain) in
        [("/v1/tokens", json!({"label": "ci", "scopes": ["call"]})), ("/v1/hooks", json!({"label": "vault"}))]
    {
        let mut explained = plain.clone();
        explained.as_object_mut().expect("an object").extend(said.as_object().expect("an object").clone());
        for new in [plain, explained] {
            let answer = client.post(path, &new).await?;
            anyhow::ensure!(answer.status == 201, "{path}: {}", answer.text());
            made.push(answer.json());
        }
        for wrong in [json!(""), json!("x".repeat(201)), json!("a\nb")] {
            let mut new = json!({"label": "wrong", "scopes": ["call"], "owner": wrong});
            if path == "/v1/hooks" {
                new.as_object_mut().expect("an object").remove("scopes");
            }
            assert_eq!(client.post(path, &new).await?.code(), "malformed_request", "{path} {new}");
        }
    }
    let life = made[0]["expires"].as_u64().zip(made[0]["issued"].as_u64()).map(|(end, begin)| end - begin);
    assert_eq!(life, Some(30 * 24 * 3_600_000), "thirty days where nothing is said: {}", made[0]);
    let seen = items(&client, "/v1/inventory").await?;
    for (index, made) in made.iter().enumerate() {
        let identity = find(&seen, made["id"].as_str().unwrap_or_default());
        assert_eq!(identity["age_days"], 0, "{identity}");
        let found = identity["findings"].to_string().contains("unexplained");
        if index % 2 == 0 {
            assert!(found && identity["owner"].as_str().is_some_and(|owner| owner.starts_with("token:")), "{identity}");
        } else {
            let told = (&identity["owner"], &identity["justification"]);
            assert_eq!((told, found), ((&said["owner"], &said["justification"]), false), "{identity}");
        }
    }
    Ok(())
}

// If it failed, two tenants would share one key, and either could be billed or blamed for what the other did.
#[tokio::test]
async fn the_operator_sees_every_tenant_and_what_they_share() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let value = canary("shared-");
    let mut ids = Vec::new();
    for name in ["acme", "umbra"] {
        let tenant = site.server.tenant(name).await?;
        ids.push((tenant.grant("http-get", "site", &value).await?.0, tenant.id.clone()));
    }
    let all = items(&site.server.operator(), "/v1/inventory/all").await?;
    for (id, tenant) in &ids {
        let identity = find(&all, id);
        assert_eq!(identity["tenant"], json!(tenant));
        assert_eq!(identity["findings"][0]["what"], "shared_value", "{identity}");
    }
    let (good, text, error) = site.server.cli(&["inventory", "--all", "--findings"], b"")?;
    assert!(good && text.contains("shared_value"), "{text}{error}");
    Ok(())
}
