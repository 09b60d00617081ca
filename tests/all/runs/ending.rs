//! How runs end: stopped, over time, with their server, with what was minted for them.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::json;

use super::of_run;
use super::open;
use super::shown;

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_cuts_off_the_runs_calls_and_closes_their_connections() -> anyhow::Result<()> {
    // If this failed, whoever stops an agent that runs wild would have to wait until it is done.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let run = open(&site, &holder.tenant.client, json!({"agent": "wild"})).await?;
    let sub = open(&site, &run.client, json!({"agent": "wilder"})).await?;
    let (first, second, outside, aborted) =
        tokio::join!(run.get("/anything/hold-1"), sub.get("/anything/hold-2"), holder.get("/anything/hold-3"), async {
            for target in ["/hold-1", "/hold-2", "/hold-3"] {
                site.arrived(target).await?;
            }
            assert_eq!(shown(&holder.tenant.client, &run.id).await?["running"], 1);
            let path = format!("/v1/runs/{}/abort", run.id);
            let aborted = holder.tenant.client.post(&path, &json!({})).await?;
            // Acknowledged: what was cut off is recorded by now.
            let ledger = site.ledger()?;
            for run in [&run.id, &sub.id] {
                assert_eq!(of_run(&ledger, "call_closed", run)[0]["problem"], "cancelled");
                assert_eq!(of_run(&ledger, "dispatch_closed", run)[0]["fault"], "stopped");
                assert_eq!(of_run(&ledger, "run_ended", run)[0]["how"], "aborted");
            }
            site.hung_up(2).await?;
            site.let_go();
            anyhow::Ok(aborted)
        });
    let aborted = aborted?.json();
    assert_eq!((&aborted["state"], &aborted["runs"], &aborted["cancelled"]), (&json!("aborted"), &json!(2), &json!(2)));
    for call in [first?, second?] {
        assert_eq!((call.status, call.code().as_str()), (409, "cancelled"), "{}", call.text());
    }
    assert_eq!(outside?.status, 200, "a call outside of the run goes on");
    assert_eq!((run.get("/anything").await?.status, sub.get("/anything").await?.status), (401, 401));
    assert_eq!(site.upstream.recorded().len(), 3, "nothing is sent after it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_run_ends_at_its_deadline_in_the_middle_of_a_call() -> anyhow::Result<()> {
    // If this failed, an agent's rights would last as long as its slowest upstream likes.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let began = Instant::now();
    let run = open(&site, &holder.tenant.client, json!({"agent": "brief", "life_ms": 2_000})).await?;
    let sub = open(&site, &run.client, json!({"agent": "briefer"})).await?;
    let cut_off = run.get("/anything/hold").await?;
    let lasted = began.elapsed();
    assert!(matches!(cut_off.code().as_str(), "timeout" | "cancelled"), "{}", cut_off.text());
    assert!(lasted < Duration::from_secs(20), "the call's own limit is half a minute: {lasted:?}");
    site.hung_up(1).await?;
    let nobody = site.server.public().get("/v1/tools").await?;
    for run in [&run, &sub] {
        let refused = run.client.get("/v1/tools").await?;
        assert_eq!((refused.status, &refused.body), (401, &nobody.body), "as a revoked token");
    }
    let over = async {
        while shown(&holder.tenant.client, &sub.id).await?["state"] == "open" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), over).await??;
    assert_eq!(shown(&holder.tenant.client, &run.id).await?["state"], "expired");
    let ledger = site.ledger()?;
    for run in [&run, &sub] {
        let ended = of_run(&ledger, "run_ended", &run.id);
        assert_eq!((ended.len(), &ended[0]["how"], &ended[0]["principal"]), (1, &json!("expired"), &json!("host")));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_an_open_run_goes_on_after_a_crash_and_an_ended_one_does_not() -> anyhow::Result<()> {
    // If this failed, a restart would stop every agent, or bring those back that were stopped.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let by = holder.tenant.token.clone();
    let open_run = open(&site, &holder.tenant.client, json!({"agent": "goes-on"})).await?;
    let sub = open(&site, &open_run.client, json!({"agent": "too"})).await?;
    let ended = open(&site, &holder.tenant.client, json!({"agent": "ended"})).await?;
    ended.act("abort").await?;
    site.server.kill()?;
    site.server.restart()?;
    let bearing = |token: &str| site.server.public().bearing(token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    for run in [&open_run, &sub] {
        let answer = bearing(&run.token).post("/v1/calls", &call).await?;
        assert_eq!((answer.status, &answer.json()["run"]), (200, &json!(run.id)), "{}", answer.text());
    }
    assert_eq!(bearing(&ended.token).post("/v1/calls", &call).await?.status, 401);
    let over = bearing(&by).post(&format!("/v1/runs/{}/end", open_run.id), &json!({})).await?;
    assert_eq!(over.json()["runs"], 2, "the chain is known after a restart, too: {}", over.text());
    assert_eq!(bearing(&sub.token).post("/v1/calls", &call).await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_minted_within_a_run_serves_no_other_and_ends_with_it() -> anyhow::Result<()> {
    // If this failed, a token that one agent's work brought about would serve another's, or outlive both.
    let minted = Arc::new(AtomicUsize::new(0));
    let tokens: Arc<Vec<_>> = Arc::new((0..4).map(|_| canary("minted-")).collect());
    let (count, known) = (Arc::clone(&minted), Arc::clone(&tokens));
    let authority = keybearer_tests::Authority::new()?;
    let login = Upstream::start(&authority, &["login.example.com"], move |_| {
        let token = known[count.fetch_add(1, Ordering::SeqCst) % 4].clone();
        async move { Reply::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_in": 600})) }
    })
    .await?;
    let resource = Upstream::start(&authority, &["httpbin.org"], |_| async { Reply::json(200, &json!({})) }).await?;
    let options = ServerOptions::default().pin("httpbin.org", &resource).pin("login.example.com", &login);
    let server = keybearer_tests::Server::start(&keybearer_tests::Built::find()?, &authority, options)?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let kind = json!({
        "kind": "oauth_client_credentials", "token_url": "https://login.example.com/oauth/token", "client_id": "acme",
    });
    tenant.grant_as(kind, &canary("client-secret-"), json!({"package": "http-get", "slot": "site"})).await?;
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    let open = async || {
        let opened = tenant.client.post("/v1/runs", &json!({"agent": "a"})).await?.json();
        let text = |name: &str| opened[name].as_str().unwrap_or_default().to_owned();
        anyhow::Ok((text("id"), server.public().bearing(&text("token"))))
    };
    let ((first, in_first), (_, in_second)) = (open().await?, open().await?);
    for client in [&in_first, &in_first, &in_second, &tenant.client, &in_first] {
        let answer = client.post("/v1/calls", &call).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let used = |nth: usize| resource.recorded()[nth].header("authorization").map(str::to_owned);
    let bearer = |nth: usize| Some(format!("Bearer {}", tokens[nth]));
    assert_eq!([0, 1, 2, 3, 4].map(used), [0, 0, 1, 2, 0].map(bearer), "each run has its own, and so has who has none");
    let ended = tenant.client.post(&format!("/v1/runs/{first}/end"), &json!({})).await?;
    assert_eq!(ended.status, 200, "{}", ended.text());
    let (_, in_third) = open().await?;
    assert_eq!(in_third.post("/v1/calls", &call).await?.status, 200);
    assert_eq!(used(5), bearer(3), "a run after it begins anew");
    Ok(())
}
