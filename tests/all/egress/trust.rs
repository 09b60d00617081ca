//! Whom the server believes: certificates of the authorities that it was given, for the name that was bound.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use keybearer_tests::Authority;
use keybearer_tests::Built;
use keybearer_tests::Piece;
use keybearer_tests::RawUpstream;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Reserved;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use serde_json::json;

use super::API;
use super::PACKAGE;
use super::Stage;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

// If it failed, whoever is on the way to an upstream would be handed the tenants' credentials.
#[tokio::test]
async fn n28_an_upstream_that_does_not_prove_its_name_is_sent_nothing() -> anyhow::Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let served = |tls| Upstream::start_tls(tls, |_: Recorded| async { Reply::json(200, &json!({})) });
    let upstreams = [
        ("stranger.test", served(stranger.server(&["stranger.test"])?).await?),
        ("wrong.test", served(authority.server(&["right.test"])?).await?),
        ("suffix.test", served(authority.server(&["a.suffix.test", "test"])?).await?),
        ("expired.test", served(authority.server_until(&["expired.test"], 2001)?).await?),
        ("address.test", served(authority.server(&["127.0.0.1"])?).await?),
        ("nameless.test", served(authority.server(&[])?).await?),
    ];
    let plain = RawUpstream::start(None, |_| vec![Piece::text(OK)]).await?;
    let mut options = ServerOptions::default().pin_at("plain.test", 443, plain.address());
    for (host, upstream) in &upstreams {
        options = options.pin(host, upstream);
    }
    let mut hosts: Vec<_> = upstreams.iter().map(|(host, _)| *host).collect();
    hosts.push("plain.test");
    let stage = Stage::new(&authority, &hosts, options).await?;
    for host in hosts {
        let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{host}/")).await?;
        assert_eq!(heard.outcome, "upstream: untrusted, not sent", "{host}");
    }
    for (host, upstream) in &upstreams {
        assert_eq!(upstream.recorded().len(), 0, "{host}");
    }
    for received in plain.received() {
        assert!(!String::from_utf8_lossy(&received).contains(&stage.token), "the token is in the clear");
    }
    Ok(())
}

// If it failed, certificates would be believed unverified because a line of the configuration says so.
#[tokio::test]
async fn n28_no_line_of_the_configuration_turns_verification_off() -> anyhow::Result<()> {
    let (built, authority) = (Built::find()?, Authority::new()?);
    for line in ["verify = false", "insecure = true", "danger_accept_invalid_certs = true", "tls_verify = false"] {
        let options = [
            ServerOptions::default().with_egress(line),
            ServerOptions::default().with(&format!("[egress.tls]\n{line}")),
        ];
        for options in options {
            let refused = Server::start(&built, &authority, options).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|error| error.contains("unknown")), "{line}");
        }
    }
    Ok(())
}

// If it failed, whoever sets a variable of the environment would see, or become, every upstream.
#[tokio::test]
async fn n30_proxies_and_keys_of_the_environment_have_no_effect() -> anyhow::Result<()> {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let upstream = Upstream::start(&authority, &[API], |_: Recorded| async { Reply::json(200, &json!({})) }).await?;
    let impostor =
        Upstream::start(&stranger, &["open.test"], |_: Recorded| async { Reply::json(200, &json!({})) }).await?;
    let proxy = RawUpstream::start(None, |_| vec![Piece::text(OK)]).await?;
    let folder = tempfile::tempdir()?;
    let (keys, roots, netrc) =
        (folder.path().join("keys"), folder.path().join("roots.pem"), folder.path().join(".netrc"));
    std::fs::write(&roots, stranger.pem())?;
    std::fs::write(&netrc, format!("machine {API} login evil password evil\n"))?;
    let mut options = ServerOptions::default().pin(API, &upstream).pin("open.test", &impostor);
    let through = format!("http://{}", proxy.address());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        options.environment.push((name.to_owned(), through.clone()));
    }
    for (name, path) in [("SSLKEYLOGFILE", &keys), ("SSL_CERT_FILE", &roots), ("NETRC", &netrc)] {
        options.environment.push((name.to_owned(), path.display().to_string()));
    }
    options.environment.push(("HOME".to_owned(), folder.path().display().to_string()));
    options.environment.push(("NO_PROXY".to_owned(), String::new()));
    let stage = Stage::new(&authority, &[API], options).await?;
    assert_eq!(stage.tenant.hear_get(PACKAGE, &format!("https://{API}/")).await?.outcome, "200");
    assert_eq!(upstream.recorded()[0].header("authorization"), Some(format!("Bearer {}", stage.token).as_str()));
    // Its authority stands in SSL_CERT_FILE only.
    let heard = stage.tenant.hear_get(PACKAGE, "https://open.test/").await?;
    assert_eq!(heard.outcome, "upstream: untrusted, not sent");
    assert_eq!((proxy.connections(), keys.exists()), (0, false));
    Ok(())
}

// If it failed, a request that may have been acted upon would be sent a second time by a library.
#[tokio::test]
async fn a_request_that_is_cut_off_is_not_sent_again_by_itself() -> anyhow::Result<()> {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let authority = Authority::new()?;
    let upstream = RawUpstream::start(Some(authority.server(&[API])?), |_| {
        SEEN.fetch_add(1, Ordering::SeqCst);
        Vec::new()
    })
    .await?;
    let options = ServerOptions::default().pin_at(API, 443, upstream.address());
    let stage = Stage::new(&authority, &[API], options).await?;
    for method in ["GET", "POST"] {
        let said = json!({"method": method, "url": format!("https://{API}/"), "body": "once"});
        let outcome = stage.tenant.hear(PACKAGE, said).await?.outcome;
        assert_eq!(outcome, "upstream: malformed answer, maybe sent");
    }
    assert_eq!(SEEN.load(Ordering::SeqCst), 2);
    assert!(stage.server.log().lines().all(|line| !line.contains(&stage.token)));
    Ok(())
}

/// `openssl s_server` with a certificate for one name, for as long as the case runs.
struct OldServer {
    child: std::process::Child,
    port: Reserved,
}

impl OldServer {
    /// Starts it with a certificate that is signed with this digest, and with these arguments.
    fn start(authority: &Authority, name: &str, digest: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |file: &str| folder.path().join(file).display().to_string();
        std::fs::write(path("ca.pem"), authority.pem())?;
        std::fs::write(path("ca.key"), authority.key_pem())?;
        std::fs::write(path("names"), format!("subjectAltName=DNS:{name}\nkeyUsage=digitalSignature\n"))?;
        let subject = format!("/CN={name}");
        let (key, asked, leaf) = (path("leaf.key"), path("leaf.csr"), path("leaf.pem"));
        openssl(&["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out", &asked])?;
        let (ca, ca_key, names) = (path("ca.pem"), path("ca.key"), path("names"));
        let signed = ["x509", "-req", "-in", &asked, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "30"];
        openssl(&[&signed[..], &[digest, "-extfile", &names, "-out", &leaf]].concat())?;
        let port = Reserved::new()?;
        let mut child = std::process::Command::new("openssl")
            .args(["s_server", "-www", "-accept", &port.address().to_string(), "-cert", &leaf, "-key", &key])
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        let mut said = std::io::BufReader::new(child.stdout.take().ok_or_else(|| anyhow::anyhow!("no stdout"))?);
        let server = Self { child, port };
        let mut line = String::new();
        while !line.contains("ACCEPT") {
            line.clear();
            let read = std::io::BufRead::read_line(&mut said, &mut line)?;
            anyhow::ensure!(read > 0, "`openssl s_server {arguments:?}` ended before it listened");
        }
        // It goes on to speak: somebody listens, or it would end.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(server)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        // One that has ended already needs nothing more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn openssl(arguments: &[&str]) -> anyhow::Result<()> {
    let ran = std::process::Command::new("openssl").args(arguments).output();
    let well = ran.as_ref().is_ok_and(|ran| ran.status.success());
    anyhow::ensure!(well, "NOT RUN: old TLS needs the command `openssl`, and {arguments:?} said {ran:?}");
    Ok(())
}

// If it failed, a credential would go over a protocol or on a proof that were broken years ago.
#[tokio::test]
async fn n28_an_upstream_of_old_tls_or_with_a_sha1_signature_is_sent_nothing() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let old = "DEFAULT@SECLEVEL=0";
    let upstreams = [
        ("tls12.test", OldServer::start(&authority, "tls12.test", "-sha256", &["-tls1_2"])?, "200"),
        ("tls11.test", OldServer::start(&authority, "tls11.test", "-sha256", &["-tls1_1", "-cipher", old])?, UNTRUSTED),
        ("tls10.test", OldServer::start(&authority, "tls10.test", "-sha256", &["-tls1", "-cipher", old])?, UNTRUSTED),
        ("sha1.test", OldServer::start(&authority, "sha1.test", "-sha1", &["-cipher", old])?, UNTRUSTED),
    ];
    let mut options = ServerOptions::default();
    for (host, server, _) in &upstreams {
        options = options.pin_at(host, 443, server.port.address());
    }
    let hosts: Vec<_> = upstreams.iter().map(|(host, ..)| *host).collect();
    let stage = Stage::new(&authority, &hosts, options).await?;
    for (host, _, expected) in &upstreams {
        let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{host}/")).await?;
        assert_eq!(heard.outcome, *expected, "{host}");
    }
    Ok(())
}

const UNTRUSTED: &str = "upstream: untrusted, not sent";
