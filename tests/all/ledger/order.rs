//! Order: the intent before the first byte, the outcome before the answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

/// The records that are in the files now.
fn on_disk(folder: &std::path::Path) -> Vec<Value> {
    let segments = super::segments(folder).unwrap_or_default();
    let texts = segments.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts.flat_map(|text| text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_p6_the_intent_is_in_the_file_before_the_upstream_hears_and_the_end_before_the_caller_does()
-> anyhow::Result<()> {
    // If this failed, a crash at the wrong moment would leave an act of the tool's of which nothing is written.
    for durability in ["process", "power"] {
        let (built, authority) = (Built::find()?, Authority::new()?);
        let folder: Arc<OnceLock<PathBuf>> = Arc::default();
        let known = Arc::clone(&folder);
        let upstream = Upstream::start(&authority, &["httpbin.org"], move |request: Recorded| {
            let records = known.get().map(|folder| on_disk(folder)).unwrap_or_default();
            let path = request.target.split('?').next().unwrap_or_default().to_owned();
            async move {
                let place = format!("https://httpbin.org{path}");
                let intent =
                    records.iter().find(|record| record["kind"] == "dispatch_intended" && record["place"] == place);
                Reply::json(200, &intent.cloned().unwrap_or(Value::Null))
            }
        })
        .await?;
        let options = ServerOptions::default().pin("httpbin.org", &upstream);
        let options = options.with(&format!("[ledger]\ndurability = \"{durability}\""));
        let server = Server::start(&built, &authority, options)?;
        let ledger = server.home().join("ledger");
        folder.get_or_init(|| ledger.clone());
        server.publish("http-get").await?;
        let tenant = server.tenant("acme").await?;
        let (credential, grant) = tenant.grant("http-get", "site", &canary("held-")).await?;
        for count in 0..20 {
            let answer =
                tenant.call("http-get.get", json!({"path": format!("/anything/{count}"), "query": {"q": "hidden"}}));
            let answer = answer.await?;
            let records = on_disk(&ledger);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let seen: Value = serde_json::from_str(answer.json()["result"]["body"].as_str().unwrap_or_default())?;
            assert!(seen.is_object(), "{durability}: no intent stood there when the request arrived");
            let call = answer.json()["call"].clone();
            let expected = json!({
                "call": call, "run": answer.json()["run"], "tenant": tenant.id, "package": answer.json()["package"],
                "tool": "http-get.get", "credential": credential, "grant": grant, "slot": "site", "version": 1, "epoch": 1,
                "method": "GET", "purpose": "guest",
            });
            for (field, value) in expected.as_object().expect("an object") {
                assert_eq!(&seen[field], value, "{field} of the intent: {seen}");
            }
            assert!(!seen.to_string().contains("hidden"), "a query is not recorded: {seen}");
            let of_call: Vec<_> = records.iter().filter(|record| record["call"] == call).collect();
            let kinds: Vec<_> = of_call.iter().filter_map(|record| record["kind"].as_str()).collect();
            assert_eq!(kinds, ["call_begun", "dispatch_intended", "dispatch_closed", "call_closed"], "{durability}");
            assert_eq!(of_call[2]["status"], 200);
        }
    }
    Ok(())
}
