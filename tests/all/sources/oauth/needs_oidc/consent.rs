//! An account is onboarded by its own consent: what its browser brings back is good once, for one credential, for a
//! short time; and whatever is wrong with it is answered by one page.

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use keybearer_tests::Answer;
use keybearer_tests::Built;
use keybearer_tests::Oidc;
use keybearer_tests::Recorded;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use keybearer_tests::secret_file;
use serde_json::Value;
use serde_json::json;

use super::super::Stage;
use super::super::recipe;

const REDIRECT: &str = "https://keys.example.com/v1/oauth/callback";

/// A client of the authorization server's that accounts can consent to: id and secret.
async fn client(stage: &Stage) -> anyhow::Result<(String, String)> {
    let secret = canary("client-secret-");
    let more = json!({"client_secret": secret, "redirect_uris": [REDIRECT], "response_types": ["code"]});
    Ok((stage.oidc.client(&["authorization_code", "refresh_token"], more).await?, secret))
}

fn asking(name: &str, (client, secret): &(String, String), more: Value) -> Value {
    let scope = json!({"scope": "openid offline_access api:read"});
    let mut kind = recipe("oauth_refresh_token", client, scope);
    if let (Some(kind), Value::Object(more)) = (kind.as_object_mut(), more) {
        kind.extend(more);
    }
    json!({
        "name": name, "kind": kind, "owner": "the tests", "justification": "a case needs it", "value": secret,
        "authorize_url": format!("{}/auth?prompt=consent", Oidc::ISSUER), "redirect_uri": REDIRECT,
    })
}

/// Asks for a consent: the credential's id, and where the browser is to go.
async fn begin(tenant: &Tenant, asking: &Value) -> anyhow::Result<(String, String)> {
    let begun = tenant.client.post("/v1/credentials/authorize", asking).await?;
    anyhow::ensure!(begun.status == 201, "{} {}", begun.status, begun.text());
    let begun = begun.json();
    assert_eq!(
        (begun["credential"]["state"].as_str(), begun["credential"]["versions"].as_array().map(Vec::len)),
        (Some("pending"), Some(0))
    );
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    Ok((text(&begun["credential"]["id"])?, text(&begun["authorization_url"])?))
}

/// What the account's browser is sent back with.
async fn consented(stage: &Stage, url: &str, account: &str) -> anyhow::Result<String> {
    let back = stage.oidc.browse(&format!("{url}&login_hint={account}")).await?;
    Ok(back.strip_prefix(REDIRECT).and_then(|rest| rest.strip_prefix('?')).with_context(|| back.clone())?.to_owned())
}

async fn bring_back(stage: &Stage, query: &str) -> anyhow::Result<Answer> {
    stage.server.public().get(&format!("/v1/oauth/callback?{query}")).await
}

fn field<'query>(query: &'query str, name: &str) -> &'query str {
    let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    found.map_or("", |(_, value)| value)
}

// If it failed, an account could only be onboarded by handing its token through somebody's hands.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_consents_and_calls_use_its_token_and_nobody_saw_any_of_it() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let client = client(&stage).await?;
    let (credential, url) = begin(&stage.tenant, &asking("anna", &client, json!({}))).await?;
    let grant = json!({"package": "http-get", "slot": "site", "credential": credential});
    assert_eq!(stage.tenant.client.post("/v1/grants", &grant).await?.status, 201);
    assert_eq!(stage.get().await?.code(), "credential_unusable", "not before its account said so");

    let back = consented(&stage, &url, "anna").await?;
    let page = bring_back(&stage, &back).await?;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{}", page.text());
    let shown = stage.show(&credential).await?;
    assert_eq!((shown["state"].as_str(), shown["versions"].as_array().map(Vec::len)), (Some("active"), Some(1)));
    let called = stage.get().await?;
    assert_eq!(called.status, 200, "{}", called.text());
    assert!(called.text().contains("redacted"), "{}", called.text());
    let accounts: Vec<_> = stage.oidc.events(&client.0).await?.iter().map(|event| event["account"].clone()).collect();
    assert!(accounts.contains(&json!("anna")), "{accounts:?}");

    let again = bring_back(&stage, &back).await?;
    assert_eq!(again.status, 400, "a state is good once");
    assert_eq!(stage.show(&credential).await?["versions"].as_array().map(Vec::len), Some(2), "the refresh's own");
    let arrived = stage.arrived();
    let mut secrets = vec![client.1.as_str(), field(&back, "code"), arrived[0].as_str()];
    let events = stage.oidc.events(&client.0).await?;
    secrets.extend(
        events.iter().filter(|event| event["event"] == "refresh_token.saved").filter_map(|it| it["token"].as_str()),
    );
    assert!(secrets.len() >= 4, "refresh tokens are among them");
    stage.assert_unseen(&secrets, &[&page, &again, &called])?;
    let acts = stage.server.ledger()?;
    assert!(acts.iter().any(|act| act["what"] == "credential_authorized" && act["subject"] == credential.as_str()));
    Ok(())
}

// If it failed, somebody could have his own account, or none, put in the place of the one that was asked (CSRF), or
// find out which states there are.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_callback_is_one_page_and_changes_nothing() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let client = client(&stage).await?;
    let (credential, url) = begin(&stage.tenant, &asking("anna", &client, json!({}))).await?;
    let (other, other_url) = begin(&stage.tenant, &asking("bert", &client, json!({}))).await?;
    let back = consented(&stage, &url, "anna").await?;
    let (state, code) = (field(&back, "state"), field(&back, "code"));
    let edited = format!("{}{}", &state[..state.len() - 2], if state.ends_with("AA") { "BB" } else { "AA" });
    let iss = "iss=https%3A%2F%2Foidc.test";
    let mut pages = Vec::new();
    for wrong in [
        String::new(),
        "state=".to_owned(),
        format!("state={}&code={code}&{iss}", "A".repeat(state.len())),
        format!("state={edited}&code={code}&{iss}"),
        // Twice is not once, and the mixture of two is neither.
        format!("{back}&state={state}"),
        format!("state={}{}&code={code}&{iss}", &state[..43], &field(&other_url, "state")[43..]),
    ] {
        pages.push(bring_back(&stage, &wrong).await?);
    }
    assert_eq!(stage.happened(&client.0, "grant.error").await?, 0, "its issuer was asked nothing");
    assert_eq!(bring_back(&stage, &back).await?.status, 200, "the right one is good still");
    assert_eq!(stage.show(&credential).await?["state"], "active");

    // A code of another consent: its verifier is not this one's (RFC 7636).
    let (third, third_url) = begin(&stage.tenant, &asking("carl", &client, json!({}))).await?;
    let theirs = consented(&stage, &other_url, "bert").await?;
    let mixed = format!("state={}&code={}&{iss}", field(&third_url, "state"), field(&theirs, "code"));
    pages.push(bring_back(&stage, &mixed).await?);
    assert_eq!(stage.happened(&client.0, "grant.error").await?, 1, "its issuer refused it");
    // One that another issuer answered (RFC 9207), or that does not say which.
    for issuer in ["&iss=https%3A%2F%2Fevil.example", ""] {
        let (_, url) = begin(&stage.tenant, &asking("carl", &client, json!({}))).await?;
        let state = field(&url, "state");
        pages.push(bring_back(&stage, &format!("state={state}&code=a-code-of-somebody{issuer}")).await?);
        pages.push(bring_back(&stage, &format!("state={state}&code=a-code-of-somebody&{iss}")).await?);
    }
    // The account refused.
    let (_, url) = begin(&stage.tenant, &asking("carl", &client, json!({}))).await?;
    let refused = consented(&stage, &url, "nobody").await?;
    assert_eq!(field(&refused, "error"), "access_denied");
    pages.push(bring_back(&stage, &refused).await?);
    pages.push(bring_back(&stage, &refused).await?);

    for page in &pages {
        assert_eq!((page.status, &page.body), (400, &pages[0].body));
    }
    for waiting in [&other, &third] {
        let shown = stage.show(waiting).await?;
        assert_eq!((shown["state"].as_str(), shown["epoch"].as_u64()), (Some("pending"), Some(1)), "{shown}");
    }
    Ok(())
}

// If it failed, whoever was asked first could still answer after somebody asked anew, or after the credential's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_is_for_the_credential_as_it_was_asked() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let client = client(&stage).await?;
    let (credential, first) = begin(&stage.tenant, &asking("anna", &client, json!({}))).await?;
    let (same, second) = begin(&stage.tenant, &asking("anna", &client, json!({}))).await?;
    assert_eq!(credential, same);
    let back = consented(&stage, &first, "anna").await?;
    assert_eq!(bring_back(&stage, &back).await?.status, 400, "asked anew since");
    let narrower = json!({"token_url": "https://elsewhere.example/token"});
    let changed = stage.tenant.client.post("/v1/credentials/authorize", &asking("anna", &client, narrower)).await?;
    assert_eq!(changed.code(), "conflict", "what waits is not made into something else");
    let back = consented(&stage, &second, "anna").await?;
    stage.act(&credential, "revoke").await?;
    assert_eq!(bring_back(&stage, &back).await?.status, 400, "revoked since");
    assert_eq!(stage.show(&credential).await?["state"], "revoked");
    let asked = stage.tenant.client.post("/v1/credentials/authorize", &asking("anna", &client, json!({}))).await?;
    assert_eq!(asked.code(), "conflict", "for good");
    assert!(stage.happened(&client.0, "access_token.saved").await? == 0, "nothing was redeemed");
    Ok(())
}

// If it failed, a credential whose account withdrew would have to be made, and granted, anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_withdrew_is_asked_again_for_the_same_credential() -> anyhow::Result<()> {
    let stage = Stage::with(keybearer_tests::ServerOptions::default(), |_: &Recorded| 200).await?;
    let client = client(&stage).await?;
    let scope = json!({"scope": "openid offline_access api:read"});
    let (token, grant) = stage.oidc.refresh_token(&client.0, "anna").await?;
    let kind = recipe("oauth_refresh_token", &client.0, scope);
    let credential = stage.hold(kind, &format!("{}\n{token}", client.1)).await?;
    stage.oidc.withdraw(&grant).await?;
    assert_ne!(stage.get().await?.status, 200);
    let shown = stage.show(&credential).await?;
    assert_eq!(shown["state"], "reauthorise");
    let name = shown["name"].as_str().context("its name")?;
    let begun = stage.tenant.client.post("/v1/credentials/authorize", &asking(name, &client, json!({}))).await?.json();
    assert_eq!(begun["credential"]["id"], credential.as_str(), "{begun}");
    let back = consented(&stage, begun["authorization_url"].as_str().context("a URL")?, "anna").await?;
    assert_eq!(bring_back(&stage, &back).await?.status, 200);
    assert!(stage.settled().await?, "its grants are as they were");
    Ok(())
}

// If it failed, whoever onboards an account from a terminal would be left with a URL and no end.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_where_to_go_and_waits_until_the_account_consented() -> anyhow::Result<()> {
    let stage = Stage::new().await?;
    let client = client(&stage).await?;
    let at = |name: &str| stage.server.folder().join(name);
    secret_file(&at("acme.token"), &stage.tenant.token)?;
    secret_file(&at("client-secret"), &client.1)?;
    let kind = recipe("oauth_refresh_token", &client.0, json!({"scope": "openid offline_access api:read"}));
    std::fs::write(at("kind.json"), kind.to_string())?;
    let mut waiting = Command::new(Built::find()?.binary)
        .args(["--token-file".as_ref(), at("acme.token").as_os_str()])
        .args(["credential", "authorize", "anna", "--owner", "sales", "--justification", "the CRM", "--wait-s", "60"])
        .args(["--kind-file".as_ref(), at("kind.json").as_os_str()])
        .args(["--value-file".as_ref(), at("client-secret").as_os_str()])
        .args(["--authorize-url", &format!("{}/auth?prompt=consent", Oidc::ISSUER), "--redirect-uri", REDIRECT])
        .args(["--config".as_ref(), stage.server.config_file().as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(waiting.stdout.take().context("its output")?).lines();
    let (mut lines, url) = tokio::task::spawn_blocking(move || {
        let url = lines.by_ref().find_map(|line| line.ok().filter(|line| line.starts_with("https://")));
        (lines, url)
    })
    .await?;
    let url = url.context("it shows no URL")?;
    assert!(waiting.try_wait()?.is_none(), "it waits");
    let back = consented(&stage, &url, "anna").await?;
    assert_eq!(bring_back(&stage, &back).await?.status, 200);
    let (told, ended) = tokio::task::spawn_blocking(move || {
        let told: Vec<_> = lines.by_ref().map_while(Result::ok).collect();
        waiting.wait_with_output().map(|output| (told.join("\n"), output))
    })
    .await??;
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && told.contains("active"), "{told}{errors}");
    for secret in [client.1.as_str(), field(&back, "code"), stage.tenant.token.as_str()] {
        assert!(!format!("{url}{told}{errors}").contains(secret));
    }
    Ok(())
}

// If it failed, a restart would have every account asked again whose person is at the keyboard just then; or a state
// would be good twice because the second answer reached another process.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_may_answer_after_a_restart_and_still_only_once() -> anyhow::Result<()> {
    let mut stage = Stage::new().await?;
    let client = client(&stage).await?;
    let (credential, url) = begin(&stage.tenant, &asking("anna", &client, json!({}))).await?;
    let back = consented(&stage, &url, "anna").await?;
    stage.server.kill()?;
    stage.server.restart()?;
    let page = bring_back(&stage, &back).await?;
    assert_eq!(page.status, 200, "{}", page.text());
    stage.tenant.client = stage.server.public().bearing(&stage.tenant.token);
    assert_eq!(stage.show(&credential).await?["state"], "active");
    assert_eq!(bring_back(&stage, &back).await?.status, 400);
    stage.server.kill()?;
    stage.server.restart()?;
    assert_eq!(bring_back(&stage, &back).await?.status, 400, "not after another restart either");
    assert_eq!(stage.happened(&client.0, "grant.error").await?, 0, "its code was not offered twice");
    stage.assert_unseen(&[client.1.as_str(), field(&back, "code")], &[&page])
}
