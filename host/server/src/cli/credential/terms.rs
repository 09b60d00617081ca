//! The terms on which a credential is held, as arguments: how often it is rotated, where it may go. What is left
//! out is the server's to choose.

use anyhow::Context as _;
use anyhow::ensure;
use clap::Args;
use keybearer_contract::UnixMillis;
use serde_json::Value;
use serde_json::json;

use crate::cli::token;

#[derive(Args)]
pub(crate) struct Terms {
    /// How long it lives from now on: 12h, 90d; a new one without it: a year
    #[arg(long, value_parser = token::seconds, conflicts_with = "expires_ms")]
    life: Option<u64>,
    /// The same as a point in time, in milliseconds since 1970
    #[arg(long)]
    expires_ms: Option<u64>,
    /// It is rotated every so many hours; a new one without it: 2160 (90 days), or 24 for a sensitive one
    #[arg(long, value_name = "HOURS")]
    rotate_every_h: Option<u32>,
    /// Much is lost with it: it is rotated every day
    #[arg(long)]
    sensitive: bool,
    /// It may go here and nowhere else, whatever slots ask; may be given again.
    /// Such as `"GET,POST https://api.example.com/v1/{rest...}"`
    #[arg(long, value_name = "METHODS URL")]
    only: Vec<String>,
}

impl Terms {
    /// The fields of a request's body.
    pub(crate) fn fields(&self) -> anyhow::Result<serde_json::Map<String, Value>> {
        let mut fields = serde_json::Map::new();
        if let Some(expires) = self.expires(UnixMillis::now())? {
            fields.insert("expires".to_owned(), json!(expires));
        }
        if self.sensitive || self.rotate_every_h.is_some() {
            let rotation = json!({ "every_h": self.rotate_every_h, "sensitive": self.sensitive });
            fields.insert("rotation".to_owned(), rotation);
        }
        if !self.only.is_empty() {
            let places = self.only.iter().map(|text| place(text));
            fields.insert("binding".to_owned(), Value::Array(places.collect::<anyhow::Result<_>>()?));
        }
        Ok(fields)
    }

    /// When it ends. One in the past would be the end of what works now, and is most often one in seconds.
    fn expires(&self, now: UnixMillis) -> anyhow::Result<Option<u64>> {
        let expires = self.life.map(|life| now.0.saturating_add(life.saturating_mul(1000))).or(self.expires_ms);
        if let Some(expires) = expires {
            let utc = UnixMillis(expires).to_utc();
            ensure!(
                expires > now.0,
                "--expires-ms {expires} is {utc}, which is over: write milliseconds, or --life 90d"
            );
        }
        Ok(expires)
    }
}

/// A place as a manifest has it. The server looks closer.
fn place(text: &str) -> anyhow::Result<Value> {
    let wrong = || format!("`{text}` is no place: write \"GET,POST https://host/path\"");
    let (methods, url) = text.trim().split_once(' ').with_context(wrong)?;
    let rest = url.trim().strip_prefix("https://").with_context(wrong)?;
    let (authority, path) = rest.split_once('/').with_context(wrong)?;
    // A colon inside of braces would not be a port, and no host has one.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().with_context(wrong)?),
        None => (authority, 443),
    };
    ensure!(!host.is_empty(), wrong());
    let methods: Vec<&str> = methods.split(',').map(str::trim).collect();
    Ok(json!({ "host": host, "port": port, "methods": methods, "paths": [format!("/{path}")] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_in_the_past_is_refused_and_a_life_counts_from_now() {
        let now = UnixMillis(1_795_335_413_214);
        let terms =
            |life, expires_ms| Terms { life, expires_ms, rotate_every_h: None, sensitive: false, only: Vec::new() };
        assert_eq!(terms(None, None).expires(now).expect("none"), None);
        assert_eq!(terms(Some(60), None).expires(now).expect("a minute"), Some(1_795_335_473_214));
        assert_eq!(terms(None, Some(now.0 + 1)).expires(now).expect("in time"), Some(now.0 + 1));
        for over in [1, now.0 / 1000, now.0] {
            let refused = terms(None, Some(over)).expires(now).expect_err("over").to_string();
            assert!(refused.contains("milliseconds") && refused.contains("--life"), "{refused}");
        }
    }

    #[test]
    fn a_place_is_written_as_methods_and_url() {
        let expected =
            json!({"host": "a.example", "port": 443, "methods": ["GET", "POST"], "paths": ["/v1/{rest...}"]});
        assert_eq!(place("GET,POST https://a.example/v1/{rest...}").expect("a place"), expected);
        assert_eq!(place("GET https://a.example:8443/").expect("a place")["port"], 8443);
        for wrong in
            ["https://a.example/", "GET a.example/", "GET https://a.example", "GET https://:1/", "GET https://a:x/"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
