//! gRPC over HTTP/2 to a local socket, as far as the Workload API needs it: one request message, answers one after
//! the other, no compression. Answers go into the strongbox's own buffers and are not looked at.

use std::path::Path;
use std::time::Duration;

use bytes::BufMut as _;
use bytes::Bytes;
use bytes::BytesMut;
use h2::RecvStream;
use keybearer_strongbox::SvidMessage;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Why the Workload API gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallFault {
    /// The socket cannot be reached, or the connection broke.
    #[error("it cannot be reached")]
    Unreachable,
    /// The stream ended after it had worked.
    #[error("its stream ended")]
    Cut,
    /// `PERMISSION_DENIED`: this host is registered for nothing (Workload API §5.2.1).
    #[error("it has no identity for this host")]
    Denied,
    /// It talks nonsense, or more than is read.
    #[error("its answer is not as it should be")]
    Malformed,
}

/// A local agent answers in milliseconds.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A few fields.
const HEAD_BYTES_MAX: u32 = 16 << 10;

/// The answers to one call. Dropping it closes the connection, which is the call's own.
pub(super) struct Answers {
    body: RecvStream,
    /// What has arrived and was not taken.
    rest: Bytes,
    connection: AbortHandle,
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Ends the connection's task unless it is disarmed: a call that is given up leaves nothing behind.
struct Guard(Option<AbortHandle>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.abort();
        }
    }
}

/// Calls a method of the Workload API.
pub(super) async fn call(socket: &Path, method: &str, message: &[u8]) -> Result<Answers, CallFault> {
    let stream = timeout(CONNECT_MAX, UnixStream::connect(socket)).await;
    let stream = stream.map_err(|_| CallFault::Unreachable)?.map_err(|_| CallFault::Unreachable)?;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(HEAD_BYTES_MAX).enable_push(false);
    let shaken = timeout(CONNECT_MAX, builder.handshake::<_, Bytes>(stream)).await;
    let (client, connection) = shaken.map_err(|_| CallFault::Unreachable)?.map_err(unreachable)?;
    let task = tokio::spawn(async move {
        // What breaks it is told to whoever reads the stream.
        drop(connection.await);
    });
    let mut guard = Guard(Some(task.abort_handle()));
    let mut client = client.ready().await.map_err(unreachable)?;
    let request = http::Request::post(format!("http://localhost/SpiffeWorkloadAPI/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // So that no server-side request forgery reaches the agent (Workload Endpoint §6.1).
        .header("workload.spiffe.io", "true")
        .body(())
        .expect("fixed words");
    let (answer, mut body) = client.send_request(request, false).map_err(unreachable)?;
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).map_err(|_| CallFault::Malformed)?);
    framed.put_slice(message);
    body.send_data(framed.freeze(), true).map_err(unreachable)?;
    let answer = answer.await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(CallFault::Malformed);
    }
    // An answer without a message has its status in its head (gRPC over HTTP/2, Trailers-Only).
    if let Some(fault) = fault_of(answer.headers()) {
        return Err(fault);
    }
    let connection = guard.0.take().expect("taken once");
    Ok(Answers { body: answer.into_body(), rest: Bytes::new(), connection })
}

/// Compression flag and length (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

impl Answers {
    /// The next message; none at the end of a call that went well.
    pub(super) async fn message(&mut self) -> Result<Option<SvidMessage>, CallFault> {
        let mut prefix = [0_u8; PREFIX_BYTES];
        let mut filled = 0;
        while filled < PREFIX_BYTES {
            if self.rest.is_empty() && !self.more().await? {
                if filled > 0 {
                    return Err(CallFault::Malformed);
                }
                return self.end().await;
            }
            let taken = (PREFIX_BYTES - filled).min(self.rest.len());
            prefix[filled..filled + taken].copy_from_slice(&self.rest.split_to(taken));
            filled += taken;
        }
        let [compressed, length @ ..] = prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| CallFault::Malformed)?;
        let message = if compressed == 0 { SvidMessage::of_length(length) } else { None };
        let mut message = message.ok_or(CallFault::Malformed)?;
        while !message.is_whole() {
            if self.rest.is_empty() && !self.more().await? {
                return Err(CallFault::Malformed);
            }
            let taken = message.fill(&self.rest);
            drop(self.rest.split_to(taken));
        }
        Ok(Some(message))
    }

    /// Waits for more of the body; false at its end.
    async fn more(&mut self) -> Result<bool, CallFault> {
        let Some(data) = self.body.data().await else { return Ok(false) };
        self.rest = data.map_err(unreachable)?;
        self.body.flow_control().release_capacity(self.rest.len()).map_err(unreachable)?;
        Ok(true)
    }

    async fn end(&mut self) -> Result<Option<SvidMessage>, CallFault> {
        let trailers = self.body.trailers().await.map_err(unreachable)?;
        match trailers.and_then(|trailers| fault_of(&trailers)) {
            Some(fault) => Err(fault),
            None => Ok(None),
        }
    }
}

fn fault_of(fields: &http::HeaderMap) -> Option<CallFault> {
    match fields.get("grpc-status")?.as_bytes() {
        b"0" => None,
        b"7" => Some(CallFault::Denied),
        _ => Some(CallFault::Unreachable),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn unreachable(error: h2::Error) -> CallFault {
    tracing::debug!(%error, "the Workload API's connection");
    CallFault::Unreachable
}

/// `JWTSVIDRequest`: audience = 1, `spiffe_id` = 2.
pub(super) fn jwt_request(audience: &str, id: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(audience.len() + id.len() + 8);
    for (tag, text) in [(0x0a, audience), (0x12, id)] {
        message.push(tag);
        let mut length = text.len();
        while length > 0x7f {
            message.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("seven bits"));
        message.extend_from_slice(text.as_bytes());
    }
    message
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
