//! How much and how long the server listens to an upstream.

use std::io::Write as _;
use std::time::Duration;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use keybearer_tests::Authority;
use keybearer_tests::Piece;
use keybearer_tests::RawUpstream;
use keybearer_tests::ServerOptions;
use serde_json::json;

use super::PACKAGE;
use super::Stage;
use super::tenant;

const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n";

fn slow(path: &str) -> Vec<Piece> {
    let drip = |text: &str| -> Vec<Piece> {
        let letters = text.chars().map(|letter| Piece::text(letter.to_string()));
        letters.flat_map(|piece| [piece, Piece::Pause(Duration::from_millis(100))]).collect()
    };
    match path {
        "/no-head" => vec![Piece::Hang],
        "/half-head" => vec![Piece::text("HTTP/1.1 200"), Piece::Hang],
        "/dripping-head" => drip(&format!("{HEAD}content-length: 2\r\n\r\nok")),
        "/no-body" => vec![Piece::text(format!("{HEAD}content-length: 2\r\n\r\n")), Piece::Hang],
        "/half-body" => vec![Piece::text(format!("{HEAD}content-length: 9\r\n\r\nhalf")), Piece::Hang],
        // Each byte comes in time; all of them would not.
        "/dripping-body" => {
            [vec![Piece::text(format!("{HEAD}content-length: 999\r\n\r\n"))], drip(&"x".repeat(999))].concat()
        }
        "/closed" => Vec::new(),
        _ => vec![Piece::text(format!("{HEAD}content-length: 2\r\n\r\nok"))],
    }
}

fn path(request: &str) -> &str {
    request.split(' ').nth(1).unwrap_or_default()
}

// If it failed, one upstream that says nothing would hold calls, connections and instances for ever.
#[tokio::test]
async fn n26_o4_each_step_of_a_slow_upstream_has_its_deadline_and_slows_nobody_else() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = RawUpstream::start(Some(authority.server(&["slow.test"])?), |request| slow(path(request))).await?;
    let quick = RawUpstream::start(Some(authority.server(&["quick.test"])?), |_| slow("/")).await?;
    // It takes a connection and says nothing: TLS never begins.
    let mute = RawUpstream::start(None, |_| vec![Piece::Hang]).await?;
    let full = full_backlog().await?;
    let options = ServerOptions::default()
        .with_egress("connect_ms = 400\ntls_ms = 400\nfirst_byte_ms = 500\nidle_ms = 400")
        .pin_at("slow.test", 443, upstream.address())
        .pin_at("quick.test", 443, quick.address())
        .pin_at("mute.test", 443, mute.address())
        .pin_at("full.test", 443, full.address);
    let stage = Stage::new(&authority, &["slow.test", "quick.test", "mute.test", "full.test"], options).await?;
    let (other, _) = tenant(&stage.server, "other").await?;
    let cases = [
        ("https://full.test/", "upstream: timeout, not sent"),
        ("https://mute.test/", "upstream: timeout, not sent"),
        ("https://slow.test/no-head", "upstream: timeout, maybe sent"),
        ("https://slow.test/half-head", "upstream: timeout, maybe sent"),
        ("https://slow.test/dripping-head", "upstream: timeout, maybe sent"),
        ("https://slow.test/no-body", "upstream: timeout, maybe sent"),
        ("https://slow.test/half-body", "upstream: timeout, maybe sent"),
        ("https://slow.test/closed", "upstream: malformed answer, maybe sent"),
    ];
    let started = Instant::now();
    let all_slow = async {
        let mut calls = tokio::task::JoinSet::new();
        for (url, outcome) in cases {
            let tenant = keybearer_tests::Tenant {
                id: stage.tenant.id.clone(),
                client: stage.tenant.client.clone(),
                token: String::new(),
            };
            calls.spawn(async move { (url, outcome, tenant.hear_get(PACKAGE, url).await) });
        }
        calls.join_all().await
    };
    let control = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let begun = Instant::now();
            let heard = other.hear_get(PACKAGE, "https://quick.test/").await?;
            anyhow::ensure!(heard.outcome == "200", "{}", heard.outcome);
            slowest = slowest.max(begun.elapsed());
        }
        Ok(slowest)
    };
    let (slow, slowest) = tokio::join!(all_slow, control);
    for (url, expected, heard) in slow {
        assert_eq!(heard?.outcome, expected, "{url}");
    }
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    assert!(slowest? < Duration::from_secs(3), "another tenant waited");

    // The call's own deadline ends what keeps to every other one.
    let arguments = json!({"url": "https://slow.test/dripping-body"});
    let body = json!({"tool": format!("{PACKAGE}.echo_back"), "arguments": arguments, "timeout_ms": 900});
    let started = Instant::now();
    let answer = stage.tenant.client.post("/v1/calls", &body).await?;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"), "{}", answer.text());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    Ok(())
}

/// A listener that accepts nothing, with its queue full: the kernel no longer answers a SYN.
struct FullBacklog {
    address: std::net::SocketAddr,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<tokio::task::JoinHandle<()>>,
}

#[expect(clippy::disallowed_methods, reason = "it fills the queue of a listener of its own")]
async fn full_backlog() -> anyhow::Result<FullBacklog> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(1)?;
    let address = listener.local_addr()?;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(tokio::spawn(async move {
            let held = tokio::net::TcpStream::connect(address).await;
            std::future::pending::<()>().await;
            drop(held);
        }));
    }
    // Full when one more does not get through.
    while tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await.is_ok() {}
    Ok(FullBacklog { address, _listener: listener, _waiting: waiting })
}

const MIB: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("packed")
}

/// Ten MiB of zeros, by the brotli of Node.js.
const BROTLI_BOMB: &str = "y///P/gnAOKxQCD3/i///z/wTwDEYRGA7v0H";

/// Frames of one block each that says "128 KiB of this byte" (RFC 8878 §3.1.1.2.2).
fn zstd_bomb() -> Vec<u8> {
    // Magic; a frame of a single segment whose content is 128 KiB; a last block of type RLE.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0x00, 0x00, 0x02, 0x00, 0x03, 0x00, 0x10, 0x00];
    frame.repeat(200)
}

fn large(path: &str) -> Vec<Piece> {
    let coded = |coding: &str, body: Vec<u8>| {
        let head = format!("{HEAD}content-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
        vec![Piece::text(head), Piece::Bytes(body)]
    };
    match path {
        // It says at once that it is too much, and nothing more.
        "/announced" => vec![Piece::text(format!("{HEAD}content-length: 10737418240\r\n\r\nx")), Piece::Hang],
        "/endless" => {
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 65536], b"\r\n".to_vec()].concat();
            let mut pieces = vec![Piece::text(format!("{HEAD}transfer-encoding: chunked\r\n\r\n"))];
            pieces.extend(std::iter::repeat_n(Piece::Bytes(chunk), 40));
            pieces.push(Piece::Hang);
            pieces
        }
        "/gzip" => coded("gzip", gzip(&vec![0; 40 * MIB])),
        "/gzip-gzip" => coded("gzip, gzip", gzip(&gzip(&vec![0; 40 * MIB]))),
        "/gzip-members" => coded("gzip", gzip(&vec![0; MIB / 2]).repeat(40)),
        "/br" => coded(
            "br",
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD, BROTLI_BOMB).expect("base64"),
        ),
        "/zstd" => coded("zstd", zstd_bomb()),
        "/head" => vec![Piece::text(format!("{HEAD}x: {}\r\n\r\n", "y".repeat(80 << 10)))],
        "/heads" => vec![Piece::text(format!("{HEAD}{}\r\n", "x: y\r\n".repeat(2000)))],
        "/short" => vec![Piece::text(format!("{HEAD}content-length: 9\r\n\r\nhalf"))],
        _ => vec![Piece::text(format!("{HEAD}content-length: 1048576\r\n\r\n{}", "x".repeat(MIB)))],
    }
}

// If it failed, one answer of a few bytes would take the memory that all tenants share.
#[tokio::test]
async fn n27_answers_that_are_too_large_are_not_read_and_not_decoded_to_their_end() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = RawUpstream::start(Some(authority.server(&["large.test"])?), |request| large(path(request))).await?;
    let options = ServerOptions::default().pin_at("large.test", 443, upstream.address());
    let stage = Stage::new(&authority, &["large.test"], options).await?;
    let asked = async |path: &str| {
        let arguments = json!({"url": format!("https://large.test{path}"), "times": 1});
        let answer = stage.tenant.call(&format!("{PACKAGE}.response_bomb"), arguments).await?;
        anyhow::Ok(answer.json()["result"][0].clone())
    };
    // Exactly what is allowed comes through; it is one MiB in the probe's manifest.
    assert_eq!(asked("/exact").await?, json!(["200", MIB]));
    let before = resident_kib(stage.server.pid())?;
    for path in ["/announced", "/endless", "/gzip", "/gzip-gzip", "/gzip-members", "/br", "/zstd"] {
        let started = Instant::now();
        assert_eq!(asked(path).await?, json!(["upstream: answer too large, maybe sent", 0]), "{path}");
        assert!(started.elapsed() < Duration::from_secs(5), "{path}: {:?}", started.elapsed());
    }
    for path in ["/head", "/heads", "/short"] {
        assert_eq!(asked(path).await?, json!(["upstream: malformed answer, maybe sent", 0]), "{path}");
    }
    let grown = resident_kib(stage.server.pid())?.saturating_sub(before);
    assert!(grown < 64 << 10, "the server grew by {grown} KiB");
    assert_eq!(asked("/exact").await?, json!(["200", MIB]), "and all is well after it");
    Ok(())
}

/// The most memory that a process has held so far.
fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| anyhow::anyhow!("no peak of memory in {status}"))
}
