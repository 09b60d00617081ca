//! From what is written to what holds. Every refusal names the key.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use anyhow::ensure;
use keybearer_egress::Dangerous;
use keybearer_egress::Deadlines;
use keybearer_egress::EgressConfig;
use keybearer_egress::Pin;
use keybearer_egress::roots_from_pem;
use keybearer_gate::Scope;
use keybearer_gate::Scopes;

use crate::config::Config;
use crate::config::Issuer;
use crate::config::Listener;
use crate::config::TenantKey;
use crate::config::Workload;
use crate::config::WorkloadApi;
use crate::config::file;

/// Resolves a parsed file whose relative paths start at `base`.
pub(crate) fn resolve(file: file::Config, source: PathBuf, base: &Path) -> anyhow::Result<Config> {
    let mut dangerous = Vec::new();
    let public = listener(
        "server",
        &file.server.listen,
        file.server.tls,
        base,
        ("plain_http_beyond_loopback", file.server.dangerous.plain_http_beyond_loopback),
        &mut dangerous,
    )?;
    let admin = listener(
        "admin",
        &file.admin.listen,
        file.admin.tls,
        base,
        ("beyond_loopback", file.admin.dangerous.beyond_loopback),
        &mut dangerous,
    )?;
    ensure!(
        public.address != admin.address || public.address.port() == 0,
        "server.listen and admin.listen are both {}: give each a port of its own",
        public.address
    );
    let folder = place(base, &file.server.folder);
    check_limits(&file.limits)?;
    check_signers("packages.trusted_signers", &file.packages.trusted_signers)?;
    check_signers("packages.revoked_signers", &file.packages.revoked_signers)?;
    ensure!(file.sandbox.instances > 0, "sandbox.instances must be above 0");
    check_otlp(file.telemetry.otlp_endpoint.as_deref())?;
    let egress = egress(file.egress, base, &mut dangerous)?;
    let jwt = file.jwt.into_iter().map(|jwt| issuer(jwt, base)).collect::<Result<_, _>>()?;
    let spiffe = file.spiffe.into_iter().map(workload).collect::<Result<_, _>>()?;
    let workload_api = file.workload_api.map(workload_api).transpose()?;
    Ok(Config {
        source,
        operator_token_file: file
            .admin
            .operator_token_file
            .map_or_else(|| folder.join("operator.token"), |path| place(base, &path)),
        anchor: file.ledger.anchor.map_or_else(|| folder.join("ledger.anchor"), |path| place(base, &path)),
        folder,
        public,
        admin,
        grace: Duration::from_millis(file.server.grace_ms),
        durability: file.ledger.durability,
        limits: file.limits,
        refuse_shared_values: file.credentials.refuse_shared_values,
        overlap_s_max: file.credentials.overlap_s_max.min(24 * 3600),
        egress,
        packages: file.packages,
        sandbox: file.sandbox,
        telemetry: file.telemetry,
        jwt,
        spiffe,
        workload_api,
        dangerous,
    })
}

/// A path as written, from the folder of the file; without a trailing `/.`.
fn place(base: &Path, path: &Path) -> PathBuf {
    base.join(path).components().collect()
}

fn listener(
    section: &str,
    listen: &str,
    tls: Option<file::Tls>,
    base: &Path,
    (flag, allowed): (&str, bool),
    dangerous: &mut Vec<String>,
) -> anyhow::Result<Listener> {
    let address: SocketAddr = listen
        .parse()
        .with_context(|| format!("{section}.listen: write `address:port`, such as 127.0.0.1:7400; not `{listen}`"))?;
    if !address.ip().is_loopback() && tls.is_none() {
        ensure!(
            allowed,
            "{section}.listen: {address} is beyond loopback: configure [{section}.tls], or set {section}.dangerous.{flag} = true"
        );
        dangerous.push(format!("{section}.dangerous.{flag}"));
    }
    let tls = tls.map(|tls| file::Tls {
        certificate: place(base, &tls.certificate),
        key: place(base, &tls.key),
        client_ca: tls.client_ca.map(|path| place(base, &path)),
    });
    Ok(Listener { address, tls })
}

fn check_limits(limits: &file::LimitsSection) -> anyhow::Result<()> {
    let depth_max = keybearer_contract::strict_json::DEPTH_MAX;
    ensure!((1..=depth_max).contains(&limits.json_depth), "limits.json_depth must be 1 to {depth_max}");
    // hyper's parser holds no less than this.
    ensure!(limits.header_bytes >= 8192, "limits.header_bytes must be at least 8192");
    for (key, value) in [
        ("concurrent_calls", u64::from(limits.concurrent_calls)),
        ("body_bytes", limits.body_bytes),
        ("package_bytes", limits.package_bytes),
        ("headers", limits.headers as u64),
        ("connections", u64::from(limits.connections)),
        ("connections_per_address", u64::from(limits.connections_per_address)),
        ("failed_authentications_per_minute", u64::from(limits.failed_authentications_per_minute)),
        ("handshake_ms", limits.handshake_ms),
        ("header_ms", limits.header_ms),
        ("body_ms", limits.body_ms),
        ("stalled_write_ms", limits.stalled_write_ms),
        ("call.wall_ms", limits.call.wall_ms),
        ("call.cpu_ms", limits.call.cpu_ms),
        ("call.memory_bytes", limits.call.memory_bytes),
        ("tenant.calls_per_second", u64::from(limits.tenant.calls_per_second)),
        ("tenant.concurrent_calls", u64::from(limits.tenant.concurrent_calls)),
        ("runs.open", limits.runs.open as u64),
        ("runs.life_ms", limits.runs.life_ms),
        ("runs.life_max_ms", limits.runs.life_max_ms),
        ("rows.credentials", u64::from(limits.rows.credentials)),
        ("rows.grants", u64::from(limits.rows.grants)),
        ("rows.tokens", u64::from(limits.rows.tokens)),
        ("rows.packages", u64::from(limits.rows.packages)),
    ] {
        ensure!(value > 0, "limits.{key} must be above 0");
    }
    Ok(())
}

fn check_signers(key: &str, signers: &[String]) -> anyhow::Result<()> {
    for signer in signers {
        let is_key = signer.len() == 64 && signer.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(is_key, "{key}: `{signer}` is not 64 lower-case hex digits, as `keybearer tool keygen` prints them");
    }
    Ok(())
}

fn check_otlp(endpoint: Option<&str>) -> anyhow::Result<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let uri: http::Uri = endpoint.parse().context("telemetry.otlp_endpoint is not a URL")?;
    let known = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    ensure!(known, "telemetry.otlp_endpoint: write http://host:4318/v1/traces, or https");
    Ok(())
}

fn egress(egress: file::Egress, base: &Path, dangerous: &mut Vec<String>) -> anyhow::Result<EgressConfig> {
    let mut config = EgressConfig { hosts_file: egress.hosts_file, ..EgressConfig::default() };
    for path in &egress.extra_ca_files {
        let path = place(base, path);
        let pem = std::fs::read(&path)
            .with_context(|| format!("egress.extra_ca_files: {} cannot be read", path.display()))?;
        let roots =
            roots_from_pem(&pem).with_context(|| format!("egress.extra_ca_files: {} is refused", path.display()))?;
        config.extra_roots.extend(roots);
    }
    for server in &egress.nameservers {
        let address = server.parse().with_context(|| {
            format!("egress.nameservers: write `address:port`, such as 192.0.2.53:53; not `{server}`")
        })?;
        config.nameservers.push(address);
    }
    config.deadlines = deadlines(&egress)?;
    config.dangerous = egress_dangerous(egress.dangerous, dangerous)?;
    Ok(config)
}

fn deadlines(egress: &file::Egress) -> anyhow::Result<Deadlines> {
    let step = |key: &str, ms: u64| {
        ensure!(ms > 0, "egress.{key} must be above 0");
        Ok(Duration::from_millis(ms))
    };
    Ok(Deadlines {
        resolve: step("resolve_ms", egress.resolve_ms)?,
        connect: step("connect_ms", egress.connect_ms)?,
        tls: step("tls_ms", egress.tls_ms)?,
        first_byte: step("first_byte_ms", egress.first_byte_ms)?,
        idle: step("idle_ms", egress.idle_ms)?,
    })
}

fn egress_dangerous(written: file::EgressDangerous, dangerous: &mut Vec<String>) -> anyhow::Result<Dangerous> {
    let mut settings = Dangerous::default();
    for range in &written.allow_ranges {
        let parsed = range.parse().with_context(|| {
            format!("egress.dangerous.allow_ranges: write ranges such as \"127.0.0.0/8\"; not `{range}`")
        })?;
        settings.allow_ranges.push(parsed);
        dangerous.push(format!("egress.dangerous.allow_ranges {range}"));
    }
    for (destination, address) in &written.pin {
        let sentence = || {
            format!(
                "egress.dangerous.pin: write \"api.example.com:443\" = \"127.0.0.1:8443\"; not \"{destination}\" = \"{address}\""
            )
        };
        let (host, port) = destination.rsplit_once(':').with_context(sentence)?;
        settings.pin.push(Pin {
            host: host.parse().with_context(sentence)?,
            port: port.parse().with_context(sentence)?,
            address: address.parse().with_context(sentence)?,
        });
        dangerous.push(format!("egress.dangerous.pin {destination} = {address}"));
    }
    Ok(settings)
}

fn issuer(jwt: file::Jwt, base: &Path) -> anyhow::Result<Issuer> {
    let path = place(base, &jwt.jwks_file);
    let jwks =
        std::fs::read_to_string(&path).with_context(|| format!("jwt.jwks_file: {} cannot be read", path.display()))?;
    let tenants = jwt
        .tenants
        .iter()
        .map(|(claim, tenant)| Ok((claim.clone(), tenant_key("jwt.tenants", tenant)?)))
        .collect::<anyhow::Result<_>>()?;
    Ok(Issuer {
        scopes: scopes("jwt.scopes", &jwt.scopes)?,
        issuer: jwt.issuer,
        audience: jwt.audience,
        algorithms: jwt.algorithms,
        jwks,
        jwks_file: path,
        tenant_claim: jwt.tenant_claim,
        tenants,
    })
}

fn workload(spiffe: file::Spiffe) -> anyhow::Result<Workload> {
    ensure!(spiffe.id.starts_with("spiffe://"), "spiffe.id: write spiffe://trust-domain/path; not `{}`", spiffe.id);
    Ok(Workload {
        tenant: tenant_key("spiffe.tenant", &spiffe.tenant)?,
        scopes: scopes("spiffe.scopes", &spiffe.scopes)?,
        id: spiffe.id,
    })
}

fn workload_api(api: file::WorkloadApi) -> anyhow::Result<WorkloadApi> {
    // Of what SPIFFE allows (Workload Endpoint §4) the local socket alone: it is what the kernel guards.
    let socket = api.socket.strip_prefix("unix://").map(PathBuf::from).filter(|path| path.is_absolute());
    let socket = socket
        .with_context(|| format!("workload_api.socket: write unix:///path/to/agent.sock; not `{}`", api.socket))?;
    let tenants = api.tenants.into_iter().map(|(id, tenants)| {
        let known = id.parse().with_context(|| format!("workload_api.tenants: `{id}`"))?;
        // Its SVIDs go where a tenant's recipes say: another that may use the id could be the first one there.
        ensure!(
            tenants.len() <= 1,
            "workload_api.tenants: `{id}` is for more than one tenant: register an id for each with the agent"
        );
        let tenants = tenants.iter().map(|tenant| tenant_key("workload_api.tenants", tenant));
        Ok((known, tenants.collect::<anyhow::Result<_>>()?))
    });
    Ok(WorkloadApi { socket, tenants: tenants.collect::<anyhow::Result<_>>()? })
}

fn tenant_key(key: &str, text: &str) -> anyhow::Result<TenantKey> {
    if let Ok(id) = text.parse() {
        return Ok(TenantKey::Id(id));
    }
    match text.parse() {
        Ok(name) => Ok(TenantKey::Name(name)),
        Err(error) => bail!("{key}: `{text}` is no tenant's id, and {error}"),
    }
}

fn scopes(key: &str, names: &[String]) -> anyhow::Result<Scopes> {
    let parsed: Vec<Scope> = names
        .iter()
        .map(|name| serde_json::from_value(serde_json::Value::String(name.clone())))
        .collect::<Result<_, _>>()
        .with_context(|| format!("{key}: the scopes are call, credentials, grants, tokens, audit and runs"))?;
    ensure!(!parsed.is_empty(), "{key}: name at least one scope");
    Ok(Scopes::of(&parsed))
}
