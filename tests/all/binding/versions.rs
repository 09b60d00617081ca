//! Versions: what a tenant's administrator approved is what runs, until he approves more.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

use super::items;
use super::upstream;

fn slot(methods: &str, paths: &str) -> String {
    format!(
        "[[slots]]\nname = \"api\"\ndescription = \"For tests.\"\nplacement = {{ kind = \"bearer\" }}\n\
         [[slots.bindings]]\nhost = \"api.test\"\nmethods = [{methods}]\npaths = [{paths}]\n"
    )
}

const NARROW: (&str, &str) = ("\"GET\"", "\"/v1/{id}\"");
const WIDE: (&str, &str) = ("\"GET\", \"POST\"", "\"/v1/{rest...}\"");

fn manifest(version: &str, (methods, paths): (&str, &str), more: &str) -> String {
    probe::manifest("probe", version, &format!("{}{more}", slot(methods, paths)))
}

async fn differences(tenant: &Tenant, grant: &str) -> anyhow::Result<(String, Vec<String>)> {
    let answer = tenant.client.get(&format!("/v1/grants/{grant}/differences")).await?;
    anyhow::ensure!(answer.status == 200, "{}", answer.text());
    let body = answer.json();
    let widening = body["differences"].as_array().into_iter().flatten().filter(|one| one["widens"] == true);
    let places = widening.map(|one| one["place"].as_str().unwrap_or("?").to_owned()).collect();
    Ok((body["digest"].as_str().unwrap_or_default().to_owned(), places))
}

async fn approve(tenant: &Tenant, grant: &str, digest: &str) -> anyhow::Result<Answer> {
    tenant.client.post(&format!("/v1/grants/{grant}/approve"), &json!({"digest": digest})).await
}

/// Which version a call runs, and what became of a GET and a POST.
async fn runs(tenant: &Tenant) -> anyhow::Result<(String, String, String)> {
    let say = async |method: &str| {
        let arguments = json!({"method": method, "url": "https://api.test/v1/1"});
        tenant.call("probe.echo_back", arguments).await
    };
    let (get, post) = (say("GET").await?.json(), say("POST").await?.json());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&get["package"]), text(&get["result"]["outcome"]), text(&post["result"]["outcome"])))
}

// If it failed, a publisher's next version would reach further with a credential than anybody approved.
#[tokio::test]
async fn p08_w12_a_version_that_asks_for_more_waits_for_approval_and_breaks_nobody() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = upstream(&authority, &["api.test", "evil.test"]).await?;
    let options = ServerOptions::default().pin("api.test", &upstream).pin("evil.test", &upstream);
    let server = Server::start(&Built::find()?, &authority, options)?;
    let publish = async |version: &str, places, more: &str| {
        let published = server.publish_as("hostile", &manifest(version, places, more)).await?;
        anyhow::Ok(published["digest"].as_str().unwrap_or_default().to_owned())
    };
    let first = publish("1.0.0", NARROW, "").await?;
    let tenant = server.tenant("acme").await?;
    let (_, grant) = tenant.grant("probe", "api", &canary("api_")).await?;
    let ran = |digest: &str, get: &str, post: &str| (digest.to_owned(), get.to_owned(), post.to_owned());
    assert_eq!(runs(&tenant).await?, ran(&first, "200", "denied"));

    // A wider binding, and a place without a credential to carry things to.
    let evil = "[[allow]]\nhost = \"evil.test\"\nmethods = [\"GET\"]\npaths = [\"/{rest...}\"]\n";
    let second = publish("1.1.0", WIDE, evil).await?;
    assert_eq!(runs(&tenant).await?, ran(&first, "200", "denied"), "calls go on with what was approved");
    let body = json!({"tool": "probe.echo_back", "arguments": {"url": "https://api.test/v1/1"}, "package": second});
    assert_eq!(tenant.client.post("/v1/calls", &body).await?.code(), "grant_missing", "not even when it is named");
    let view = items(&tenant.client.get("/v1/grants").await?).remove(0);
    assert_eq!((&view["covers_newest"], &view["approved"]), (&json!(false), &json!(first)));
    assert_eq!(differences(&tenant, &grant).await?, (second.clone(), vec!["slot".to_owned(), "allow".to_owned()]));
    // A tenant that comes now approves what it looks at, the newest.
    let later = server.tenant("later").await?;
    later.grant("probe", "api", &canary("api_")).await?;
    assert_eq!(runs(&later).await?, ran(&second, "200", "200"));

    // What is approved is named by its digest; nobody else's approval counts.
    assert_eq!(approve(&tenant, &grant, &format!("blake3:{}", "0".repeat(64))).await?.status, 404);
    assert_eq!(approve(&later, &grant, &second).await?.code(), "not_found");
    assert_eq!(runs(&tenant).await?, ran(&first, "200", "denied"));
    let approved = approve(&tenant, &grant, &second).await?;
    assert_eq!((approved.status, &approved.json()["covers_newest"]), (200, &json!(true)), "{}", approved.text());
    assert_eq!(runs(&tenant).await?, ran(&second, "200", "200"));

    // Less than was approved needs nobody.
    let third = publish("1.2.0", NARROW, "").await?;
    assert_eq!(runs(&tenant).await?, ran(&third, "200", "denied"));

    // Another kind, more limits, a part of WASI: each is a difference.
    let header = manifest("1.3.0", NARROW, "").replace("kind = \"bearer\"", "kind = \"header\", name = \"x-key\"");
    let header =
        header.replace("wall_ms = 8000", "wall_ms = 9000").replace("[limits]", "[wasi]\nrandom = true\n\n[limits]");
    server.publish_as("hostile", &header).await?;
    let (_, places) = differences(&tenant, &grant).await?;
    assert_eq!(places, ["slot", "wasi", "limits"]);
    assert_eq!(runs(&tenant).await?, ran(&third, "200", "denied"));
    // A credential of another kind does not fit what would be approved.
    let (fourth, _) = differences(&tenant, &grant).await?;
    assert_eq!(approve(&tenant, &grant, &fourth).await?.code(), "malformed_request");
    assert!(upstream.recorded().iter().all(|request| request.header("host") == Some("api.test")));
    Ok(())
}

// If it failed, an old version with a known hole could be put back by publishing it once more.
#[tokio::test]
async fn w13_an_older_version_is_published_by_an_explicit_rollback_only() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = upstream(&authority, &["api.test"]).await?;
    let (built, options) = (Built::find()?, ServerOptions::default().pin("api.test", &upstream));
    let server = Server::start(&built, &authority, options)?;
    let old = built.pack("hostile", &manifest("1.9.0", NARROW, ""))?;
    let new = built.pack("hostile", &manifest("1.10.0", NARROW, ""))?;
    let digest = |answer: &Answer| answer.json()["digest"].as_str().unwrap_or_default().to_owned();
    let first = digest(&server.offer(old.clone()).await?);
    let tenant = server.tenant("acme").await?;
    tenant.grant("probe", "api", &canary("api_")).await?;
    let second = digest(&server.offer(new.clone()).await?);
    assert_eq!(runs(&tenant).await?.0, second, "1.10.0 comes after 1.9.0");
    let older = built.pack("hostile", &manifest("1.8.7", NARROW, ""))?;
    let refused = server.offer(older.clone()).await?;
    assert_eq!((refused.status, refused.code().as_str()), (409, "conflict"), "{}", refused.text());
    // The very same once more changes nothing.
    assert_eq!(digest(&server.offer(old.clone()).await?), first);
    assert_eq!(runs(&tenant).await?.0, second);

    // Withdrawn, it runs no more, and does not come back by itself.
    let withdrawn = server.operator().post(&format!("/v1/packages/{second}/withdraw"), &json!({})).await?;
    assert_eq!(withdrawn.status, 200, "{}", withdrawn.text());
    assert_eq!(runs(&tenant).await?.0, first, "what is left is what runs");
    assert_eq!(server.offer(new).await?.code(), "conflict");
    let headers = [("content-type", "application/octet-stream")];
    let allowed = server.operator().send("POST", "/v1/packages?allow_rollback=true", &headers, older).await?;
    assert_eq!(allowed.status, 201, "{}", allowed.text());
    assert_eq!(runs(&tenant).await?.0, digest(&allowed));
    Ok(())
}
