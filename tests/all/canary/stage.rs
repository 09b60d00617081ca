//! A server at its most talkative, with credentials of every kind, upstreams that say back what they are sent,
//! and a collector of its spans.

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Piece;
use keybearer_tests::RawUpstream;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Reserved;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::forms;
use keybearer_tests::probe;
use serde_json::Value;
use serde_json::json;

/// The hosts, each with the slot that is bound to it.
pub(super) const HOSTS: &[(&str, &str)] = &[
    ("bearer", "bearer.test"),
    ("header", "header.test"),
    ("query", "query.test"),
    ("basic", "basic.test"),
    ("oauth", "oauth.test"),
];

/// Where nothing goes well; all of them have the bearer token.
pub(super) const BROKEN: &[&str] =
    &["refused.test", "untrusted.test", "slow.test", "garbage.test", "unbound-name.test"];

pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) tenant: Tenant,
    pub(super) other: Tenant,
    pub(super) bearer: String,
    pub(super) credentials: Vec<String>,
    /// Every secret by name; grows as more are made.
    pub(super) known: Vec<(String, String)>,
    upstream: Upstream,
    login: Upstream,
    collector: RawUpstream,
    _broken: (Upstream, RawUpstream, RawUpstream, Reserved),
}

impl Stage {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let (authority, stranger) = (Authority::new()?, Authority::new()?);
        let minted = canary("mnt_");
        let (upstream, login) = (upstream(&authority).await?, login(&authority, &minted).await?);
        let untrusted =
            Upstream::start(&stranger, &["untrusted.test"], |_| async { Reply::json(200, &json!({})) }).await?;
        let slow = RawUpstream::start(Some(authority.server(&["slow.test"])?), |_| vec![Piece::Hang]).await?;
        let garbage = RawUpstream::start(Some(authority.server(&["garbage.test"])?), |request| {
            // The whole request comes back where an answer should be.
            vec![Piece::text(format!("HTTP/1.1 what {request}\r\n\r\n"))]
        })
        .await?;
        let collector = RawUpstream::start(None, |_| {
            vec![Piece::text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")]
        })
        .await?;
        let closed = Reserved::new()?;
        let mut options = ServerOptions::default()
            .pin("login.test", &login)
            .pin("untrusted.test", &untrusted)
            .pin_at("slow.test", 443, slow.address())
            .pin_at("garbage.test", 443, garbage.address())
            .pin_at("refused.test", 443, closed.address())
            .with_egress("first_byte_ms = 300\nnameservers = [\"127.0.0.1:9\"]\nresolve_ms = 300")
            .with(&format!(
                "[telemetry]\nlevel = \"trace\"\nformat = \"json\"\notlp_endpoint = \"http://{}/v1/traces\"",
                collector.address()
            ));
        for (_, host) in HOSTS {
            options = options.pin(host, &upstream);
        }
        options.environment.push(("RUST_BACKTRACE".to_owned(), "full".to_owned()));
        options.environment.push(("RUST_LOG".to_owned(), "trace".to_owned()));
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish_as("hostile", &manifest()).await?;
        let tenant = server.tenant_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
        let other = server.tenant("globex").await?;
        let mut stage = Self {
            bearer: String::new(),
            credentials: Vec::new(),
            known: vec![
                ("the operator's token".to_owned(), secret_half(server.operator_token())),
                ("a tenant's token".to_owned(), secret_half(&tenant.token)),
                ("another tenant's token".to_owned(), secret_half(&other.token)),
                ("a minted token".to_owned(), minted),
            ],
            server,
            tenant,
            other,
            upstream,
            login,
            collector,
            _broken: (untrusted, slow, garbage, closed),
        };
        stage.grant_all().await?;
        Ok(stage)
    }

    async fn grant_all(&mut self) -> anyhow::Result<()> {
        for (slot, _) in HOSTS {
            let value = if *slot == "basic" { format!("svc:{}", canary("bsc_")) } else { canary(&slot[..3]) };
            let kind = match *slot {
                "oauth" => json!({"kind": "oauth_client_credentials", "token_url": "https://login.test/token",
                                  "client_id": "client-of-acme"}),
                slot => json!({"kind": slot}),
            };
            let grant = json!({"package": "probe", "slot": slot});
            let (credential, _) = self.tenant.grant_as(kind, &value, grant).await?;
            self.credentials.push(credential);
            self.known.push(((*slot).to_owned(), value));
        }
        self.bearer = self.credentials[0].clone();
        let value = canary("glx_");
        self.other.grant("probe", "bearer", &value).await?;
        self.known.push(("another tenant's bearer".to_owned(), value));
        Ok(())
    }

    /// Every secret that the server was given or has made, by name.
    pub(super) fn secrets(&self) -> Vec<(String, String)> {
        let mut all = self.known.clone();
        let basics: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("basic")).cloned().collect();
        for (name, value) in basics {
            let password = value.split_once(':').map_or("", |(_, password)| password).to_owned();
            let blob = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &value);
            // The user's name is no secret; the password and what is made of both are.
            all.retain(|(other, _)| *other != name);
            all.push((format!("{name}, password"), password));
            all.push((format!("{name}, blob"), blob));
        }
        all
    }

    /// Those that must have gone out.
    pub(super) fn sent(&self) -> Vec<(String, String)> {
        let held_back = ["token", "rotated in vain"];
        let all = self.secrets().into_iter();
        all.filter(|(name, _)| name == "a minted token" || !held_back.iter().any(|word| name.contains(word))).collect()
    }

    /// Everything that the upstreams received, for the search to be tried on.
    pub(super) fn received(&self) -> Vec<u8> {
        let requests = self.upstream.recorded().into_iter().chain(self.login.recorded());
        requests.map(|request| format!("{request:?}\n")).collect::<String>().into_bytes()
    }

    /// Everything that the collector received.
    pub(super) fn spans(&self) -> Vec<Vec<u8>> {
        self.collector.received()
    }
}

/// The id of a token is public and stands in records; the secret is what follows it, 256 bits as base64url.
pub(super) fn secret_half(token: &str) -> String {
    token[token.len() - 43..].to_owned()
}

fn manifest() -> String {
    let bearers: Vec<&str> = [&["bearer.test"], BROKEN].concat();
    let rest = [
        probe::slot("bearer", "{ kind = \"bearer\" }", &bearers),
        probe::slot("header", "{ kind = \"header\", name = \"x-api-key\" }", &["header.test"]),
        probe::slot("query", "{ kind = \"query\", name = \"api_key\" }", &["query.test"]),
        probe::slot("basic", "{ kind = \"basic\" }", &["basic.test"]),
        probe::slot("oauth", "{ kind = \"bearer\" }", &["oauth.test"]),
    ];
    probe::manifest("probe", "1.0.0", &rest.concat())
}

/// What a request carries, wherever it does.
pub(super) fn presented(request: &Recorded) -> String {
    let decode = |blob: &str| {
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, blob).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    if let Some(key) = request.header("x-api-key") {
        return key.to_owned();
    }
    match request.header("authorization").and_then(|value| value.split_once(' ')) {
        Some(("Basic", blob)) => decode(blob),
        Some((_, token)) => token.to_owned(),
        None => request.target.rsplit_once("api_key=").map_or("", |(_, value)| value).to_owned(),
    }
}

/// It says the credential back: in the form that the path names, in fields, and in a problem of its own.
async fn upstream(authority: &Authority) -> anyhow::Result<Upstream> {
    let names: Vec<_> = HOSTS.iter().map(|(_, host)| *host).collect();
    Upstream::start(authority, &names, |request: Recorded| {
        let value = presented(&request);
        let index = request.target.trim_start_matches("/form/").split('?').next().and_then(|index| index.parse().ok());
        let reply = match index.and_then(|index: usize| forms(&value).into_iter().nth(index)) {
            Some(form) => Reply { status: 200, headers: vec![("x-said".to_owned(), value)], body: form.text },
            None => {
                let headers: serde_json::Map<_, _> =
                    request.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect();
                Reply::json(200, &json!({"target": request.target, "headers": headers, "value": value}))
            }
        };
        async move { reply }
    })
    .await
}

/// A token endpoint that tells the client's secret in its answer, beside the token.
async fn login(authority: &Authority, minted: &str) -> anyhow::Result<Upstream> {
    let minted = minted.to_owned();
    Upstream::start(authority, &["login.test"], move |request: Recorded| {
        let said = json!({"access_token": minted, "token_type": "Bearer", "expires_in": 3600, "scope": "all",
                          "client": presented(&request), "id_token": minted});
        async move { Reply::json(200, &said) }
    })
    .await
}
