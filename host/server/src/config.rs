//! Configuration: one TOML file becomes one value that holds, or a sentence that says what to change.
//! Nothing is read from the environment.

pub(crate) mod file;
mod resolve;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use keybearer_contract::TenantName;
use keybearer_egress::EgressConfig;
use keybearer_gate::Scopes;
use keybearer_gate::SpiffeId;

/// The configuration, resolved: paths are absolute, addresses parsed, files of certificates read.
pub(crate) struct Config {
    /// The file that it was read from.
    pub(crate) source: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) public: Listener,
    pub(crate) admin: Listener,
    pub(crate) operator_token_file: PathBuf,
    pub(crate) grace: Duration,
    pub(crate) durability: file::Durability,
    pub(crate) anchor: PathBuf,
    pub(crate) limits: file::LimitsSection,
    pub(crate) refuse_shared_values: bool,
    pub(crate) overlap_s_max: u64,
    pub(crate) egress: EgressConfig,
    pub(crate) packages: file::Packages,
    pub(crate) sandbox: file::Sandbox,
    pub(crate) telemetry: file::Telemetry,
    pub(crate) jwt: Vec<Issuer>,
    pub(crate) spiffe: Vec<Workload>,
    pub(crate) workload_api: Option<WorkloadApi>,
    /// Settings in force that weaken a promise, by name.
    pub(crate) dangerous: Vec<String>,
}

/// One listener.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<file::Tls>,
}

/// One issuer of JWTs; tenants still by name or id.
pub(crate) struct Issuer {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) algorithms: Vec<String>,
    pub(crate) jwks: String,
    /// Where they were read, to be read again.
    pub(crate) jwks_file: PathBuf,
    pub(crate) tenant_claim: String,
    pub(crate) tenants: Vec<(String, TenantKey)>,
    pub(crate) scopes: Scopes,
}

/// One workload with a client certificate.
pub(crate) struct Workload {
    pub(crate) id: String,
    pub(crate) tenant: TenantKey,
    pub(crate) scopes: Scopes,
}

/// Where the host's own identities come from, and whose each is; tenants still by name or id.
pub(crate) struct WorkloadApi {
    pub(crate) socket: PathBuf,
    pub(crate) tenants: Vec<(SpiffeId, Vec<TenantKey>)>,
}

/// A tenant as the operator writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TenantKey {
    Id(keybearer_contract::TenantId),
    Name(TenantName),
}

impl Config {
    /// Reads and resolves the file.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "the configuration {} cannot be read: make one with `keybearer init`, or name it with --config",
                path.display()
            )
        })?;
        let file = parse(&text).with_context(|| format!("the configuration {} is refused", path.display()))?;
        let absolute = std::path::absolute(path)?;
        let base = absolute.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        resolve::resolve(file, absolute, &base)
            .with_context(|| format!("the configuration {} is refused", path.display()))
    }
}

/// Parses the file's text.
fn parse(text: &str) -> anyhow::Result<file::Config> {
    Ok(toml::from_str(text)?)
}

/// Where the configuration lies if nobody says: here, or where `keybearer init` puts it.
pub(crate) fn default_path() -> PathBuf {
    let here = PathBuf::from("keybearer.toml");
    let made = PathBuf::from(DEFAULT_FOLDER).join("keybearer.toml");
    if !here.exists() && made.exists() { made } else { here }
}

/// The folder that `keybearer init` makes if nobody says.
pub(crate) const DEFAULT_FOLDER: &str = "keybearer-data";

/// The commented example, which is also what `keybearer init` writes.
pub(crate) const EXAMPLE: &str = include_str!("../config.example.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_the_defaults() {
        assert_eq!(parse(EXAMPLE).expect("parses"), file::Config::default());
        assert_eq!(parse("").expect("parses"), file::Config::default());
    }

    /// Lines like `# key = value` and `# [section]`, without the `# `.
    fn uncommented() -> String {
        let is_setting = |line: &str| {
            line.strip_prefix("# ").is_some_and(|rest| {
                (rest.starts_with('[') && rest.ends_with(']'))
                    || rest
                        .split_once(" = ")
                        .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            })
        };
        EXAMPLE.lines().map(|line| if is_setting(line) { &line[2..] } else { line }).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn every_key_is_in_the_example_and_every_key_of_the_example_is_known() {
        let full: toml::Value = toml::from_str(&uncommented()).expect("the example parses with everything in it");
        let parsed = parse(&uncommented()).expect("every key of the example is known");
        assert!(parsed.server.tls.is_some_and(|tls| tls.client_ca.is_some()) && parsed.admin.tls.is_some());
        let mut seen = 0;
        check_section("", &full, &mut seen);
        assert!(seen > 60, "{seen} keys were compared");
    }

    /// Adds an unknown key to each section: the refusal lists the known ones, and each must be there.
    fn check_section(path: &str, section: &toml::Value, seen: &mut usize) {
        let Some(table) = section.as_table() else { return };
        // A table whose keys are the operator's own words.
        if path.ends_with("pin") || path.ends_with("tenants") {
            return;
        }
        for known in known_keys(path) {
            assert!(table.contains_key(&known), "`{known}` of [{path}] is not in the example");
            *seen += 1;
        }
        for (key, value) in table {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                    check_section(&inner, &items[0], seen);
                }
                other => check_section(&inner, other, seen),
            }
        }
    }

    fn known_keys(path: &str) -> Vec<String> {
        let mut full: toml::Value = toml::from_str(&uncommented()).expect("parses");
        let mut place = &mut full;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            place = &mut place[part];
            if place.is_array() {
                place = &mut place[0];
            }
        }
        place.as_table_mut().expect("a table").insert("zzz_unknown".to_owned(), toml::Value::Integer(1));
        let error = parse(&toml::to_string(&full).expect("writes")).expect_err("an unknown key is refused").to_string();
        let list = error.split("expected").nth(1).unwrap_or_default();
        let keys: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!keys.is_empty(), "[{path}]: {error}");
        keys
    }

    fn refusal(text: &str) -> String {
        let file = parse(text).expect("parses");
        match resolve::resolve(file, PathBuf::from("/k/keybearer.toml"), Path::new("/k")) {
            Ok(_) => panic!("`{text}` was accepted"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn h14_a_listener_beyond_loopback_needs_tls_or_a_dangerous_word() {
        for (section, flag) in [("server", "plain_http_beyond_loopback"), ("admin", "beyond_loopback")] {
            let text = format!("[{section}]\nlisten = \"0.0.0.0:7409\"\n");
            assert!(refusal(&text).contains(&format!("{section}.dangerous.{flag}")), "{}", refusal(&text));
            let allowed = format!("{text}[{section}.dangerous]\n{flag} = true\n");
            let config = resolve::resolve(parse(&allowed).expect("parses"), PathBuf::from("/k/c"), Path::new("/k"))
                .expect("allowed");
            assert_eq!(config.dangerous, [format!("{section}.dangerous.{flag}")]);
        }
    }

    #[test]
    fn a_value_that_cannot_hold_is_refused_with_its_key() {
        for (text, key) in [
            ("[server]\nlisten = \"localhost\"", "server.listen"),
            ("[limits]\nconcurrent_calls = 0", "limits.concurrent_calls"),
            ("[limits]\njson_depth = 100", "limits.json_depth"),
            ("[egress]\nnameservers = [\"dns\"]", "egress.nameservers"),
            ("[egress]\nextra_ca_files = [\"missing.pem\"]", "egress.extra_ca_files"),
            ("[egress.dangerous]\nallow_ranges = [\"loopback\"]", "egress.dangerous.allow_ranges"),
            ("[egress.dangerous]\npin = { \"api.example.com\" = \"127.0.0.1:1\" }", "egress.dangerous.pin"),
            ("[packages]\ntrusted_signers = [\"abc\"]", "packages.trusted_signers"),
            ("[workload_api]\nsocket = \"tcp://127.0.0.1:1\"\ntenants = {}", "workload_api.socket"),
            ("[workload_api]\nsocket = \"unix://run/a.sock\"\ntenants = {}", "workload_api.socket"),
            (
                "[workload_api]\nsocket = \"unix:///a\"\ntenants = { \"spiffe://x\" = [\"acme\"] }",
                "workload_api.tenants",
            ),
            (
                "[workload_api]\nsocket = \"unix:///a\"\ntenants = { \"spiffe://x/y\" = [\"A\"] }",
                "workload_api.tenants",
            ),
            (
                "[workload_api]\nsocket = \"unix:///a\"\ntenants = { \"spiffe://x/y\" = [\"acme\", \"globex\"] }",
                "workload_api.tenants",
            ),
            ("[[spiffe]]\nid = \"https://x\"\ntenant = \"acme\"\nscopes = [\"call\"]", "spiffe.id"),
            ("[[spiffe]]\nid = \"spiffe://x/y\"\ntenant = \"Acme\"\nscopes = [\"call\"]", "spiffe.tenant"),
            ("[[spiffe]]\nid = \"spiffe://x/y\"\ntenant = \"acme\"\nscopes = [\"all\"]", "spiffe.scopes"),
            ("[telemetry]\notlp_endpoint = \"collector:4318\"", "telemetry.otlp_endpoint"),
        ] {
            let sentence = refusal(text);
            assert!(sentence.contains(key), "{text}: {sentence}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_files_folder() {
        let config = resolve::resolve(file::Config::default(), PathBuf::from("/k/keybearer.toml"), Path::new("/k"))
            .expect("the defaults hold");
        assert_eq!(config.operator_token_file, Path::new("/k/operator.token"));
        assert!(config.dangerous.is_empty());
    }
}
