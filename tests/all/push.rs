//! Push: a source outside says, signed, that something changed, and the next dispatch fetches anew. Whoever
//! cannot sign, signs too late or says it twice changes nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::send_event;
use keybearer_tests::send_event_at;
use serde_json::Value;
use serde_json::json;

struct Stage {
    server: Server,
    tenant: Tenant,
    login: Upstream,
    _site: Upstream,
    credential: String,
    hook: String,
    secret: String,
    /// Whether the login server gives no answer to who gives a token back.
    is_held: tokio::sync::watch::Sender<bool>,
}

/// A tenant with a recipe and a hook.
async fn stage(heartbeat_s: u32) -> anyhow::Result<Stage> {
    stage_with(heartbeat_s, ServerOptions::default()).await
}

async fn stage_with(heartbeat_s: u32, options: ServerOptions) -> anyhow::Result<Stage> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    let minted = Arc::new(AtomicUsize::new(0));
    let is_held = tokio::sync::watch::Sender::new(false);
    let holding = is_held.subscribe();
    let login = Upstream::start(&authority, &["login.example.com"], move |request| {
        let token = format!("{}-{}", canary("minted-"), minted.fetch_add(1, Ordering::SeqCst));
        let mut holding = holding.clone();
        async move {
            if request.target == "/revoke" {
                // The case may be over.
                drop(holding.wait_for(|is_held| !is_held).await);
            }
            Reply::json(200, &json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}))
        }
    })
    .await?;
    let site = Upstream::start(&authority, &["httpbin.org"], |_: Recorded| async move { Reply::json(200, &json!({})) })
        .await?;
    let options = options.pin("httpbin.org", &site).pin("login.example.com", &login);
    let server = Server::start(&built, &authority, options)?;
    server.publish("http-get").await?;
    let tenant = server.tenant("acme").await?;
    let kind = json!({
        "kind": "oauth_client_credentials", "token_url": "https://login.example.com/token", "client_id": "acme",
        "revocation_url": "https://login.example.com/revoke",
    });
    let grant = json!({"package": "http-get", "slot": "site"});
    let (credential, _) = tenant.grant_as(kind, &canary("client-secret-"), grant).await?;
    let made = tenant.client.post("/v1/hooks", &json!({"label": "ci", "heartbeat_s": heartbeat_s})).await?;
    assert_eq!(made.status, 201, "{}", made.text());
    let member = |name: &str| made.json()[name].as_str().unwrap_or_default().to_owned();
    let (hook, secret) = (member("id"), member("text"));
    Ok(Stage { server, tenant, login, _site: site, credential, hook, secret, is_held })
}

impl Stage {
    /// Calls, and says how often a token was minted so far.
    async fn minted_after_a_call(&self) -> anyhow::Result<usize> {
        let answer = self.tenant.call("http-get.get", json!({"path": "/x"})).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Ok(self.asked_for("/token"))
    }

    fn asked_for(&self, target: &str) -> usize {
        self.login.recorded().iter().filter(|request| request.target == target).count()
    }

    /// Waits until so many tokens are being given back, or were.
    async fn given_back(&self, count: usize) -> anyhow::Result<()> {
        let given_back = async {
            while self.asked_for("/revoke") < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        Ok(tokio::time::timeout(Duration::from_secs(10), given_back).await?)
    }

    fn changed(&self) -> Value {
        json!({"type": "credential.changed", "data": {"credential": self.credential}})
    }

    async fn send(&self, id: &str, body: &Value) -> anyhow::Result<Answer> {
        send_event(&self.server.public(), &self.hook, &self.secret, id, body).await
    }
}

fn invalidated(answer: &Answer) -> u64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["invalidated"].as_u64().unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_an_event_makes_the_next_dispatch_fetch_anew_and_is_taken_once() -> anyhow::Result<()> {
    // If this failed, a value that was changed at its source would go on being used until it ends by itself.
    let stage = stage(0).await?;
    assert_eq!(stage.minted_after_a_call().await?, 1);
    assert_eq!(stage.minted_after_a_call().await?, 1, "a value that is good is used again");
    assert_eq!(invalidated(&stage.send("msg_1", &stage.changed()).await?), 1);
    assert_eq!(stage.minted_after_a_call().await?, 2);
    assert_eq!(invalidated(&stage.send("msg_1", &stage.changed()).await?), 0, "the same event again");
    assert_eq!(stage.minted_after_a_call().await?, 2);
    assert_eq!(invalidated(&stage.send("msg_2", &stage.changed()).await?), 1, "another event");
    assert_eq!(stage.minted_after_a_call().await?, 3);
    let unknown = json!({"type": "credential.changed", "data": {"reference": "not/ours"}});
    assert_eq!(invalidated(&stage.send("msg_3", &unknown).await?), 0);
    let ledger = stage.server.ledger()?;
    let acts: Vec<_> = ledger.iter().filter(|record| record["what"] == "credential_invalidated").collect();
    assert_eq!(acts.len(), 2);
    let principal = acts[0]["principal"].as_str().unwrap_or_default();
    assert_eq!((principal, acts[0]["epoch"].as_u64()), (format!("hook:{}", stage.hook).as_str(), Some(2)));
    assert!(!format!("{ledger:?}{}", stage.server.log()).contains(stage.secret.trim_start_matches("whsec_")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_repeated_event_is_not_acknowledged_before_the_first_is_acted_on() -> anyhow::Result<()> {
    // If this failed, a sender that repeats itself would be told that all is done, and an act that fails after that, or is
    // cut off, would leave the old value in use with nobody to say so again.
    let stage = stage(0).await?;
    let (event, changed) = ("msg_1", stage.changed());
    stage.minted_after_a_call().await?;
    stage.is_held.send_replace(true);
    let repeating = async {
        stage.given_back(1).await?;
        let repeated = stage.send(event, &changed).await?;
        assert_eq!((repeated.status, repeated.code().as_str()), (409, "conflict"), "{}", repeated.text());
        assert!(repeated.header("retry-after").is_some());
        stage.is_held.send_replace(false);
        anyhow::Ok(())
    };
    let (first, repeated) = tokio::join!(stage.send(event, &changed), repeating);
    repeated?;
    assert_eq!(invalidated(&first?), 1);
    assert_eq!(invalidated(&stage.send(event, &changed).await?), 0, "now it was taken");

    // A sender that gives up does not stop what it began.
    assert_eq!(stage.minted_after_a_call().await?, 2);
    stage.is_held.send_replace(true);
    tokio::select! {
        answer = stage.send("msg_2", &changed) => anyhow::bail!("answered too early: {}", answer?.text()),
        given_back = stage.given_back(2) => given_back?,
    }
    assert_eq!(stage.send("msg_2", &changed).await?.status, 409);
    stage.is_held.send_replace(false);
    let taken = async {
        loop {
            let repeated = stage.send("msg_2", &changed).await?;
            if repeated.status != 409 {
                return anyhow::Ok(invalidated(&repeated));
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), taken).await??, 0);
    let ledger = stage.server.ledger()?;
    assert_eq!(ledger.iter().filter(|record| record["what"] == "credential_invalidated").count(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_t07_whoever_cannot_sign_now_for_this_hook_changes_nothing() -> anyhow::Result<()> {
    // If this failed, anybody who knows an address could make a tenant's credentials be fetched over and over.
    let stage = stage(0).await?;
    assert_eq!(stage.minted_after_a_call().await?, 1);
    let public = stage.server.public();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let other = stage.server.tenant("other").await?;
    let made = other.client.post("/v1/hooks", &json!({"label": "theirs"})).await?.json();
    let (theirs, their_secret) = (made["id"].as_str().unwrap_or("?"), made["text"].as_str().unwrap_or("?"));
    let body = stage.changed();
    let missing = format!("hook_{}", "a".repeat(26));
    let refusals = [
        send_event(&public, &stage.hook, their_secret, "msg_1", &body).await?,
        send_event(&public, &missing, &stage.secret, "msg_1", &body).await?,
        send_event(&public, "nothing", &stage.secret, "msg_1", &body).await?,
        send_event(&public, &stage.hook, &stage.secret, "", &body).await?,
        send_event_at(&public, &stage.hook, &stage.secret, "msg_1", now - 600, &body).await?,
        send_event_at(&public, &stage.hook, &stage.secret, "msg_1", now + 600, &body).await?,
    ];
    for refused in &refusals {
        assert_eq!((refused.status, &refused.body), (401, &refusals[0].body));
    }
    // Well signed, of another tenant's hook: this tenant's credential is not there.
    let foreign = send_event(&public, theirs, their_secret, "msg_1", &body).await?;
    assert_eq!(invalidated(&foreign), 0);
    for (id, body) in [("msg_2", json!([])), ("msg_3", json!({"type": "unheard of"}))] {
        assert_eq!(stage.send(id, &body).await?.code(), "malformed_body");
    }
    assert_eq!(stage.minted_after_a_call().await?, 1);
    let removed = stage.tenant.client.send("DELETE", &format!("/v1/hooks/{}", stage.hook), &[], Vec::new()).await?;
    assert_eq!(removed.status, 204);
    assert_eq!(stage.send("msg_4", &stage.changed()).await?.status, 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r12_h09_whoever_guesses_signatures_is_slowed_and_nobody_else_is() -> anyhow::Result<()> {
    // If this failed, a hook's secret could be guessed at leisure, or one sender's mistake would silence the others.
    let options = ServerOptions::default().with("[limits]\nfailed_authentications_per_minute = 12");
    let stage = stage_with(0, options).await?;
    let (public, body) = (stage.server.public(), stage.changed());
    let missing = format!("hook_{}", "a".repeat(26));
    let wrong = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let mut heard = Vec::new();
    for guess in 0..20 {
        let hook = if guess % 2 == 0 { &stage.hook } else { &missing };
        heard.push(send_event(&public, hook, wrong, &format!("msg_{guess}"), &body).await?);
    }
    let (refused, slowed) = heard.split_at(12);
    for answer in refused {
        assert_eq!((answer.status, &answer.body), (401, &refused[0].body), "one answer, whether there is such a hook");
    }
    for answer in slowed {
        assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"), "{}", answer.text());
        assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait <= 60)));
    }
    let elsewhere = public.calling_from([127, 0, 0, 2].into());
    let other = send_event(&elsewhere, &stage.hook, wrong, "msg_elsewhere", &body).await?;
    assert_eq!((other.status, &other.body), (401, &refused[0].body), "another address has guessed once");
    assert_eq!(invalidated(&stage.send("msg_good", &body).await?), 1, "who signs well is not slowed");
    Ok(())
}

impl Stage {
    /// Whether readiness and metrics count so many hooks that are heard of, and so many that are silent.
    async fn counts(&self, live: u64, silent: u64) -> anyhow::Result<bool> {
        let admin = self.server.admin();
        let (ready, metrics) = (admin.get("/readyz").await?, admin.get("/metrics").await?.text());
        assert_eq!(ready.status, 200, "calls are taken all the same");
        Ok(ready.text().contains("silent") == (silent > 0)
            && metrics.contains(&format!("keybearer_hooks{{state=\"live\"}} {live}\n"))
            && metrics.contains(&format!("keybearer_hooks{{state=\"silent\"}} {silent}\n")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_a_hook_that_promised_to_be_heard_of_and_is_silent_is_seen() -> anyhow::Result<()> {
    // If this failed, a broken subscription would look like a source that never changes.
    let stage = stage(3600).await?;
    assert!(stage.counts(0, 1).await?, "nothing was heard yet");
    assert_eq!(invalidated(&stage.send("msg_1", &json!({"type": "ping"})).await?), 0);
    assert!(stage.counts(1, 0).await?);
    let listed = stage.tenant.client.get("/v1/hooks").await?.json();
    assert_eq!(listed["items"][0]["live"], true, "{listed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_an_event_that_was_refused_is_no_sign_of_life() -> anyhow::Result<()> {
    // If this failed, whoever sees one such event and repeats it could hold off the true sender unnoticed.
    let stage = stage(3600).await?;
    let of_another_service = json!({"detail-type": "Object Created", "source": "aws.s3", "detail": {}});
    for _ in 0..2 {
        assert_eq!(stage.send("msg_1", &of_another_service).await?.code(), "malformed_body");
        assert!(stage.counts(0, 1).await?, "it was not understood");
    }
    // What was refused once is refused: the id is that event's.
    assert_eq!(stage.send("msg_1", &json!({"type": "ping"})).await?.code(), "malformed_body");
    assert_eq!(invalidated(&stage.send("msg_2", &json!({"type": "ping"})).await?), 0);
    assert!(stage.counts(1, 0).await?);
    Ok(())
}

/// How many events are on their way at the same time, and how many credentials are revoked meanwhile.
const SENDERS: usize = 8;
const REVOKED: usize = 40;

/// Events about one of them: all together no more than a hook remembers.
const EVENTS_EACH: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn r05_r12_a_revocation_is_done_whatever_else_raises_the_epoch() -> anyhow::Result<()> {
    // If this failed, whoever can say that something changed could keep a leaked key in use for as long as he says it.
    let stage = stage(0).await?;
    let mut credentials = Vec::new();
    for number in 0..REVOKED {
        let new = json!({
            "name": format!("trial-{number}"), "owner": "the tests", "justification": "a trial",
            "kind": {"kind": "oauth_client_credentials", "token_url": "https://login.example.com/token", "client_id": "acme"},
            "value": canary("client-secret-"),
        });
        let stored = stage.tenant.client.post("/v1/credentials", &new).await?.json();
        credentials.push(stored["id"].as_str().expect("an id").to_owned());
    }
    let (named, raised, is_over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let sent: Vec<_> = credentials.iter().map(|_| AtomicUsize::new(0)).collect();
    let senders = futures_util::future::try_join_all((0..SENDERS).map(async |sender| {
        for event in 0.. {
            if is_over.load(Ordering::SeqCst) {
                break;
            }
            let number = named.load(Ordering::SeqCst);
            if sent[number].fetch_add(1, Ordering::SeqCst) >= EVENTS_EACH {
                tokio::task::yield_now().await;
                continue;
            }
            let credential = &credentials[number];
            let changed = json!({"type": "credential.changed", "data": {"credential": credential}});
            let heard = stage.send(&format!("msg_{sender}_{event}"), &changed).await?;
            raised.fetch_add(usize::from(heard.status == 200), Ordering::SeqCst);
        }
        anyhow::Ok(())
    }));
    let revoking = async {
        let mut refused = Vec::new();
        for (number, credential) in credentials.iter().enumerate() {
            named.store(number, Ordering::SeqCst);
            let before = raised.load(Ordering::SeqCst);
            while raised.load(Ordering::SeqCst) < before + 2 {
                tokio::task::yield_now().await;
            }
            let path = format!("/v1/credentials/{credential}/revoke");
            let revoked = stage.tenant.client.post(&path, &json!({})).await?;
            let said = revoked.json();
            let is_done = revoked.status == 200 && said["epoch"].as_u64().is_some_and(|epoch| epoch > 1);
            refused.extend((!is_done).then(|| revoked.text()));
            let shown = stage.tenant.client.get(&format!("/v1/credentials/{credential}")).await?.json();
            refused.extend((shown["state"] != "revoked").then(|| shown.to_string()));
        }
        is_over.store(true, Ordering::SeqCst);
        anyhow::Ok(refused)
    };
    let (senders, refused) = tokio::join!(senders, revoking);
    senders?;
    let refused = refused?;
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}
