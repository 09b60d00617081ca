//! Which values are looked for, and what their absence tells.

use keybearer_tests::Reply;
use keybearer_tests::Traces;
use keybearer_tests::canary;
use serde_json::json;

use super::stage::BEARER;
use super::stage::HEADER;
use super::stage::Stage;

fn text(body: impl Into<Vec<u8>>) -> Reply {
    Reply { status: 200, headers: Vec::new(), body: body.into() }
}

// If it failed, what was stored upstream before a rotation could be read after it; or one tool would read
// with one credential what it left with another.
#[tokio::test]
async fn x28_older_values_and_sibling_credentials_are_taken_out_too() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let first = stage.values.bearer.clone();
    let siblings = [stage.values.header.clone(), stage.values.query.clone(), stage.values.password.clone()];
    let all = format!("{first} | {} | {} | {}", siblings[0], siblings[1], siblings[2]);
    assert_eq!(stage.hear_reply(text(all)).await?.body(), "[redacted] | [redacted] | [redacted] | [redacted]");

    // Twice rotated: no version goes out but the newest, and every one is still looked for.
    let path = format!("/v1/credentials/{}/versions", stage.bearer);
    let (second, third) = (canary("two_"), canary("tri_"));
    for value in [&second, &third] {
        let rotated = stage.tenant.client.post(&path, &json!({"value": value})).await?;
        assert_eq!(rotated.status, 201, "{}", rotated.text());
    }
    stage.upstream.forget();
    let heard = stage.hear(&format!("https://{BEARER}/")).await?;
    assert_eq!(heard.outcome, "401", "the upstream knows the first value only");
    assert_eq!(stage.upstream.recorded()[0].header("authorization"), Some(format!("Bearer {third}").as_str()));
    // Through the sibling slot, whose upstream answers what the old value's holder stored there.
    let heard = stage.hear(&format!("https://{HEADER}/form/0?of=0")).await?;
    assert_eq!(heard.body(), "before [redacted] after");

    // Revoked: not sent any more, still looked for.
    let revoked = stage.tenant.client.post(&format!("/v1/credentials/{}/revoke", stage.bearer), &json!({})).await?;
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    let answer = stage.tenant.call("probe.echo_back", json!({"url": format!("https://{HEADER}/form/0?of=0")})).await?;
    // A call is not begun with a granted credential that is of no use; nothing was sent, nothing came back.
    assert_eq!(answer.code(), "credential_unusable");
    assert_eq!(Traces::of(&[("first", &first), ("third", &third)])?.find(&answer.body), None);
    Ok(())
}

// If it failed, a guest could guess a credential piece by piece, and learn from what is redacted which of its
// guesses are right; or learn a value's length.
#[tokio::test]
async fn x20_x29_only_whole_values_are_taken_out_and_the_marker_is_always_the_same() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let value = stage.values.bearer.clone();
    let mut pieces = Vec::new();
    for length in [1, 4, 8, 12, 16, value.len() - 1] {
        pieces.extend((0..=value.len() - length).map(|start| value[start..start + length].to_owned()));
    }
    let said = pieces.join(" | ");
    assert_eq!(stage.hear_reply(text(said.clone())).await?.body(), said, "pieces stay as they are");
    // The same of pieces in other forms.
    let coded: Vec<String> = pieces
        .iter()
        .flat_map(|piece| {
            let b64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, piece);
            [b64, hex::encode(piece), piece.bytes().map(|byte| format!("%{byte:02x}")).collect()]
        })
        .collect();
    let said = coded.join(" | ");
    assert_eq!(stage.hear_reply(text(said.clone())).await?.body(), said, "coded pieces stay as they are");

    // Values of many lengths leave the same marker.
    let mut markers = Vec::new();
    for (host, value) in stage.reflected() {
        markers.push(stage.hear(&format!("https://{host}/form/0?of={}", stage.which(&value))).await?.body());
    }
    markers.dedup();
    assert_eq!(markers, ["before [redacted] after"]);
    Ok(())
}

// If it failed, a guest could find out which credentials its tenant has, and which names exist inside.
#[tokio::test]
async fn x20_a_guest_hears_the_same_for_everything_that_is_refused() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    // Another tenant, that has granted one slot only.
    let tenant = stage.server.tenant("other").await?;
    let grant = json!({"package": "probe", "slot": "bearer"});
    tenant.grant_as(json!({"kind": "bearer"}), &canary("othr"), grant).await?;
    let refused = [
        ("https://header.test/", "slot `header` has no grant"),
        ("https://not.listed.test/", "no binding names GET https://not.listed.test/"),
        ("https://bearer.test:8443/", "no binding names"),
        ("http://bearer.test/", "no binding names"),
    ];
    let mut heard = Vec::new();
    for (url, reason) in refused {
        let one = tenant.hear_get("probe", url).await?;
        let explained = tenant.explain(&one.call).await?;
        assert!(explained.contains(reason), "{url}: {explained}");
        heard.push(one.text());
    }
    heard.dedup();
    assert_eq!(heard, ["denied"]);
    Ok(())
}

// If it failed, to take a grant away while its request is under way would show the guest its credential.
#[tokio::test]
async fn x28_a_credential_whose_grant_is_taken_while_its_request_is_under_way_is_still_taken_out() -> anyhow::Result<()>
{
    let stage = Stage::new().await?;
    let grants = stage.tenant.client.get("/v1/grants").await?.json();
    let granted = grants["items"].as_array().into_iter().flatten().find(|grant| grant["slot"] == "header");
    let grant = granted.and_then(|grant| grant["id"].as_str()).unwrap_or_default().to_owned();
    let url = format!("https://{HEADER}/held/form/0?of={}", stage.which(&stage.values.header));
    let (heard, taken) = tokio::join!(stage.hear(&url), async {
        stage.arrived("/held/").await;
        let taken = stage.tenant.client.send("DELETE", &format!("/v1/grants/{grant}"), &[], Vec::new()).await;
        stage.release();
        taken
    });
    assert_eq!(taken?.status, 200);
    let heard = heard?;
    assert_eq!(Traces::of(&[("header", &stage.values.header)])?.find(&heard.bytes), None, "{}", heard.text());
    // The next request has no credential any more.
    assert_eq!(stage.hear(&format!("https://{HEADER}/")).await?.outcome, "denied");
    Ok(())
}
