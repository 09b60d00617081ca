//! What AWS does with a signature: computes it again from the request as it arrived, and refuses another one. Written
//! apart from the product's, after AWS's description of it.

use std::collections::BTreeMap;

use anyhow::Context as _;
use anyhow::ensure;
use aws_lc_rs::digest;
use aws_lc_rs::hmac;

use crate::Recorded;

/// Who may sign, and for what.
#[derive(Debug, Clone)]
pub struct Sigv4 {
    /// The access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The session's token, if there is a session.
    pub token: Option<String>,
    /// The region of the upstream.
    pub region: &'static str,
    /// Its service.
    pub service: &'static str,
}

impl Sigv4 {
    /// Checks a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, request: &Recorded) -> anyhow::Result<()> {
        let field = |name: &str| request.header(name).with_context(|| format!("no `{name}`"));
        let proof = field("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ").context("another scheme")?;
        let parts: BTreeMap<&str, &str> = proof.split(", ").filter_map(|part| part.split_once('=')).collect();
        let part = |name: &str| parts.get(name).copied().with_context(|| format!("no {name}"));
        let time = field("x-amz-date")?;
        let day = time.get(..8).context("no day")?;
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        ensure!(part("Credential")? == format!("{}/{scope}", self.id), "signed by or for another: {proof}");
        ensure!(request.header("x-amz-security-token") == self.token.as_deref(), "another session");
        let payload = hex::encode(digest::digest(&digest::SHA256, &request.body));
        ensure!(field("x-amz-content-sha256")? == payload, "the body is another than was signed");

        let signed: Vec<&str> = part("SignedHeaders")?.split(';').collect();
        ensure!(signed.is_sorted() && signed.contains(&"host"), "fields are not in order, or lack the host");
        for (name, _) in &request.headers {
            let must = name == "content-type" || name.starts_with("x-amz-");
            ensure!(!must || signed.contains(&name.as_str()), "`{name}` is not signed");
        }
        let mut fields = String::new();
        for name in &signed {
            fields += &format!("{name}:{}\n", field(name)?.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let path = if self.service == "s3" { encode(&decode(path), "/") } else { encode(path.as_bytes(), "/") };
        let (query, signed) = (canonical(query), signed.join(";"));
        let canonical = [request.method.as_str(), &path, &query, &fields, &signed, &payload];
        let digest = hex::encode(digest::digest(&digest::SHA256, canonical.join("\n").as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for step in scope.split('/') {
            key = mac(&key, step);
        }
        let expected = hex::encode(mac(&key, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}")));
        ensure!(part("Signature")? == expected, "the signature does not match: {}", canonical.join("\n"));
        Ok(())
    }

    /// Checks a URL that is good by itself, for a request of this method to S3, for so many seconds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(&self, method: &str, url: &str, expires_s: u32) -> anyhow::Result<()> {
        let rest = url.strip_prefix("https://").context("another scheme")?;
        let (host, rest) = rest.split_once('/').context("no path")?;
        let (path, query) = rest.split_once('?').context("no query")?;
        let (query, signature) = query.rsplit_once("&X-Amz-Signature=").context("no signature")?;
        let part = |name: &str| {
            let pairs: Vec<_> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
            let found: Vec<_> = pairs.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).collect();
            ensure!(found.len() == 1, "{name} is not there once: {query}");
            Ok(String::from_utf8(decode(found[0].1))?)
        };
        let time = part("X-Amz-Date")?;
        let scope = format!("{}/{}/{}/aws4_request", time.get(..8).context("no day")?, self.region, self.service);
        ensure!(part("X-Amz-Algorithm")? == "AWS4-HMAC-SHA256", "another algorithm");
        ensure!(part("X-Amz-Credential")? == format!("{}/{scope}", self.id), "signed by or for another: {query}");
        ensure!(part("X-Amz-Expires")? == expires_s.to_string(), "good for another time: {query}");
        ensure!(part("X-Amz-SignedHeaders")? == "host" && !query.contains("Security-Token"), "more than the host");
        let (path, query) = (encode(&decode(&format!("/{path}")), "/"), canonical(query));
        let fields = format!("host:{host}\n");
        let canonical = [method, &path, &query, &fields, "host", "UNSIGNED-PAYLOAD"].join("\n");
        let digest = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
        let key = scope.split('/').fold(format!("AWS4{}", self.secret).into_bytes(), |key, step| mac(&key, step));
        let expected = hex::encode(mac(&key, &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}")));
        ensure!(signature == expected, "the signature does not match: {canonical}");
        Ok(())
    }
}

fn canonical(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (encode(&decode(name), ""), encode(&decode(value), ""))
    });
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn encode(bytes: &[u8], literal: &str) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let character = char::from(*byte);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || literal.contains(character) {
            text.push(character);
        } else {
            text += &format!("%{byte:02X}");
        }
        text
    })
}

fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    bytes
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
