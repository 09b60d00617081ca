//! Whom a command talks to: which listener, with which token, trusting whom. And how names that people
//! use become the ids that the API wants.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use http::Uri;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::client::Connector;
use crate::cli::failure::Cause;
use crate::cli::terminal;
use crate::config::Config;
use crate::config::Listener;
use crate::files;
use crate::serve::SERVING_FILE;

impl Global {
    /// The public listener, with a tenant's token.
    pub(crate) fn tenant(&self) -> anyhow::Result<Client> {
        let unnamed = || {
            Cause::Usage.says(
                "name a file with a token of the tenant: --token-file FILE (make one with `keybearer token issue --tenant NAME`)",
            )
        };
        self.tenant_bearing(self.token_file.as_ref().ok_or_else(unnamed)?)
    }

    /// The public listener, with the token that a file holds, or stdin for `-`.
    pub(crate) fn tenant_bearing(&self, path: &Path) -> anyhow::Result<Client> {
        let token = read_token(path).map_err(|error| Cause::FileUnreadable.of(error))?;
        let base = match &self.server {
            Some(url) => self.named(url)?,
            None => listening(&self.read_config()?, "public_url"),
        };
        self.client(base, token)
    }

    /// The public listener, with the run's token that a file holds, or stdin for `-`. Another token would be good for more
    /// than the run.
    pub(crate) fn run_bearing(&self, path: &Path) -> anyhow::Result<Client> {
        if self.token_file.is_some() {
            let sentence = "--run-token-file and --token-file exclude each other: a call has one token";
            return Err(Cause::Usage.says(sentence));
        }
        let client = self.tenant_bearing(path)?;
        let holds = client.token().starts_with("kbr_");
        ensure!(
            holds,
            "{} holds no token of a run, which begins with kbr_: use --token-file outside of runs",
            path.display()
        );
        Ok(client)
    }

    /// The admin listener, with the operator's token.
    pub(crate) fn operator(&self) -> anyhow::Result<Client> {
        let (base, token_file) = match (&self.server, &self.token_file) {
            (Some(url), Some(path)) => (self.named(url)?, path.clone()),
            (url, path) => {
                let config = self.read_config()?;
                let base = match url {
                    Some(url) => self.named(url)?,
                    None => listening(&config, "admin_url"),
                };
                (base, path.clone().unwrap_or(config.operator_token_file))
            }
        };
        let token = files::read_operator_token(&token_file).map_err(|error| Cause::FileUnreadable.of(error))?;
        self.client(base, token)
    }

    /// The server that somebody named. A token goes nowhere in the clear but over loopback, unless that is asked for in
    /// as many words; of the configuration's own server its listeners' `dangerous` settings have asked for it.
    fn named(&self, url: &str) -> anyhow::Result<String> {
        let base = url.trim_end_matches('/');
        let wrong = || Cause::Usage.says(format!("--server `{url}` is no URL of a server: write https://host:port"));
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) || self.dangerous_plain_http => {}
            Some("http") => {
                return Err(Cause::Usage.says(format!(
                    "{host} is beyond loopback, and over http:// everybody on the way can read the token: write \
                     https://, or say --dangerous-plain-http"
                )));
            }
            _ => return Err(wrong()),
        }
        Ok(base.to_owned())
    }

    fn client(&self, base: String, token: Zeroizing<String>) -> anyhow::Result<Client> {
        let connector = match &self.ca {
            Some(path) => Connector::trusting(path).map_err(|error| Cause::FileUnreadable.of(error))?,
            None if base.starts_with("https:") => Connector::public()?,
            None => Connector::plain()?,
        };
        Ok(Client::new(connector, base, token))
    }
}

/// A token of the tenant's, or of a run, out of a file or stdin.
fn read_token(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let token = if path == Path::new("-") {
        let bytes = read_secret_input(path, "Token", TOKEN_BYTES_MAX)?;
        Zeroizing::new(std::str::from_utf8(&bytes).context("stdin holds no token")?.trim().to_owned())
    } else {
        files::read_secret(path)?
    };
    ensure!(!token.is_empty(), "{} holds no token", path.display());
    ensure!(
        !token.starts_with("kbop_"),
        "{} holds the operator's token, and this is for a tenant's: make one with `keybearer token issue --tenant NAME`",
        path.display()
    );
    Ok(token)
}

fn is_loopback(host: &str) -> bool {
    // RFC 6761, 6.3: the name is loopback's, whoever is asked for it.
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Where the server of a configuration listens: as the running one says, or else as configured.
fn listening(config: &Config, which: &str) -> String {
    let said = std::fs::read(config.folder.join(SERVING_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .and_then(|serving| serving[which].as_str().map(str::to_owned));
    said.unwrap_or_else(|| configured(if which == "admin_url" { &config.admin } else { &config.public }))
}

fn configured(listener: &Listener) -> String {
    let mut address = listener.address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("{}://{address}", if listener.tls.is_some() { "https" } else { "http" })
}

/// More than any token has.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

/// Reads a file that holds a secret, or stdin for `-`: a pipe to its end, or one line that somebody types and that his
/// terminal does not show.
pub(crate) fn read_secret_input(path: &Path, what: &str, bytes_max: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if path == Path::new("-") && terminal::is_at_stdin() { terminal::ask(what) } else { read_input(path, bytes_max) }
}

/// Reads a file, or stdin for `-`.
pub(crate) fn read_input(path: &Path, bytes_max: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    read_bounded(path, bytes_max).map_err(|error| Cause::FileUnreadable.of(error))
}

fn read_bounded(path: &Path, bytes_max: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    if path == Path::new("-") {
        if terminal::is_at_stdin() {
            eprintln!("(reading from the terminal: Ctrl-D on a line of its own ends it)");
        }
        std::io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > bytes_max {
        let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        bail!("{name} is longer than {bytes_max} bytes");
    }
    Ok(bytes)
}

/// The id of a thing that is named by its id or its name.
pub(crate) async fn id_of(client: &Client, list: &str, prefix: &str, text: &str) -> anyhow::Result<String> {
    let is_id = text
        .strip_prefix(prefix)
        .is_some_and(|body| body.len() == 26 && body.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
    if is_id {
        return Ok(text.to_owned());
    }
    let items = client.get(list).await?;
    let found = items["items"].as_array().into_iter().flatten().find(|item| item["name"] == text);
    let id = found.and_then(|item| item["id"].as_str());
    id.map(str::to_owned).ok_or_else(|| Cause::NotFound.says(format!("there is no `{text}` in {list}")))
}

/// Refuses what is not one plain segment of a path.
pub(crate) fn segment(text: &str) -> anyhow::Result<&str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte));
    let is_segment = plain && text != "." && text != "..";
    if is_segment { Ok(text) } else { Err(Cause::Usage.says(format!("`{text}` is no id and no name"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h14_a_token_goes_in_the_clear_over_loopback_only() {
        let global = |dangerous_plain_http| Global {
            config: None,
            json: false,
            server: None,
            token_file: None,
            ca: None,
            dangerous_plain_http,
        };
        let refusal = |url: &str| global(false).named(url).err().map(|error| error.to_string()).unwrap_or_default();
        for plain in [
            "http://192.0.2.2:7400",
            "http://keybearer.example",
            "http://0.0.0.0:7400",
            "http://[2001:db8::1]:7400/",
            "http://127.0.0.1.example",
            "http://127.0.0.1@192.0.2.2/",
            "http://localhost.example",
            "HTTP://192.0.2.2",
        ] {
            assert!(refusal(plain).contains("beyond loopback"), "{plain}: {}", refusal(plain));
            assert!(global(true).named(plain).is_ok(), "{plain}");
        }
        for good in ["https://192.0.2.2", "http://127.0.0.1:7400/", "http://[::1]:7400", "http://LOCALHOST:7400"] {
            assert_eq!(refusal(good), "", "{good}");
        }
        for none in ["127.0.0.1:7400", "keybearer.example", "ftp://keybearer.example", "", "https://"] {
            assert!(refusal(none).contains("write https://host:port"), "{none}: {}", refusal(none));
            assert!(global(true).named(none).is_err(), "{none}");
        }
    }
}
