//! Crashes under load, and files that are damaged or missing: nothing that was acknowledged is lost, and
//! what cannot be trusted is refused with words.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use keybearer_tests::Client;
use keybearer_tests::Site;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;

/// How often the server is killed, callers at once, and what each tries.
const ROUNDS: usize = 5;
const CALLERS: usize = 6;

async fn call(client: &Client, key: &str) -> anyhow::Result<keybearer_tests::Answer> {
    let call = json!({"tool": "http-get.get", "arguments": {"path": format!("/anything/{key}")}});
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    client.send("POST", "/v1/calls", &headers, call.to_string().into_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn c01_p6_killed_under_load_again_and_again_nothing_acknowledged_is_lost_or_done_twice() -> anyhow::Result<()> {
    // If this failed, a crash would lose records of what was done, or have things done twice.
    let mut site = Site::start().await?;
    let holder = site.holder_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
    let tried: Arc<Mutex<Vec<String>>> = Arc::default();
    let answered: Arc<Mutex<HashSet<String>>> = Arc::default();
    for round in 0..ROUNDS {
        let client = site.server.public().bearing(&holder.tenant.token);
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (client, tried, answered) = (client.clone(), Arc::clone(&tried), Arc::clone(&answered));
                tokio::spawn(async move {
                    for count in 0.. {
                        let key = format!("key-{round}-{caller}-{count}");
                        tried.lock().push(key.clone());
                        match call(&client, &key).await {
                            Ok(answer) if answer.status == 200 => answered.lock().insert(key),
                            _ => break,
                        };
                    }
                })
            })
            .collect();
        let enough = site.upstream.recorded().len() + CALLERS * 2;
        while site.upstream.recorded().len() < enough {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_micros(700 * round as u64)).await;
        site.server.kill()?;
        for caller in callers {
            caller.await?;
        }
        site.server.restart()?;
    }
    let client = site.server.public().bearing(&holder.tenant.token);
    let tried = tried.lock().clone();
    for key in tried {
        let answer = call(&client, &key).await?;
        if answered.lock().contains(&key) {
            assert_eq!(answer.json()["replayed"], true, "{key} was acknowledged: {}", answer.text());
        } else {
            assert!(answer.status == 200 || answer.code() == "outcome_unknown", "{key}: {}", answer.text());
        }
    }
    let recorded = site.upstream.recorded();
    let mut once = HashSet::new();
    for request in &recorded {
        assert!(once.insert(request.target.clone()), "{} was sent twice", request.target);
    }
    assert!(site.server.cli(&["ledger", "verify"], b"")?.0, "the chain holds over {ROUNDS} crashes");
    let ledger = site.ledger()?;
    let intended: HashSet<_> = ledger
        .iter()
        .filter(|record| record["kind"] == "dispatch_intended")
        .filter_map(|record| record["place"].as_str()?.strip_prefix("https://httpbin.org"))
        .collect();
    assert!(recorded.iter().all(|request| intended.contains(request.target.as_str())), "each has its intent");
    let count = |kind: &str| ledger.iter().filter(|record| record["kind"] == kind).count();
    assert_eq!(count("dispatch_intended"), count("dispatch_closed") + count("dispatch_unknown"), "each has an end");
    assert_eq!(count("call_begun"), count("call_closed") + count("call_unknown") + count("call_abandoned"));
    Ok(())
}

#[tokio::test]
async fn a13_a_damaged_or_missing_store_is_refused_and_left_as_it_is() -> anyhow::Result<()> {
    // If this failed, a broken disk would end in an empty store that looks like a new one.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    site.server.stop()?;
    let store = site.server.home().join("store.db");
    let whole = std::fs::read(&store)?;
    let mut torn = whole.clone();
    for byte in &mut torn[4096..whole.len().min(12_288)] {
        *byte = 0x5a;
    }
    let cases = [
        ("a damaged page", Some(torn)),
        ("half of it", Some(whole[..whole.len() / 2].to_vec())),
        ("another file", Some(b"hello, I am no database at all, but quite long for a greeting ".repeat(100))),
        ("nothing in it", Some(Vec::new())),
        ("gone", None),
    ];
    for (what, bytes) in cases {
        match &bytes {
            Some(bytes) => std::fs::write(&store, bytes)?,
            None => std::fs::remove_file(&store)?,
        }
        let refused = format!("{:#}", site.server.restart().err().ok_or_else(|| anyhow::anyhow!("{what}: it starts"))?);
        let last = refused.lines().last().unwrap_or_default().to_owned();
        assert!(last.contains("store") && !last.contains("panicked"), "{what}: {last}");
        assert_eq!(std::fs::read(&store).ok(), bytes, "{what}: it is left as it is");
    }
    std::fs::write(&store, &whole)?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    let answer = client.post("/v1/calls", &call).await?;
    assert_eq!((answer.status, &answer.json()["replayed"]), (200, &Value::Bool(false)), "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn h16_c07_a_store_of_a_later_version_is_refused_in_words_and_works_with_its_own() -> anyhow::Result<()> {
    // If this failed, going back to an older release would rewrite what the newer one had stored.
    let mut site = Site::start().await?;
    let holder = site.holder("acme").await?;
    assert_eq!(holder.get("/anything").await?.status, 200);
    site.server.stop()?;
    let store = site.server.home().join("store.db");
    let own = std::fs::read(&store)?;
    // The user version of SQLite's header: four bytes at 60, the most significant first.
    let mut later = own.clone();
    later[60..64].copy_from_slice(&u32::MAX.wrapping_shr(1).to_be_bytes());
    std::fs::write(&store, &later)?;
    let refused = format!("{:#}", site.server.restart().err().ok_or_else(|| anyhow::anyhow!("it starts"))?);
    let last = refused.lines().last().unwrap_or_default();
    assert!(last.contains("has schema 2147483647") && last.contains("use the later Keybearer"), "{last}");
    assert_eq!(std::fs::read(&store)?, later, "it is left as it is");
    std::fs::write(&store, &own)?;
    site.server.restart()?;
    let client = site.server.public().bearing(&holder.tenant.token);
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}});
    assert_eq!(client.post("/v1/calls", &call).await?.status, 200);
    // A field that a later client would send is named, and nothing is done without it.
    let later = json!({"tool": "http-get.get", "arguments": {"path": "/anything/later"}, "priority": 1});
    let refused = client.post("/v1/calls", &later).await?;
    assert_eq!((refused.status, refused.code().as_str()), (400, "malformed_body"), "{}", refused.text());
    assert!(site.upstream.recorded().iter().all(|request| !request.target.contains("later")));
    Ok(())
}
