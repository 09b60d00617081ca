//! Values on their way in: those that could not be sent or scrubbed are refused, and what is stored twice
//! is the operator's to know.

use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

async fn store(tenant: &Tenant, name: &str, kind: Value, value: Value) -> anyhow::Result<keybearer_tests::Answer> {
    let new = json!({"name": name, "kind": kind, "owner": "the tests", "justification": "a case", "value": value});
    tenant.client.post("/v1/credentials", &new).await
}

#[tokio::test]
async fn x24_x11_a_value_that_cannot_be_sent_or_scrubbed_is_refused_and_not_repeated() -> anyhow::Result<()> {
    // If this failed, a header could be split in two, or scrubbing would tear ordinary text to pieces.
    let site = Site::start().await?;
    let tenant = site.server.tenant("acme").await?;
    let bearer = json!({"kind": "bearer"});
    let long = "x7Qp".repeat(5000);
    for (kind, bad) in [
        (&bearer, ""),
        (&bearer, "              "),
        (&bearer, "test"),
        (&bearer, "fifteen-bytes-1"),
        (&bearer, "xxxxxxxxxxxxxxxxxxxxxxxx"),
        (&bearer, "token-with\r\nx-injected: yes-1234"),
        (&bearer, "token-with-\u{0}-a-nul-in-it"),
        (&bearer, "token-with-\u{7f}-delete-in-it"),
        (&bearer, "token-with-\u{fc}mlaut-in-it-12"),
        (&bearer, "Bearer token-with-a-space-12345"),
        (&bearer, long.as_str()),
        (&json!({"kind": "header"}), "line-one-1234567\nline-two"),
        (&json!({"kind": "query"}), "short"),
        (&json!({"kind": "basic"}), "no-colon-in-here-1234"),
        (&json!({"kind": "basic"}), ":password-without-user"),
        (&json!({"kind": "basic"}), "user-without-password:"),
        (&json!({"kind": "basic"}), "a-long-user-name-indeed:short"),
    ] {
        let refused = store(&tenant, "bad", kind.clone(), bad.into()).await?;
        assert_eq!((refused.status, refused.code().as_str()), (422, "credential_refused"), "{bad:?}");
        let said = refused.text();
        assert!(bad.trim().len() < 8 || !said.contains(bad.trim()), "{bad:?} is repeated: {said}");
        assert!(refused.json()["detail"].as_str().is_some_and(|detail| detail.len() > 20), "{said}");
    }
    for (what, bad) in [("a number", json!(12345678901234567890_u64)), ("null", json!(null)), ("a list", json!(["x"]))]
    {
        let refused = store(&tenant, "bad", bearer.clone(), bad).await?;
        assert_eq!((refused.status, refused.code().as_str()), (400, "malformed_body"), "{what}: {}", refused.text());
        assert!(!refused.text().contains("1234567890"), "{}", refused.text());
    }
    for (owner, justification) in [("", "a case"), ("the tests", "  "), ("line\nbreak", "a case")] {
        let new =
            json!({"name": "x", "kind": bearer, "owner": owner, "justification": justification, "value": canary("v-")});
        assert_eq!(tenant.client.post("/v1/credentials", &new).await?.code(), "malformed_request");
    }
    assert_eq!(tenant.client.get("/v1/credentials").await?.json()["items"], json!([]), "nothing is half-written");
    assert_eq!(store(&tenant, "good", bearer.clone(), canary("good-").into()).await?.status, 201);
    assert_eq!(store(&tenant, "good", bearer, canary("again-").into()).await?.code(), "conflict");
    Ok(())
}

#[tokio::test]
async fn one_value_under_two_tenants_is_told_to_the_operator_and_to_no_tenant() -> anyhow::Result<()> {
    // If this failed, one tenant could find out what another holds by storing guesses, or nobody would know that two
    // customers share a key.
    let site = Site::start().await?;
    let (acme, globex) = (site.server.tenant("acme").await?, site.server.tenant("globex").await?);
    let (shared, own) = (canary("shared-"), canary("own-"));
    let bearer = json!({"kind": "bearer"});
    let first = store(&acme, "one", bearer.clone(), shared.as_str().into()).await?.json();
    let second = store(&globex, "one", bearer.clone(), shared.as_str().into()).await?;
    let unshared = store(&globex, "two", bearer, own.into()).await?;
    assert_eq!((second.status, unshared.status), (201, 201));
    let keys = |answer: &Value| answer.as_object().map(|members| members.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&second.json()), keys(&unshared.json()), "the tenant hears nothing");
    let listed = site.server.operator().get("/v1/shared-values").await?;
    let places = listed.json()["items"][0]["places"].clone();
    assert_eq!(listed.json()["items"].as_array().map(Vec::len), Some(1), "{}", listed.text());
    let mut expected = vec![json!([acme.id, first["id"]]), json!([globex.id, second.json()["id"]])];
    let mut found = places.as_array().expect("places").clone();
    for list in [&mut expected, &mut found] {
        list.sort_by_key(Value::to_string);
    }
    assert_eq!(found, expected);
    assert!(!listed.text().contains(&shared));
    Ok(())
}

#[tokio::test]
async fn one_value_under_two_tenants_is_refused_where_the_operator_says_so() -> anyhow::Result<()> {
    // If this failed, an operator who must keep customers apart would let one key serve two of them.
    let options = ServerOptions::default().with("[credentials]\nrefuse_shared_values = true");
    let site = Site::start_with(options).await?;
    let (acme, globex) = (site.server.tenant("acme").await?, site.server.tenant("globex").await?);
    let (shared, bearer) = (canary("shared-"), json!({"kind": "bearer"}));
    assert_eq!(store(&acme, "one", bearer.clone(), shared.as_str().into()).await?.status, 201);
    assert_eq!(store(&acme, "two", bearer.clone(), shared.as_str().into()).await?.status, 201, "twice by oneself");
    let refused = store(&globex, "one", bearer.clone(), shared.as_str().into()).await?;
    assert_eq!(refused.code(), "credential_refused", "{}", refused.text());
    assert!(!refused.text().to_lowercase().contains("tenant"), "without a word on others: {}", refused.text());
    let held = store(&globex, "one", bearer, canary("own-").into()).await?.json();
    let path = format!("/v1/credentials/{}/versions", held["id"].as_str().expect("an id"));
    let rotated = globex.client.post(&path, &json!({"value": shared})).await?;
    assert_eq!(rotated.code(), "credential_refused", "nor by rotation: {}", rotated.text());
    Ok(())
}
