//! Attempts to be, or to become by accident, another tenant.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Holder;
use keybearer_tests::Kept;
use keybearer_tests::Site;
use keybearer_tests::Wire;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

/// Tenants, calls of each, and connections that all of them share.
const TENANTS: usize = 20;
const CALLS: usize = 100;
const WORKERS: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn t05_under_load_and_hanging_up_every_request_carries_its_callers_credential() -> anyhow::Result<()> {
    // If this failed, one customer's call would act with another customer's key.
    let site = Site::start().await?;
    let mut holders = Vec::new();
    for index in 0..TENANTS {
        let new = json!({"name": format!("tenant-{index}"), "calls_per_second": 100_000, "concurrent_calls": 200});
        holders.push(site.holder_with(new).await?);
    }
    let (holders, address) = (Arc::new(holders), site.server.public().address());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let holders = Arc::clone(&holders);
            tokio::spawn(async move {
                let mut kept = Kept::connect(address).await?;
                let (mut answered, mut hung_up) = (0, 0);
                for count in (worker..TENANTS * CALLS).step_by(WORKERS) {
                    // A cheap shuffle: neighbours on a connection are of different tenants.
                    let tenant = (count * 7 + worker) % TENANTS;
                    let own = format!("/anything/of-{tenant}-call-{count}");
                    let call = json!({"tool": "http-get.get", "arguments": {"path": own}});
                    if !kept.is_open() || count % 3 == 0 {
                        kept = Kept::connect(address).await?;
                    }
                    let sent = kept.post(&holders[tenant].tenant.token, "/v1/calls", &call);
                    if count % 5 == 0 {
                        // Somewhere between admission and answer.
                        let patience = Duration::from_micros((count as u64 * 37) % 9000);
                        if tokio::time::timeout(patience, sent).await.is_err() {
                            hung_up += 1;
                            kept = Kept::connect(address).await?;
                        }
                        continue;
                    }
                    let answer = sent.await?;
                    anyhow::ensure!(answer.status == 200, "{}", answer.text());
                    anyhow::ensure!(answer.text().contains(&own), "another call's answer: {}", answer.text());
                    answered += 1;
                }
                anyhow::Ok((answered, hung_up))
            })
        })
        .collect();
    let (mut answered, mut hung_up) = (0, 0);
    for worker in workers {
        let (some, gone) = worker.await??;
        answered += some;
        hung_up += gone;
    }
    let recorded = site.upstream.recorded();
    assert!(recorded.len() >= answered && answered >= TENANTS * CALLS * 3 / 4, "{answered} answered");
    assert!(hung_up > TENANTS, "callers hung up: {hung_up}");
    for request in &recorded {
        let of = request.target.trim_start_matches("/anything/of-").split('-').next().unwrap_or_default();
        let tenant: usize = of.parse()?;
        let expected = format!("Bearer {}", holders[tenant].value);
        assert_eq!(request.header("authorization"), Some(expected.as_str()), "{}", request.target);
    }
    let ledger = site.ledger()?;
    let intended: Vec<_> = ledger.iter().filter(|record| record["kind"] == "dispatch_intended").collect();
    assert!(intended.len() >= recorded.len());
    for record in intended {
        let holder = holders.iter().find(|holder| record["credential"] == holder.credential.as_str());
        assert_eq!(holder.map(|holder| holder.tenant.id.as_str()), record["tenant"].as_str(), "{record}");
    }
    Ok(())
}

#[tokio::test]
async fn t14_two_tenants_on_one_connection_each_get_their_own() -> anyhow::Result<()> {
    // If this failed, a proxy that shares connections between customers would mix them up.
    let site = Site::start().await?;
    let (acme, globex) = (site.holder("acme").await?, site.holder("globex").await?);
    let request = |token: Option<&str>, count: usize| {
        let body = json!({"tool": "http-get.get", "arguments": {"path": format!("/anything/{count}")}}).to_string();
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let length = body.len();
        format!(
            "POST /v1/calls HTTP/1.1\r\nhost: k\r\n{token}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let order = [Some(&acme), Some(&globex), None, Some(&acme), None, Some(&globex), Some(&globex), Some(&acme)];
    let pipelined: String = order
        .iter()
        .enumerate()
        .map(|(count, holder)| request(holder.map(|holder| holder.tenant.token.as_str()), count))
        .collect();
    let mut wire = Wire::connect(site.server.public().address()).await?;
    assert!(wire.write(pipelined.as_bytes()).await);
    for (count, holder) in order.iter().enumerate() {
        let answer = wire.answer().await?;
        let expected = if holder.is_some() { 200 } else { 401 };
        assert_eq!(answer.status, expected, "request {count}: {}", answer.text());
        assert!(holder.is_none() || answer.text().contains(&format!("/anything/{count}")), "{}", answer.text());
    }
    let recorded = site.upstream.recorded();
    assert_eq!(recorded.len(), order.iter().flatten().count(), "nobody's requests went nowhere");
    for request in recorded {
        let count: usize = request.target.trim_start_matches("/anything/").parse()?;
        let expected = order[count].map(|holder| format!("Bearer {}", holder.value));
        assert_eq!(request.header("authorization").map(str::to_owned), expected, "request {count}");
    }
    Ok(())
}

#[tokio::test]
async fn t01_whoever_names_another_tenant_is_refused_and_recorded() -> anyhow::Result<()> {
    // If this failed, a tenant could be chosen by who calls, and not by whose token it is.
    let site = Site::start().await?;
    let (acme, globex) = (site.holder("acme").await?, site.holder("globex").await?);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    let json_type = ("content-type", "application/json");
    let client = &acme.tenant.client;
    let mut refused = Vec::new();
    for header in ["x-tenant", "x-tenant-id", "X-Tenant-ID", "tenant", "tenant-id", "x-keybearer-tenant"] {
        for named in [globex.tenant.id.as_str(), "globex", "ACME", ""] {
            let headers = [json_type, (header, named)];
            refused.push(client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await?);
        }
        for own in [acme.tenant.id.as_str(), "acme"] {
            let headers = [json_type, (header, own)];
            let answer = client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await?;
            assert_eq!(answer.status, 200, "{header}: {own}: {}", answer.text());
        }
    }
    for field in ["tenant", "tenant_id", "tenantId"] {
        let mut named = call.clone();
        named[field] = globex.tenant.id.as_str().into();
        refused.push(client.post("/v1/calls", &named).await?);
        let stored = json!({
            "name": "x", "kind": {"kind": "bearer"}, "owner": "o", "justification": "j", "value": canary("x-"),
            field: globex.tenant.id,
        });
        refused.push(client.post("/v1/credentials", &stored).await?);
        refused.push(client.get(&format!("/v1/credentials?{field}={}", globex.tenant.id)).await?);
    }
    for answer in &refused {
        assert_eq!((answer.status, answer.code().as_str()), (403, "tenant_mismatch"), "{}", answer.text());
        assert!(!answer.text().contains(&globex.tenant.id), "{}", answer.text());
    }
    // An argument of the tool is the tool's, whatever it is called.
    let argument = json!({"tool": "http-get.get", "arguments": {"path": "/anything", "query": {"tenant": "globex"}}});
    assert_eq!(client.post("/v1/calls", &argument).await?.status, 200);
    let own = format!("Bearer {}", acme.value);
    assert!(site.upstream.recorded().iter().all(|request| request.header("authorization") == Some(own.as_str())));
    assert_eq!(site.upstream.recorded().len(), 13, "nothing was sent for those who were refused");
    let recorded = site.ledger()?;
    let recorded: Vec<_> = recorded.iter().filter(|record| record["what"] == "access_refused").collect();
    assert_eq!(recorded.len(), refused.len(), "each attempt is in the ledger");
    assert!(recorded.iter().all(|record| record["tenant"] == acme.tenant.id.as_str()), "under who it was");
    Ok(())
}

#[tokio::test]
async fn t03_t04_names_that_could_mean_two_things_name_nothing() -> anyhow::Result<()> {
    // If this failed, two names could come to mean one tenant, and one tenant's things be found under the other's.
    let site = Site::start().await?;
    let operator = site.server.operator();
    let long = "a".repeat(300);
    for bad in [
        "",
        "A",
        "a/b",
        "a/../b",
        "a%2f..%2fb",
        "a\u{0}b",
        "a b",
        "a\u{200b}b",
        "аcme",
        "acme\n",
        "-a",
        "a::b",
        "..",
        &long,
    ] {
        let answer = operator.post("/v1/tenants", &json!({"name": bad})).await?;
        assert_eq!(answer.status, 400, "{bad:?}: {}", answer.text());
    }
    for name in ["acme", "a-b", "a"] {
        assert_eq!(operator.post("/v1/tenants", &json!({"name": name})).await?.status, 201);
        assert_eq!(operator.post("/v1/tenants", &json!({"name": name})).await?.code(), "conflict");
    }
    let names: Vec<_> = operator.get("/v1/tenants").await?.json()["items"]
        .as_array()
        .map(|items| items.iter().map(|item| item["name"].clone()).collect())
        .unwrap_or_default();
    assert_eq!(names, ["a", "a-b", "acme"], "nothing is half-written");
    let tenant = site.server.tenant("caller").await?;
    for tool in
        ["a::b.c", "http-get::get", "http-get", "http-get.get.get", "../http-get.get", "Http-get.get", ".get", ""]
    {
        let answer = tenant.client.post("/v1/calls", &json!({"tool": tool, "arguments": {}})).await?;
        assert!(matches!(answer.status, 400 | 404), "{tool}: {} {}", answer.status, answer.text());
    }
    for path in
        ["/v1/credentials/../grants", "/v1/credentials/.", "/v1/tools/..", "/v1/credentials/%63red_x", "/v1//tools"]
    {
        let answer = tenant.client.get(path).await?;
        assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
    }
    // Two tenants and two names of credentials that look alike when they are put together.
    for (name, credential) in [("x", "y-z"), ("x-y", "z")] {
        let tenant = site.server.tenant(name).await?;
        let value = canary(&format!("{name}-"));
        let new = json!({
            "name": credential, "kind": {"kind": "bearer"}, "owner": "o", "justification": "j", "value": value,
        });
        let stored = tenant.client.post("/v1/credentials", &new).await?.json();
        let grant = json!({"package": "http-get", "slot": "site", "credential": stored["id"]});
        assert_eq!(tenant.client.post("/v1/grants", &grant).await?.status, 201);
        site.upstream.forget();
        assert_eq!(tenant.call("http-get.get", json!({"path": "/anything"})).await?.status, 200);
        let expected = format!("Bearer {value}");
        assert_eq!(site.upstream.recorded()[0].header("authorization"), Some(expected.as_str()));
    }
    Ok(())
}

#[tokio::test]
async fn t07_p2_another_tenants_things_answer_as_missing_ones_in_words_and_in_time() -> anyhow::Result<()> {
    // If this failed, one could find out by trying what other customers have.
    let site = Site::start().await?;
    let (acme, globex) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &acme.tenant.client;
    let theirs = call_id(&globex).await?;
    let pairs = [
        (format!("/v1/calls/{theirs}/explain"), "/v1/calls/call_aaaaaaaaaaaaaaaaaaaaaaaaaa/explain"),
        (format!("/v1/credentials/{}", globex.credential), "/v1/credentials/cred_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        (format!("/v1/runs/{}", open_run(&globex).await?), "/v1/runs/run_aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        (format!("/v1/grants/{}/differences", globex.grant), "/v1/grants/grant_aaaaaaaaaaaaaaaaaaaaaaaaaa/differences"),
    ];
    for (foreign, missing) in &pairs {
        let (one, other) = (client.get(foreign).await?, client.get(missing).await?);
        assert_eq!((one.status, &one.body), (404, &other.body), "{foreign}");
    }
    // A grant of somebody else's credential, for a package that both may see.
    let grant = |credential: &str| json!({"package": "http-get", "slot": "site", "credential": credential});
    let one = client.post("/v1/grants", &grant(&globex.credential)).await?;
    let other = client.post("/v1/grants", &grant("cred_aaaaaaaaaaaaaaaaaaaaaaaaaa")).await?;
    assert_eq!((one.status, &one.body), (404, &other.body), "another's credential is granted as a missing one");
    // A run of somebody else's: a call names its run by a token and in no other way.
    let in_a_run = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}, "run": run_id(&globex).await?});
    assert_eq!(client.post("/v1/calls", &in_a_run).await?.code(), "malformed_body");

    let (foreign, missing) = &pairs[0];
    let (mut of_foreign, mut of_missing) = (Vec::new(), Vec::new());
    for _ in 0..150 {
        for (path, times) in [(foreign.as_str(), &mut of_foreign), (missing, &mut of_missing)] {
            let began = Instant::now();
            client.get(path).await?;
            times.push(began.elapsed());
        }
    }
    let (foreign, missing) = (median(of_foreign), median(of_missing));
    assert!(foreign < missing * 4 && missing < foreign * 4, "one class of time: {foreign:?} and {missing:?}");
    Ok(())
}

async fn call_id(holder: &Holder) -> anyhow::Result<String> {
    field(holder, "call").await
}

async fn open_run(holder: &Holder) -> anyhow::Result<String> {
    let opened = holder.tenant.client.post("/v1/runs", &json!({"agent": "support"})).await?;
    anyhow::ensure!(opened.status == 201, "{}", opened.text());
    Ok(opened.json()["id"].as_str().unwrap_or_default().to_owned())
}

async fn run_id(holder: &Holder) -> anyhow::Result<Value> {
    Ok(field(holder, "run").await?.into())
}

async fn field(holder: &Holder, name: &str) -> anyhow::Result<String> {
    let answer = holder.get("/anything").await?;
    anyhow::ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.json()[name].as_str().unwrap_or_default().to_owned())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
