//! Dispatch against upstreams on loopback that do what no upstream should.

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use keybearer_contract::CallId;
use keybearer_contract::Digest;
use keybearer_contract::RunId;
use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::*;
use crate::fixture::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends one GET for a tenant and says what came of it. No failure may repeat what was sent, or where to.
async fn ask_as(
    egress: &Egress,
    tenant: &TenantId,
    credential: Option<&CredentialId>,
    limits: SendLimits,
) -> Result<Answer, SendFault> {
    ask_at(egress, "https://api.example.com/", tenant, credential, limits).await
}

async fn ask_at(
    egress: &Egress,
    url: &str,
    tenant: &TenantId,
    credential: Option<&CredentialId>,
    limits: SendLimits,
) -> Result<Answer, SendFault> {
    let place = destination(url);
    let vetted = egress.vet(&place, limits.deadline).await.expect("the pin is allowed");
    let key = PoolKey { credential: credential.cloned(), ..key(tenant, &place) };
    let answer = egress.exchange(key, get("/v1/things?q=x").into(), Some(Free), to(&vetted), limits).await;
    if let Err(fault) = &answer {
        let text = format!("{fault} {fault:?} {} {:?}", fault.reason, fault.reason);
        for told in ["example", "127.0.0.1", "canary", "things"] {
            assert!(!text.contains(told), "x11: {text}");
        }
    }
    answer
}

async fn ask(egress: &Egress) -> Result<Answer, SendFault> {
    ask_as(egress, &TenantId::random(), None, limits()).await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.concat()).expect("text")
}

fn fault(answer: Result<Answer, SendFault>) -> SendFault {
    match answer {
        Ok(answer) => panic!("an answer with status {} came back", answer.status),
        Err(fault) => fault,
    }
}

/// What an upstream that answers this comes to.
async fn answered(answer: impl Into<Vec<u8>>) -> Result<Answer, SendFault> {
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), answer).await;
    ask(&egress(&upstream, &authority)).await
}

#[tokio::test]
async fn n32_a_request_leaves_in_origin_form_and_its_connection_is_used_again() {
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), OK).await;
    let egress = egress(&upstream, &authority);
    let tenant = TenantId::random();
    for _ in 0..3 {
        let answer = ask_as(&egress, &tenant, None, limits()).await.expect("an answer");
        assert_eq!((answer.status, text(&answer).as_str()), (200, "ok"));
    }
    assert_eq!(upstream.accepted(), 1);
    let expected = "GET /v1/things?q=x HTTP/1.1\r\nhost: api.example.com\r\nauthorization: Bearer canary-7c2f\r\n\r\n";
    assert_eq!(upstream.heads(), vec![(0, expected.to_owned()); 3]);
}

#[tokio::test]
async fn t14_two_tenants_and_two_credentials_never_share_a_connection() {
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), OK).await;
    let egress = egress(&upstream, &authority);
    let (a, b) = (TenantId::random(), TenantId::random());
    let (x, y) = (CredentialId::random(), CredentialId::random());
    for round in 0..2 {
        for (tenant, credential) in [(&a, Some(&x)), (&b, Some(&x)), (&a, Some(&y)), (&a, None), (&b, None)] {
            ask_as(&egress, tenant, credential, limits()).await.expect("an answer");
        }
        assert_eq!(upstream.accepted(), 5, "round {round}");
    }
    // A revocation closes the idle connection: the next request is on another.
    egress.close_connections(&a, &x);
    ask_as(&egress, &b, Some(&x), limits()).await.expect("an answer");
    assert_eq!(upstream.accepted(), 5);
    ask_as(&egress, &a, Some(&x), limits()).await.expect("an answer");
    assert_eq!(upstream.accepted(), 6);
}

#[tokio::test]
async fn n06_a_kept_connection_to_another_address_than_the_vetted_one_is_not_used() {
    let authority = Authority::new();
    let server = authority.serves(&[HOST], |_| ());
    let (first, second) =
        (Upstream::answering(Some(server.clone()), OK).await, Upstream::answering(Some(server), OK).await);
    let egress = egress(&first, &authority);
    let place = destination("https://api.example.com/");
    let key = key(&TenantId::random(), &place);
    let elsewhere = Egress::new(&second.config()).expect("the configuration is good");
    let vetted = egress.vet(&place, limits().deadline).await.expect("vetted");
    let moved = elsewhere.vet(&place, limits().deadline).await.expect("vetted");
    for vetted in [&vetted, &vetted, &moved, &moved] {
        assert_eq!(egress.status(key.clone(), get("/"), vetted, limits()).await, Ok(200));
    }
    assert_eq!((first.heads().len(), second.heads().len()), (2, 2));
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
}

#[tokio::test]
async fn n10_a_redirect_is_an_answer_and_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        for location in ["https://evil.example/", "http://api.example.com/", "//127.0.0.1/", "file:///etc/passwd", "/"]
        {
            let authority = Authority::new();
            let answer = format!("HTTP/1.1 {status} X\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
            let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), answer).await;
            let answer = ask(&egress(&upstream, &authority)).await.expect("an answer");
            assert_eq!(answer.status, status);
            assert_eq!(answer.headers["location"], location);
            assert_eq!((upstream.accepted(), upstream.heads().len()), (1, 1));
        }
    }
}

#[tokio::test]
async fn n22_an_answer_that_two_readers_could_frame_in_two_ways_is_malformed() {
    for answer in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let fault = fault(answered(answer).await);
        assert_eq!(fault, SendReason::MalformedAnswer.maybe_sent(), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_of_http_1_is_malformed() {
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = format!("x: {}\r\n", "y".repeat(80 << 10));
    for answer in [
        "SSH-2.0-OpenSSH_9.6\r\n\r\n".to_owned(),
        "HTTP/2.0 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(),
        "HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 99 X\r\ncontent-length: 0\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{large}content-length: 0\r\n\r\n"),
    ] {
        let fault = fault(answered(answer.clone()).await);
        assert_eq!(fault, SendReason::MalformedAnswer.maybe_sent(), "{:?}", &answer[..answer.len().min(60)]);
    }
}

#[tokio::test]
async fn x02_informational_answers_and_trailers_reach_nobody() {
    let answer = answered(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nx-early: canary\r\n\r\n\
         HTTP/1.1 200 canary\r\ntransfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n2;x=canary\r\nok\r\n0\r\nx-late: canary\r\n\r\n",
    )
    .await
    .expect("an answer");
    assert_eq!((answer.status, text(&answer).as_str()), (200, "ok"));
    assert!(!format!("{:?}", answer.headers).contains("canary"));
}

#[tokio::test]
async fn n26_an_upstream_that_says_nothing_is_given_up() {
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), |mut wire| async move {
        wire.head().await;
        wire.until_closed().await;
    })
    .await;
    let mut config = upstream.config();
    config.deadlines.first_byte = Duration::from_millis(60);
    let egress = egress_with(config, &authority);
    assert_eq!(fault(ask(&egress).await), SendReason::Timeout.maybe_sent());
}

#[tokio::test]
async fn n26_a_head_that_drips_is_given_up_although_every_byte_is_in_time() {
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), |mut wire| async move {
        wire.head().await;
        wire.say("HTTP/1.1 200 OK\r\nx: ").await;
        while wire.say("y").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut config = upstream.config();
    config.deadlines.first_byte = Duration::from_millis(100);
    assert_eq!(fault(ask(&egress_with(config, &authority)).await), SendReason::Timeout.maybe_sent());
}

#[tokio::test]
async fn n26_a_body_that_stalls_or_drips_is_given_up() {
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), |mut wire| async move {
        wire.head().await;
        wire.say("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        if wire.number == 0 {
            return wire.until_closed().await;
        }
        while wire.say("y").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut config = upstream.config();
    config.deadlines.idle = Duration::from_millis(80);
    let egress = egress_with(config, &authority);
    assert_eq!(fault(ask(&egress).await), SendReason::Timeout.maybe_sent());
    // Each byte is in time; the call's own deadline ends it.
    let limits = SendLimits { deadline: Instant::now() + Duration::from_millis(300), ..limits() };
    assert_eq!(fault(ask_as(&egress, &TenantId::random(), None, limits).await), SendReason::Timeout.maybe_sent());
}

#[tokio::test]
async fn n26_a_peer_that_does_not_speak_tls_in_time_is_given_up_before_anything_is_sent() {
    let upstream = Upstream::start(None, |mut wire| async move { wire.until_closed().await }).await;
    let mut config = upstream.config();
    config.deadlines.tls = Duration::from_millis(60);
    let egress = egress_with(config, &Authority::new());
    assert_eq!(fault(ask(&egress).await), SendReason::Timeout.not_sent());
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable() {
    let upstream = Upstream::start(None, |_| async {}).await;
    let mut config = upstream.config();
    // Bound and not listening: refused, and nobody else can take it meanwhile.
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind("127.0.0.1:0".parse().expect("address")).expect("a port");
    for pin in &mut config.dangerous.pin {
        pin.address = socket.local_addr().expect("address");
    }
    assert_eq!(fault(ask(&egress_with(config, &Authority::new())).await), SendReason::Unreachable.not_sent());
}

#[tokio::test]
async fn n27_a_body_beyond_the_cap_is_not_read() {
    let said_all = Arc::new(AtomicBool::new(false));
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), {
        let said_all = said_all.clone();
        move |mut wire| {
            let said_all = said_all.clone();
            async move {
                wire.head().await;
                if wire.number == 0 {
                    wire.say("HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\n").await;
                    return wire.until_closed().await;
                }
                wire.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                let chunk = format!("10000\r\n{}\r\n", "y".repeat(0x10000));
                // Ten gibibytes, if somebody takes them.
                for _ in 0..(10_u64 << 30 >> 16) {
                    if !wire.say(&chunk).await {
                        return;
                    }
                }
                said_all.store(true, Ordering::SeqCst);
            }
        }
    })
    .await;
    let egress = egress(&upstream, &authority);
    assert_eq!(fault(ask(&egress).await), SendReason::AnswerTooLarge.maybe_sent());
    assert_eq!(fault(ask(&egress).await), SendReason::AnswerTooLarge.maybe_sent());
    assert!(!said_all.load(Ordering::SeqCst));
}

#[tokio::test]
async fn n27_a_body_of_the_very_limit_is_whole_and_one_byte_more_is_too_large() {
    let limit = usize::try_from(limits().response_bytes).expect("small");
    for (length, fits) in [(limit, true), (limit + 1, false)] {
        let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        chunked.extend(format!("{length:x}\r\n{}\r\n0\r\n\r\n", "y".repeat(length)).into_bytes());
        match answered(chunked).await {
            Ok(answer) => assert!(fits && answer.body.concat().len() == limit),
            Err(fault) => assert_eq!((fits, fault), (false, SendReason::AnswerTooLarge.maybe_sent())),
        }
    }
}

#[tokio::test]
async fn n27_a_body_of_chunks_of_one_byte_is_joined() {
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20_000 {
        answer.extend_from_slice(b"1\r\ny\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    let answer = answered(answer).await.expect("an answer");
    assert_eq!(text(&answer), "y".repeat(20_000));
    assert!(answer.body.len() < 10, "{} pieces", answer.body.len());
}

#[tokio::test]
async fn n27_a_body_that_ends_before_its_length_is_malformed() {
    for goodbye in [true, false] {
        for start in [
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
            "HTTP/1.1 200 OK\r\ncontent-le",
        ] {
            let authority = Authority::new();
            let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), move |mut wire| async move {
                wire.head().await;
                wire.say(start).await;
                if goodbye {
                    wire.end().await;
                    wire.until_closed().await;
                }
            })
            .await;
            let answer = ask(&egress(&upstream, &authority)).await;
            assert_eq!(fault(answer), SendReason::MalformedAnswer.maybe_sent(), "{start:?} {goodbye}");
        }
    }
}

#[tokio::test]
async fn n26_a_body_without_a_length_ends_with_a_goodbye_and_with_nothing_less() {
    for goodbye in [true, false] {
        let authority = Authority::new();
        let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), move |mut wire| async move {
            wire.head().await;
            wire.say("HTTP/1.1 200 OK\r\n\r\nwhole").await;
            if goodbye {
                wire.end().await;
                wire.until_closed().await;
            }
        })
        .await;
        let answer = ask(&egress(&upstream, &authority)).await;
        if goodbye {
            assert_eq!(text(&answer.expect("a whole answer")), "whole");
        } else {
            // Without it, whoever cut the connection would decide where the answer ends.
            assert_eq!(fault(answer), SendReason::MalformedAnswer.maybe_sent());
        }
    }
}

#[tokio::test]
async fn n22_what_comes_before_it_was_asked_for_is_not_the_answer_to_the_next_request() {
    let authority = Authority::new();
    let upstream = Upstream::start(Some(authority.serves(&[HOST], |_| ())), |mut wire| async move {
        while wire.head().await.is_some() {
            wire.say([OK, b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"].concat()).await;
        }
    })
    .await;
    let egress = egress(&upstream, &authority);
    let tenant = TenantId::random();
    for _ in 0..5 {
        match ask_as(&egress, &tenant, None, limits()).await {
            Ok(answer) => assert_eq!(text(&answer), "ok"),
            Err(fault) => assert_eq!(fault, SendReason::StaleConnection.not_sent()),
        }
    }
}

#[tokio::test]
async fn a_request_with_an_empty_body_says_so() {
    let facts = Facts {
        tenant: TenantId::random(),
        principal: PrincipalLabel::host(),
        run: RunId::random(),
        call: CallId::random(),
        tool: "a.b".parse().expect("tool"),
        package: Digest::of_package(b"", b""),
    };
    for (method, has_body, expected) in
        [(Method::POST, false, true), (Method::GET, false, false), (Method::DELETE, true, true)]
    {
        let open = OpenArmed {
            facts: facts.clone(),
            destination: destination("https://api.example.com/"),
            method,
            path_and_query: "/a?b=c".parse().expect("path"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            has_body,
            credential: None,
            identity: None,
            guard: None,
            derived: keybearer_strongbox::Derived::default(),
        };
        let (request, ..) = written(open);
        assert_eq!(request.headers().contains_key("content-length"), expected);
        assert_eq!(request.uri(), "/a?b=c");
    }
}

#[tokio::test]
async fn n33_what_turns_out_to_be_ourselves_after_connecting_is_refused() {
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), OK).await;
    let egress = egress(&upstream, &authority);
    let place = destination("https://api.example.com/");
    let vetted = egress.vet(&place, limits().deadline).await.expect("vetted");
    egress.add_own_listener(upstream.address);
    let key = key(&TenantId::random(), &place);
    let answer = egress.exchange(key, get("/").into(), Some(Free), to(&vetted), limits()).await;
    assert_eq!(fault(answer), SendReason::Refused.not_sent());
    assert!(upstream.heads().is_empty());
    assert!(matches!(egress.vet(&place, limits().deadline).await, Err(VetFault::Refused(_))));
}

/// Run by the test below, with an environment that would lead other clients astray.
#[tokio::test]
async fn n30_a_request_reaches_its_upstream() {
    let authority = Authority::new();
    let upstream = Upstream::answering(Some(authority.serves(&[HOST], |_| ())), OK).await;
    let egress = egress(&upstream, &authority);
    assert_eq!(text(&ask(&egress).await.expect("an answer")), "ok");
    let plain = Upstream::answering(None, OK).await;
    let egress = egress_with(plain.config(), &authority);
    let answer = ask_at(&egress, "http://api.example.com/", &TenantId::random(), None, limits()).await;
    assert_eq!(text(&answer.expect("an answer")), "ok");
}

#[tokio::test]
async fn n30_proxies_roots_and_key_logs_of_the_environment_are_ignored() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = proxy.local_addr().expect("address");
    let key_log = std::env::temp_dir().join(format!("keybearer-key-log-{}", address.port()));
    let mut child = Command::new(std::env::current_exe().expect("this test"));
    child.args(["--exact", "dispatch::tests::n30_a_request_reaches_its_upstream"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        child.env(name, format!("http://{address}"));
    }
    child.env("NO_PROXY", "").env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent");
    child.env("SSLKEYLOGFILE", &key_log);
    let ran = tokio::task::spawn_blocking(move || child.output()).await.expect("ran").expect("ran");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    assert!(!key_log.exists());
    let called = tokio::time::timeout(Duration::ZERO, proxy.accept()).await;
    assert!(called.is_err(), "the proxy of the environment was dialled");
}

/// A guard that the test cancels, and that says when it was let go.
#[derive(Default)]
struct Signals {
    cancel: Notify,
    released: Notify,
}

struct Guard(Arc<Signals>);

impl Hold for Guard {
    async fn cancelled(&self) {
        self.0.cancel.notified().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.released.notify_one();
    }
}

/// An address for connections in memory; nobody dials it.
fn vetted_address() -> SocketAddr {
    "127.0.0.1:1".parse().expect("address")
}

/// A connection in memory that takes less than a head, and its far end.
async fn narrow(egress: &Egress) -> (Connection, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(32);
    (egress.dialler.shake_hands(near, vetted_address()).await.expect("a connection"), far)
}

async fn unused() -> Egress {
    egress(&Upstream::start(None, |_| async {}).await, &Authority::new())
}

#[tokio::test]
async fn r05_a_revocation_closes_the_connection_on_which_the_credential_is_being_written() {
    let egress = unused().await;
    let (mut connection, mut far) = narrow(&egress).await;
    let signals = Arc::new(Signals::default());
    assert!(connection.driver.watch.begin(Some(Guard(signals.clone()))).is_ok());
    let sending = egress.converse(&mut connection, get("/"), limits());
    let revoking = async {
        use tokio::io::AsyncReadExt as _;
        // Some of it is on its way: the guard is held, and the rest never comes.
        let mut seen = vec![far.read_u8().await.expect("a byte")];
        signals.cancel.notify_one();
        signals.released.notified().await;
        far.read_to_end(&mut seen).await.expect("the end");
        seen
    };
    let (answer, seen) = tokio::join!(sending, revoking);
    assert_eq!(answer.err(), Some(SendReason::Cancelled));
    assert!(connection.driver.watch.wrote_something());
    assert!(!String::from_utf8_lossy(&seen).contains("canary"));
}

#[tokio::test]
async fn r05_a_revocation_while_dialling_sends_nothing() {
    let upstream = Upstream::start(None, |mut wire| async move { wire.until_closed().await }).await;
    let egress = egress(&upstream, &Authority::new());
    let place = destination("https://api.example.com/");
    let vetted = egress.vet(&place, limits().deadline).await.expect("vetted");
    let signals = Arc::new(Signals::default());
    signals.cancel.notify_one();
    let key = key(&TenantId::random(), &place);
    let answer = egress.exchange(key, get("/").into(), Some(Guard(signals.clone())), to(&vetted), limits()).await;
    assert_eq!(fault(answer), SendReason::Cancelled.not_sent());
    signals.released.notified().await;
}

#[tokio::test]
async fn a_guard_is_let_go_when_its_request_is_given_up() {
    for is_dropped in [false, true] {
        let egress = unused().await;
        let (mut connection, _far) = narrow(&egress).await;
        let signals = Arc::new(Signals::default());
        assert!(connection.driver.watch.begin(Some(Guard(signals.clone()))).is_ok());
        let limits = SendLimits { deadline: Instant::now() + Duration::from_millis(50), ..limits() };
        let sending = egress.converse(&mut connection, get("/"), limits);
        if is_dropped {
            // Its caller has gone away.
            let _ = tokio::time::timeout(Duration::from_millis(10), sending).await;
        } else {
            assert_eq!(sending.await.err(), Some(SendReason::Timeout));
        }
        drop(connection);
        signals.released.notified().await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_is_closed_when_it_is_used_is_stale_and_nothing_was_sent() {
    let egress = unused().await;
    let (mut connection, far) = narrow(&egress).await;
    assert!(connection.driver.run(connection.sender.ready()).await.is_ok_and(|ready| ready.is_ok()));
    drop(far); // After it was looked at, and before a byte is written.
    let signals = Arc::new(Signals::default());
    let guard = Some(Guard(signals.clone()));
    let answer = egress.carry(&mut connection, get("/"), guard, limits(), SendReason::StaleConnection).await;
    assert_eq!(fault(answer), SendReason::StaleConnection.not_sent());
    signals.released.notified().await;
}

#[tokio::test]
async fn a_kept_connection_that_its_peer_closed_is_not_used() {
    let (egress, key) = (unused().await, key(&TenantId::random(), &destination("https://api.example.com/")));
    let (connection, far) = narrow(&egress).await;
    egress.pool.put(key.clone(), connection, egress.pool.take(&key).1);
    drop(far);
    assert!(egress.kept(&key, vetted_address()).await.0.is_none());
}

#[tokio::test]
async fn n26_an_upload_that_the_peer_does_not_take_is_given_up_and_its_connection_closed() {
    let egress = unused().await;
    let (mut connection, mut far) = narrow(&egress).await;
    assert!(connection.driver.watch.begin(Some(Free)).is_ok());
    let limits = SendLimits { deadline: Instant::now() + Duration::from_millis(50), ..limits() };
    let upload = http::Request::post("/").header("host", HOST).body(Bytes::from(vec![7; 1 << 20])).expect("request");
    assert_eq!(egress.converse(&mut connection, upload, limits).await.err(), Some(SendReason::Timeout));
    drop(connection);
    // Ends only if our end was closed; what was on its way is 32 bytes at the most.
    let mut seen = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut far, &mut seen).await.expect("the end");
    assert!(seen.len() <= 64, "{}", seen.len());
}
