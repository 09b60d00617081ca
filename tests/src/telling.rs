//! A double of a Vault that tells of changes, as HashiCorp's does (Enterprise, event notifications): AppRole, one KV
//! engine with versions, and `sys/events/subscribe`, in the wire format of its documentation. No real server of that kind
//! runs here, and OpenBao has no such notifications.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::Authority;
use crate::canary;

/// A server that tells, until it is dropped.
pub struct TellingVault {
    address: SocketAddr,
    told: Arc<Told>,
    task: tokio::task::JoinHandle<()>,
}

struct Told {
    /// `role_id`, `secret_id`
    login: (String, String),
    state: Mutex<State>,
    events: tokio::sync::broadcast::Sender<Option<Message>>,
    listening: watch::Sender<usize>,
    held: watch::Sender<Held>,
    flood: watch::Sender<Option<Message>>,
}

/// What is answered late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The end of a login.
    Logouts,
    /// A read of a key: what it is at the time it is asked for.
    Reads,
    /// The beginning of a subscription.
    Subscriptions,
}

#[derive(Default)]
struct Held {
    what: Option<Hold>,
    waiting: usize,
}

#[derive(Default)]
struct State {
    tokens: Vec<String>,
    keys: HashMap<String, (String, u64)>,
    before: HashMap<String, (String, u64)>,
    lags: bool,
    reads: usize,
    /// What is asked for is answered like this instead.
    refuses_events: Option<u16>,
    subscribed: Vec<(String, Option<String>)>,
}

impl TellingVault {
    /// The name on its certificate.
    pub const NAME: &'static str = "vault.test";

    /// Starts one; the engine is mounted at `secret`.
    ///
    /// # Errors
    /// If loopback cannot be listened on.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(authority.server(&[Self::NAME])?);
        let told = Arc::new(Told {
            login: (canary("role-"), canary("secret-id-")),
            state: Mutex::default(),
            events: tokio::sync::broadcast::channel(64).0,
            listening: watch::Sender::new(0),
            held: watch::Sender::default(),
            flood: watch::Sender::default(),
        });
        let shared = Arc::clone(&told);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, told) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let told = Arc::clone(&told);
                        async move { Ok::<_, Infallible>(answer(&told, request).await) }
                    });
                    let serving =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A connection that breaks is the peer's business.
                    drop(serving.with_upgrades().await);
                });
            }
        });
        Ok(Self { address, told, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `role_id:secret_id` of its one role.
    #[must_use]
    pub fn login(&self) -> String {
        format!("{}:{}", self.told.login.0, self.told.login.1)
    }

    /// Writes a value of a key, and tells nobody: the value.
    pub fn put(&self, key: &str) -> String {
        let value = canary("told-");
        let mut state = self.told.state.lock();
        let version = state.keys.get(key).map_or(0, |(_, version)| *version) + 1;
        if let Some(before) = state.keys.insert(key.to_owned(), (value.clone(), version)) {
            state.before.insert(key.to_owned(), before);
        }
        value
    }

    /// The same, as this version: as a key is that was deleted with its metadata and begun anew.
    pub fn put_as(&self, key: &str, version: u64) -> String {
        let value = canary("told-");
        self.told.state.lock().keys.insert(key.to_owned(), (value.clone(), version));
        value
    }

    /// Tells that a key was written, as the documentation of events has it.
    pub fn tell(&self, key: &str) {
        self.say(&self.event(key));
    }

    fn event(&self, key: &str) -> String {
        let version = self.told.state.lock().keys.get(key).map_or(1, |(_, version)| *version);
        let path = format!("secret/data/{key}");
        let id = canary("").split_off(8);
        let event = json!({
            "data": {
                "event": {"id": id, "metadata": {
                    "current_version": version.to_string(), "data_path": path, "modified": "true", "oldest_version": "0",
                    "operation": "data-write", "path": path,
                }},
                "event_type": "kv-v2/data-write",
                "plugin_info": {"mount_accessor": "kv_5dc4d18e", "mount_class": "secret", "mount_path": "secret/",
                    "plugin": "kv", "version": "2"},
            },
            "datacontentype": "application/cloudevents", "id": id, "source": "vault://tests", "specversion": "1.0",
            "time": "2026-11-22T10:00:00.000000000Z", "type": "*",
        });
        event.to_string()
    }

    /// Tells whoever listens, without a pause, that a key was written.
    pub fn flood(&self, key: &str) {
        self.told.flood.send_replace(Some(Message::text(self.event(key))));
    }

    /// Reads of a key give its version from before the last one until this is said again, as a replica does that lags.
    pub fn lag(&self, lags: bool) {
        self.told.state.lock().lags = lags;
    }

    /// Sends this text to whoever listens.
    pub fn say(&self, text: &str) {
        // Nobody may be listening.
        drop(self.told.events.send(Some(Message::text(text))));
    }

    /// Breaks every subscription, and answers further ones with this status until it is told otherwise.
    pub fn refuse_events(&self, status: Option<u16>) {
        self.told.state.lock().refuses_events = status;
        if status.is_some() {
            drop(self.told.events.send(None));
        }
    }

    /// Answers these no more until they are released.
    pub fn hold(&self, what: Hold) {
        self.told.held.send_modify(|held| held.what = Some(what));
    }

    /// Answers what was held.
    pub fn release(&self) {
        self.told.held.send_modify(|held| held.what = None);
    }

    /// Waits until somebody waits for what is held.
    ///
    /// # Errors
    /// If nobody does.
    pub async fn holds_one(&self) -> anyhow::Result<()> {
        let mut held = self.told.held.subscribe();
        let one = held.wait_for(|held| held.waiting > 0);
        tokio::time::timeout(std::time::Duration::from_secs(30), one).await??;
        Ok(())
    }

    /// Forgets every login, as a restart does that lost them.
    pub fn forget_logins(&self) {
        self.told.state.lock().tokens.clear();
    }

    /// Waits until so many subscriptions were opened in all.
    ///
    /// # Errors
    /// If they are not.
    pub async fn subscribed(&self, count: usize) -> anyhow::Result<()> {
        let mut listening = self.told.listening.subscribe();
        let enough = listening.wait_for(|opened| *opened >= count);
        tokio::time::timeout(std::time::Duration::from_secs(30), enough).await??;
        Ok(())
    }

    /// What was subscribed to: path with query, and namespace.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<(String, Option<String>)> {
        self.told.state.lock().subscribed.clone()
    }

    /// How often a key was read.
    #[must_use]
    pub fn reads(&self) -> usize {
        self.told.state.lock().reads
    }

    /// Every token that was given out and is good.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.told.state.lock().tokens.clone()
    }
}

impl Drop for TellingVault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Response = hyper::Response<Full<Bytes>>;

fn json_answer(status: u16, body: &Value) -> Response {
    let mut response = hyper::Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::IM_A_TEAPOT);
    response
}

impl Told {
    /// Waits for as long as these are held.
    async fn pass(&self, what: Hold) {
        if self.held.borrow().what != Some(what) {
            return;
        }
        self.held.send_modify(|held| held.waiting += 1);
        // The sender lives as long as whoever waits here.
        drop(self.held.subscribe().wait_for(|held| held.what != Some(what)).await);
        self.held.send_modify(|held| held.waiting -= 1);
    }
}

async fn answer(told: &Arc<Told>, mut request: hyper::Request<Incoming>) -> Response {
    let path = request.uri().path().to_owned();
    let field = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (token, namespace, key) = (field("x-vault-token"), field("x-vault-namespace"), field("sec-websocket-key"));
    if path == "/v1/auth/approle/login" {
        let body = request.body_mut().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (body["role_id"].as_str(), body["secret_id"].as_str()) != (Some(&told.login.0), Some(&told.login.1)) {
            return json_answer(400, &json!({"errors": ["invalid role or secret ID"]}));
        }
        let token = canary("hvs.");
        told.state.lock().tokens.push(token.clone());
        let auth = json!({"client_token": token, "lease_duration": 600, "token_type": "service"});
        return json_answer(200, &json!({ "auth": auth }));
    }
    if !token.is_some_and(|token| told.state.lock().tokens.contains(&token)) {
        return json_answer(403, &json!({"errors": ["permission denied"]}));
    }
    if path == "/v1/auth/token/revoke-self" {
        told.pass(Hold::Logouts).await;
        let token = request.headers().get("x-vault-token").cloned();
        told.state.lock().tokens.retain(|known| token.as_ref().is_none_or(|token| token != known.as_str()));
        return json_answer(204, &Value::Null);
    }
    if let Some(key) = path.strip_prefix("/v1/secret/data/") {
        let found = {
            let mut state = told.state.lock();
            state.reads += 1;
            if state.lags { state.before.get(key).cloned() } else { state.keys.get(key).cloned() }
        };
        told.pass(Hold::Reads).await;
        let Some((value, version)) = found else { return json_answer(404, &json!({"errors": []})) };
        return json_answer(200, &json!({"data": {"data": {"value": value}, "metadata": {"version": version}}}));
    }
    if !path.starts_with("/v1/sys/events/subscribe/") {
        return json_answer(404, &json!({"errors": ["no handler for route"]}));
    }
    if let Some(status) = told.state.lock().refuses_events {
        return json_answer(status, &json!({"errors": ["events are not to be had"]}));
    }
    let Some(key) = key else { return json_answer(400, &json!({"errors": ["not a websocket"]})) };
    told.pass(Hold::Subscriptions).await;
    told.state.lock().subscribed.push((request.uri().to_string(), namespace));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(serve_events(Arc::clone(told), upgrade));
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", &accept(&key))]
    {
        if let Ok(value) = hyper::header::HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// RFC 6455 §4.2.2.
fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

async fn serve_events(told: Arc<Told>, upgrade: OnUpgrade) {
    let mut events = told.events.subscribe();
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    told.listening.send_modify(|opened| *opened += 1);
    let mut flood = told.flood.subscribe();
    loop {
        tokio::select! {
            // Cloned before anything else is waited for: what it gives is a lock.
            message = async { flood.wait_for(Option::is_some).await.ok()?.clone() } => {
                let Some(message) = message else { return };
                while socket.send(message.clone()).await.is_ok() {}
                return;
            }
            event = events.recv() => match event {
                Ok(Some(message)) if socket.send(message.clone()).await.is_ok() => {}
                _ => return,
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
        }
    }
}
