//! A connection that is kept: many requests after each other, each as whoever the case says.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Answer;

/// One connection to a listener.
pub struct Kept {
    sender: SendRequest<Full<Bytes>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Kept {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    #[expect(clippy::disallowed_methods, reason = "the tests call from outside: nothing is vetted here")]
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // How it ends is seen by who sends on it.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, connection })
    }

    /// Whether another request can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// `POST` of JSON, as the bearer of a token. If this is dropped before it ends, the connection is closed, as
    /// by a client that hangs up.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn post(&mut self, token: &str, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.sender.ready().await?;
        let request = hyper::Request::post(path)
            .header("host", "keybearer.test")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from(body.to_string())))?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Ok(Answer { status: parts.status.as_u16(), headers: headers.collect(), body })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
