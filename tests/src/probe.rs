//! What a guest hears: the hostile guests give back every byte that their import answered, masked, so that
//! the scrubbing of results does not hide it from a case.

use anyhow::Context as _;
use serde_json::Value;
use serde_json::json;

use crate::Answer;
use crate::Tenant;

/// As in the guests: every byte is turned by this and written as hex.
const MASK: u8 = 0x5a;

/// A manifest for the component of the hostile guests under another name: with `rest` for its slots and its
/// allowlist, and limits into which a case runs in a second or two.
#[must_use]
pub fn manifest(name: &str, version: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"{version}\"\ndescription = \"Says what it is told. For tests.\"\n\n\
         [limits]\nwall_ms = 8000\ncpu_ms = 2000\nmemory_bytes = 16777216\nrequests = 64\nresponse_bytes = 1048576\n\
         total_bytes = 8388608\n\n{rest}\n"
    )
}

/// A slot of a manifest with one binding: GET and POST of every path of a host, on the port of HTTPS.
#[must_use]
pub fn slot(name: &str, placement: &str, hosts: &[&str]) -> String {
    let bindings: String = hosts
        .iter()
        .map(|host| {
            format!(
                "[[slots.bindings]]\nhost = \"{host}\"\nmethods = [\"GET\", \"POST\"]\npaths = [\"/\", \"/{{rest...}}\"]\n"
            )
        })
        .collect();
    format!("[[slots]]\nname = \"{name}\"\ndescription = \"For tests.\"\nplacement = {placement}\n\n{bindings}\n")
}

/// An entry of a manifest's allowlist: GET of every path of a host, without a credential.
#[must_use]
pub fn open(host: &str) -> String {
    format!("[[allow]]\nhost = \"{host}\"\nmethods = [\"GET\"]\npaths = [\"/\", \"/{{rest...}}\"]\n\n")
}

/// What a guest heard of one request.
#[derive(Debug, Clone)]
pub struct Heard {
    /// A status, or who was at fault: `200`, `denied`, `upstream: timeout, maybe sent`.
    pub outcome: String,
    /// Status, header fields and body, every byte.
    pub bytes: Vec<u8>,
    /// The call.
    pub call: String,
}

impl Heard {
    /// What was heard as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as text.
    #[must_use]
    pub fn body(&self) -> String {
        let text = self.text();
        text.split_once("\n\n").map(|(_, body)| body.to_owned()).unwrap_or(text)
    }

    /// The value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let text = self.text();
        let head = text.split_once("\n\n").map_or(text.as_str(), |(head, _)| head);
        let mut values = head.lines().filter_map(|line| line.split_once(": ")).filter(|(field, _)| *field == name);
        values.next().map(|(_, value)| value.to_owned())
    }
}

impl Tenant {
    /// Has the guest of a package send one request and tell all that it heard.
    ///
    /// # Errors
    /// If the call does not end with a result.
    pub async fn hear(&self, package: &str, request: Value) -> anyhow::Result<Heard> {
        let answer = self.call(&format!("{package}.echo_back"), request).await?;
        let body = result(&answer)?;
        let masked = body["result"]["masked"].as_str().context("the guest tells what it heard")?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let bytes = masked.as_bytes().chunks(2).map(|pair| match *pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) ^ MASK),
            _ => None,
        });
        Ok(Heard {
            outcome: body["result"]["outcome"].as_str().context("the guest tells what came of it")?.to_owned(),
            bytes: bytes.collect::<Option<Vec<u8>>>().context("what was heard is hex")?,
            call: body["call"].as_str().context("the call's id")?.to_owned(),
        })
    }

    /// The same, of a GET without anything.
    ///
    /// # Errors
    /// If the call does not end with a result.
    pub async fn hear_get(&self, package: &str, url: &str) -> anyhow::Result<Heard> {
        self.hear(package, json!({"url": url})).await
    }

    /// What a list of URLs comes to, each asked for with GET, in the guest's words.
    ///
    /// # Errors
    /// If a call does not end with a result.
    pub async fn outcomes(&self, package: &str, urls: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut outcomes = Vec::new();
        // Fewer than the requests that one call may make.
        for urls in urls.chunks(24) {
            let answer = self.call(&format!("{package}.url_tricks"), json!({"urls": urls})).await?;
            let body = result(&answer)?;
            let listed = body["result"].as_array().context("a list of outcomes")?;
            outcomes.extend(listed.iter().map(|outcome| outcome.as_str().unwrap_or("?").to_owned()));
        }
        Ok(outcomes)
    }

    /// Why a call did what it did: the sentences of `explain`.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn explain(&self, call: &str) -> anyhow::Result<String> {
        let answer = self.client.get(&format!("/v1/calls/{call}/explain")).await?;
        let body = result(&answer)?;
        let sentences = body["sentences"].as_array().context("sentences")?;
        Ok(sentences.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
    }
}

fn result(answer: &Answer) -> anyhow::Result<Value> {
    anyhow::ensure!(answer.status < 300, "{} {}", answer.status, answer.text());
    Ok(answer.json())
}
