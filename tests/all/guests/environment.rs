//! G16: what a guest finds of the machine around it. If this failed, a tool could read the server's
//! environment and files, where operators keep what they should not.

use keybearer_tests::ServerOptions;
use serde_json::json;

use super::stage::Stage;
use super::stage::echo;
use super::stage::trap;

#[tokio::test]
pub(super) async fn g16_a_guest_finds_no_environment_no_files_and_no_clock() {
    let options = ServerOptions {
        environment: vec![("KEYBEARER_CANARY".to_owned(), "in-the-environment".to_owned())],
        ..ServerOptions::default()
    };
    let stage = Stage::start_with(options, |request| async move { echo(&request) }).await;
    stage.server.publish("hostile-wasi").await.expect("it is published");
    stage.alice.allow("hostile-wasi").await.expect("a grant");
    let call = async |guest: &str| {
        let tool = format!("hostile-wasi.{guest}");
        stage.alice.call(&tool, json!({})).await.expect("an answer")
    };
    let first = call("environment").await;
    assert_eq!(first.status, 200, "{}", first.text());
    let found = first.json()["result"].clone();
    assert_eq!((&found["variables"], &found["arguments"], &found["input"]), (&json!(0), &json!(0), &json!(0)));
    assert!(found["root"].is_string() && found["file"].is_string(), "{found}");
    // The seed of its hash maps is the same in every call: there is no randomness to be had by the way.
    assert_eq!(call("environment").await.json()["result"]["seeded"], found["seeded"]);
    // What it prints is nobody's: not the caller's, not the operator's.
    assert_eq!(first.json()["logs"], json!([]));
    assert!(!stage.server.log().contains("a line on standard"), "{}", stage.server.log());
    for guest in ["clock", "leave"] {
        let detail = trap(&call(guest).await);
        assert!(detail.contains("not_granted"), "{guest}: {detail}");
    }
    stage.control().await;
}
