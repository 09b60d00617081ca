//! The load: a closed loop. Each connection has one request under way, sends the next when the answer
//! is in, and stays open. The request is written as bytes that were made beforehand and the answer is
//! only framed, so that the generator takes as little of the machine as it can: what it takes is taken
//! from both sides, and would make them look alike.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::ensure;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::children::Usage;
use crate::plan::Plan;
use crate::stats::Slice;
use crate::stats::quantile;

/// One side of a comparison: where, what is sent, and whose memory and time are looked at.
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The request, whole.
    pub(crate) request: Vec<u8>,
    /// The server's process.
    pub(crate) pid: u32,
}

/// A `POST` of JSON, as bytes.
pub(crate) fn post(path: &str, token: Option<&str>, body: &str) -> Vec<u8> {
    let authorization = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench.test\r\ncontent-type: application/json\r\n\
         {authorization}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// One slice of load.
///
/// # Errors
/// The first answer that is not a 200: nothing is measured that does not work.
pub(crate) async fn slice(target: &Target, concurrency: usize, plan: &Plan) -> anyhow::Result<Slice> {
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.slice;
    let mut connections = Vec::with_capacity(concurrency);
    for _ in 0..concurrency {
        let connection = Connection::open(target.address).await?;
        connections.push(tokio::spawn(drive(connection, target.request.clone(), begin, end)));
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = Usage::of(target.pid)?;
    tokio::time::sleep_until(end.into()).await;
    let after = Usage::of(target.pid)?;
    let mut latencies = Vec::new();
    for connection in connections {
        latencies.extend(connection.await??);
    }
    latencies.sort_by(f64::total_cmp);
    let calls = latencies.len() as u64;
    let cpu = after.cpu.saturating_sub(before.cpu);
    Ok(Slice {
        calls,
        seconds: plan.slice.as_secs_f64(),
        p50_us: quantile(&latencies, 0.5),
        p99_us: quantile(&latencies, 0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / calls.max(1) as f64,
        rss_mib: after.rss_mib,
    })
}

/// Calls until the end; the latencies of those that ended within the slice, microseconds.
async fn drive(mut to: Connection, request: Vec<u8>, begin: Instant, end: Instant) -> anyhow::Result<Vec<f64>> {
    let mut latencies = Vec::with_capacity(1 << 14);
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(latencies);
        }
        to.call(&request).await?;
        let answered = Instant::now();
        if answered >= begin && answered < end {
            latencies.push(micros(answered - sent));
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A keep-alive connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    #[expect(clippy::disallowed_methods, reason = "the load comes from outside, over TCP")]
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// One request and its whole answer, which stays in the buffer.
    async fn call(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut whole = None;
        while whole.is_none_or(|whole| self.buffer.len() < whole) {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server hung up");
            if whole.is_none() {
                whole = frame(&self.buffer)?;
            }
        }
        let accepted = self.buffer.starts_with(b"HTTP/1.1 200 ");
        ensure!(accepted, "not a 200: {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }
}

/// How long an answer is, head and body, once the head is there.
fn frame(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).context("a head is text")?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.context("an answer without a length")??;
    Ok(Some(head + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_framed_by_its_length_once_its_head_is_there() {
        assert_eq!(frame(b"HTTP/1.1 200 OK\r\nContent-Le").expect("not yet"), None);
        assert_eq!(frame(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").expect("framed"), Some(43));
        assert!(frame(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "an answer without a length cannot be framed");
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let request = String::from_utf8(post("/", Some("t"), "{}")).expect("text");
        assert!(request.contains("\r\ncontent-length: 2\r\n\r\n{}"), "{request}");
        assert!(request.contains("\r\nauthorization: Bearer t\r\n"), "{request}");
    }
}
