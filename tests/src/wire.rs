//! A bare TCP connection to a listener: for bytes that no proper client would send, and for several
//! requests on one connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Answer;

/// How long a listener may take to say something, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection and what has come back on it so far.
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    #[expect(clippy::disallowed_methods, reason = "the tests call from outside: nothing is vetted here")]
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Writes these bytes; false if the other side no longer takes them.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Says that nothing more will be written.
    pub async fn finish(&mut self) {
        // One that has closed already is told nothing.
        drop(self.stream.shutdown().await);
    }

    /// The next answer on the connection.
    ///
    /// # Errors
    /// If the connection ends before, or nothing comes for a long time.
    pub async fn answer(&mut self) -> anyhow::Result<Answer> {
        loop {
            if let Some((answer, rest)) = take_answer(&self.received)? {
                self.received = rest;
                return Ok(answer);
            }
            anyhow::ensure!(self.read_more().await?, "the connection ended before an answer");
        }
    }

    /// Every answer until the other side closes, and how long that took.
    ///
    /// # Errors
    /// If it does not close for a long time, or what came is no answer.
    pub async fn until_closed(&mut self) -> anyhow::Result<(Vec<Answer>, Duration)> {
        let began = Instant::now();
        while self.read_more().await? {}
        let mut answers = Vec::new();
        while let Some((answer, rest)) = take_answer(&self.received)? {
            answers.push(answer);
            self.received = rest;
        }
        anyhow::ensure!(self.received.is_empty(), "more than answers came: {:?}", self.received);
        Ok((answers, began.elapsed()))
    }

    /// Reads once; false if the other side has closed.
    async fn read_more(&mut self) -> anyhow::Result<bool> {
        let mut buffer = [0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut buffer));
        match read.await.context("nothing came, and the connection stayed open")? {
            Ok(0) | Err(_) => Ok(false),
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
        }
    }
}

/// The first whole answer of what came, and the rest; none if it is not whole yet.
fn take_answer(received: &[u8]) -> anyhow::Result<Option<(Answer, Vec<u8>)>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..end]).context("an answer's head is text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).context("an answer begins so")?;
    let status = status.get(..3).context("a status has three digits")?.parse()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Ok(0), |(_, value)| value.parse())?;
    let body = &received[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    Ok(Some((Answer { status, headers, body: body[..length].to_vec() }, body[length..].to_vec())))
}
