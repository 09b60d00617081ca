//! A plain HTTP/1.1 client: a request, an answer, nothing remembered.

use std::net::IpAddr;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem's code; empty if it is no problem.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// Talks to one listener, as one principal or as nobody.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    own: Option<IpAddr>,
}

impl Client {
    /// As nobody.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, token: None, own: None }
    }

    /// As the bearer of this token.
    #[must_use]
    pub fn bearing(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// From an address of this machine's that is not the usual one.
    #[must_use]
    pub fn calling_from(&self, own: IpAddr) -> Self {
        Self { own: Some(own), ..self.clone() }
    }

    /// Where it talks to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `GET`.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, &[], Vec::new()).await
    }

    /// `POST` of JSON.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn post(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<Answer> {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    /// Any request.
    ///
    /// # Errors
    /// If no answer comes.
    #[expect(clippy::disallowed_methods, reason = "the tests call from outside: nothing is vetted here")]
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        let stream = match self.own {
            None => TcpStream::connect(self.address).await?,
            Some(own) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind((own, 0).into())?;
                socket.connect(self.address).await?
            }
        };
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", "keybearer.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        connection.abort();
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Ok(Answer { status: parts.status.as_u16(), headers: headers.collect(), body })
    }
}
