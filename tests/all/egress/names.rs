//! Names: one look-up, every address of the answer is looked at, and exactly what was looked at is dialled.

use std::net::IpAddr;
use std::sync::Arc;

use keybearer_tests::Authority;
use keybearer_tests::NameAnswer;
use keybearer_tests::NameServer;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::Server;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use keybearer_tests::probe;
use serde_json::json;

use super::PACKAGE;
use super::Stage;
use super::tenant;

const HOSTS: &[&str] = &[
    "good.test",
    "private.test",
    "mixed.test",
    "six.test",
    "mapped.test",
    "metadata.test",
    "other.test",
    "alias.test",
    "nat.test",
    "none.test",
    "servfail.test",
    "silent.test",
    "many.test",
    "huge.test",
    "10.0.0.1.nip.test",
    "rebind.test",
    "internal.example.com",
    "nowhere.test",
];

fn addresses(texts: &[&str]) -> NameAnswer {
    NameAnswer::Addresses(texts.iter().map(|text| text.parse::<IpAddr>().expect("an address")).collect())
}

fn answer(name: &str, before: usize) -> NameAnswer {
    match name {
        "good.test" => addresses(&["127.0.0.1"]),
        "private.test" | "10.0.0.1.nip.test" | "internal.example.com" => addresses(&["10.0.0.1"]),
        "mixed.test" => addresses(&["127.0.0.1", "10.0.0.1"]),
        "six.test" => addresses(&["127.0.0.1", "fd00::1"]),
        "mapped.test" => addresses(&["::ffff:10.0.0.1"]),
        "nat.test" => addresses(&["64:ff9b::a00:1"]),
        "metadata.test" => addresses(&["169.254.169.254"]),
        // Within 127.0.0.0/8, but not what the operator allowed.
        "other.test" => addresses(&["127.0.0.2"]),
        "alias.test" => NameAnswer::Alias("inside.corp.test".to_owned(), vec![[10, 1, 2, 3].into()]),
        "servfail.test" => NameAnswer::Failure,
        "silent.test" => NameAnswer::Silence,
        "many.test" => NameAnswer::Addresses((0..1000).map(|_| [127, 0, 0, 1].into()).collect()),
        "huge.test" => NameAnswer::Addresses((0..2500).map(|_| [127, 0, 0, 1].into()).collect()),
        // The first question is answered with what may be dialled, every later one with what may not.
        "rebind.test" if before == 0 => addresses(&["127.0.0.1"]),
        "rebind.test" => addresses(&["10.0.0.1"]),
        _ => NameAnswer::NoSuchName,
    }
}

/// A server whose probe is bound to names at the upstream's own port, so that only the name server says
/// where they lead.
async fn stage(authority: &Authority, port: u16, options: ServerOptions) -> anyhow::Result<Stage> {
    let server = Server::start(&keybearer_tests::Built::find()?, authority, options)?;
    publish(&server, HOSTS, port).await?;
    let (tenant, token) = tenant(&server, "acme").await?;
    Ok(Stage { server, tenant, token })
}

async fn publish(server: &Server, hosts: &[&str], port: u16) -> anyhow::Result<()> {
    let slot =
        probe::slot("api", "{ kind = \"bearer\" }", hosts).replace("paths =", &format!("port = {port}\npaths ="));
    server.publish_as("hostile", &probe::manifest(PACKAGE, "1.0.0", &slot)).await.map(drop)
}

async fn upstream(authority: &Authority) -> anyhow::Result<Upstream> {
    Upstream::start(authority, HOSTS, |_: Recorded| async { Reply::json(200, &json!({})) }).await
}

// If it failed, whoever owns a name that is bound could lead the credential, and the guest, into the
// operator's own network.
#[tokio::test]
async fn n05_n06_n08_n09_a_name_that_leads_inside_even_in_part_or_later_is_not_dialled() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = upstream(&authority).await?;
    let port = upstream.address().port();
    let names = Arc::new(NameServer::start(answer).await?);
    let mut options = ServerOptions::default()
        .with_egress(&format!("nameservers = [\"{}\"]\nresolve_ms = 800\nconnect_ms = 500", names.address()));
    options.allow_ranges = Some(vec!["127.0.0.1/32".to_owned()]);
    let stage = stage(&authority, port, options).await?;
    let hear = async |host: &str| stage.tenant.hear_get(PACKAGE, &format!("https://{host}:{port}/")).await;
    assert_eq!(hear("good.test").await?.outcome, "200");
    for (host, outcome, reason) in [
        ("private.test", "denied", "an address that is not public"),
        ("10.0.0.1.nip.test", "denied", "an address that is not public"),
        ("internal.example.com", "denied", "an address that is not public"),
        ("mixed.test", "denied", "an address that is not public"),
        ("six.test", "denied", "an address that is not public"),
        ("mapped.test", "denied", "an address that is not public"),
        ("nat.test", "denied", "an address that is not public"),
        ("metadata.test", "denied", "an address that is not public"),
        ("other.test", "denied", "an address that is not public"),
        ("alias.test", "denied", "an address that is not public"),
        ("none.test", "denied", "does not resolve"),
        ("servfail.test", "upstream: unresolvable, not sent", ""),
        ("silent.test", "upstream: timeout, not sent", ""),
        ("many.test", "upstream: unresolvable, not sent", ""),
        ("huge.test", "upstream: unresolvable, not sent", ""),
    ] {
        let started = std::time::Instant::now();
        let heard = hear(host).await?;
        assert_eq!(heard.outcome, outcome, "{host}");
        assert!(started.elapsed().as_millis() < 5000, "{host} took {:?}", started.elapsed());
        let explained = stage.tenant.explain(&heard.call).await?;
        assert!(explained.contains(reason), "{host}: {explained}");
    }
    assert_eq!(upstream.recorded().len(), 1, "only the good one arrived");

    // Rebinding: the very address that was looked at is dialled, with one look-up; the next request is looked
    // at anew, and no connection that is kept open gets around that.
    assert_eq!(hear("rebind.test").await?.outcome, "200");
    assert_eq!(names.asked().iter().filter(|name| *name == "rebind.test").count(), 1);
    assert_eq!(hear("rebind.test").await?.outcome, "denied");
    assert_eq!(upstream.recorded().len(), 2);

    // Absolute names only: nothing was asked for under a suffix of somebody's.
    let mut asked = names.asked();
    asked.sort_unstable();
    asked.dedup();
    asked.retain(|name| !HOSTS.contains(&name.as_str()) && name != "inside.corp.test");
    assert_eq!(asked, Vec::<String>::new());
    Ok(())
}

// If it failed, an operator who allowed nothing would have allowed loopback: his own services.
#[tokio::test]
async fn n05_n08_loopback_is_not_reached_unless_the_operator_names_it() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = upstream(&authority).await?;
    let port = upstream.address().port();
    let names = NameServer::start(|_, _| addresses(&["127.0.0.1"])).await?;
    let mut options = ServerOptions::default().with_egress(&format!("nameservers = [\"{}\"]", names.address()));
    options.allow_ranges = Some(Vec::new());
    let server = Server::start(&keybearer_tests::Built::find()?, &authority, options)?;
    let hosts = ["good.test", "foo.localhost", "a.localhost", "localhost.localdomain"];
    publish(&server, &hosts, port).await?;
    let (tenant, _) = tenant(&server, "acme").await?;
    for host in hosts {
        assert_eq!(tenant.hear_get(PACKAGE, &format!("https://{host}:{port}/")).await?.outcome, "denied", "{host}");
    }
    assert_eq!(upstream.recorded().len(), 0);
    Ok(())
}

// If it failed, a tool could call this server's own API, as a caller from inside, or call itself for ever.
#[tokio::test]
async fn n33_g21_this_servers_own_listeners_are_not_reached_under_any_name() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let names = NameServer::start(|_, _| addresses(&["127.0.0.1"])).await?;
    let options = ServerOptions::default().with_egress(&format!("nameservers = [\"{}\"]", names.address()));
    let server = Server::start(&keybearer_tests::Built::find()?, &authority, options)?;
    let ports = [server.public().address().port(), server.admin().address().port()];
    let allow = ports
        .map(|port| probe::open("self.test").replace("methods", &format!("scheme = \"http\"\nport = {port}\nmethods")));
    let slots = ports.map(|port| {
        probe::slot(&format!("at{port}"), "{ kind = \"bearer\" }", &["self.test"])
            .replace("paths =", &format!("port = {port}\npaths ="))
    });
    let manifest = probe::manifest(PACKAGE, "1.0.0", &(slots.concat() + &allow.concat()));
    server.publish_as("hostile", &manifest).await?;
    let tenant = server.tenant("acme").await?;
    for port in ports {
        tenant.grant(PACKAGE, &format!("at{port}"), &keybearer_tests::canary("egr_")).await?;
    }
    for port in ports {
        for url in [format!("https://self.test:{port}/v1/calls"), format!("http://self.test:{port}/healthz")] {
            let heard = tenant.hear_get(PACKAGE, &url).await?;
            assert_eq!(heard.outcome, "denied", "{url}");
            let explained = tenant.explain(&heard.call).await?;
            assert!(explained.contains("resolves to this server itself"), "{url}: {explained}");
        }
    }
    Ok(())
}
