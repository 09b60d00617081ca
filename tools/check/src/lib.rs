//! For the unit tests of the shipped tools: whether a tool's manifest, its descriptions and the
//! requests that it sends fit each other. Not linked into any component, and not the host's policy:
//! it asks the manifest alone, without grants.

use keybearer_contract::Manifest;
use keybearer_contract::Method;
use keybearer_contract::Scheme;
use keybearer_contract::ToolDescription;
use keybearer_contract::check_description;
use keybearer_gate::Target;
use keybearer_guest::Package;
use keybearer_guest::mock::Request;

/// Header fields that a tool may set without its manifest saying so.
const COMMON_HEADERS: &[&str] = &["accept", "accept-language", "content-type"];

/// Parses a manifest and checks it together with what the package says of itself.
///
/// # Panics
/// Where the manifest is refused, or `keybearer tool check` would find something.
#[must_use]
pub fn manifest(text: &str, package: &Package) -> Manifest {
    let manifest = Manifest::parse(text).expect("the manifest is accepted");
    let schema = |text: &str| serde_json::from_str(text).expect("a schema is JSON");
    let tools: Vec<_> = package
        .describe()
        .into_iter()
        .map(|tool| ToolDescription {
            name: tool.name.parse().expect("a tool's name"),
            description: tool.description,
            input_schema: schema(&tool.input_schema),
            output_schema: tool.output_schema.as_deref().map(schema),
            read_only: tool.read_only,
            idempotent: tool.idempotent,
        })
        .collect();
    assert_eq!(check_description(&manifest, &tools), vec![], "findings of `keybearer tool check`");
    manifest
}

/// Whether a request fits one of the bindings of a slot: host, port, method, path, headers.
///
/// # Panics
/// Where there is no such slot, or the URL is not canonical.
#[must_use]
pub fn admits(manifest: &Manifest, slot: &str, request: &Request) -> bool {
    let slot = manifest.slot(&slot.parse().expect("a slot's name")).expect("the manifest has this slot");
    let target: Target = request.url.parse().expect("the URL is canonical");
    let destination = target.destination();
    slot.bindings.iter().any(|binding| {
        destination.scheme() == Scheme::Https
            && destination.port() == binding.port
            && binding.host.admits(destination.host())
            && binding.methods.contains(&method(request))
            && binding.paths.iter().any(|pattern| pattern.matches(target.path()))
            && request
                .headers
                .iter()
                .all(|(name, _)| COMMON_HEADERS.contains(&name.as_str()) || binding.headers.contains(name))
    })
}

fn method(request: &Request) -> Method {
    match request.method {
        keybearer_guest::http::Method::Get => Method::Get,
        keybearer_guest::http::Method::Head => Method::Head,
        keybearer_guest::http::Method::Post => Method::Post,
        keybearer_guest::http::Method::Put => Method::Put,
        keybearer_guest::http::Method::Patch => Method::Patch,
        keybearer_guest::http::Method::Delete => Method::Delete,
        keybearer_guest::http::Method::Options => Method::Options,
    }
}
