//! Real upstreams, as a guest hears them: every byte that reaches it, before its result is scrubbed a second
//! time. What the shipped tool makes of the same upstreams is in `peers`.

use keybearer_tests::Built;
use keybearer_tests::Heard;
use keybearer_tests::Peer;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Traces;
use keybearer_tests::canary;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

struct Stage {
    _server: Server,
    tenant: Tenant,
    host: &'static str,
    token: String,
    traces: Traces,
}

impl Stage {
    async fn before(peer: &Peer, host: &'static str) -> anyhow::Result<Self> {
        let options = ServerOptions::default().pin_at(host, 443, peer.address());
        let server = Server::start(&Built::find()?, peer.authority(), options)?;
        let slot = probe::slot("site", "{ kind = \"bearer\" }", &[host]);
        server.publish_as("hostile", &probe::manifest("probe", "1.0.0", &slot)).await?;
        let tenant = server.tenant("acme").await?;
        let token = canary("real");
        tenant.grant("probe", "site", &token).await?;
        let traces = Traces::of(&[("token", &token)])?;
        Ok(Self { _server: server, tenant, host, token, traces })
    }

    /// What a guest hears of a path; no piece of the token is in it.
    async fn get(&self, path: &str) -> anyhow::Result<Heard> {
        let heard = self.tenant.hear_get("probe", &format!("https://{}{path}", self.host)).await?;
        assert_eq!(self.traces.find(&heard.bytes), None, "{path}: {}", heard.text());
        Ok(heard)
    }
}

mod needs_httpbin {
    use super::*;

    // If it failed, a guest would learn the token from what real software says back of it.
    #[tokio::test]
    async fn x01_x02_x05_x27_a_guest_hears_no_byte_of_the_token_from_httpbin() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::httpbin()?, "httpbin.org").await?;
        for path in ["/headers", "/get", "/anything/a?b=c", "/gzip", "/deflate", "/brotli", "/bearer"] {
            let heard = stage.get(path).await?;
            assert_eq!(heard.outcome, "200", "{path}");
            let body: Value = serde_json::from_str(&heard.body())?;
            let said = if path == "/bearer" { &body["token"] } else { &body["headers"]["Authorization"] };
            assert!(said.as_str().is_some_and(|said| said.ends_with("[redacted]")), "{path}: {body}");
            // The path by which a credentialed answer may come, and no other, was asked for.
            let codings = &body["headers"]["Accept-Encoding"];
            assert!(path == "/bearer" || codings == "gzip, deflate, br, zstd", "{path}: {codings}");
        }
        // Said by the guest, so that only the whole value comes back as a marker.
        let half = &stage.token[..20];
        let tenant = &stage.tenant;
        let url = |path: &str| format!("https://httpbin.org{path}");
        let heard = tenant.hear_get("probe", &url(&format!("/response-headers?x-said={half}"))).await?;
        assert_eq!(heard.header("x-said").as_deref(), Some(half), "pieces of it are as they were");
        let heard = stage.get(&format!("/response-headers?x-said={}&location=/{}", stage.token, stage.token)).await?;
        assert_eq!(heard.header("x-said").as_deref(), Some("[redacted]"), "{}", heard.text());
        let heard = stage.get(&format!("/redirect-to?url=https%3A%2F%2Fother.test%2F%3Ft%3D{}", stage.token)).await?;
        assert_eq!(heard.outcome, "302");
        assert_eq!(heard.header("location").as_deref(), Some("https://other.test/?t=[redacted]"));
        let heard = stage.get(&format!("/cookies/set/session/{}", stage.token)).await?;
        assert!(heard.header("set-cookie").is_some_and(|cookie| cookie.starts_with("session=[redacted]")));
        // What httpbin decodes by itself.
        let coded =
            base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, format!("it is {}", stage.token));
        assert_eq!(stage.get(&format!("/base64/{coded}")).await?.body(), "it is [redacted]");

        // A part of an answer is not to be had.
        let said = json!({"url": url("/range/100"), "headers": [["range", "bytes=0-9"]]});
        assert_eq!(tenant.hear("probe", said).await?.outcome, "denied");
        assert_eq!(stage.get("/status/206").await?.outcome, "upstream: partial answer, maybe sent");
        let heard = stage.get("/drip?numbytes=4&duration=0&delay=0").await?;
        assert_eq!((heard.outcome.as_str(), heard.body().as_str()), ("200", "****"));
        Ok(())
    }
}

mod needs_nginx {
    use super::*;

    // If it failed, a guest would learn the token from an error page or a redirect of the commonest server.
    #[tokio::test]
    async fn x01_x02_x27_n10_a_guest_hears_no_byte_of_the_token_from_nginx() -> anyhow::Result<()> {
        let stage = Stage::before(&Peer::nginx()?, "nginx.test").await?;
        assert!(stage.get("/reflect/body").await?.body().starts_with("authorization: Bearer [redacted]\n"));
        let heard = stage.get("/reflect/header").await?;
        assert_eq!(heard.header("x-reflected").as_deref(), Some("Bearer [redacted]"));
        let heard = stage.get("/reflect/error").await?;
        assert_eq!(
            (heard.outcome.as_str(), heard.body().as_str()),
            ("403", "{\"error\":\"refused: Bearer [redacted]\"}")
        );
        let heard = stage.get("/redirect").await?;
        assert_eq!(heard.outcome, "302");
        assert!(heard.header("location").is_some_and(|place| place.ends_with("[redacted]")), "{}", heard.text());
        assert_eq!(stage.get("/redirect/inside").await?.outcome, "301");
        assert_eq!(stage.get("/close").await?.outcome, "upstream: malformed answer, maybe sent");

        // Compressed on the way, and announced as such to nobody but the host.
        let heard = stage.get("/data.json").await?;
        assert_eq!((heard.body().as_str(), heard.header("content-encoding")), ("{\"hello\":\"world\"}\n", None));
        // A weak tag is how nginx says that it compressed the file.
        assert!(heard.header("etag").is_some_and(|tag| tag.starts_with("W/")), "{}", heard.text());
        for field in ["range", "if-range"] {
            let said = json!({"url": "https://nginx.test/large.txt", "headers": [[field, "bytes=0-99"]]});
            assert_eq!(stage.tenant.hear("probe", said).await?.outcome, "denied", "{field}");
        }
        // More than the probe may hear, and slower than it may wait.
        let said =
            json!({"tool": "probe.echo_back", "arguments": {"url": "https://nginx.test/slow.txt"}, "timeout_ms": 700});
        let answer = stage.tenant.client.post("/v1/calls", &said).await?;
        assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"), "{}", answer.text());
        Ok(())
    }
}
