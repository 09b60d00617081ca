//! Scrubbing, from outside: an upstream says the credential back in every form that is claimed, and in
//! every place of an answer, and a guest tells every byte that it heard.

mod answers;
mod stage;
mod values;

use keybearer_tests::Traces;
use keybearer_tests::canary;
use keybearer_tests::forms;
use serde_json::Value;

use stage::Stage;

/// In these, characters beside the value hold some of its bits and go with it, or zeros stay behind.
fn is_cut_exactly(form: &str) -> bool {
    !form.starts_with("base64") && !form.starts_with("utf-16")
}

// If it failed, a guest would learn its tenant's credential from any upstream that says back what it was
// sent in one of these forms.
#[tokio::test]
async fn x01_x03_x04_x08_a_credential_in_every_placement_comes_back_in_no_claimed_form() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let mut answers = 0_u64;
    for (host, value) in stage.reflected() {
        let traces = Traces::of(&[(host, &value)])?;
        for (index, form) in forms(&value).into_iter().enumerate() {
            let heard = stage.hear(&format!("https://{host}/form/{index}?of={}", stage.which(&value))).await?;
            let shown = format!("{host}, {}: {}", form.name, heard.text());
            assert_eq!(heard.outcome, "200", "{shown}");
            assert!(String::from_utf8_lossy(&form.text) != heard.body(), "{shown}");
            assert!(heard.body().contains("[redacted]"), "{shown}");
            assert_eq!(traces.find(&heard.bytes), None, "{shown}");
            assert!(heard.body().starts_with("before ") && heard.body().ends_with(" after"), "{shown}");
            if is_cut_exactly(form.name) {
                assert_eq!(heard.body(), "before [redacted] after", "{shown}");
            }
            answers += 1;
        }
    }
    // The record says each time that the upstream sent it back, and still does not say what.
    let (_, ledger, _) = stage.server.cli(&["ledger", "export"], b"")?;
    let reflected = ledger.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let reflected = reflected.filter(|record| record["reflected"].as_u64().is_some_and(|count| count > 0)).count();
    assert_eq!(reflected as u64, answers);
    let credentials = stage.reflected();
    let values: Vec<_> = credentials.iter().map(|(host, value)| (*host, value.as_str())).collect();
    assert_eq!(Traces::of(&values)?.find(ledger.as_bytes()), None);
    Ok(())
}

// If it failed, a value that is a common word would be stored, and scrubbing would tear up every answer
// that holds the word; or a placeholder would be sent in its stead.
#[tokio::test]
async fn x24_r04_values_that_cannot_be_scrubbed_or_sent_are_refused_when_they_are_stored() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let tenant = stage.server.tenant("other").await?;
    let (credential, _) = {
        let grant = serde_json::json!({"package": "probe", "slot": "bearer"});
        tenant.grant_as(serde_json::json!({"kind": "bearer"}), &canary("keep_"), grant).await?
    };
    for (kind, value) in [
        ("bearer", ""),
        ("bearer", "test"),
        ("bearer", "fifteen-bytes-x"),
        ("bearer", "xxxxxxxxxxxxxxxxxxxxxxxx"),
        ("bearer", "sixteen bytes xyz"),
        ("bearer", "sixteen-bytes-x\r\nx-admin: 1"),
        ("header", "sixteen-bytes-\u{0}xy"),
        ("header", "sixteen-bytes-\u{e4}xyz"),
        ("query", "a few"),
        ("query", "sixteen\nbytes xyz"),
        ("basic", "no-colon-in-this-value"),
        ("basic", "a-very-long-user-name:short"),
        ("basic", ":sixteen-bytes-xyz"),
    ] {
        let new = serde_json::json!({"name": "n", "kind": {"kind": kind}, "owner": "o", "justification": "j",
                                     "value": value});
        let answer = tenant.client.post("/v1/credentials", &new).await?;
        assert_eq!((answer.status, answer.code().as_str()), (422, "credential_refused"), "{kind} {value:?}");
        assert!(value.len() < 4 || !answer.text().contains(value), "the refusal repeats the value: {value:?}");
        if kind == "bearer" {
            let path = format!("/v1/credentials/{credential}/versions");
            let answer = tenant.client.post(&path, &serde_json::json!({"value": value})).await?;
            assert_eq!(answer.code(), "credential_refused", "rotated to {value:?}");
        }
    }
    // What was refused left the version that was there.
    let view = tenant.client.get(&format!("/v1/credentials/{credential}")).await?.json();
    assert_eq!((&view["epoch"], view["versions"].as_array().map(Vec::len)), (&1.into(), Some(1)));
    assert_eq!(tenant.client.get("/v1/credentials").await?.json()["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}
