//! Incidents: one act stops what is no longer trusted, the report says what it was exposed to, and nothing of it runs
//! before somebody says how it came about.

mod crash;
mod notices;
mod own;
mod page;
mod scope;
mod silent;

use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Answer;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::is_signed;
use serde_json::Value;
use serde_json::json;
use tokio::sync::Notify;

use page::assert_well_formed;

const ROOT_CAUSE: &str = "An engineer pasted the token into a public issue.";

/// A site whose operator is told of incidents.
struct Stage {
    site: Site,
    desk: Upstream,
    secret: String,
    told: Arc<Notify>,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let told = Arc::new(Notify::new());
        let bell = Arc::clone(&told);
        let authority = keybearer_tests::Authority::new()?;
        let desk = Upstream::start(&authority, &["soc.example.com"], move |_: Recorded| {
            let bell = Arc::clone(&bell);
            async move {
                bell.notify_waiters();
                Reply::json(200, &json!({}))
            }
        })
        .await?;
        let site = Site::start_by(authority, ServerOptions::default().pin("soc.example.com", &desk)).await?;
        let set =
            put(&site.server, "/v1/notify", &json!({"url": "https://soc.example.com/keybearer?from=here"})).await?;
        assert_eq!(set.status, 200, "{}", set.text());
        let secret = set.json()["text"].as_str().unwrap_or_default().to_owned();
        Ok(Self { site, desk, secret, told })
    }

    /// Waits for a notice of this type.
    async fn notice(&self, kind: &str) -> anyhow::Result<Recorded> {
        let arrived = async {
            loop {
                let news = self.told.notified();
                let found = self.desk.recorded().into_iter().find(|request| {
                    serde_json::from_slice::<Value>(&request.body).is_ok_and(|body| body["type"] == kind)
                });
                match found {
                    Some(found) => return found,
                    None => news.await,
                }
            }
        };
        Ok(tokio::time::timeout(Duration::from_secs(30), arrived).await?)
    }
}

async fn put(server: &Server, path: &str, body: &Value) -> anyhow::Result<Answer> {
    let json = [("content-type", "application/json")];
    server.operator().send("PUT", path, &json, body.to_string().into_bytes()).await
}

async fn open(server: &Server, subject: Value) -> anyhow::Result<Value> {
    let opened = server.operator().post("/v1/incidents", &subject).await?;
    anyhow::ensure!(opened.status == 201, "{}", opened.text());
    Ok(opened.json())
}

async fn close(server: &Server, id: &str, root_cause: &str) -> anyhow::Result<Answer> {
    server.operator().post(&format!("/v1/incidents/{id}/close"), &json!({"root_cause": root_cause})).await
}

async fn report(server: &Server, id: &str) -> anyhow::Result<Value> {
    let report = server.operator().get(&format!("/v1/incidents/{id}/report")).await?;
    anyhow::ensure!(report.status == 200, "{}", report.text());
    Ok(report.json())
}

fn id(incident: &Value) -> &str {
    incident["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_an_incident_of_a_credential_stops_tells_and_reports_and_ends_with_a_root_cause() -> anyhow::Result<()> {
    // If this failed, whoever finds a token in a public place could not say that it is dead, where it was used, or why.
    let stage = Stage::set().await?;
    let (server, upstream) = (&stage.site.server, &stage.site.upstream);
    let holder = stage.site.holder("acme").await?;
    let other = stage.site.holder("globex").await?;
    let rotated = canary("second-");
    let mut calls = vec![called(&holder.get("/anything/one").await?)];
    holder.rotate(&rotated).await?;
    calls.push(called(&holder.get("/anything/customers/12345").await?));
    assert_eq!(other.get("/anything/other").await?.status, 200);
    let run = holder.tenant.client.post("/v1/runs", &json!({"agent": "clerk"})).await?.json();
    let (held, incident) = tokio::join!(holder.get("/anything/hold"), async {
        stage.site.arrived("/hold").await?;
        let began = std::time::Instant::now();
        let incident = open(server, json!({"credential": holder.credential, "note": "found in a paste"})).await?;
        anyhow::Ok((incident, began.elapsed()))
    });
    let ((incident, took), held) = (incident?, held?);
    calls.push(held.json()["instance"].as_str().expect("the call's id").to_owned());
    assert_eq!(held.code(), "revoked", "{}", held.text());
    let counts = &incident["counts"];
    assert_eq!(counts["credentials_revoked"], 1, "{incident}");
    assert_eq!((&counts["calls_cancelled"], &counts["dispatches_cancelled"]), (&json!(1), &json!(1)), "{incident}");
    assert_eq!(counts["runs_ended"], 1, "the run that could use it: {incident}");
    assert!(took <= Duration::from_secs(1), "{took:?}");
    let arrived = upstream.recorded().len();
    assert_eq!(holder.get("/anything/after").await?.code(), "quarantined");
    let in_run = server.public().bearing(run["token"].as_str().expect("a token"));
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything/run"}});
    assert_eq!(in_run.post("/v1/calls", &call).await?.code(), "unauthenticated");
    assert_eq!(upstream.recorded().len(), arrived, "nothing is sent any more");
    assert_eq!(other.get("/anything/other").await?.status, 200, "another tenant's goes on");

    let notice = stage.notice("incident.opened").await?;
    assert!(is_signed(&notice, &stage.secret), "whoever is told can know that it is from here");
    assert_eq!((notice.method.as_str(), notice.target.as_str()), ("POST", "/keybearer?from=here"));
    let told: Value = serde_json::from_slice(&notice.body)?;
    assert_eq!(told["data"]["incident"]["id"], incident["id"], "{told}");

    let said = report(server, id(&incident)).await?;
    let listed: Vec<_> = said["calls"].as_array().expect("calls").iter().map(|call| call["call"].clone()).collect();
    assert_eq!(listed, calls, "exactly the calls that used it: {said}");
    let versions = &said["credentials"][0]["versions"];
    assert_eq!((&versions[0]["uses"], &versions[1]["uses"]), (&json!(1), &json!(2)), "{said}");
    assert!(said["credentials"][0]["exposed_ms"].is_u64() && said["credentials"][0]["revoked"].is_u64(), "{said}");
    let places = said["destinations"].to_string();
    assert!(places.contains("\"/anything/customers/*\"") && places.contains("https://httpbin.org"), "{places}");
    assert!(!said.to_string().contains(&other.tenant.id), "nothing of another tenant's");

    let path = format!("/v1/incidents/{}/report", id(&incident));
    let page = server.operator().send("GET", &path, &[("accept", "text/html")], Vec::new()).await?;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_well_formed(&page.text());
    for call in &calls {
        assert!(page.text().contains(call.as_str()), "the page names {call}");
    }
    for value in [&holder.value, &rotated, &other.value, &stage.secret] {
        for text in [page.text(), said.to_string(), format!("{:?}{}", server.ledger()?, server.log())] {
            assert!(!text.contains(value.trim_start_matches("whsec_")), "no value is shown");
        }
    }

    for cause in ["", "oops", "                                      "] {
        assert_eq!(close(server, id(&incident), cause).await?.code(), "malformed_request");
        assert_eq!(holder.get("/anything/after").await?.code(), "quarantined");
    }
    let closed = close(server, id(&incident), ROOT_CAUSE).await?;
    assert_eq!((closed.status, &closed.json()["root_cause"]), (200, &json!(ROOT_CAUSE)), "{}", closed.text());
    assert!(is_signed(&stage.notice("incident.closed").await?, &stage.secret));
    assert_eq!(close(server, id(&incident), ROOT_CAUSE).await?.code(), "conflict");
    assert_eq!(holder.get("/anything/after").await?.code(), "credential_unusable", "what was revoked stays so");
    let again = json!({
        "name": "again", "kind": {"kind": "bearer"}, "owner": "the tests", "justification": "a new one",
        "value": canary("again-"),
    });
    let stored = holder.tenant.client.post("/v1/credentials", &again).await?.json();
    let grant = json!({"package": "http-get", "slot": "site", "credential": stored["id"]});
    assert_eq!(holder.tenant.client.post("/v1/grants", &grant).await?.status, 201);
    assert_eq!(holder.get("/anything/again").await?.status, 200, "the tool runs again");
    assert_acts(server, id(&incident))
}

/// The ledger has the steps in the order that is promised.
fn assert_acts(server: &Server, incident: &str) -> anyhow::Result<()> {
    let ledger = server.ledger()?;
    let opened = ledger.iter().position(|record| record["what"] == "incident_opened" && record["subject"] == incident);
    let after = &ledger[opened.expect("the act")..];
    let seq = |is_it: &dyn Fn(&Value) -> bool| after.iter().position(is_it).expect("a step");
    let steps = [
        seq(&|record| record["what"] == "credential_revoked"),
        seq(&|record| record["kind"] == "run_ended"),
        seq(&|record| record["what"] == "quarantined"),
        seq(&|record| record["what"] == "incident_closed"),
    ];
    assert!(steps.is_sorted(), "{steps:?}");
    assert!(seq(&|record| record["what"] == "notice_sent") < steps[3], "told before it is closed");
    let (is_clean, audited, error) = server.cli(&["ledger", "audit", "--json"], b"")?;
    assert!(is_clean, "{audited} {error}");
    Ok(())
}

fn called(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["call"].as_str().expect("the call's id").to_owned()
}
