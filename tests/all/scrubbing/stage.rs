//! A server with a probe that has a slot of every kind, and an upstream that says back what the case wants.

use std::sync::Arc;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Heard;
use keybearer_tests::Piece;
use keybearer_tests::RawUpstream;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Tenant;
use keybearer_tests::Upstream;
use keybearer_tests::canary;
use keybearer_tests::forms;
use keybearer_tests::probe;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

pub(super) const BEARER: &str = "bearer.test";
pub(super) const HEADER: &str = "header.test";
pub(super) const QUERY: &str = "query.test";
pub(super) const BASIC: &str = "basic.test";
pub(super) const OPEN: &str = "open.test";
pub(super) const RAW: &str = "raw.test";

/// The credentials of the tenant, by kind, with every character that an encoding changes.
pub(super) struct Values {
    pub(super) bearer: String,
    pub(super) header: String,
    pub(super) query: String,
    pub(super) basic: String,
    pub(super) password: String,
    pub(super) blob: String,
}

impl Values {
    fn new() -> Self {
        let password = canary("p:w+&\"% ");
        let basic = format!("svc-user:{password}");
        let blob = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &basic);
        Self {
            bearer: canary("brr_"),
            header: canary("hd/+=&<\"%'>\\"),
            query: canary("q &=%+\"<'\\ "),
            basic,
            password,
            blob,
        }
    }

    pub(super) fn all(&self) -> [&str; 6] {
        [&self.bearer, &self.header, &self.query, &self.basic, &self.password, &self.blob]
    }
}

/// What the upstream answers at paths of the case's own.
pub(super) type Answers = Arc<Mutex<Vec<(String, Reply)>>>;

pub(super) struct Stage {
    pub(super) server: Server,
    pub(super) tenant: Tenant,
    pub(super) upstream: Upstream,
    pub(super) values: Arc<Values>,
    /// The bearer credential's id.
    pub(super) bearer: String,
    answers: Answers,
    /// Releases the answers to paths under `/held`.
    held: Arc<Notify>,
    raw_answer: Arc<Mutex<Vec<Piece>>>,
    _raw: RawUpstream,
}

impl Stage {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let values = Arc::new(Values::new());
        let authority = Authority::new()?;
        let answers: Answers = Arc::default();
        let (known, said) = (Arc::clone(&values), Arc::clone(&answers));
        let hosts = [BEARER, HEADER, QUERY, BASIC, OPEN];
        let held = Arc::new(Notify::new());
        let released = Arc::clone(&held);
        let upstream = Upstream::start(&authority, &hosts, move |request: Recorded| {
            let reply = answer(&request, &known, &said);
            let held = request.target.starts_with("/held/").then(|| Arc::clone(&released));
            async move {
                if let Some(held) = held {
                    held.notified().await;
                }
                reply
            }
        })
        .await?;
        let raw_answer: Arc<Mutex<Vec<Piece>>> = Arc::default();
        let pieces = Arc::clone(&raw_answer);
        let raw = RawUpstream::start(Some(authority.server(&[RAW])?), move |_| pieces.lock().clone()).await?;
        let mut options = ServerOptions::default().pin_at(RAW, 443, raw.address());
        for host in hosts {
            options = options.pin(host, &upstream);
        }
        let server = Server::start(&Built::find()?, &authority, options)?;
        server.publish_as("hostile", &probe_manifest()).await?;
        // As many calls as there are forms, one after the other.
        let tenant = server.tenant_with(json!({"name": "acme", "calls_per_second": 100_000})).await?;
        let grant = async |kind: &str, value: &str| {
            let grant = json!({"package": "probe", "slot": kind});
            tenant.grant_as(json!({"kind": kind}), value, grant).await.map(|(credential, _)| credential)
        };
        let bearer = grant("bearer", &values.bearer).await?;
        grant("header", &values.header).await?;
        grant("query", &values.query).await?;
        grant("basic", &values.basic).await?;
        Ok(Self { server, tenant, upstream, values, bearer, answers, held, raw_answer, _raw: raw })
    }

    /// Each host with what its credential is, and what is made of it.
    pub(super) fn reflected(&self) -> Vec<(&'static str, String)> {
        let values = &self.values;
        vec![
            (BEARER, values.bearer.clone()),
            (HEADER, values.header.clone()),
            (QUERY, values.query.clone()),
            (BASIC, values.basic.clone()),
            (BASIC, values.password.clone()),
            (BASIC, values.blob.clone()),
        ]
    }

    /// Its place among all values, as the upstream knows it.
    pub(super) fn which(&self, value: &str) -> usize {
        self.values.all().iter().position(|other| *other == value).unwrap_or(usize::MAX)
    }

    pub(super) async fn hear(&self, url: &str) -> anyhow::Result<Heard> {
        self.tenant.hear_get("probe", url).await
    }

    /// What a guest hears of this answer to its request with the bearer token.
    pub(super) async fn hear_reply(&self, reply: Reply) -> anyhow::Result<Heard> {
        let path = format!("/said/{}", self.answers.lock().len());
        self.answers.lock().push((path.clone(), reply));
        self.hear(&format!("https://{BEARER}{path}")).await
    }

    /// Waits until a request for a path that begins so has arrived.
    pub(super) async fn arrived(&self, path: &str) {
        while !self.upstream.recorded().iter().any(|request| request.target.starts_with(path)) {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Lets the answer go that is held.
    pub(super) fn release(&self) {
        self.held.notify_one();
    }

    /// What a guest hears of these bytes.
    pub(super) async fn hear_raw(&self, pieces: Vec<Piece>) -> anyhow::Result<Heard> {
        *self.raw_answer.lock() = pieces;
        self.hear(&format!("https://{RAW}/")).await
    }
}

fn probe_manifest() -> String {
    let rest = [
        probe::slot("bearer", "{ kind = \"bearer\" }", &[BEARER, RAW]),
        probe::slot("header", "{ kind = \"header\", name = \"x-api-key\" }", &[HEADER]),
        probe::slot("query", "{ kind = \"query\", name = \"api_key\" }", &[QUERY]),
        probe::slot("basic", "{ kind = \"basic\" }", &[BASIC]),
        probe::open(OPEN),
    ];
    probe::manifest("probe", "1.0.0", &rest.concat())
}

/// The credential arrives exactly as it is placed, and nowhere else.
fn is_placed(request: &Recorded, values: &Values) -> bool {
    let authorization = request.header("authorization");
    let key = request.header("x-api-key");
    let in_query = request.target.contains("api_key=");
    match request.header("host") {
        Some(BEARER) => authorization == Some(&format!("Bearer {}", values.bearer)) && key.is_none() && !in_query,
        Some(HEADER) => authorization.is_none() && key == Some(&values.header) && !in_query,
        Some(BASIC) => authorization == Some(&format!("Basic {}", values.blob)) && key.is_none() && !in_query,
        Some(QUERY) => {
            let coded: String = values.query.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let sent = request.target.rsplit_once("api_key=").map_or("", |(_, value)| value);
            authorization.is_none() && key.is_none() && decoded(sent) == decoded(&coded)
        }
        Some(OPEN) => authorization.is_none() && key.is_none() && !in_query,
        _ => false,
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).1,
            None => (bytes.push(*first), rest = after).1,
        }
    }
    bytes
}

fn answer(request: &Recorded, values: &Values, answers: &Answers) -> Reply {
    if !is_placed(request, values) {
        return Reply::json(401, &json!({"error": "not the credential, or not in its place"}));
    }
    let path = request.target.split('?').next().unwrap_or_default();
    if let Some((_, reply)) = answers.lock().iter().find(|(other, _)| other == path) {
        return reply.clone();
    }
    let path = path.strip_prefix("/held").unwrap_or(path);
    let index = path.strip_prefix("/form/").and_then(|index| index.parse::<usize>().ok());
    let of = request.target.split("of=").nth(1).and_then(|rest| rest.split('&').next()?.parse::<usize>().ok());
    let form = of.and_then(|of| Some(*values.all().get(of)?)).zip(index);
    match form.and_then(|(value, index)| forms(value).into_iter().nth(index)) {
        Some(form) => Reply { status: 200, headers: Vec::new(), body: form.text },
        None => Reply::json(200, &json!({"path": path})),
    }
}
