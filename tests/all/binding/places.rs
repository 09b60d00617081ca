//! Where a credential goes: to the places, with the methods and paths, of its own slot, if it is granted.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::NameAnswer;
use keybearer_tests::NameServer;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::json;

use super::upstream;

const HOSTS: &[&str] = &["api.test", "admin.test", "both.test", "key.test"];

fn manifest(name: &str) -> String {
    let rest = r#"
[[slots]]
name = "api"
description = "For tests."
placement = { kind = "bearer" }
[[slots.bindings]]
host = "api.test"
methods = ["GET"]
paths = ["/v1/{id}"]
headers = ["x-api-key"]
[[slots.bindings]]
host = "both.test"
methods = ["GET"]
paths = ["/{rest...}"]

[[slots]]
name = "admin"
description = "For tests."
placement = { kind = "bearer" }
[[slots.bindings]]
host = "admin.test"
methods = ["GET"]
paths = ["/{rest...}"]

[[slots]]
name = "key"
description = "For tests."
placement = { kind = "header", name = "x-api-key" }
[[slots.bindings]]
host = "both.test"
methods = ["GET"]
paths = ["/shared/{id}"]

[[slots]]
name = "query"
description = "For tests."
placement = { kind = "query", name = "api_key" }
[[slots.bindings]]
host = "key.test"
methods = ["GET"]
paths = ["/{rest...}"]
"#;
    probe::manifest(name, "1.0.0", rest)
}

// If it failed, a credential would go to a place, with a method or for a tool that nobody approved it for.
#[tokio::test]
async fn p03_p04_p05_a_credential_goes_where_its_own_slot_is_bound_and_granted_and_nowhere_else() -> anyhow::Result<()>
{
    let authority = Authority::new()?;
    let upstream = upstream(&authority, HOSTS).await?;
    let mut options = ServerOptions::default().pin_at("api.test", 8443, upstream.address());
    for host in HOSTS {
        options = options.pin(host, &upstream).pin_at(host, 80, upstream.address());
    }
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish_as("hostile", &manifest("probe")).await?;
    server.publish_as("hostile", &manifest("other")).await?;
    let tenant = server.tenant("acme").await?;
    let token = canary("api_");
    let (credential, _) = tenant.grant("probe", "api", &token).await?;
    let grant = json!({"package": "probe", "slot": "key"});
    tenant.grant_as(json!({"kind": "header"}), &canary("key_"), grant).await?;
    let grant = json!({"package": "probe", "slot": "query"});
    tenant.grant_as(json!({"kind": "query"}), &canary("qry_"), grant).await?;

    // P03: scheme, port, method, path. P04: another slot's place. P05: two slots at one place.
    for (method, url, reason) in [
        ("POST", "https://api.test/v1/1", "no binding names POST"),
        ("DELETE", "https://api.test/v1/1", "no binding names DELETE"),
        ("HEAD", "https://api.test/v1/1", "no binding names HEAD"),
        ("GET", "https://api.test/v1", "no binding names GET"),
        ("GET", "https://api.test/v1/", "no binding names GET"),
        ("GET", "https://api.test/v1/1/2", "no binding names GET"),
        ("GET", "https://api.test/V1/1", "no binding names GET"),
        ("GET", "https://api.test/v2/1", "no binding names GET"),
        ("GET", "https://api.test:8443/v1/1", "no binding names GET"),
        ("GET", "http://api.test/v1/1", "no binding names GET"),
        ("GET", "https://admin.test/v1/1", "slot `admin` has no grant"),
        ("GET", "https://both.test/shared/1", "more than one slot binds this place"),
        ("GET", "https://key.test/v1?api_key=x", "query parameter `api_key` is not the guest's to set here"),
        ("GET", "https://key.test/v1?a=1&API_KEY=x", "query parameter `api_key` is not the guest's to set here"),
        ("GET", "https://key.test/v1?a=1;api_key=x", "query parameter `api_key` is not the guest's to set here"),
        ("GET", "https://key.test/v1?api_key", "query parameter `api_key` is not the guest's to set here"),
    ] {
        let heard = tenant.hear("probe", json!({"method": method, "url": url})).await?;
        assert_eq!(heard.outcome, "denied", "{method} {url}");
        let explained = tenant.explain(&heard.call).await?;
        assert!(explained.contains(reason), "{method} {url}: {explained}");
    }
    // The manifest hands this header to the guest; another slot of it owns it.
    let said = json!({"url": "https://api.test/v1/1", "headers": [["x-api-key", "mine"]]});
    assert_eq!(tenant.hear("probe", said).await?.outcome, "denied");
    assert_eq!(upstream.recorded().len(), 0);

    assert_eq!(tenant.hear_get("probe", "https://api.test/v1/1").await?.outcome, "200");
    assert_eq!(tenant.hear_get("probe", "https://both.test/own").await?.outcome, "200");
    for request in upstream.recorded() {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {token}").as_str()));
        assert_eq!(request.header("x-api-key"), None);
    }

    // P04: another package of the same tenant, though it asks for the very same.
    upstream.forget();
    let answer = tenant.call("other.echo_back", json!({"url": "https://api.test/v1/1"})).await?;
    assert_eq!((answer.status, answer.code().as_str()), (403, "grant_missing"));
    tenant.allow("other").await?;
    assert_eq!(tenant.hear_get("other", "https://api.test/v1/1").await?.outcome, "denied");

    // The tools that the grant allows, and no other one of the same package.
    let grant = json!({"package": "probe", "slot": "api", "credential": credential, "actions": ["url_tricks"]});
    let given = tenant.client.post("/v1/grants", &grant).await?;
    assert_eq!(given.status, 201, "{}", given.text());
    let heard = tenant.hear_get("probe", "https://api.test/v1/1").await?;
    assert_eq!(heard.outcome, "denied");
    assert!(tenant.explain(&heard.call).await?.contains("does not allow this tool"));
    assert_eq!(upstream.recorded().len(), 0);
    assert_eq!(tenant.outcomes("probe", &["https://api.test/v1/1"]).await?, ["200"]);

    // What does not fit together is refused when it is granted.
    let foreign = server.tenant("globex").await?;
    for (grant, code) in [
        (json!({"package": "probe", "slot": "key", "credential": credential}), "malformed_request"),
        (json!({"package": "probe", "slot": "nothing", "credential": credential}), "malformed_request"),
        (json!({"package": "probe", "slot": "api"}), "malformed_request"),
        (json!({"package": "probe", "credential": credential}), "malformed_request"),
        (
            json!({"package": "probe", "slot": "api", "credential": credential, "actions": ["no_such"]}),
            "malformed_request",
        ),
        (
            json!({"package": "probe", "slot": "api", "credential": credential, "base_url": "https://evil.test"}),
            "malformed_request",
        ),
        (json!({"package": "nothing", "slot": "api", "credential": credential}), "not_found"),
    ] {
        let answer = tenant.client.post("/v1/grants", &grant).await?;
        assert_eq!(answer.code(), code, "{grant}: {}", answer.text());
    }
    let grant = json!({"package": "probe", "slot": "api", "credential": credential});
    assert_eq!(foreign.client.post("/v1/grants", &grant).await?.code(), "not_found");
    Ok(())
}

// If it failed, a token endpoint would be a way to have the host itself ask the operator's own network, with
// the tenant's client secret on the request.
#[tokio::test]
async fn p11_a_token_endpoint_is_pinned_https_and_not_inside() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = upstream(&authority, &["api.test", "moved.test", "elsewhere.test"]).await?;
    let moved = keybearer_tests::Upstream::start(&authority, &["moved.test"], |_| async {
        let headers = vec![("location".to_owned(), "https://elsewhere.test/token".to_owned())];
        keybearer_tests::Reply { status: 307, headers, body: Vec::new() }
    })
    .await?;
    let names = NameServer::start(|_, _| NameAnswer::Addresses(vec![[10, 0, 0, 1].into()])).await?;
    let options = ServerOptions::default()
        .with_egress(&format!("nameservers = [\"{}\"]", names.address()))
        .pin("api.test", &upstream)
        .pin("elsewhere.test", &upstream)
        .pin("moved.test", &moved);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish_as("hostile", &manifest("probe")).await?;
    let recipe = |url: &str| json!({"kind": "oauth_client_credentials", "token_url": url, "client_id": "me"});
    let grant = json!({"package": "probe", "slot": "api"});

    // What cannot be a public HTTPS endpoint is refused when it is stored.
    let tenant = server.tenant("acme").await?;
    for url in [
        "http://login.test/token",
        "https://127.0.0.1/token",
        "https://169.254.169.254/latest",
        "https://[::1]/token",
        "https://localhost/token",
        "https://user:pw@login.test/token",
        "https://login.test/../token",
        "file:///etc/passwd",
        "//login.test/token",
    ] {
        let stored = tenant.grant_as(recipe(url), &canary("oauth_"), grant.clone()).await;
        assert!(stored.is_err(), "{url} was stored");
    }
    assert_eq!(super::items(&tenant.client.get("/v1/credentials").await?).len(), 0);

    // A name that leads inside is found out when it is asked; a redirect is no token.
    for (name, url, outcome) in [
        ("inside", "https://login.test/token", "denied"),
        ("moved", "https://moved.test/token", "upstream: unreachable, not sent"),
    ] {
        let tenant = server.tenant(name).await?;
        let secret = canary("oauth_");
        tenant.grant_as(recipe(url), &secret, grant.clone()).await?;
        let heard = tenant.hear_get("probe", "https://api.test/v1/1").await?;
        assert_eq!(heard.outcome, outcome, "{url}");
        let explained = tenant.explain(&heard.call).await?;
        assert!(!explained.contains(&secret), "{explained}");
    }
    assert_eq!(moved.recorded().len(), 1);
    assert_eq!(upstream.recorded().len(), 0, "neither the redirect's place nor the tool's was asked");
    Ok(())
}

// If it failed, an account's consent would be redeemed within the operator's own network, by whoever owns a name.
#[tokio::test]
async fn p11_a_code_is_not_redeemed_at_a_place_inside() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    // It would answer, if it were asked: only that its address is not public stands before it.
    let inside = upstream(&authority, &["login.test"]).await?;
    let names = NameServer::start(|_, _| NameAnswer::Addresses(vec![[127, 0, 0, 1].into()])).await?;
    let mut options = ServerOptions::default().with_egress(&format!("nameservers = [\"{}\"]", names.address()));
    options.allow_ranges = Some(Vec::new());
    let server = Server::start(&Built::find()?, &authority, options)?;
    let tenant = server.tenant("acme").await?;
    let asking = |token_url: &str| {
        json!({
            "name": "account", "owner": "the tests", "justification": "a case needs it",
            "kind": {"kind": "oauth_refresh_token", "token_url": token_url, "client_id": "me",
                "client_auth": {"method": "none"}},
            "authorize_url": "https://login.test/auth", "redirect_uri": "https://keys.test/v1/oauth/callback",
        })
    };
    for url in
        ["https://127.0.0.1/token", "https://10.0.0.1/token", "https://localhost/token", "http://login.test/token"]
    {
        let refused = tenant.client.post("/v1/credentials/authorize", &asking(url)).await?;
        assert!((400..500).contains(&refused.status), "{url}: {}", refused.text());
    }
    let url = format!("https://login.test:{}/token", inside.address().port());
    let begun = tenant.client.post("/v1/credentials/authorize", &asking(&url)).await?;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let begun = begun.json();
    let asked = begun["authorization_url"].as_str().unwrap_or_default();
    let state = asked.split('&').find_map(|pair| pair.strip_prefix("state=")).unwrap_or_default();
    let code = canary("code_");
    let page = server.public().get(&format!("/v1/oauth/callback?state={state}&code={code}")).await?;
    assert_eq!(page.status, 400, "{}", page.text());
    assert!(names.asked().iter().any(|name| name == "login.test"), "it was about to ask: {:?}", names.asked());
    assert_eq!(inside.recorded().len(), 0);
    let id = begun["credential"]["id"].as_str().unwrap_or_default();
    assert_eq!(tenant.client.get(&format!("/v1/credentials/{id}")).await?.json()["state"], "pending");
    assert!(!format!("{:?}{}", server.ledger()?, server.log()).contains(&code));
    Ok(())
}
