//! What tenants share without knowing: nothing by which one could learn what another has asked.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn g22_nothing_that_one_tenant_asked_is_sooner_there_for_another() -> anyhow::Result<()> {
    // If this failed, a tenant could tell by the time that an answer takes what another one's agents ask.
    let (built, authority) = (Built::find()?, Authority::new()?);
    let upstream = Upstream::start(&authority, &["httpbin.org"], |request: Recorded| async move {
        let mut reply = Reply::json(200, &json!({"target": request.target}));
        // As cacheable as an answer can be.
        for (name, value) in [("cache-control", "public, max-age=31536000, immutable"), ("etag", "\"1\"")] {
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
        reply
    })
    .await?;
    let server = Server::start(&built, &authority, ServerOptions::default().pin("httpbin.org", &upstream))?;
    server.publish("http-get").await?;
    // The very same value under both: not even that makes them one.
    let value = canary("shared-");
    let (acme, globex) = (server.tenant("acme").await?, server.tenant("globex").await?);
    for tenant in [&acme, &globex] {
        tenant.grant("http-get", "site", &value).await?;
    }
    for tenant in [&acme, &acme, &globex, &globex] {
        let answer = tenant.call("http-get.get", json!({"path": "/anything/same"})).await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let recorded = upstream.recorded();
    assert_eq!(recorded.len(), 4, "every request is asked of the upstream");
    let conditional = |request: &Recorded| request.header("if-none-match").is_some();
    assert!(!recorded.iter().any(conditional), "and no answer of an earlier one is kept");
    let peers: Vec<_> = recorded.iter().map(|request| request.peer).collect();
    assert_eq!((peers[0], peers[2]), (peers[1], peers[3]), "a tenant's own connection is used again");
    assert_ne!(peers[0], peers[2], "another's is not");
    Ok(())
}
