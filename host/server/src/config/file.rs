//! The configuration file as it is written: every key, its default, and nothing resolved. Unknown keys
//! are refused. `config.example.toml` documents each key; a test keeps it complete.

use std::collections::BTreeMap;
use std::path::PathBuf;

use keybearer_contract::Limits;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) admin: Admin,
    pub(crate) ledger: Ledger,
    pub(crate) limits: LimitsSection,
    pub(crate) credentials: Credentials,
    pub(crate) egress: Egress,
    pub(crate) packages: Packages,
    pub(crate) sandbox: Sandbox,
    pub(crate) telemetry: Telemetry,
    pub(crate) jwt: Vec<Jwt>,
    pub(crate) spiffe: Vec<Spiffe>,
    pub(crate) workload_api: Option<WorkloadApi>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Server {
    pub(crate) folder: PathBuf,
    pub(crate) listen: String,
    pub(crate) grace_ms: u64,
    pub(crate) tls: Option<Tls>,
    pub(crate) dangerous: ServerDangerous,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("."),
            listen: "127.0.0.1:7400".to_owned(),
            grace_ms: 30_000,
            tls: None,
            dangerous: ServerDangerous::default(),
        }
    }
}

/// `[server.dangerous]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServerDangerous {
    pub(crate) plain_http_beyond_loopback: bool,
}

/// `[server.tls]` and `[admin.tls]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
}

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Admin {
    pub(crate) listen: String,
    pub(crate) operator_token_file: Option<PathBuf>,
    pub(crate) tls: Option<Tls>,
    pub(crate) dangerous: AdminDangerous,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:7401".to_owned(),
            operator_token_file: None,
            tls: None,
            dangerous: AdminDangerous::default(),
        }
    }
}

/// `[admin.dangerous]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminDangerous {
    pub(crate) beyond_loopback: bool,
}

/// `[ledger]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ledger {
    pub(crate) durability: Durability,
    pub(crate) anchor: Option<PathBuf>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { durability: Durability::Process, anchor: None }
    }
}

/// How much a record survives before the effect that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    Process,
    Power,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsSection {
    pub(crate) concurrent_calls: u32,
    pub(crate) body_bytes: u64,
    pub(crate) package_bytes: u64,
    pub(crate) json_depth: usize,
    pub(crate) headers: usize,
    pub(crate) header_bytes: usize,
    pub(crate) connections: u32,
    pub(crate) connections_per_address: u32,
    pub(crate) failed_authentications_per_minute: u32,
    pub(crate) handshake_ms: u64,
    pub(crate) header_ms: u64,
    pub(crate) body_ms: u64,
    pub(crate) stalled_write_ms: u64,
    pub(crate) call: Limits,
    pub(crate) tenant: TenantLimits,
    pub(crate) runs: RunLimits,
    pub(crate) rows: RowLimits,
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            concurrent_calls: 256,
            // A call's arguments may have 1 MiB; the rest of the body is short.
            body_bytes: (1 << 20) + (64 << 10),
            package_bytes: 36 << 20,
            json_depth: keybearer_contract::strict_json::DEPTH_MAX,
            headers: 64,
            header_bytes: 32 << 10,
            connections: 4096,
            connections_per_address: 1024,
            failed_authentications_per_minute: 600,
            handshake_ms: 10_000,
            header_ms: 30_000,
            body_ms: 30_000,
            stalled_write_ms: 30_000,
            call: Limits::default(),
            tenant: TenantLimits::default(),
            runs: RunLimits::default(),
            rows: RowLimits::default(),
        }
    }
}

/// `[limits.tenant]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TenantLimits {
    pub(crate) calls_per_second: u32,
    pub(crate) concurrent_calls: u32,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self { calls_per_second: 100, concurrent_calls: 64 }
    }
}

/// `[limits.runs]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunLimits {
    pub(crate) open: usize,
    pub(crate) sub_runs: usize,
    pub(crate) depth: usize,
    pub(crate) life_ms: u64,
    pub(crate) life_max_ms: u64,
    pub(crate) remembered_ms: u64,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            open: 1_000,
            sub_runs: 100,
            depth: 5,
            life_ms: 3_600_000,
            life_max_ms: 86_400_000,
            remembered_ms: 86_400_000,
        }
    }
}

/// `[limits.rows]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RowLimits {
    pub(crate) credentials: u32,
    pub(crate) grants: u32,
    pub(crate) tokens: u32,
    pub(crate) packages: u32,
}

impl Default for RowLimits {
    fn default() -> Self {
        Self { credentials: 4096, grants: 4096, tokens: 4096, packages: 4096 }
    }
}

/// `[credentials]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Credentials {
    pub(crate) refuse_shared_values: bool,
    pub(crate) overlap_s_max: u64,
}

impl Default for Credentials {
    fn default() -> Self {
        Self { refuse_shared_values: false, overlap_s_max: 24 * 3600 }
    }
}

/// `[egress]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Egress {
    pub(crate) extra_ca_files: Vec<PathBuf>,
    pub(crate) nameservers: Vec<String>,
    pub(crate) hosts_file: bool,
    pub(crate) resolve_ms: u64,
    pub(crate) connect_ms: u64,
    pub(crate) tls_ms: u64,
    pub(crate) first_byte_ms: u64,
    pub(crate) idle_ms: u64,
    pub(crate) dangerous: EgressDangerous,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            extra_ca_files: Vec::new(),
            nameservers: Vec::new(),
            hosts_file: false,
            resolve_ms: 5_000,
            connect_ms: 5_000,
            tls_ms: 5_000,
            first_byte_ms: 25_000,
            idle_ms: 10_000,
            dangerous: EgressDangerous::default(),
        }
    }
}

/// `[egress.dangerous]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EgressDangerous {
    pub(crate) allow_ranges: Vec<String>,
    pub(crate) pin: BTreeMap<String, String>,
}

/// `[packages]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Packages {
    pub(crate) trusted_signers: Vec<String>,
    pub(crate) revoked_signers: Vec<String>,
}

/// `[sandbox]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sandbox {
    pub(crate) instances: u32,
    pub(crate) compile_in_child: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { instances: 256, compile_in_child: true }
    }
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
    pub(crate) otlp_endpoint: Option<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Human,
    Json,
}

/// What is logged at the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// `[[jwt]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) algorithms: Vec<String>,
    pub(crate) jwks_file: PathBuf,
    pub(crate) tenant_claim: String,
    pub(crate) tenants: BTreeMap<String, String>,
    pub(crate) scopes: Vec<String>,
}

/// `[[spiffe]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spiffe {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) scopes: Vec<String>,
}

/// `[workload_api]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkloadApi {
    pub(crate) socket: String,
    pub(crate) tenants: BTreeMap<String, Vec<String>>,
}
