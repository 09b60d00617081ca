//! Which places a guest reaches: those that are bound, in their one spelling, and no other.

use keybearer_tests::Authority;
use keybearer_tests::NameAnswer;
use keybearer_tests::NameServer;
use keybearer_tests::Recorded;
use keybearer_tests::Reply;
use keybearer_tests::ServerOptions;
use keybearer_tests::Upstream;
use serde_json::json;

use super::API;
use super::PACKAGE;
use super::Stage;

async fn echo(authority: &Authority, names: &[&str]) -> anyhow::Result<Upstream> {
    Upstream::start(authority, names, |request: Recorded| async move {
        Reply::json(200, &json!({"target": request.target}))
    })
    .await
}

/// Other ways to write this machine, the metadata service, and what else is not public.
const ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "192.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "8.8.8.8",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "0",
    "0x7f000001.",
    "127.0.0.1.",
    "１２７.０.０.１",
    "①②⑦.⓪.⓪.①",
    "%31%32%37.0.0.1",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:a9fe:a9fe]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fc00::1]",
    "[fe80::1%25eth0]",
    "[fec0::1]",
    "[ff02::1]",
    "[fd00:ec2::254]",
    "localhost",
    "metadata",
];

/// Other ways to write the bound place, and places that read like it.
const SPELLINGS: &[&str] = &[
    // N01
    "https://evil.test/",
    "https://api.test.evil.test/",
    "https://evilapi.test/",
    "https://a.api.test/",
    "https://test/",
    // N12
    "https://api.test@evil.test/",
    "https://user:pw@api.test/",
    "https://user@api.test/",
    "https://@api.test/",
    "https://:@api.test/",
    "https://evil.test\\@api.test/",
    "https://evil.test#@api.test/",
    "https://evil.test/@api.test/",
    // N13
    "https:\\\\api.test/",
    "https:api.test/",
    "https:///api.test/",
    "https:/api.test/",
    "//api.test/",
    "/",
    "https://api.t\\test/",
    "https://api.te\nst/",
    " https://api.test/",
    "https://api.test/ ",
    "https://api.test/a?b=c\r\nX: y",
    "https://api.test/\u{0}",
    // N14
    "https://api.test./",
    "https://API.test/",
    "https://аpi.test/",
    "https://api.test%2eevil.test/",
    "https://api%2etest/",
    "https://xn--/",
    "https://xn--pi-7ed.test/",
    "https://api..test/",
    "https://.api.test/",
    "HTTPS://api.test/",
    "https://api.test",
    "",
    // N15
    "https://api.test:0/",
    "https://api.test:22/",
    "https://api.test:25/",
    "https://api.test:00443/",
    "https://api.test:443/",
    "https://api.test:65536/",
    "https://api.test:80:443/",
    "https://api.test:/",
    "https://api.test:+443/",
    "https://api.test:80/",
    "http://api.test:443/",
    "https://api.test:8443/",
    // N16
    "http://api.test/",
    "ftp://api.test/",
    "gopher://api.test/",
    "file:///etc/passwd",
    "data:text/plain,x",
    "ws://api.test/",
    "wss://api.test/",
    "unix:/run/x",
    "javascript:alert(1)",
    // N17
    "https://api.test/v1/../admin",
    "https://api.test/..",
    "https://api.test/v1/%2e%2e/admin",
    "https://api.test/v1/.%2E/admin",
    "https://api.test/v1/..%2fadmin",
    "https://api.test/v1/%252e%252e/admin",
    "https://api.test//admin",
    "https://api.test/v1//admin",
    "https://api.test/v1\\..\\admin",
    "https://api.test/v1;x/admin",
    "https://api.test/v1%00",
    "https://api.test/v1%5cadmin",
    "https://api.test/v1%5Cadmin",
    "https://api.test/v1%2Fadmin",
    "https://api.test/%76%31",
    "https://api.test/v1%",
    "https://api.test/v1%2",
    "https://api.test/./v1",
    "https://api.test/v1/.",
    "https://api.test/v1#f",
    "https://api.test/http://other.test/",
];

// If it failed, a guest would reach what it must not, with the tenant's credential, by spelling it otherwise.
#[tokio::test]
async fn n01_n02_n03_n04_n12_n13_n14_n15_n16_n17_n32_what_is_not_the_bound_place_byte_for_byte_is_refused()
-> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = echo(&authority, &[API, "evil.test"]).await?;
    // Whatever name is asked for leads to the upstream: if one is asked for at all.
    let names = NameServer::start(|_, _| NameAnswer::Addresses(vec![[127, 0, 0, 1].into()])).await?;
    let options = ServerOptions::default().with_egress(&format!("nameservers = [\"{}\"]", names.address()));
    let options = options.pin(API, &upstream).pin("evil.test", &upstream);
    let stage = Stage::new(&authority, &[API], options).await?;
    let addresses = ADDRESSES.iter().flat_map(|address| [format!("https://{address}/"), format!("http://{address}/x")]);
    let urls: Vec<String> = SPELLINGS.iter().map(|url| (*url).to_owned()).chain(addresses).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for (url, outcome) in urls.iter().zip(stage.tenant.outcomes(PACKAGE, &urls).await?) {
        assert!(outcome == "malformed url" || outcome == "denied", "{url:?}: {outcome}");
    }
    assert_eq!(upstream.recorded().len(), 0, "nothing arrived");
    assert_eq!(names.asked(), Vec::<String>::new(), "refused before any name was looked up");
    // The refusals are in the record, each with its reason; the queries, which may hold anything, are not.
    let secret = "https://evil.test/take?it=0123456789abcdef";
    let heard = stage.tenant.hear_get(PACKAGE, secret).await?;
    let explained = stage.tenant.explain(&heard.call).await?;
    assert!(explained.contains("no binding names GET https://evil.test/take"), "{explained}");
    assert!(!explained.contains("0123456789abcdef"), "{explained}");

    // The bound place itself is reached.
    assert_eq!(stage.tenant.outcomes(PACKAGE, &["https://api.test/v1/a%20b"]).await?, ["200"]);
    assert_eq!(upstream.recorded().len(), 1);
    Ok(())
}

// If it failed, what an upstream is asked would not be what the policy looked at.
#[tokio::test]
async fn n18_a_query_goes_out_as_it_was_given() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let upstream = echo(&authority, &[API]).await?;
    let stage = Stage::new(&authority, &[API], ServerOptions::default().pin(API, &upstream)).await?;
    for target in ["/?", "/v1?a=1&a=2", "/v1?a=1;b=2", "/v1?a=%26%3D%23&b", "/v1?a=b?c/d", "/v1?q=a+b%20c"] {
        upstream.forget();
        let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{API}{target}")).await?;
        assert_eq!(heard.outcome, "200", "{target}");
        assert_eq!(upstream.recorded()[0].target, target);
    }
    let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{API}/v1?a=1#fragment")).await?;
    assert_eq!(heard.outcome, "malformed url");
    Ok(())
}

// If it failed, an upstream could send the credential anywhere with one line of its answer.
#[tokio::test]
async fn n10_redirects_are_answers_and_are_not_followed() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let other = echo(&authority, &["other.test", "open.test"]).await?;
    let upstream = Upstream::start(&authority, &[API], |request: Recorded| async move {
        let token = request.header("authorization").unwrap_or_default().trim_start_matches("Bearer ").to_owned();
        let (status, place) = request.target[1..].split_once('/').unwrap_or(("302", ""));
        let place = place.replace('_', "/").replace("TOKEN", &token);
        let headers = vec![("location".to_owned(), place)];
        Reply { status: status.parse().unwrap_or(302), headers, body: Vec::new() }
    })
    .await?;
    let options = ServerOptions::default().pin(API, &upstream).pin("other.test", &other).pin("open.test", &other);
    let stage = Stage::new(&authority, &[API, "other.test"], options).await?;
    for status in [301, 302, 303, 307, 308] {
        for place in [
            "https:__other.test_",
            "https:__open.test_x",
            "http:__api.test_",
            "https:__api.test:8443_",
            "https:__user:pw@other.test_",
            "http:__169.254.169.254_latest",
            "file:___etc_passwd",
            "_v1_again",
            "__other.test_",
            "https:__other.test_TOKEN",
        ] {
            upstream.forget();
            let heard = stage.tenant.hear_get(PACKAGE, &format!("https://{API}/{status}/{place}")).await?;
            assert_eq!(heard.outcome, status.to_string(), "{place}");
            let expected = place.replace('_', "/").replace("TOKEN", "[redacted]");
            assert_eq!(heard.header("location"), Some(expected), "{}", heard.text());
            assert_eq!(upstream.recorded().len(), 1, "one request, and not the next one");
        }
    }
    assert_eq!(other.recorded().len(), 0);
    Ok(())
}
