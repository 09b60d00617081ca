//! TLS on the listeners, and client certificates whose SPIFFE id the operator has listed.

use keybearer_tests::Answer;
use keybearer_tests::Authority;
use keybearer_tests::Secure;
use keybearer_tests::ServerOptions;
use keybearer_tests::Site;
use keybearer_tests::Wire;
use serde_json::json;

use super::configure;

const ACME: &str = "spiffe://example.com/agents/acme";
const GLOBEX: &str = "spiffe://example.com/agents/globex";

struct Stage {
    site: Site,
    /// Who issues the certificates of workloads.
    workloads: Authority,
    holders: [keybearer_tests::Holder; 2],
    token: String,
}

/// A server with TLS, which lists one workload of each tenant.
async fn stage() -> anyhow::Result<Stage> {
    let mut site = Site::start_with(ServerOptions::default()).await?;
    let holders = [site.holder("acme").await?, site.holder("globex").await?];
    let workloads = Authority::new()?;
    let folder = site.server.folder().to_owned();
    let (certificate, key) = site.authority.issue(&["localhost", "127.0.0.1"], &[])?;
    for (name, text) in
        [("server.pem", &certificate), ("server.key", &key), ("clients.pem", &workloads.pem().to_owned())]
    {
        std::fs::write(folder.join(name), text)?;
    }
    let config = format!(
        "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n\
         [[spiffe]]\nid = \"{ACME}\"\ntenant = \"acme\"\nscopes = [\"call\", \"credentials\"]\n\
         [[spiffe]]\nid = \"{GLOBEX}\"\ntenant = \"globex\"\nscopes = [\"call\"]\n"
    );
    let token = holders[0].tenant.token.clone();
    configure(&mut site.server, &config)?;
    Ok(Stage { site, workloads, holders, token })
}

impl Stage {
    /// A client with a certificate for these ids.
    fn workload(&self, ids: &[&str]) -> anyhow::Result<Secure> {
        let certificate = self.workloads.issue(&["workload"], ids)?;
        Secure::new(self.site.server.public().address(), &self.site.authority, Some(&certificate))
    }
}

async fn tools(client: &Secure) -> anyhow::Result<Answer> {
    client.send("GET", "/v1/tools", &[], Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_with_a_listed_spiffe_id_is_its_tenants_and_no_other_is_anybodys() -> anyhow::Result<()> {
    // If this failed, whoever has any certificate of the mesh would be some customer.
    let stage = stage().await?;
    let call = json!({"tool": "http-get.get", "arguments": {"path": "/anything"}}).to_string().into_bytes();
    let json_type = ("content-type", "application/json");
    for (id, holder) in [(ACME, &stage.holders[0]), (GLOBEX, &stage.holders[1])] {
        let client = stage.workload(&[id])?;
        let answer = client.send("POST", "/v1/calls", &[json_type], call.clone()).await?;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        let expected = format!("Bearer {}", holder.value);
        let last = stage.site.upstream.recorded().pop().expect("a request");
        assert_eq!(last.header("authorization"), Some(expected.as_str()), "{id}");
        let listed = client.send("GET", "/v1/credentials", &[], Vec::new()).await?;
        assert_eq!(listed.status, if id == ACME { 200 } else { 403 }, "{id}: its own scopes");
    }
    let ledger = stage.site.ledger()?;
    let begun: Vec<_> = ledger.iter().filter(|record| record["kind"] == "call_begun").collect();
    assert!(begun[0]["principal"].as_str().is_some_and(|principal| principal.contains(ACME)), "{}", begun[0]);

    let address = stage.site.server.public().address();
    let nobody = Secure::new(address, &stage.site.authority, None)?;
    let refused = tools(&nobody).await?;
    assert_eq!(refused.status, 401, "no certificate and no token");
    for ids in [
        &["spiffe://example.com/agents/other"][..],
        &["spiffe://example.com/agents/acme/"],
        &["spiffe://example.com/agents/ACME"],
        &["spiffe://EXAMPLE.com/agents/acme"],
        &["spiffe://example.com/agents/x/../acme"],
        &["spiffe://example.com/agents/acme?x=1"],
        &["spiffe://example.com:443/agents/acme"],
        &["spiffe://evil.test/agents/acme"],
        &["https://example.com/agents/acme"],
        &[ACME, GLOBEX],
        &[],
    ] {
        let answer = tools(&stage.workload(ids)?).await?;
        assert_eq!((answer.status, &answer.body), (401, &refused.body), "{ids:?}");
    }
    let own = ("authorization", format!("Bearer {}", stage.token));
    let with_token = nobody.send("GET", "/v1/tools", &[(own.0, &own.1)], Vec::new()).await?;
    assert_eq!(with_token.status, 200, "a token is enough");
    let bad = [("authorization", "Bearer kb_nothing")];
    let fallen_back = stage.workload(&[ACME])?.send("GET", "/v1/tools", &bad, Vec::new()).await?;
    assert_eq!(fallen_back.status, 401, "a bad token never falls back to the certificate");
    let strangers = Authority::new()?.issue(&["workload"], &[ACME])?;
    let stranger = Secure::new(address, &stage.site.authority, Some(&strangers))?;
    assert!(tools(&stranger).await.is_err(), "a certificate of somebody else's is not taken");
    let mut plain = Wire::connect(address).await?;
    plain.write(b"GET /v1/tools HTTP/1.1\r\nhost: k\r\n\r\n").await;
    assert!(plain.answer().await.is_err(), "there is no plain HTTP there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn h14_the_operators_listener_can_ask_for_a_certificate_beside_the_token() -> anyhow::Result<()> {
    // If this failed, an operator's token that leaked would be enough from anywhere.
    let mut stage = stage().await?;
    let config = "[admin.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"clients.pem\"\n";
    configure(&mut stage.site.server, config)?;
    let address = stage.site.server.admin().address();
    let token = format!("Bearer {}", stage.site.server.operator_token());
    let authorized = [("authorization", token.as_str())];
    let nobody = Secure::new(address, &stage.site.authority, None)?;
    assert!(nobody.send("GET", "/v1/tenants", &authorized, Vec::new()).await.is_err(), "a token alone");
    let certificate = stage.workloads.issue(&["operator"], &[])?;
    let operator = Secure::new(address, &stage.site.authority, Some(&certificate))?;
    assert_eq!(operator.send("GET", "/v1/tenants", &[], Vec::new()).await?.status, 401, "a certificate alone");
    assert_eq!(operator.send("GET", "/v1/tenants", &authorized, Vec::new()).await?.status, 200);
    // The command line finds a listener with TLS by itself, and is told whom to trust.
    let folder = stage.site.server.folder();
    let file = |name: &str| folder.join(name).display().to_string();
    std::fs::write(file("acme.token"), &stage.token)?;
    std::fs::set_permissions(file("acme.token"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let list = ["tool", "list", "--json", "--token-file", &file("acme.token"), "--ca", &file("ca.pem")];
    let (good, out, error) = stage.site.server.cli(&list, b"")?;
    assert!(good && out.contains("http-get.get"), "{out}{error}");
    let (good, _, error) = stage.site.server.cli(&list[..5], b"")?;
    assert!(!good && error.contains("--ca"), "without --ca the public authorities are trusted: {error}");
    Ok(())
}
