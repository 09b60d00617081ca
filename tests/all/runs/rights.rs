//! What a run may do: what was sealed when it was opened, as far as it holds still. References and rights are
//! frozen, versions are not.

use keybearer_tests::Recorded;
use keybearer_tests::Site;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::json;

use super::open;

fn bearer(request: &Recorded) -> Option<&str> {
    request.header("authorization")?.strip_prefix("Bearer ")
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_a_run_is_as_narrow_as_was_asked_for_and_never_wider_than_its_opener() -> anyhow::Result<()> {
    // If this failed, an agent that was given one tool could be talked into using all of its tenant's.
    let site = Site::start().await?;
    site.server.publish("echo").await?;
    let holder = site.holder("acme").await?;
    holder.tenant.allow("echo").await?;
    let by = &holder.tenant.client;
    let narrow = open(&site, by, json!({"agent": "narrow", "tools": ["echo.echo"]})).await?;
    assert_eq!(narrow.call("echo.echo", json!({"text": "x"})).await?.status, 200);
    let hidden = narrow.get("/anything").await?;
    let unknown = narrow.call("nothing.get", json!({})).await?;
    assert_eq!((hidden.status, &hidden.body), (404, &unknown.body), "as if it did not exist");
    let tools = narrow.client.get("/v1/tools").await?.text();
    assert!(tools.contains("echo.echo") && !tools.contains("http-get"), "{tools}");
    let wide = open(&site, by, json!({"agent": "wide"})).await?;
    assert_eq!(wide.get("/anything").await?.status, 200);

    // A token for one package opens no run with another.
    let issued =
        by.post("/v1/tokens", &json!({"label": "a", "scopes": ["call"], "packages": ["echo"], "life_s": 60})).await?;
    let confined = site.server.public().bearing(issued.json()["text"].as_str().expect("a token"));
    for wider in
        [json!({"agent": "a", "tools": ["http-get"]}), json!({"agent": "a", "tools": ["echo", "http-get.get"]})]
    {
        assert_eq!(confined.post("/v1/runs", &wider).await?.code(), "forbidden", "{wider}");
    }
    let within = open(&site, &confined, json!({"agent": "a", "life_ms": 86_400_000})).await?;
    assert_eq!(within.get("/anything").await?.status, 404);
    assert_eq!(within.call("echo.echo", json!({"text": "x"})).await?.status, 200);
    let shown = super::shown(by, &within.id).await?;
    assert_eq!(shown["tools"], json!(["echo"]));
    let life = shown["deadline"].as_u64().zip(shown["created"].as_u64()).map(|(end, begin)| end - begin);
    assert!(life.is_some_and(|life| life <= 60_000), "no longer than the token that opened it: {shown}");
    for malformed in [
        json!({"agent": "a", "tools": []}),
        json!({"agent": "a", "life_ms": 0}),
        json!({"agent": "two words"}),
        json!({"agent": ""}),
        json!({}),
        json!({"agent": "a", "tools": ["*"]}),
        json!({"agent": "a", "grants": []}),
    ] {
        assert_eq!(by.post("/v1/runs", &malformed).await?.status, 400, "{malformed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_a_grant_that_is_given_or_taken_later_is_not_the_runs() -> anyhow::Result<()> {
    // If this failed, a running agent would gain what nobody decided to give it, or keep what was taken from it.
    let site = Site::start().await?;
    site.server.publish("echo").await?;
    let holder = site.holder("acme").await?;
    let by = &holder.tenant.client;
    let run = open(&site, by, json!({"agent": "a"})).await?;
    holder.tenant.allow("echo").await?;
    assert_eq!(holder.tenant.call("echo.echo", json!({"text": "x"})).await?.status, 200, "outside of the run");
    assert_eq!(run.call("echo.echo", json!({"text": "x"})).await?.code(), "grant_missing", "given later");
    assert_eq!(run.get("/anything").await?.status, 200);
    let taken = by.send("DELETE", &format!("/v1/grants/{}", holder.grant), &[], Vec::new()).await?;
    assert_eq!(taken.status, 200);
    assert_eq!(run.get("/anything").await?.code(), "grant_missing", "taken later");
    let again = json!({"package": "http-get", "slot": "site", "credential": holder.credential});
    assert_eq!(by.post("/v1/grants", &again).await?.status, 201);
    assert_eq!(holder.get("/anything").await?.status, 200);
    assert_eq!(run.get("/anything").await?.code(), "grant_missing", "one for the same slot is another grant");
    assert_eq!(site.upstream.recorded().len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_a_rotation_within_a_run_is_used_at_once() -> anyhow::Result<()> {
    // If this failed, an agent that runs for hours would go on with a key that was rotated because it leaked.
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let run = open(&site, &holder.tenant.client, json!({"agent": "a"})).await?;
    assert_eq!(run.get("/anything/1").await?.status, 200);
    let next = canary("next-");
    holder.rotate(&next).await?;
    assert_eq!(run.get("/anything/2").await?.status, 200);
    let recorded = site.upstream.recorded();
    let used: Vec<_> = recorded.iter().map(bearer).collect();
    assert_eq!(used, [Some(holder.value.as_str()), Some(next.as_str())]);
    holder.revoke().await?;
    assert_eq!(run.get("/anything/3").await?.code(), "credential_unusable");
    let refused = holder.tenant.client.post("/v1/runs", &json!({"agent": "late"})).await?;
    assert_eq!(refused.code(), "credential_unusable", "a run does not begin with what is unusable: {}", refused.text());
    let names = open(&site, &holder.tenant.client, json!({"agent": "other", "tools": ["echo"]})).await;
    assert!(names.is_ok(), "what it cannot call is not looked at");
    assert_eq!(site.upstream.recorded().len(), 2);
    Ok(())
}

const NARROW: &str = "methods = [\"GET\"]\npaths = [\"/v1/{id}\"]\n";
const WIDE: &str = "methods = [\"GET\", \"POST\"]\npaths = [\"/v1/{rest...}\"]\n";

fn manifest(version: &str, reach: &str) -> String {
    let slot = "[[slots]]\nname = \"api\"\ndescription = \"For tests.\"\nplacement = { kind = \"bearer\" }\n";
    probe::manifest("probe", version, &format!("{slot}[[slots.bindings]]\nhost = \"httpbin.org\"\n{reach}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn p08_what_is_approved_after_a_run_was_opened_is_not_the_runs() -> anyhow::Result<()> {
    // If this failed, a publisher's wider version would reach into runs that were opened with the narrower one.
    let site = Site::start().await?;
    let first = site.server.publish_as("hostile", &manifest("1.0.0", NARROW)).await?["digest"].clone();
    let tenant = site.server.tenant("acme").await?;
    let (_, grant) = tenant.grant("probe", "api", &canary("api-")).await?;
    let run = open(&site, &tenant.client, json!({"agent": "a"})).await?;
    let second = site.server.publish_as("hostile", &manifest("1.1.0", WIDE)).await?["digest"].clone();
    let path = format!("/v1/grants/{grant}/approve");
    assert_eq!(tenant.client.post(&path, &json!({"digest": second})).await?.status, 200);
    let arguments = json!({"method": "POST", "url": "https://httpbin.org/v1/1"});
    let outside = tenant.call("probe.echo_back", arguments.clone()).await?.json();
    assert_eq!((&outside["package"], &outside["result"]["outcome"]), (&second, &json!("200")), "{outside}");
    let inside = run.call("probe.echo_back", arguments.clone()).await?.json();
    assert_eq!((&inside["package"], &inside["result"]["outcome"]), (&first, &json!("denied")), "{inside}");
    let sub = open(&site, &run.client, json!({"agent": "b"})).await?;
    assert_eq!(sub.call("probe.echo_back", arguments.clone()).await?.json()["package"], first, "nor its sub-runs'");
    let later = open(&site, &tenant.client, json!({"agent": "c"})).await?;
    assert_eq!(later.call("probe.echo_back", arguments).await?.json()["package"], second);
    Ok(())
}
