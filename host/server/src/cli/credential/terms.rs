//! The terms on which a credential is held, as arguments: how often it is rotated, where it may go. What is left
//! out is the server's to choose.

use anyhow::Context as _;
use anyhow::ensure;
use clap::Args;
use serde_json::Value;
use serde_json::json;

#[derive(Args)]
pub(crate) struct Terms {
    /// When it ends, in milliseconds since 1970; default: after a year
    #[arg(long)]
    expires_ms: Option<u64>,
    /// It is rotated every so many hours; default: 2160 (90 days), or 24 for a sensitive one
    #[arg(long, value_name = "HOURS")]
    rotate_every_h: Option<u32>,
    /// Much is lost with it: it is rotated every day
    #[arg(long)]
    sensitive: bool,
    /// It may go here and nowhere else, whatever slots ask; may be given again.
    /// Such as "GET,POST <https://api.example.com/v1/{rest...}>"
    #[arg(long, value_name = "METHODS URL")]
    only: Vec<String>,
}

impl Terms {
    /// The fields of a request's body.
    pub(crate) fn fields(&self) -> anyhow::Result<serde_json::Map<String, Value>> {
        let mut fields = serde_json::Map::new();
        if let Some(expires) = self.expires_ms {
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
