//! One tenant at its limits, and the others, who must not notice.

use std::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use serde_json::json;

/// The longest that a call of a tenant within its limits may take, on a machine with two busy processors.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn p9_h10_a_tenant_beyond_its_rate_hears_when_to_come_back_whatever_it_spoofs() -> anyhow::Result<()> {
    // If this failed, one customer's runaway agent would slow everybody, or get around its limit with a header.
    let site = Site::start().await?;
    let greedy = site.holder_with(json!({"name": "greedy", "calls_per_second": 5, "concurrent_calls": 4})).await?;
    let other = site.holder("other").await?;
    let mut tokens = vec![greedy.tenant.token.clone()];
    for _ in 0..3 {
        let issued = json!({"label": "one more", "scopes": ["call"], "life_s": 60});
        let issued = greedy.tenant.client.post("/v1/tokens", &issued).await?.json();
        tokens.push(issued["text"].as_str().unwrap_or_default().to_owned());
    }
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/greedy"}}).to_string();
    let flood = (0..40).map(|count| {
        let client = site.server.public().bearing(&tokens[count % tokens.len()]);
        let (call, address) = (call.clone(), format!("203.0.113.{count}"));
        async move {
            let headers = [
                ("content-type", "application/json"),
                ("x-forwarded-for", address.as_str()),
                ("forwarded", "for=203.0.113.7"),
                ("x-real-ip", "203.0.113.8"),
            ];
            client.send("POST", "/v1/calls", &headers, call.into_bytes()).await
        }
    });
    let neighbour = async {
        let mut slowest = Duration::ZERO;
        for count in 0..10 {
            let began = Instant::now();
            let answer = other.get(&format!("/anything/other-{count}")).await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            slowest = slowest.max(began.elapsed());
        }
        anyhow::Ok(slowest)
    };
    let began = Instant::now();
    let (answers, slowest) = tokio::join!(join_all(flood), neighbour);
    let seconds = usize::try_from(began.elapsed().as_secs())? + 1;
    let mut served = 0;
    for answer in answers {
        let answer = answer?;
        if answer.status == 200 {
            served += 1;
            continue;
        }
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"), "{}", answer.text());
        let wait: u64 = answer.header("retry-after").expect("when to come back").parse()?;
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(answer.json()["limit"], json!({"name": "calls_per_second", "value": 5}), "{}", answer.text());
    }
    assert!((5..=5 * (seconds + 1)).contains(&served), "{served} served in {seconds} s");
    assert!(slowest? < AT_ONCE, "the other tenant is served at once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p9_calls_that_hang_fill_their_tenants_places_and_nobody_elses() -> anyhow::Result<()> {
    // If this failed, a slow upstream of one customer's would stop every customer's calls.
    let options = ServerOptions::default().with("[limits]\nconcurrent_calls = 8");
    let site = Site::start_with(options).await?;
    let greedy = site.holder_with(json!({"name": "greedy", "concurrent_calls": 3})).await?;
    let other = site.holder("other").await?;
    let hanging = join_all((0..12).map(|count| {
        let greedy = &greedy;
        async move { greedy.get(&format!("/anything/hold-{count}")).await }
    }));
    let neighbour = async {
        site.arrived("/hold").await?;
        for count in 0..10 {
            let began = Instant::now();
            let answer = other.get(&format!("/anything/{count}")).await?;
            anyhow::ensure!(answer.status == 200, "{}", answer.text());
            anyhow::ensure!(began.elapsed() < AT_ONCE, "it waited for its neighbour: {:?}", began.elapsed());
        }
        let hanging = site.upstream.recorded().iter().filter(|request| request.target.contains("/hold")).count();
        anyhow::ensure!(hanging <= 3, "no more than its own limit: {hanging}");
        site.let_go();
        Ok(())
    };
    let (hung, neighbour) = tokio::join!(hanging, neighbour);
    neighbour?;
    for answer in hung {
        let answer = answer?;
        assert_eq!(answer.status, 200, "those that waited are served: {}", answer.text());
    }
    Ok(())
}
