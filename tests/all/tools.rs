//! Every tool that ships, end to end, against a double of its upstream on loopback: the double knows the
//! tool's real name, refuses what it would refuse, and checks what it is sent.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

/// A server with one tool, a double of its upstream, and two tenants: one whose credential the double
/// takes, and one whose credential it refuses.
struct Stage {
    server: Server,
    upstream: Upstream,
    right: Tenant,
    wrong: Tenant,
    token: String,
}

impl Stage {
    async fn new(
        package: &str,
        slot: &str,
        host: &str,
        double: fn(&Recorded) -> Result<Value, Reply>,
        refused: fn(&str) -> Reply,
    ) -> anyhow::Result<Self> {
        let (token, wrong_token) = (canary("good_"), canary("evil_"));
        let authority = Authority::new()?;
        let expected = format!("Bearer {token}");
        let upstream = Upstream::start(&authority, &[host], move |request: Recorded| {
            let presented: Vec<_> = request.headers.iter().filter(|(name, _)| name == "authorization").collect();
            let reply = match presented.as_slice() {
                [(_, value)] if *value == expected => {
                    double(&request).map_or_else(|reply| reply, |body| Reply::json(200, &body))
                }
                // As real ones do, it says back what it was sent.
                [(_, value)] => refused(value.trim_start_matches("Bearer ")),
                _ => refused("nothing"),
            };
            async move { reply }
        })
        .await?;
        let options = ServerOptions::default().pin(host, &upstream);
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish(package).await?;
        let (right, wrong) = (server.tenant("right").await?, server.tenant("wrong").await?);
        right.grant(package, slot, &token).await?;
        wrong.grant(package, slot, &wrong_token).await?;
        Ok(Self { server, upstream, right, wrong, token })
    }

    /// One call that succeeds with one request, on which the credential stands exactly as placed.
    async fn served(&self, tool: &str, arguments: Value) -> anyhow::Result<(Value, Recorded)> {
        self.upstream.forget();
        let answer = self.right.call(tool, arguments).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mut recorded = self.upstream.recorded();
        assert_eq!(recorded.len(), 1, "one request arrived");
        let request = recorded.remove(0);
        let placed: Vec<_> = request.headers.iter().filter(|(_, value)| value.contains(&self.token)).collect();
        assert_eq!(placed, [&("authorization".to_owned(), format!("Bearer {}", self.token))]);
        assert!(!request.target.contains(&self.token) && !String::from_utf8_lossy(&request.body).contains(&self.token));
        assert!(!answer.text().contains(&self.token));
        Ok((answer.json()["result"].clone(), request))
    }

    /// The same call with a credential that the upstream refuses: what the caller is told.
    async fn refused(&self, tool: &str, arguments: Value) -> anyhow::Result<Answer> {
        self.upstream.forget();
        let answer = self.wrong.call(tool, arguments).await?;
        let recorded = self.upstream.recorded();
        assert_eq!(recorded.len(), 1, "one request arrived");
        let value = recorded[0].header("authorization").unwrap_or_default().trim_start_matches("Bearer ");
        assert!(value.starts_with("evil_"), "it carries the other tenant's own credential");
        assert!(!answer.text().contains(value), "what the upstream says back is taken out");
        Ok(answer)
    }
}

fn failed(answer: &Answer, detail: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_failed"), "{}", answer.text());
    let said = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(said, detail);
}

fn check(so: bool, what: &str) -> Result<(), Reply> {
    if so { Ok(()) } else { Err(Reply::json(418, &json!({"message": what, "error": {"message": what, "type": what}}))) }
}

fn form(request: &Recorded) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

// If it failed, a refund would go out without its key, twice, or with another tenant's key.
#[tokio::test]
async fn stripe_refunds_and_lists_with_the_tenants_key_and_says_what_stripe_refuses() -> anyhow::Result<()> {
    fn double(request: &Recorded) -> Result<Value, Reply> {
        check(request.header("stripe-version") == Some("2024-06-20"), "version")?;
        let refund = json!({"id": "re_1", "object": "refund", "amount": 500, "currency": "eur", "status": "succeeded",
                            "charge": "ch_1", "metadata": {}});
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/v1/refunds") => {
                check(request.header("content-type") == Some("application/x-www-form-urlencoded"), "form")?;
                check(request.header("idempotency-key").is_some_and(|key| key.starts_with("call_")), "key")?;
                let expected = [pair("charge", "ch_1"), pair("amount", "500"), pair("reason", "requested_by_customer")];
                check(form(request) == expected, "fields")?;
                Ok(refund)
            }
            ("GET", "/v1/charges?limit=2&customer=cus_1") => {
                let charge = json!({"id": "ch_1", "amount": 900, "amount_refunded": 0, "currency": "eur",
                                    "status": "succeeded", "created": 1_700_000_000, "customer": "cus_1",
                                    "description": null});
                Ok(json!({"object": "list", "data": [charge], "has_more": true}))
            }
            _ => Err(Reply::json(404, &json!({"error": {"type": "invalid_request_error", "message": "no such path"}}))),
        }
    }
    fn refused(token: &str) -> Reply {
        let message = format!("Invalid API Key provided: {token}");
        Reply::json(401, &json!({"error": {"type": "invalid_request_error", "message": message}}))
    }
    let stage = Stage::new("stripe", "api", "api.stripe.com", double, refused).await?;
    let refund = json!({"charge": "ch_1", "amount": 500, "reason": "requested_by_customer"});
    let (result, _) = stage.served("stripe.create_refund", refund.clone()).await?;
    assert_eq!(
        result,
        json!({"id": "re_1", "amount": 500, "currency": "eur", "status": "succeeded", "charge": "ch_1"})
    );
    let (result, _) = stage.served("stripe.list_charges", json!({"customer": "cus_1", "limit": 2})).await?;
    assert_eq!((&result["charges"][0]["id"], &result["has_more"]), (&json!("ch_1"), &json!(true)));
    let said = "Stripe answered 401 (invalid_request_error): Invalid API Key provided: [redacted]";
    failed(&stage.refused("stripe.create_refund", refund).await?, said);
    failed(&stage.refused("stripe.list_charges", json!({"customer": "cus_1", "limit": 2})).await?, said);

    // What does not fit is refused before anything is sent, with the place.
    stage.upstream.forget();
    let answer = stage.right.call("stripe.list_charges", json!({"limit": 1000})).await?;
    assert_eq!((answer.code().as_str(), &answer.json()["pointer"]), ("invalid_arguments", &json!("/limit")));
    let answer = stage.right.call("stripe.create_refund", json!({"charge": "ch_1", "payment_intent": "pi_1"})).await?;
    assert_eq!(answer.code(), "invalid_arguments", "{}", answer.text());
    assert!(stage.upstream.recorded().is_empty());
    Ok(())
}

// If it failed, an issue would be opened with nobody's token, or a token would stand in an error text.
#[tokio::test]
async fn github_opens_issues_and_searches_and_says_what_github_refuses() -> anyhow::Result<()> {
    fn double(request: &Recorded) -> Result<Value, Reply> {
        check(request.header("accept") == Some("application/vnd.github+json"), "accept")?;
        check(request.header("x-github-api-version") == Some("2022-11-28"), "version")?;
        check(request.header("user-agent").is_some_and(|agent| agent.starts_with("keybearer-tool-github/")), "agent")?;
        match (request.method.as_str(), request.target.as_str()) {
            ("POST", "/repos/octo/hello%20world/issues") => {
                check(request.header("content-type") == Some("application/json"), "json")?;
                let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                check(body == json!({"title": "It broke", "labels": ["bug"]}), "body")?;
                Ok(json!({"number": 7, "html_url": "https://github.com/octo/hello/issues/7", "state": "open"}))
            }
            ("GET", "/search/code?q=canary%20in%3Afile&per_page=1") => {
                let item = json!({"path": "src/a.rs", "html_url": "https://github.com/x", "repository":
                                  {"full_name": "octo/hello"}});
                Ok(json!({"total_count": 3, "incomplete_results": false, "items": [item]}))
            }
            ("GET", "/search/code?q=canary+in%3Afile&per_page=1") => check(false, "plus").map(|()| json!({})),
            ("GET", "/search/code?q=slow") => {
                let mut limited = Reply::json(403, &json!({"message": "API rate limit exceeded"}));
                limited.headers.push(pair("x-ratelimit-remaining", "0"));
                limited.headers.push(pair("x-ratelimit-reset", "1700000000"));
                Err(limited)
            }
            _ => Err(Reply::json(404, &json!({"message": format!("Not Found: {}", request.target)}))),
        }
    }
    fn refused(token: &str) -> Reply {
        Reply::json(401, &json!({"message": format!("Bad credentials: {token}")}))
    }
    let stage = Stage::new("github", "api", "api.github.com", double, refused).await?;
    let issue = json!({"owner": "octo", "repo": "hello world", "title": "It broke", "labels": ["bug"]});
    let (result, _) = stage.served("github.create_issue", issue.clone()).await?;
    assert_eq!(result, json!({"number": 7, "url": "https://github.com/octo/hello/issues/7", "state": "open"}));
    let search = json!({"query": "canary in:file", "per_page": 1});
    let (result, _) = stage.served("github.search_code", search.clone()).await?;
    assert_eq!((&result["total"], &result["files"][0]["repository"]), (&json!(3), &json!("octo/hello")));
    let said = "GitHub answered 401: Bad credentials: [redacted]";
    failed(&stage.refused("github.create_issue", issue).await?, said);
    failed(&stage.refused("github.search_code", search).await?, said);
    let answer = stage.right.call("github.search_code", json!({"query": "slow"})).await?;
    failed(&answer, "GitHub answered 403: its rate limit is spent until 1700000000");

    // A path that an argument would break out of is never said (threats N17).
    stage.upstream.forget();
    for repo in ["..", "a/../../user", "a%2f..", "a/b"] {
        let arguments = json!({"owner": "octo", "repo": repo, "title": "t"});
        let answer = stage.right.call("github.create_issue", arguments).await?;
        assert!(answer.status >= 400, "{repo}: {}", answer.text());
    }
    assert!(stage.upstream.recorded().is_empty());
    Ok(())
}

// If it failed, a model would be paid for with another tenant's key, or the key would be in a chat.
#[tokio::test]
async fn llm_chat_asks_and_says_what_the_endpoint_refuses() -> anyhow::Result<()> {
    fn double(request: &Recorded) -> Result<Value, Reply> {
        check((request.method.as_str(), request.target.as_str()) == ("POST", "/v1/chat/completions"), "place")?;
        check(request.header("content-type") == Some("application/json"), "json")?;
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let expected = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}],
                              "max_completion_tokens": 16});
        check(body == expected, "body")?;
        // A model that was told its own key would say it.
        let token = request.header("authorization").unwrap_or_default();
        let message = json!({"role": "assistant", "content": format!("I was sent {token}"), "refusal": null});
        let choice = json!({"index": 0, "finish_reason": "stop", "message": message});
        Ok(json!({"id": "c", "object": "chat.completion", "model": "gpt-4o-mini-2024", "choices": [choice],
                  "usage": {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}}))
    }
    fn refused(token: &str) -> Reply {
        let message = format!("Incorrect API key provided: {token}.");
        Reply::json(401, &json!({"error": {"message": message, "type": "invalid_request_error", "code": null}}))
    }
    let stage = Stage::new("llm-chat", "api", "api.openai.com", double, refused).await?;
    let chat = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16});
    let (result, _) = stage.served("llm-chat.chat", chat.clone()).await?;
    assert_eq!(
        result,
        json!({"content": "I was sent Bearer [redacted]", "finish_reason": "stop", "model": "gpt-4o-mini-2024",
               "prompt_tokens": 8, "completion_tokens": 4})
    );
    let said = "the model's endpoint answered 401: Incorrect API key provided: [redacted].";
    failed(&stage.refused("llm-chat.chat", chat).await?, said);
    Ok(())
}

// If it failed, a call could choose the host that a tenant's token goes to, or reach another tenant's.
#[tokio::test]
async fn n35_salesforce_query_goes_to_the_instance_that_the_grant_names_and_to_no_other() -> anyhow::Result<()> {
    const ACME: &str = "acme.my.salesforce.com";
    const GLOBEX: &str = "globex.my.salesforce.com";
    let (acme_token, globex_token) = (canary("acme_"), canary("glob_"));
    let authority = Authority::new()?;
    let double = |token: &str| {
        let expected = format!("Bearer {token}");
        move |request: Recorded| {
            let reply = if request.header("authorization") != Some(expected.as_str()) {
                let message = format!("Session expired or invalid: {:?}", request.header("authorization"));
                Reply::json(401, &json!([{"message": message, "errorCode": "INVALID_SESSION_ID"}]))
            } else if request.target == "/services/data/v62.0/query?q=SELECT%20Id%20FROM%20Account" {
                let record = json!({"attributes": {"type": "Account", "url": "/x"}, "Id": "001"});
                Reply::json(200, &json!({"totalSize": 1, "done": true, "records": [record]}))
            } else {
                Reply::json(400, &json!([{"message": request.target, "errorCode": "MALFORMED_QUERY"}]))
            };
            async move { reply }
        }
    };
    let acme_upstream = Upstream::start(&authority, &[ACME], double(&acme_token)).await?;
    let globex_upstream = Upstream::start(&authority, &[GLOBEX], double(&globex_token)).await?;
    let options = ServerOptions::default().pin(ACME, &acme_upstream).pin(GLOBEX, &globex_upstream);
    let server = Server::start(&Built::find()?, &authority, options)?;
    server.publish("salesforce-query").await?;
    let (acme, globex) = (server.tenant("acme").await?, server.tenant("globex").await?);
    let grant =
        |host: &str| json!({"package": "salesforce-query", "slot": "api", "base_url": format!("https://{host}")});
    let bearer = json!({"kind": "bearer"});
    acme.grant_as(bearer.clone(), &acme_token, grant(ACME)).await?;
    globex.grant_as(bearer.clone(), &globex_token, grant(GLOBEX)).await?;

    let query = json!({"soql": "SELECT Id FROM Account"});
    for (tenant, upstream, other, token) in [
        (&acme, &acme_upstream, &globex_upstream, &acme_token),
        (&globex, &globex_upstream, &acme_upstream, &globex_token),
    ] {
        upstream.forget();
        other.forget();
        let answer = tenant.call("salesforce-query.query", query.clone()).await?;
        assert_eq!(answer.json()["result"], json!({"total": 1, "complete": true, "records": [{"Id": "001"}]}));
        assert_eq!(upstream.recorded()[0].header("authorization"), Some(format!("Bearer {token}").as_str()));
        assert_eq!(other.recorded().len(), 0);
    }

    // A wrong credential: the tool's own failure, without the credential that the upstream repeats.
    let wrong = server.tenant("wrong").await?;
    wrong.grant_as(bearer.clone(), &canary("evil_"), grant(ACME)).await?;
    let answer = wrong.call("salesforce-query.query", query.clone()).await?;
    failed(
        &answer,
        "Salesforce answered 401 (INVALID_SESSION_ID): Session expired or invalid: Some(\"Bearer [redacted]\")",
    );

    // What a grant may not name, and that a grant must name it.
    for base in [
        "https://evil.test",
        "https://my.salesforce.com",
        "https://a.b.my.salesforce.com",
        "https://evilmy.salesforce.com",
        "https://acme.my.salesforce.com.evil.test",
        "https://acme.my.salesforce.com:8443",
        "http://acme.my.salesforce.com",
        "https://acme.my.salesforce.com/path",
        "https://user@acme.my.salesforce.com",
        "https://127.0.0.1",
    ] {
        let mut grant = grant(ACME);
        grant["base_url"] = base.into();
        let refused = wrong.grant_as(bearer.clone(), &canary("evil_"), grant).await;
        assert!(refused.is_err(), "{base}");
    }
    let unnamed = json!({"package": "salesforce-query", "slot": "api"});
    let other = server.tenant("other").await?;
    assert!(other.grant_as(bearer, &canary("evil_"), unnamed).await.is_err());
    Ok(())
}

// If it failed, the worked example of the README would not work.
#[tokio::test]
async fn http_get_reads_with_the_tenants_token_and_gives_a_refusal_back_as_it_is() -> anyhow::Result<()> {
    fn double(request: &Recorded) -> Result<Value, Reply> {
        check(request.method == "GET", "method")?;
        Ok(json!({"target": request.target}))
    }
    fn refused(token: &str) -> Reply {
        let mut reply = Reply::json(401, &json!({"token": token}));
        reply.headers.push(pair("www-authenticate", &format!("Bearer error=\"{token}\"")));
        reply
    }
    let stage = Stage::new("http-get", "site", "httpbin.org", double, refused).await?;
    let arguments = json!({"path": "/anything/a b", "query": {"q": "1&2", "z": ""}});
    let (result, request) = stage.served("http-get.get", arguments.clone()).await?;
    assert_eq!(request.target, "/anything/a%20b?q=1%262&z=");
    assert_eq!((&result["status"], &result["content_type"]), (&json!(200), &json!("application/json")));
    // For this tool an answer of 401 is a result like any other.
    let answer = stage.refused("http-get.get", arguments).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let result = &answer.json()["result"];
    assert_eq!((&result["status"], &result["body"]), (&json!(401), &json!("{\"token\":\"[redacted]\"}")));

    // Without a grant nothing runs; the tool of another package is no different from one that is not there.
    let stranger = stage.server.tenant("stranger").await?;
    stage.upstream.forget();
    let answer = stranger.call("http-get.get", json!({"path": "/"})).await?;
    assert_eq!((answer.status, answer.code().as_str()), (403, "grant_missing"));
    let missing = stranger.call("http-get.put", json!({"path": "/"})).await?;
    let unknown = stranger.call("nothing.get", json!({"path": "/"})).await?;
    assert_eq!((missing.status, missing.json()["detail"].clone()), (404, unknown.json()["detail"].clone()));
    assert!(stage.upstream.recorded().is_empty());
    Ok(())
}

// If it failed, a tool without a way out would need a credential, or a call would change what it is given.
#[tokio::test]
async fn echo_gives_a_text_back_and_reaches_nothing() -> anyhow::Result<()> {
    let server = Server::start(&Built::find()?, &Authority::new()?, ServerOptions::default())?;
    server.publish("echo").await?;
    let tenant = server.tenant("acme").await?;
    let text = "a \"quoted\"\nü \u{0} text \u{1f511}";
    assert_eq!(tenant.call("echo.echo", json!({"text": text})).await?.code(), "grant_missing");
    tenant.allow("echo").await?;
    let answer = tenant.call("echo.echo", json!({"text": text})).await?;
    assert_eq!(answer.json()["result"], json!({"text": text}), "{}", answer.text());
    let call = answer.json()["call"].as_str().unwrap_or_default().to_owned();
    assert!(!tenant.explain(&call).await?.contains("https://"));
    for (arguments, pointer) in [(json!({}), ""), (json!({"text": 1}), "/text"), (json!({"text": "a", "b": 1}), "")] {
        let answer = tenant.call("echo.echo", arguments.clone()).await?;
        assert_eq!(answer.code(), "invalid_arguments", "{arguments}");
        assert_eq!(answer.json()["pointer"], pointer, "{}", answer.text());
    }
    Ok(())
}
