//! JWTs: those of the configured issuer act for the tenant that the operator's table says, and every other
//! one is nobody's, in the same words.

use keybearer_tests::Site;
use serde_json::Value;
use serde_json::json;

use super::configure;
use super::issuer::AUDIENCE;
use super::issuer::ISSUER;
use super::issuer::Issuer;
use super::issuer::base64;
use super::issuer::claims;
use super::issuer::now;

/// A site with two tenants of an issuer.
async fn stage() -> anyhow::Result<(Site, Issuer, [keybearer_tests::Holder; 2])> {
    let mut site = Site::start().await?;
    let holders = [site.holder("acme").await?, site.holder("globex").await?];
    let issuer = Issuer::new()?;
    std::fs::write(site.server.folder().join("issuer.jwks.json"), issuer.key_set()?.to_string())?;
    let config = format!(
        "[[jwt]]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\nalgorithms = [\"RS256\", \"ES256\", \"EdDSA\"]\n\
         jwks_file = \"issuer.jwks.json\"\ntenant_claim = \"org_id\"\n\
         tenants = {{ org_1 = \"acme\", org_2 = \"globex\" }}\nscopes = [\"call\"]\n"
    );
    // A token must be younger than its tenant and its entry, by the second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    configure(&mut site.server, &config)?;
    Ok((site, issuer, holders))
}

#[tokio::test]
async fn jwts_of_every_configured_signature_act_for_their_tenant_and_for_no_more() -> anyhow::Result<()> {
    // If this failed, a platform's own identities could not call, or could do more than call.
    let (site, issuer, holders) = stage().await?;
    for (org, holder) in [("org_1", &holders[0]), ("org_2", &holders[1])] {
        for kid in ["rsa", "ec", "ed"] {
            let client = site.server.public().bearing(&issuer.token(kid, &claims(org))?);
            let call = json!({"tool": "http-get.get", "arguments": {"path": format!("/anything/{kid}")}});
            let answer = client.post("/v1/calls", &call).await?;
            assert_eq!(answer.status, 200, "{kid}: {}", answer.text());
            let expected = format!("Bearer {}", holder.value);
            let last = site.upstream.recorded().pop().expect("a request");
            assert_eq!(last.header("authorization"), Some(expected.as_str()), "{kid}: {org}");
            assert_eq!(client.get("/v1/credentials").await?.code(), "forbidden", "its scopes are the table's");
        }
    }
    let ledger = site.ledger()?;
    let principals: Vec<_> = ledger.iter().filter(|record| record["kind"] == "call_begun").collect();
    let expected = format!("jwt:{ISSUER}#agent-7");
    assert!(principals.len() == 6 && principals.iter().all(|record| record["principal"] == expected), "{principals:?}");
    let path = format!("/v1/tenants/{}/suspend", holders[0].tenant.id);
    assert_eq!(site.server.operator().post(&path, &json!({})).await?.status, 200);
    let suspended = site.server.public().bearing(&issuer.token("ed", &claims("org_1"))?);
    assert_eq!(suspended.get("/v1/tools").await?.status, 401, "a suspended tenant's are nobody's");
    Ok(())
}

/// The claims with one of them changed, or taken out.
fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut changed = claims("org_1");
    changed[name] = value.into();
    changed
}

fn without(name: &str) -> Value {
    let mut changed = claims("org_1");
    changed.as_object_mut().expect("an object").remove(name);
    changed
}

/// Tokens whose signature is good and whose claims are not.
fn bad_claims() -> Vec<(&'static str, Value)> {
    vec![
        ("expired", with("exp", now() - 60)),
        ("expired before it was issued", with("exp", now() - 10)),
        ("not yet valid", with("nbf", now() + 600)),
        ("issued in the future", with("iat", now() + 600)),
        ("issued before its tenant was there", with("iat", now() - 3600)),
        ("for another audience", with("aud", "other")),
        ("for two audiences", with("aud", json!([AUDIENCE, "other"]))),
        ("for a list of one", with("aud", json!([AUDIENCE]))),
        ("for an audience in other letters", with("aud", "Keybearer")),
        ("of another issuer", with("iss", "https://evil.example.com/")),
        ("of nearly the issuer", with("iss", "https://login.example.com")),
        ("without an end", without("exp")),
        ("without a beginning", without("iat")),
        ("without an issuer", without("iss")),
        ("without an audience", without("aud")),
        ("without a subject", without("sub")),
        ("without a tenant", without("org_id")),
        ("of no tenant", with("org_id", "")),
        ("of an unknown tenant", with("org_id", "org_3")),
        ("of a list of tenants", with("org_id", json!(["org_1"]))),
        ("of null", with("org_id", Value::Null)),
        ("of a tenant in capitals", with("org_id", "ORG_1")),
        ("of a tenant with a space", with("org_id", "org_1 ")),
        ("of a tenant with a path", with("org_id", "org_2/../org_1")),
        ("of a tenant by our own id", with("org_id", "acme")),
        ("of a tenant in full width", with("org_id", "ｏrg_1")),
        ("with an end in words", with("exp", "9999999999")),
        ("with an end in fractions", with("exp", 9_999_999_999.5)),
        ("with an end before 1970", with("exp", -1)),
        ("with a subject of 300 bytes", with("sub", "s".repeat(300))),
        ("huge", with("more", "x".repeat(9000))),
    ]
}

/// Tokens whose form or signature is not good.
fn bad_forms(issuer: &Issuer) -> anyhow::Result<Vec<(String, String)>> {
    let good = claims("org_1");
    let text = good.to_string();
    let token = issuer.token("ed", &good)?;
    let (message, signature) = token.rsplit_once('.').expect("a token");
    let (header, payload) = message.split_once('.').expect("a token");
    let mut bad: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, token: String| bad.push((what.to_owned(), token));
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = format!("{}.{payload}", base64(json!({"alg": none, "kid": "ed", "typ": "JWT"}).to_string()));
        add("unsigned", format!("{unsigned}."));
        add("unsigned, with a signature", format!("{unsigned}.{signature}"));
    }
    for confused in issuer.confused(&good)? {
        add("signed with a public key", confused);
    }
    for (kid, algorithm) in [("ed", "RS256"), ("rsa", "EdDSA"), ("ec", "ES384"), ("rsa", "PS256"), ("ed", "ES256")] {
        add("of another algorithm", issuer.signed(kid, &json!({"alg": algorithm, "kid": kid}).to_string(), &text)?);
    }
    add(
        "signed with another of the keys",
        issuer.signed("ed", &json!({"alg": "ES256", "kid": "ec"}).to_string(), &text)?,
    );
    for kid in ["", "other", "../../dev/null", "ed' OR '1'='1", "https://evil.test/jwks", "ed\u{0}", "ED"] {
        add("of another key's id", issuer.signed("ed", &json!({"alg": "EdDSA", "kid": kid}).to_string(), &text)?);
    }
    add("of no key's id", issuer.signed("ed", &json!({"alg": "EdDSA"}).to_string(), &text)?);
    let key = issuer.key_set()?["keys"][2].clone();
    for (name, value) in [
        ("jku", json!("https://evil.test/jwks")),
        ("x5u", json!("https://evil.test/x5u")),
        ("jwk", key),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("enc", json!("A256GCM")),
        ("typ", json!("logout+jwt")),
        ("typ", json!("dpop+jwt")),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed"});
        header[name] = value;
        add(name, issuer.signed("ed", &header.to_string(), &text)?);
    }
    let ed = json!({"alg": "EdDSA", "kid": "ed"}).to_string();
    for (name, twice) in
        [("org_id", "\"org_2\""), ("aud", "\"keybearer\""), ("exp", "9999999999"), ("sub", "\"admin\"")]
    {
        let doubled = format!("{{\"{name}\":{twice},{}", &text[1..]);
        add("with a claim twice", issuer.signed("ed", &ed, &doubled)?);
    }
    add("with a header field twice", issuer.signed("ed", r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#, &text)?);
    add("with claims that are no object", issuer.signed("ed", &ed, "[]")?);
    add("with claims that are no JSON", issuer.signed("ed", &ed, "hello")?);
    let other = base64(claims("org_2").to_string());
    add("with other claims", format!("{header}.{other}.{signature}"));
    add("with half a signature", format!("{message}.{}", &signature[..signature.len() / 2]));
    add("with another signature", format!("{message}.{}", base64([7; 64])));
    add("padded", format!("{message}.{signature}=="));
    add("with more after it", format!("{token}.x"));
    add("of five parts", format!("{header}..{payload}.{signature}.{signature}"));
    add("of two parts", message.to_owned());
    add("in capitals", token.to_uppercase());
    add("dots", "..".to_owned());
    Ok(bad)
}

#[tokio::test]
async fn t02_every_other_token_is_nobodys_in_the_same_words() -> anyhow::Result<()> {
    // If this failed, a forged token would open a tenant, or the answer would tell a forger how near he is.
    let (site, issuer, _holders) = stage().await?;
    let nobody = site.server.public().get("/v1/tools").await?;
    assert_eq!(nobody.status, 401);
    let mut tokens = bad_forms(&issuer)?;
    for (what, claims) in bad_claims() {
        tokens.push((what.to_owned(), issuer.token("ed", &claims)?));
        tokens.push((what.to_owned(), issuer.token("rsa", &claims)?));
    }
    let stranger = Issuer::new()?;
    for kid in ["rsa", "ec", "ed"] {
        tokens.push(("of a stranger with the same words".to_owned(), stranger.token(kid, &claims("org_1"))?));
    }
    for (what, token) in &tokens {
        let answer = site.server.public().bearing(token).get("/v1/tools").await?;
        assert_eq!((answer.status, &answer.body), (401, &nobody.body), "{what}: {token}");
    }
    assert!(tokens.len() > 100, "{}", tokens.len());
    for (what, claims) in [
        ("as it should be", claims("org_1")),
        ("valid from now on", with("nbf", now())),
        ("with more claims", with("more", json!({"a": [1, 2]}))),
    ] {
        let answer = site.server.public().bearing(&issuer.token("ed", &claims)?).get("/v1/tools").await?;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    }
    let log = site.server.log();
    assert!(tokens.iter().all(|(_, token)| token.len() < 60 || !log.contains(token)), "a token in the log");
    Ok(())
}

#[tokio::test]
async fn the_keys_of_an_issuer_are_read_again_at_a_hangup_and_a_broken_file_changes_nothing() -> anyhow::Result<()> {
    // If this failed, an issuer that rotates its keys would be locked out, or a key that leaked would be good, until
    // somebody starts the server again.
    let (site, first, _holders) = stage().await?;
    let second = Issuer::new()?;
    let file = site.server.folder().join("issuer.jwks.json");
    let status = async |issuer: &Issuer| {
        let client = site.server.public().bearing(&issuer.token("ed", &claims("org_1"))?);
        anyhow::Ok(client.get("/v1/tools").await?.status)
    };
    let hang_up = async |said: &str| {
        let before = site.server.log().matches(said).count();
        let pid = site.server.pid().to_string();
        anyhow::ensure!(std::process::Command::new("kill").args(["-HUP", &pid]).status()?.success(), "no signal");
        let began = std::time::Instant::now();
        while site.server.log().matches(said).count() == before {
            anyhow::ensure!(began.elapsed().as_secs() < 20, "it does not say `{said}`");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(())
    };
    std::fs::write(&file, second.key_set()?.to_string())?;
    assert_eq!((status(&first).await?, status(&second).await?), (200, 401), "nothing is read unasked");
    std::fs::write(&file, "{\"keys\": [")?;
    hang_up("keys stay as they were").await?;
    std::fs::remove_file(&file)?;
    hang_up("keys stay as they were").await?;
    assert_eq!((status(&first).await?, status(&second).await?), (200, 401), "a broken file changes nothing");
    std::fs::write(&file, second.key_set()?.to_string())?;
    hang_up("keys were read again").await?;
    assert_eq!((status(&first).await?, status(&second).await?), (401, 200), "the new keys, and no others");
    Ok(())
}
