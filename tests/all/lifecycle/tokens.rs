//! API tokens and tenants: what a token may do, and when it no longer may.

use keybearer_tests::Client;
use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

async fn issue(by: &Client, new: Value) -> anyhow::Result<(String, String)> {
    let issued = by.post("/v1/tokens", &new).await?;
    anyhow::ensure!(issued.status == 201, "{}", issued.text());
    let issued = issued.json();
    let field = |name: &str| issued[name].as_str().unwrap_or_default().to_owned();
    Ok((field("id"), field("text")))
}

#[tokio::test]
async fn t15_a_token_gives_no_more_than_it_has_and_nothing_once_it_is_revoked() -> anyhow::Result<()> {
    // If this failed, whoever finds an agent's token could make himself an administrator's, or keep it for good.
    let site = Site::start().await?;
    site.server.publish("echo").await?;
    let holder = site.holder("acme").await?;
    holder.tenant.allow("echo").await?;
    let administrator = &holder.tenant.client;
    let new = json!({"label": "agent", "scopes": ["call", "tokens"], "packages": ["echo"], "life_s": 600});
    let (id, text) = issue(administrator, new).await?;
    let agent = site.server.public().bearing(&text);
    let echo = json!({"tool": "echo.echo", "arguments": {"text": "x"}});
    assert_eq!(agent.post("/v1/calls", &echo).await?.status, 200);
    let other = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    let hidden = agent.post("/v1/calls", &other).await?;
    let unknown = agent.post("/v1/calls", &json!({"tool": "nothing.get", "arguments": {}})).await?;
    assert_eq!((hidden.status, &hidden.body), (404, &unknown.body), "a package that it does not name");
    assert_eq!(agent.get("/v1/tools/http-get.get").await?.body, hidden.body);
    assert!(!agent.get("/v1/tools").await?.text().contains("http-get"));
    for wider in [
        json!({"label": "x", "scopes": ["call", "credentials"], "packages": ["echo"], "life_s": 60}),
        json!({"label": "x", "scopes": ["call"], "life_s": 60}),
        json!({"label": "x", "scopes": ["call"], "packages": ["echo", "http-get"], "life_s": 60}),
    ] {
        let refused = agent.post("/v1/tokens", &wider).await?;
        assert_eq!(refused.code(), "forbidden", "{wider}: {}", refused.text());
    }
    for malformed in [
        json!({"label": "x", "scopes": ["call"], "life_s": 0}),
        json!({"label": "x", "scopes": ["call"], "life_s": 1_000_000_000_u64}),
        json!({"label": "x", "scopes": ["everything"], "life_s": 60}),
        json!({"label": "", "scopes": ["call"], "life_s": 60}),
        json!({"label": "x", "scopes": ["call"], "life_s": -1}),
    ] {
        let refused = administrator.post("/v1/tokens", &malformed).await?;
        assert_eq!(refused.status, 400, "{malformed}: {}", refused.text());
    }
    let (_, narrower) =
        issue(&agent, json!({"label": "sub", "scopes": ["call"], "packages": ["echo"], "life_s": 60})).await?;
    assert_eq!(site.server.public().bearing(&narrower).post("/v1/calls", &echo).await?.status, 200);
    assert!(!administrator.get("/v1/tokens").await?.text().contains(&text), "a token is shown once");

    let revoked = administrator.post(&format!("/v1/tokens/{id}/revoke"), &json!({})).await?;
    assert!(revoked.json()["calls_cancelled"].is_u64(), "{}", revoked.text());
    let refused = agent.post("/v1/calls", &echo).await?;
    let nobody = site.server.public().post("/v1/calls", &echo).await?;
    assert_eq!((refused.status, &refused.body), (401, &nobody.body));
    Ok(())
}

#[tokio::test]
async fn r10_a_suspended_tenant_is_nobody_until_it_is_active_again() -> anyhow::Result<()> {
    // If this failed, a tenant that does not pay or was taken over could not be stopped, or not be helped after.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let other = site.holder("globex").await?;
    let state = |to: &'static str| {
        let (operator, path) = (site.server.operator(), format!("/v1/tenants/{}/{to}", holder.tenant.id));
        async move { operator.post(&path, &json!({})).await }
    };
    assert_eq!(holder.get("/anything").await?.status, 200);
    assert_eq!(state("suspend").await?.json()["what"], "tenant");
    let arrived = site.upstream.recorded().len();
    let nobody = site.server.public().get("/v1/tools").await?;
    for answer in [holder.get("/anything").await?, holder.tenant.client.get("/v1/tools").await?] {
        assert_eq!((answer.status, &answer.body), (401, &nobody.body));
    }
    assert_eq!(site.upstream.recorded().len(), arrived);
    assert_eq!(other.get("/anything").await?.status, 200, "the other tenant's calls run");
    // A name that is taken stays taken, and what is suspended stays so over a restart.
    assert_eq!(site.server.operator().post("/v1/tenants", &json!({"name": "acme"})).await?.code(), "conflict");
    site.server.stop()?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    assert_eq!(client.get("/v1/tools").await?.status, 401, "over a restart");
    let path = format!("/v1/tenants/{}/activate", holder.tenant.id);
    assert_eq!(site.server.operator().post(&path, &json!({})).await?.json()["state"], "active");
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    assert_eq!(client.post("/v1/calls", &call).await?.status, 200);
    Ok(())
}
