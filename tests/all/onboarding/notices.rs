//! Notices: where a tenant is told that something needs its attention, what becomes of those that nobody takes, and
//! that none of them leads inside.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Client;
use keybearer_tests::NameAnswer;
use keybearer_tests::NameServer;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Upstream;
use keybearer_tests::is_signed;
use serde_json::Value;
use serde_json::json;

async fn set(client: &Client, url: &str) -> anyhow::Result<Answer> {
    let body = json!({"url": url}).to_string().into_bytes();
    client.send("PUT", "/v1/notices", &[("content-type", "application/json")], body).await
}

/// Waits until the last try came to this, and says how it stands.
async fn until(client: &Client, state: &str) -> anyhow::Result<Value> {
    let shown = async {
        loop {
            let shown = client.get("/v1/notices").await?.json();
            if shown["last"]["state"] == state {
                return anyhow::Ok(shown);
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), shown).await?
}

// If it failed, a tenant's notices would go where somebody else wants them, in the clear, or signed with a secret
// that anybody can read.
#[tokio::test]
async fn notices_go_by_https_alone_and_their_secret_is_shown_once() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let (holder, other) = (site.holder("acme").await?, site.holder("globex").await?);
    let client = &holder.tenant.client;
    assert_eq!(client.get("/v1/notices").await?.code(), "not_found");
    assert_eq!(set(client, "http://notices.test/").await?.code(), "malformed_request");
    let made = set(client, "https://notices.test/hook").await?.json();
    let secret = made["text"].as_str().unwrap_or_default().to_owned();
    assert!(secret.starts_with("whsec_"), "{made}");
    let shown = client.get("/v1/notices").await?;
    assert!(shown.json()["url"] == "https://notices.test/hook" && !shown.text().contains(&secret), "{}", shown.text());
    assert_eq!(other.tenant.client.get("/v1/notices").await?.code(), "not_found");
    let again = set(client, "https://notices.test/hook").await?.json();
    assert_ne!(again["text"].as_str(), Some(&*secret), "each setting has a secret of its own");
    let removed = client.send("DELETE", "/v1/notices", &[], Vec::new()).await?;
    assert_eq!((removed.status, client.get("/v1/notices").await?.status), (204, 404));
    Ok(())
}

// If it failed, nobody would hear that a key is due, or anybody could tell a tenant so.
#[tokio::test]
async fn a_notice_arrives_signed_and_carries_no_credential() -> anyhow::Result<()> {
    let site = Site::start().await?;
    let holder = site.holder("acme").await?;
    let client = &holder.tenant.client;
    assert_eq!(client.post("/v1/notices/test", &json!({})).await?.code(), "not_found");
    let made = set(client, "https://httpbin.org/notices").await?.json();
    assert_eq!(client.send("POST", "/v1/notices/test", &[], Vec::new()).await?.status, 204);
    let shown = until(client, "delivered").await?;
    let recorded = site.upstream.recorded();
    let notice = recorded.iter().find(|request| request.target == "/notices").expect("it arrived");
    let secret = made["text"].as_str().unwrap_or_default();
    assert!(notice.method == "POST" && is_signed(notice, secret) && !is_signed(notice, "whsec_AAAA"));
    assert!(notice.header("authorization").is_none(), "a notice carries nobody's credential");
    assert_eq!((notice.header("webhook-id"), &shown["waiting"]), (shown["last"]["id"].as_str(), &json!(0)), "{shown}");
    let body: Value = serde_json::from_slice(&notice.body)?;
    assert!(body["type"] == "test" && body["timestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
    let records = site.ledger()?;
    let of =
        |what: &str| records.iter().position(|record| record["what"] == what && record["tenant"] == *holder.tenant.id);
    assert!(of("notice_sent").expect("recorded") < of("notice_delivered").expect("recorded"), "before and after");
    Ok(())
}

// If it failed, what happens while a receiver is away, or while the server crashes, would be told to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_nobody_takes_waits_over_a_crash_and_is_the_same_when_it_comes_again() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let status = Arc::new(AtomicU16::new(503));
    let answers = Arc::clone(&status);
    let desk = Upstream::start(&authority, &["ops.example.com"], move |_: Recorded| {
        let status = answers.load(Ordering::SeqCst);
        async move { Reply { status, headers: Vec::new(), body: Vec::new() } }
    })
    .await?;
    let mut site = Site::start_by(authority, ServerOptions::default().pin("ops.example.com", &desk)).await?;
    let tenant = site.server.tenant("acme").await?;
    let made = set(&tenant.client, "https://ops.example.com/").await?.json();
    assert_eq!(tenant.client.post("/v1/notices/test", &json!({})).await?.status, 204);
    let shown = until(&tenant.client, "put_off").await?;
    assert_eq!((&shown["waiting"], &shown["last"]["why"]), (&json!(1), &json!("it answered 503")), "{shown}");
    let metrics = site.server.admin().get("/metrics").await?.text();
    assert!(metrics.contains("keybearer_notices_waiting 1\n"), "{metrics}");
    let counted = |line: &str| {
        let count = line.strip_prefix("keybearer_notice_tries_total{outcome=\"put_off\"} ");
        count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 0)
    };
    assert!(metrics.lines().any(counted), "{metrics}");
    site.server.kill()?;
    for file in ["store.db", "store.db-wal"] {
        let stored = std::fs::read(site.server.home().join(file))?;
        assert!(!stored.windows(13).any(|piece| piece == br#""type":"test""#), "what waits is sealed");
    }
    status.store(204, Ordering::SeqCst);
    site.server.restart()?;
    let client = site.server.public().bearing(&tenant.token);
    let shown = until(&client, "delivered").await?;
    assert_eq!(shown["waiting"], 0, "{shown}");
    let told = desk.recorded();
    assert!(told.len() >= 2, "it was tried before and after");
    for notice in &told {
        assert!(is_signed(notice, made["text"].as_str().unwrap_or_default()));
        assert_eq!((notice.header("webhook-id"), &notice.body), (shown["last"]["id"].as_str(), &told[0].body));
    }
    // Gone for good is not asked again; what was wrong is in the ledger.
    status.store(410, Ordering::SeqCst);
    assert_eq!(client.post("/v1/notices/test", &json!({})).await?.status, 204);
    let shown = until(&client, "failed").await?;
    assert_eq!((&shown["waiting"], &shown["last"]["why"]), (&json!(0), &json!("it answered 410")), "{shown}");
    let failed = site.ledger()?.into_iter().find(|record| record["what"] == "notice_failed").expect("recorded");
    assert_eq!((&failed["subject"], &failed["note"]), (&shown["last"]["id"], &json!("it answered 410")));
    let metrics = site.server.admin().get("/metrics").await?.text();
    assert!(metrics.contains("keybearer_notice_tries_total{outcome=\"failed\"} 1\n"), "{metrics}");
    Ok(())
}

// If it failed, a tenant could have this server send requests to the operator's own network, by the URL of its notices.
#[tokio::test(flavor = "multi_thread")]
async fn n02_n05_n33_a_notice_that_leads_inside_is_sent_to_nobody_and_its_owner_sees_why() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    // Whoever connects to it would be seen: nobody else knows of it.
    let inside = TcpListener::bind("127.0.0.2:0")?;
    inside.set_nonblocking(true)?;
    let port = inside.local_addr()?.port();
    let desk = Upstream::start(&authority, &["desk.test"], move |_: Recorded| async move {
        let to = vec![("location".to_owned(), format!("https://loopback.test:{port}/"))];
        Reply { status: 307, headers: to, body: Vec::new() }
    })
    .await?;
    let names = NameServer::start(|name, _| match name {
        "desk.test" | "self.test" => NameAnswer::Addresses(vec![[127, 0, 0, 1].into()]),
        "loopback.test" => NameAnswer::Addresses(vec![[127, 0, 0, 2].into()]),
        "private.test" => NameAnswer::Addresses(vec![[10, 0, 0, 1].into()]),
        "metadata.test" => NameAnswer::Addresses(vec![[169, 254, 169, 254].into()]),
        "mixed.test" => NameAnswer::Addresses(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]),
        _ => NameAnswer::NoSuchName,
    })
    .await?;
    let nameservers = format!("nameservers = [\"{}\"]", names.address());
    let mut options = ServerOptions::default().with_egress(&nameservers);
    options.allow_ranges = Some(vec!["127.0.0.1/32".to_owned()]);
    let server = Server::start(&Built::find()?, &authority, options)?;
    let tenant = server.tenant("literal").await?;
    for literal in ["127.0.0.2", "10.0.0.1", "169.254.169.254", "[::1]", "2130706433", "0x7f.1", "localhost"] {
        let refused = set(&tenant.client, &format!("https://{literal}:{port}/")).await?;
        assert_eq!(refused.code(), "malformed_request", "{literal}");
    }
    let public = server.public().address().port();
    for (name, host, why) in [
        ("loopback", format!("loopback.test:{port}"), "an address that is not public"),
        ("private", format!("private.test:{port}"), "an address that is not public"),
        ("metadata", "metadata.test".to_owned(), "an address that is not public"),
        ("mixed", format!("mixed.test:{port}"), "an address that is not public"),
        ("self", format!("self.test:{public}"), "this server itself"),
    ] {
        let tenant = server.tenant(name).await?;
        assert_eq!(set(&tenant.client, &format!("https://{host}/")).await?.status, 200, "{name}");
        assert_eq!(tenant.client.post("/v1/notices/test", &json!({})).await?.status, 204);
        let shown = until(&tenant.client, "failed").await?;
        assert!(shown["last"]["why"].as_str().is_some_and(|told| told.contains(why)), "{name}: {shown}");
        assert_eq!(shown["waiting"], 0, "{name}: it is not tried again");
    }
    let tenant = server.tenant("redirected").await?;
    set(&tenant.client, &format!("https://desk.test:{}/", desk.address().port())).await?;
    assert_eq!(tenant.client.post("/v1/notices/test", &json!({})).await?.status, 204);
    let shown = until(&tenant.client, "put_off").await?;
    assert_eq!(shown["last"]["why"], "it answered 307", "a redirect is not followed: {shown}");
    assert!(!names.asked().is_empty() && !desk.recorded().is_empty());
    let connected = inside.accept().map(|(_, peer)| peer);
    assert!(connected.is_err(), "nobody connected: {connected:?}");
    Ok(())
}
