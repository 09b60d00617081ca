//! Calls to agents of the tests: what a well-meaning one may do on the wire, and what a broken one does.

use std::future::Future;
use std::path::PathBuf;

use h2::server::SendResponse;
use http::HeaderMap;
use http::Response;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

use super::*;

/// An agent that speaks to one caller as a case says.
struct Agent {
    folder: tempfile::TempDir,
    speaking: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start<F: Future<Output = ()> + Send + 'static>(speak: impl FnOnce(UnixStream) -> F + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("agent.sock")).expect("bound");
        let speaking = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a caller");
            speak(stream).await;
        });
        Self { folder, speaking }
    }

    /// One that answers its one call as a case says, and drives the connection until the caller goes.
    fn answering(answer: impl FnOnce(SendResponse<Bytes>) + Send + 'static) -> Self {
        Self::start(move |stream| async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            let (_request, respond) = connection.accept().await.expect("a call").expect("a call");
            answer(respond);
            while connection.accept().await.is_some_and(|call| call.is_ok()) {}
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    async fn call(&self) -> Result<Answers, CallFault> {
        call(&self.socket(), "FetchX509SVID", b"request").await
    }

    /// The fault that ends the call, after this many messages.
    async fn ends_after(&self, messages: usize) -> Option<CallFault> {
        let mut answers = match self.call().await {
            Ok(answers) => answers,
            Err(fault) => return (messages == 0).then_some(fault),
        };
        for _ in 0..messages {
            assert!(matches!(answers.message().await, Ok(Some(_))));
        }
        answers.message().await.err()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.speaking.abort();
    }
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).expect("a head")
}

fn status(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static(code))])
}

fn framed(flag: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// A body in these pieces, and trailers if there are any.
fn body(pieces: Vec<Vec<u8>>, trailers: Option<HeaderMap>) -> Agent {
    Agent::answering(move |mut respond| {
        let mut stream = respond.send_response(head(), false).expect("a head");
        let last = pieces.len();
        for (index, piece) in pieces.into_iter().enumerate() {
            stream.send_data(piece.into(), trailers.is_none() && index + 1 == last).expect("sent");
        }
        if let Some(trailers) = trailers {
            stream.send_trailers(trailers).expect("sent");
        }
    })
}

// If it failed, an SVID would be lost or torn because of how the agent's bytes were cut.
#[tokio::test]
async fn messages_are_whole_however_their_bytes_are_cut() {
    let bytes = [framed(0, 30, &[7; 30]), framed(0, 1, &[8])].concat();
    for size in [1, 2, 4, 5, 6, 34, 35, 36, 100] {
        let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let agent = body(pieces, Some(status("0")));
        let mut answers = agent.call().await.expect("answered");
        for _ in 0..2 {
            let told = answers.message().await;
            assert!(matches!(&told, Ok(Some(message)) if message.is_whole()), "cut by {size}: {:?}", told.err());
        }
        assert!(matches!(answers.message().await, Ok(None)), "cut by {size}");
    }
}

// If it failed, a broken agent would have us hold any amount of bytes, or half a key.
#[tokio::test]
async fn o5_a_message_that_is_compressed_too_long_or_cut_off_is_none() {
    let whole = framed(0, 4, b"abcd");
    for (name, pieces, before) in [
        ("compressed", vec![framed(1, 4, b"abcd")], 0),
        ("too long", vec![framed(0, (256 << 10) + 1, b"abcd")], 0),
        ("the longest length", vec![framed(0, u32::MAX, b"abcd")], 0),
        ("cut off in its prefix", vec![vec![0, 0, 0]], 0),
        ("cut off in itself", vec![framed(0, 5, b"abcd")], 0),
        ("cut off after another", vec![whole.clone(), whole[..7].to_vec()], 1),
    ] {
        let agent = body(pieces.clone(), Some(status("0")));
        assert_eq!(agent.ends_after(before).await, Some(CallFault::Malformed), "{name}");
        let agent = body(pieces, None);
        assert_eq!(agent.ends_after(before).await, Some(CallFault::Malformed), "{name}, without trailers");
    }
}

// If it failed, an identity that was taken away would be used on, or a passing failure would wipe what is held.
#[tokio::test]
async fn only_the_status_of_a_denial_is_a_denial() {
    for (code, fault) in [
        ("7", CallFault::Denied),
        ("14", CallFault::Unreachable),
        ("2", CallFault::Unreachable),
        ("x", CallFault::Unreachable),
    ] {
        let alone = Agent::answering(move |mut respond| {
            let (mut head, ()) = head().into_parts();
            head.headers.extend(status(code));
            respond.send_response(Response::from_parts(head, ()), true).expect("sent");
        });
        assert_eq!(alone.ends_after(0).await, Some(fault), "{code} alone");
        let after = body(vec![framed(0, 1, b"a")], Some(status(code)));
        assert_eq!(after.ends_after(1).await, Some(fault), "{code} after a message");
    }
    let page = Agent::answering(|mut respond| {
        let page = Response::builder().status(404).body(()).expect("a head");
        respond.send_response(page, false).expect("sent").send_data(Bytes::from_static(b"no"), true).expect("sent");
    });
    assert_eq!(page.ends_after(0).await, Some(CallFault::Malformed), "no gRPC at all");
}

// If it failed, the host would wait for ever for an agent that had let go of the call.
#[tokio::test]
async fn a_stream_that_is_reset_or_a_connection_that_goes_ends_the_call() {
    let reset = Agent::answering(|mut respond| {
        let mut stream = respond.send_response(head(), false).expect("a head");
        stream.send_data(framed(0, 1, b"a").into(), false).expect("sent");
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    // What was sent before the reset may or may not be handed on.
    let ended = match reset.call().await {
        Ok(mut answers) => loop {
            match answers.message().await {
                Ok(Some(_)) => {}
                ended => break ended.err(),
            }
        },
        Err(fault) => Some(fault),
    };
    assert_eq!(ended, Some(CallFault::Unreachable));

    let refused = Agent::answering(|mut respond| respond.send_reset(h2::Reason::REFUSED_STREAM));
    assert_eq!(refused.ends_after(0).await, Some(CallFault::Unreachable));
    let gone = Agent::start(|stream| async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        let (_request, mut respond) = connection.accept().await.expect("a call").expect("a call");
        let mut stream = respond.send_response(head(), false).expect("a head");
        stream.send_data(framed(0, 100, b"half").into(), false).expect("sent");
        connection.abrupt_shutdown(h2::Reason::INTERNAL_ERROR);
        while connection.accept().await.is_some_and(|call| call.is_ok()) {}
    });
    assert_eq!(gone.ends_after(0).await, Some(CallFault::Unreachable));
    let nobody = tempfile::tempdir().expect("a folder").path().join("agent.sock");
    assert_eq!(call(&nobody, "FetchX509SVID", &[]).await.err(), Some(CallFault::Unreachable));
}

#[tokio::test]
async fn what_is_not_http_2_or_sends_endless_fields_is_not_listened_to() {
    let other = Agent::start(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut said = Vec::new();
        // The caller goes away.
        drop(stream.read_to_end(&mut said).await);
    });
    assert_eq!(other.ends_after(0).await, Some(CallFault::Unreachable));
    let wordy = Agent::answering(|mut respond| {
        let (mut head, ()) = head().into_parts();
        for number in 0..40 {
            let name = http::HeaderName::try_from(format!("x-{number}")).expect("a name");
            head.headers.insert(name, http::HeaderValue::try_from("v".repeat(1_000)).expect("a value"));
        }
        drop(respond.send_response(Response::from_parts(head, ()), true));
    });
    assert_eq!(wordy.ends_after(0).await, Some(CallFault::Unreachable));
}

// If it failed, an agent that gives little room at a time, as it may, would never hear the whole question.
#[tokio::test]
async fn a_call_fits_through_the_smallest_settings() {
    let narrow = Agent::start(|stream| async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(1).max_concurrent_streams(1).max_header_list_size(4 << 10);
        let mut connection = builder.handshake::<_, Bytes>(stream).await.expect("HTTP/2");
        let (request, mut respond) = connection.accept().await.expect("a call").expect("a call");
        assert_eq!(request.headers()["workload.spiffe.io"], "true");
        let answering = tokio::spawn(async move {
            let (mut asked, mut body) = (Vec::new(), request.into_body());
            while let Some(data) = body.data().await {
                let data = data.expect("data");
                asked.extend_from_slice(&data);
                body.flow_control().release_capacity(data.len()).expect("room");
            }
            assert_eq!(asked, framed(0, 7, b"request"));
            let mut stream = respond.send_response(head(), false).expect("a head");
            stream.send_data(framed(0, 2, b"ok").into(), false).expect("sent");
            stream.send_trailers(status("0")).expect("sent");
        });
        while connection.accept().await.is_some_and(|call| call.is_ok()) {}
        answering.await.expect("answered");
    });
    let mut answers = narrow.call().await.expect("answered");
    assert!(matches!(answers.message().await, Ok(Some(_))));
    assert!(matches!(answers.message().await, Ok(None)));
}

#[test]
fn a_request_for_a_jwt_svid_is_written_as_protocol_buffers_say() {
    assert_eq!(jwt_request("a", "b"), [0x0a, 1, b'a', 0x12, 1, b'b']);
    let long = "x".repeat(300);
    let written = jwt_request(&long, "b");
    assert_eq!(&written[..3], [0x0a, 0xac, 0x02], "300 in seven bits at a time");
    assert_eq!(written.len(), 3 + 300 + 3);
}
