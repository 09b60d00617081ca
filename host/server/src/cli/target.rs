//! Whom a command talks to: which listener, with which token, trusting whom. And how names that people
//! use become the ids that the API wants.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use anyhow::bail;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::client::Connector;
use crate::config::Config;
use crate::config::Listener;
use crate::files;
use crate::serve::SERVING_FILE;

impl Global {
    /// The public listener, with a tenant's token.
    pub(crate) fn tenant(&self) -> anyhow::Result<Client> {
        let path = self.token_file.as_ref().context(
            "name a file with a token of the tenant: --token-file FILE (make one with `keybearer token issue --tenant NAME`)",
        )?;
        self.tenant_bearing(path)
    }

    /// The public listener, with the token that a file holds, or stdin for `-`.
    pub(crate) fn tenant_bearing(&self, path: &Path) -> anyhow::Result<Client> {
        let token = if path == Path::new("-") {
            let bytes = read_input(path, TOKEN_BYTES_MAX)?;
            Zeroizing::new(std::str::from_utf8(&bytes).context("stdin holds no token")?.trim().to_owned())
        } else {
            files::read_secret(path)?
        };
        let base = match &self.server {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => listening(&self.read_config()?, "public_url"),
        };
        self.client(base, token)
    }

    /// The admin listener, with the operator's token.
    pub(crate) fn operator(&self) -> anyhow::Result<Client> {
        let (base, token_file) = match (&self.server, &self.token_file) {
            (Some(url), Some(path)) => (url.trim_end_matches('/').to_owned(), path.clone()),
            (url, path) => {
                let config = self.read_config()?;
                let base = url.clone().unwrap_or_else(|| listening(&config, "admin_url"));
                (base.trim_end_matches('/').to_owned(), path.clone().unwrap_or(config.operator_token_file))
            }
        };
        self.client(base, files::read_secret(&token_file)?)
    }

    fn client(&self, base: String, token: Zeroizing<String>) -> anyhow::Result<Client> {
        let connector = match &self.ca {
            Some(path) => Connector::trusting(path)?,
            None if base.starts_with("https:") => Connector::public()?,
            None => Connector::plain()?,
        };
        Ok(Client::new(connector, base, token))
    }
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

/// Reads a file, or stdin for `-`.
pub(crate) fn read_input(path: &Path, bytes_max: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    if path == Path::new("-") {
        std::io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > bytes_max {
        bail!("{} is longer than {bytes_max} bytes", path.display());
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
    id.map(str::to_owned).with_context(|| format!("there is no `{text}` in {list}"))
}

/// Refuses what is not one plain segment of a path.
pub(crate) fn segment(text: &str) -> anyhow::Result<&str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte));
    if plain && text != "." && text != ".." { Ok(text) } else { bail!("`{text}` is no id and no name") }
}
