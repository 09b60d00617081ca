//! Real upstreams, as they are: the shipped `http-get` against httpbin and nginx. What a double of our own
//! would do to please us, they do not.

use keybearer_tests::Built;
use keybearer_tests::Peer;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::canary;
use serde_json::Value;
use serde_json::json;

struct Stage {
    _server: Server,
    tenant: Tenant,
    token: String,
}

impl Stage {
    /// A server for which a peer is `httpbin.org`, and a tenant with a token for it.
    async fn before(peer: &Peer) -> anyhow::Result<Self> {
        let mut options = ServerOptions::default();
        options.pins.push(("httpbin.org".to_owned(), 443, peer.address()));
        let server = Server::start(&Built::find()?, peer.authority(), options)?;
        server.publish("http-get").await?;
        let tenant = server.tenant("acme").await?;
        let token = canary("real_");
        tenant.grant("http-get", "site", &token).await?;
        Ok(Self { _server: server, tenant, token })
    }

    /// What the tool gives back of a path; the token is not in it.
    async fn get(&self, path: &str, query: Value) -> anyhow::Result<Value> {
        let answer = self.tenant.call("http-get.get", json!({"path": path, "query": query})).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.text().contains(&self.token), "{path}: the token came back");
        Ok(answer.json()["result"].clone())
    }
}

fn body(result: &Value) -> &str {
    result["body"].as_str().unwrap_or_default()
}

mod needs_httpbin {
    use super::*;

    // If it failed, a tenant's token would reach the guest by way of any upstream that says back what it was sent.
    #[tokio::test]
    async fn x01_x05_what_httpbin_says_back_of_the_token_is_taken_out_in_every_coding() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::httpbin()?).await?;
        let bearer = stage.get("/bearer", json!({})).await?;
        let said: Value = serde_json::from_str(body(&bearer))?;
        assert_eq!(said, json!({"authenticated": true, "token": "[redacted]"}), "httpbin had it");
        for (path, is_coded) in [
            ("/headers", None),
            ("/anything", None),
            ("/gzip", Some("gzipped")),
            ("/deflate", Some("deflated")),
            ("/brotli", Some("brotli")),
        ] {
            let result = stage.get(path, json!({})).await?;
            let said: Value = serde_json::from_str(body(&result))?;
            assert_eq!(said["headers"]["Authorization"], "Bearer [redacted]", "{path}: {said}");
            assert!(is_coded.is_none_or(|word| said[word] == true), "{path}: {said}");
        }
        Ok(())
    }

    // If it failed, an upstream could send the request on, and the token with it, to where no binding names.
    #[tokio::test]
    async fn n10_a_redirect_of_httpbins_is_an_answer_and_is_not_followed() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::httpbin()?).await?;
        for url in
            ["https://httpbin.org/bearer", "http://httpbin.org/bearer", "http://169.254.169.254/", "//other.test/"]
        {
            for status in [301, 302, 303, 307, 308] {
                let query = json!({"url": url, "status_code": status.to_string()});
                let result = stage.get("/redirect-to", query).await?;
                assert_eq!(result["status"], status, "{url}");
                assert!(!body(&result).contains("authenticated"), "{url} was followed");
            }
        }
        Ok(())
    }

    // If it failed, tools could not tell a refusal of the upstream's from a fault on the way.
    #[tokio::test]
    async fn statuses_streams_and_odd_bytes_of_httpbins_come_through_as_they_are() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::httpbin()?).await?;
        for status in [204, 404, 418, 429, 503] {
            assert_eq!(stage.get(&format!("/status/{status}"), json!({})).await?["status"], status);
        }
        let stream = stage.get("/stream/20", json!({})).await?;
        assert_eq!(body(&stream).lines().count(), 20, "one line of JSON a chunk");
        let unicode = stage.get("/encoding/utf8", json!({})).await?;
        assert!(body(&unicode).contains("∮ E⋅da = Q"), "text beyond ASCII is whole");
        let image = stage.get("/image/png", json!({})).await?;
        assert_eq!((&image["status"], &image["content_type"]), (&json!(200), &json!("image/png")));
        Ok(())
    }
}

mod needs_nginx {
    use super::*;

    // If it failed, a page that shows the request's headers, or an error page, would show the token to the guest.
    #[tokio::test]
    async fn x01_x05_what_nginx_says_back_of_the_token_is_taken_out_of_every_place() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::nginx()?).await?;
        let plain = stage.get("/reflect/body", json!({})).await?;
        assert!(body(&plain).starts_with("authorization: Bearer [redacted]\n"), "{plain}");
        let error = stage.get("/reflect/error", json!({})).await?;
        assert_eq!(error["status"], 403);
        assert_eq!(body(&error), "{\"error\":\"refused: Bearer [redacted]\"}");
        assert_eq!(stage.get("/reflect/header", json!({})).await?["status"], 200);
        Ok(())
    }

    // If it failed, what is large or compressed on the way would reach the guest cut, doubled or not at all.
    #[tokio::test]
    async fn a_compressed_file_of_nginxs_arrives_whole() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::nginx()?).await?;
        assert_eq!(body(&stage.get("/hello.txt", json!({})).await?), "hello\n");
        let large = stage.get("/large.txt", json!({})).await?;
        assert!(body(&large) == "a line of thirty-two characters\n".repeat(1 << 15), "{} bytes", body(&large).len());
        Ok(())
    }

    // If it failed, a redirect or a broken connection would be tried again with the token on it.
    #[tokio::test]
    async fn n10_redirects_are_answers_and_a_closed_connection_is_the_upstreams_fault() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::nginx()?).await?;
        assert_eq!(stage.get("/redirect", json!({})).await?["status"], 302);
        assert_eq!(stage.get("/redirect/inside", json!({})).await?["status"], 301);
        let closed = stage.tenant.call("http-get.get", json!({"path": "/close"})).await?;
        assert_eq!((closed.status, closed.code().as_str()), (502, "upstream_failed"), "{}", closed.text());
        assert!(!closed.text().contains(&stage.token));
        Ok(())
    }
}
