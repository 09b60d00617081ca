//! A connection on which somebody tells us things by himself: a WebSocket (RFC 6455), opened by an armed request. What
//! is said is bounded, a peer that is silent is found out, and nothing but signs of life is said to it. Not for
//! understanding what is said, and not for reconnecting.

use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SecureRandom as _;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::SinkExt as _;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::SendReason;
use crate::budget::Budgeted;

/// What came of asking for one.
pub enum Opened {
    /// The connection.
    Messages(Box<Messages>),
    /// The peer answered with this status instead.
    Refused(u16),
}

impl Opened {
    /// With which status the peer answered.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Messages(_) => StatusCode::SWITCHING_PROTOCOLS.as_u16(),
            Self::Refused(status) => *status,
        }
    }
}

/// A connection on which messages come in.
pub struct Messages {
    socket: WebSocketStream<Budgeted<TokioIo<Upgraded>>>,
    heard: Instant,
    asked: Instant,
}

/// An event is a few names; what is longer is none.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// How often the peer is asked whether it is there. Proxies forget a connection that is silent for a minute.
const ASK_EVERY: Duration = Duration::from_secs(20);

/// Two askings without an answer, and a little more: the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A few bytes are with the kernel at once, unless the peer reads nothing.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// RFC 6455 §1.3.
const ACCEPT_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

impl Messages {
    pub(crate) async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX))
            .read_buffer_size(4 << 10)
            .max_write_buffer_size(4 << 10)
            .write_buffer_size(0);
        let said = Budgeted::new(TokioIo::new(upgraded));
        let socket = WebSocketStream::from_raw_socket(said, Role::Client, Some(config)).await;
        Self { socket, heard: Instant::now(), asked: Instant::now() }
    }

    /// The next message. Whoever stops waiting loses none.
    ///
    /// # Errors
    /// [`SendReason::Timeout`] if the peer is silent for 45 seconds, [`SendReason::Unreachable`] if it said goodbye,
    /// [`SendReason::MalformedAnswer`] if what it says is no WebSocket or too long, [`SendReason::AnswerTooLarge`] if it
    /// says more in a minute than 6000 messages, signs of life included, or 4 MiB. The connection is of no use then.
    pub async fn next(&mut self) -> Result<Bytes, SendReason> {
        loop {
            let until = (self.asked + ASK_EVERY).min(self.heard + SILENCE_MAX);
            match tokio::time::timeout_at(until, self.socket.next()).await {
                Ok(Some(Ok(_))) if !self.socket.get_mut().spend(1, 0) => return Err(SendReason::AnswerTooLarge),
                Ok(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    match message {
                        Message::Text(text) => return Ok(text.into()),
                        Message::Binary(bytes) => return Ok(bytes),
                        Message::Close(_) => return Err(SendReason::Unreachable),
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                    }
                }
                Ok(Some(Err(_))) if self.socket.get_ref().is_spent() => return Err(SendReason::AnswerTooLarge),
                Ok(Some(Err(_))) => return Err(SendReason::MalformedAnswer),
                Ok(None) => return Err(SendReason::Unreachable),
                Err(_) if self.heard.elapsed() >= SILENCE_MAX => return Err(SendReason::Timeout),
                Err(_) => {
                    self.asked = Instant::now();
                    let asking = self.socket.send(Message::Ping(Bytes::new()));
                    let asked = tokio::time::timeout(WRITE_MAX, asking).await.map_err(|_| SendReason::Timeout)?;
                    asked.map_err(|_| SendReason::Unreachable)?;
                }
            }
        }
    }
}

/// Makes a request one that opens a WebSocket: what the answer must hold.
pub(crate) fn ask(headers: &mut HeaderMap) -> Result<HeaderValue, SendReason> {
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| SendReason::Refused)?;
    let key = STANDARD.encode(nonce);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(&key).map_err(|_| SendReason::Refused)?);
    HeaderValue::try_from(accept(&key)).map_err(|_| SendReason::Refused)
}

/// Whether an answer opens the WebSocket that was asked for (RFC 6455 §4.1): of no extension, of no protocol.
pub(crate) fn is_open(status: StatusCode, headers: &HeaderMap, accepts: &HeaderValue) -> bool {
    let is = |name, value: &str| {
        let mut fields = headers.get_all(name).iter();
        fields.next().is_some_and(|field| field.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
            && fields.next().is_none()
    };
    status == StatusCode::SWITCHING_PROTOCOLS
        && is(header::UPGRADE, "websocket")
        && is(header::CONNECTION, "upgrade")
        && headers.get(header::SEC_WEBSOCKET_ACCEPT) == Some(accepts)
        && !headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
        && !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL)
}

/// What SHA-1 is for here is no secret: it shows that the peer knows the protocol.
fn accept(key: &str) -> String {
    let text = format!("{key}{ACCEPT_SUFFIX}");
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_opens_a_websocket_only_if_it_knows_the_key_and_promises_nothing_else() {
        // RFC 6455 §1.3 has this pair.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut asked = HeaderMap::new();
        let accepts = ask(&mut asked).expect("asked");
        assert_ne!(ask(&mut HeaderMap::new()).expect("asked"), accepts, "another time, another key");
        let mut answer = HeaderMap::new();
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepts.clone());
        let switching = StatusCode::SWITCHING_PROTOCOLS;
        assert!(is_open(switching, &answer, &accepts));
        assert!(!is_open(StatusCode::OK, &answer, &accepts));
        for (name, value) in [
            (header::SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            (header::UPGRADE, "h2c"),
            (header::CONNECTION, "close"),
            (header::SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate"),
            (header::SEC_WEBSOCKET_PROTOCOL, "other"),
        ] {
            let mut wrong = answer.clone();
            wrong.insert(name, HeaderValue::from_static(value));
            assert!(!is_open(switching, &wrong, &accepts), "{value}");
        }
    }
}
