//! The manifest: what a package declares that it needs. It names places and kinds, never values.
//! Parsing is strict (unknown keys refused), and what parsed holds every rule that a dispatch relies
//! on; the lints that only advise are in `manifest_lint`.

use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

use crate::Host;
use crate::Limits;
use crate::Method;
use crate::NameMalformed;
use crate::PackageName;
use crate::Placement;
use crate::SlotName;

/// A manifest cannot be used; says where and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestInvalid {
    /// It is not TOML of this shape.
    #[error("the manifest does not parse: {0}")]
    Syntax(String),
    /// A rule is broken.
    #[error("the manifest is refused: {0}")]
    Rule(String),
}

/// The text is no host or path of a manifest. Says which rule, and quotes nothing: it may stand in an answer to whoever
/// sent the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternMalformed {
    /// It is no host.
    #[error(transparent)]
    Host(#[from] NameMalformed),
    /// It is no pattern of hosts or paths.
    #[error("not a {what}: {why}")]
    Rule {
        /// What it was to be.
        what: &'static str,
        /// The rule.
        why: &'static str,
    },
}

/// A package's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name, version, words for people.
    pub package: PackageHead,
    /// What the tools of this package may use at the most; less, where the operator or the tenant says so.
    #[serde(default)]
    pub limits: Limits,
    /// The parts of WASI that the component asks for; none, unless it says so.
    #[serde(default)]
    pub wasi: Wasi,
    /// Credentials that it needs: declared, never filled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<Slot>,
    /// Places that it may reach without a credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Allow>,
}

/// Name, version, words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageHead {
    /// The package's name; a tool is called `package.tool`.
    pub name: PackageName,
    /// `major.minor.patch`, for people; the digest is what counts.
    pub version: String,
    /// What it is for.
    pub description: String,
}

/// The parts of WASI preview 2 that a component may ask for. Never sockets, arguments, environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wasi {
    /// Wall and monotonic clocks, at a resolution of 1 ms.
    pub clocks: bool,
    /// Random bytes.
    pub random: bool,
    /// Standard output and error, as log lines.
    pub stdio: bool,
    /// A scratch folder of so many bytes, gone after the call; none at 0.
    pub scratch_bytes: u64,
}

impl Wasi {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A credential that the package declares it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// The name within the package.
    pub name: SlotName,
    /// For the person who fills it.
    pub description: String,
    /// Where the credential goes on a request.
    pub placement: Placement,
    /// For which requests; none where what is signed goes to no place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
}

/// Schemes that exist here. A credential goes out over HTTPS only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// TLS, verified.
    #[default]
    Https,
    /// In the clear; only in an `allow` entry, which carries no credential.
    Http,
}

impl Scheme {
    /// The port that is meant where none is written.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }

    /// The scheme as in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// One place where a slot's credential may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The host.
    pub host: HostRule,
    /// The port.
    #[serde(default = "https_port")]
    pub port: u16,
    /// The methods.
    pub methods: Vec<Method>,
    /// The paths.
    pub paths: Vec<PathPattern>,
    /// Request headers that the guest may set beside `accept`, `accept-language` and `content-type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

fn https_port() -> u16 {
    443
}

/// One place that may be reached without a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The scheme.
    #[serde(default)]
    pub scheme: Scheme,
    /// The host; never left to a grant here.
    pub host: Host,
    /// The port; the scheme's own where none is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The methods.
    pub methods: Vec<Method>,
    /// The paths.
    pub paths: Vec<PathPattern>,
    /// Request headers that the guest may set beside the common ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
}

impl Allow {
    /// The port that is meant.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or_else(|| self.scheme.default_port())
    }
}

/// Which host a binding means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostRule {
    /// This one. Written `api.stripe.com`.
    Exact(Host),
    /// The one that the grant fixes: exactly one label in front of this suffix. Written
    /// `{grant}.my.salesforce.com`. The tenant's administrator names it; a call's argument never does.
    FromGrant {
        /// What follows the label.
        suffix: Host,
    },
}

impl HostRule {
    const FROM_GRANT: &'static str = "{grant}.";

    /// Whether a grant may fix this host: label-wise, exactly one label more than the suffix.
    #[must_use]
    pub fn admits(&self, host: &Host) -> bool {
        match self {
            Self::Exact(exact) => exact == host,
            Self::FromGrant { suffix } => host
                .as_str()
                .strip_suffix(suffix.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
        }
    }
}

impl FromStr for HostRule {
    type Err = PatternMalformed;

    fn from_str(text: &str) -> Result<Self, PatternMalformed> {
        if let Some(suffix) = text.strip_prefix(Self::FROM_GRANT) {
            return Ok(Self::FromGrant { suffix: suffix.parse()? });
        }
        if text.contains('*') || text.contains('{') {
            let why = "name the host, or write `{grant}.suffix.example` to leave one label to the grant";
            return Err(PatternMalformed::Rule { what: "host", why });
        }
        Ok(Self::Exact(text.parse()?))
    }
}

impl TryFrom<String> for HostRule {
    type Error = PatternMalformed;

    fn try_from(text: String) -> Result<Self, PatternMalformed> {
        text.parse()
    }
}

impl From<HostRule> for String {
    fn from(rule: HostRule) -> Self {
        match rule {
            HostRule::Exact(host) => host.to_string(),
            HostRule::FromGrant { suffix } => format!("{}{suffix}", HostRule::FROM_GRANT),
        }
    }
}

/// A pattern of paths: literal segments, `{name}` for exactly one segment, and a last `{name...}` for
/// one or more. Anchored at both ends; there is no other wildcard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

impl PathPattern {
    /// Whether a canonical path (see gate's destination) fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let mut parts = path.split('/');
        for segment in &self.segments {
            let Some(part) = parts.next() else { return false };
            let fits = match segment {
                Segment::Literal(literal) => literal == part,
                Segment::One => !part.is_empty(),
                Segment::Rest => return !part.is_empty() || parts.next().is_some(),
            };
            if !fits {
                return false;
            }
        }
        parts.next().is_none()
    }

    /// Whether every path that `narrower` matches is matched by this one too.
    #[must_use]
    pub fn covers(&self, narrower: &Self) -> bool {
        let mut mine = self.segments.iter();
        let mut theirs = narrower.segments.iter();
        loop {
            match (mine.next(), theirs.next()) {
                (None, None) => return true,
                (Some(Segment::Rest), Some(_)) => return true,
                (Some(Segment::One), Some(Segment::One)) => {}
                (Some(Segment::One), Some(Segment::Literal(text))) if !text.is_empty() => {}
                (Some(Segment::Literal(a)), Some(Segment::Literal(b))) if a == b => {}
                _ => return false,
            }
        }
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for PathPattern {
    type Err = PatternMalformed;

    fn from_str(text: &str) -> Result<Self, PatternMalformed> {
        let refuse = |why| PatternMalformed::Rule { what: "pattern of paths", why };
        let body = text.strip_prefix('/').ok_or(refuse("it must begin with `/`"))?;
        let mut segments = Vec::new();
        let parts: Vec<&str> = body.split('/').collect();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let inner = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            segments.push(match inner {
                Some(name) if name.ends_with("...") && last => Segment::Rest,
                Some(name) if name.ends_with("...") => return Err(refuse("`{name...}` stands last or nowhere")),
                Some(_) => Segment::One,
                None if part.bytes().any(|byte| b"*{}?[]\\%^$()|;".contains(&byte)) => {
                    return Err(refuse("segments are literal, `{name}`, or a last `{name...}`"));
                }
                None if *part == "." || *part == ".." => return Err(refuse("dot segments have no place here")),
                None if part.is_empty() && !last => return Err(refuse("an empty segment has no place here")),
                None => Segment::Literal((*part).to_owned()),
            });
        }
        Ok(Self { text: text.to_owned(), segments })
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternMalformed;

    fn try_from(text: String) -> Result<Self, PatternMalformed> {
        text.parse()
    }
}

impl From<PathPattern> for String {
    fn from(pattern: PathPattern) -> Self {
        pattern.text
    }
}

/// The longest manifest: what a person can still read and approve.
const MANIFEST_BYTES_MAX: usize = 64 << 10;

impl Manifest {
    /// Parses and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestInvalid`] names the place and the rule.
    pub fn parse(text: &str) -> Result<Self, ManifestInvalid> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestInvalid::Rule(format!("it is longer than {MANIFEST_BYTES_MAX} bytes")));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| ManifestInvalid::Syntax(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The slot of this name.
    #[must_use]
    pub fn slot(&self, name: &SlotName) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.name == *name)
    }

    fn check(&self) -> Result<(), ManifestInvalid> {
        let rule = |text: String| Err(ManifestInvalid::Rule(text));
        let numbers: Vec<&str> = self.package.version.split('.').collect();
        if numbers.len() != 3 || numbers.iter().any(|number| number.parse::<u32>().is_err()) {
            return rule("package.version must be `major.minor.patch`".to_owned());
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let name = &slot.name;
            if self.slots[..index].iter().any(|other| other.name == *name) {
                return rule(format!("slot `{name}` is declared twice"));
            }
            match (slot.placement.has_place(), slot.bindings.is_empty()) {
                (true, true) => return rule(format!("slot `{name}` has no binding: it could never be used")),
                (false, false) => {
                    return rule(format!(
                        "slot `{name}` has a binding, and what it signs goes to no place: leave it out"
                    ));
                }
                _ => {}
            }
            if let Err(why) = slot.placement.check() {
                return rule(format!("slot `{name}`: {why}"));
            }
            for binding in &slot.bindings {
                let place = format!("slot `{name}`");
                check_place(&place, &binding.methods, &binding.paths, binding.port, &binding.headers)?;
                if !slot.placement.is_on_requests() && !binding.headers.is_empty() {
                    return rule(format!("{place}: a URL that is signed takes no `headers` along"));
                }
            }
        }
        crate::placement::check_contexts(&self.slots).map_err(ManifestInvalid::Rule)?;
        for allow in &self.allow {
            let place = format!("allow `{}`", allow.host);
            check_place(&place, &allow.methods, &allow.paths, allow.port(), &allow.headers)?;
        }
        Ok(())
    }
}

fn check_place(
    place: &str,
    methods: &[Method],
    paths: &[PathPattern],
    port: u16,
    headers: &[String],
) -> Result<(), ManifestInvalid> {
    if methods.is_empty() || paths.is_empty() || port == 0 {
        return Err(ManifestInvalid::Rule(format!("{place}: name at least one method, one path and a port above 0")));
    }
    match headers.iter().find(|name| !is_guest_header(name)) {
        Some(name) => Err(ManifestInvalid::Rule(format!(
            "{place}: header `{name}` is not a guest's to set (lower-case; not one that frames, authenticates, forwards or overrides)"
        ))),
        None => Ok(()),
    }
}

/// RFC 9110 §5.6.2 `token`, lower-case only.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Header fields that are the host's: framing, hop-by-hop, authentication, forwarding, overrides,
/// coding and ranges (threats N20, N21, N22, N25, N31, X27). No manifest can hand them to a guest.
const HOST_HEADERS: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "if-range",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "traceparent",
    "tracestate",
    "baggage",
];

/// Whether a guest may ever set this header, given in lower case. `_` is refused because some servers
/// read it as `-`.
fn is_guest_header(name: &str) -> bool {
    is_token(name)
        && !name.contains('_')
        && !HOST_HEADERS.contains(&name)
        && !name.starts_with("x-forwarded-")
        && !name.starts_with("proxy-")
        && !name.starts_with("sec-")
}

/// Whether a slot may own this header.
pub(crate) fn is_ownable_header(name: &str) -> bool {
    is_guest_header(name) || name == "authorization" || name == "cookie"
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPE: &str = r#"
        [package]
        name = "stripe"
        version = "0.1.0"
        description = "Refunds."
        [[slots]]
        name = "api"
        description = "A restricted key."
        placement = { kind = "bearer" }
        bindings = [{ host = "api.stripe.com", methods = ["POST"], paths = ["/v1/refunds"], headers = ["idempotency-key"] }]
    "#;

    #[test]
    fn a_manifest_parses_and_names_its_slot() {
        let manifest = Manifest::parse(STRIPE).expect("parses");
        assert_eq!(manifest.slots[0].bindings[0].port, 443);
    }

    #[test]
    fn p07_wildcards_addresses_and_unanchored_patterns_are_refused() {
        for (from, to) in [
            ("api.stripe.com", "*"),
            ("api.stripe.com", "*.stripe.com"),
            ("api.stripe.com", r".*\\.stripe\\.com$"),
            ("api.stripe.com", "127.0.0.1"),
            ("api.stripe.com", "{grant}"),
            ("/v1/refunds", "/v1/*"),
            ("/v1/refunds", "v1/refunds"),
            ("/v1/refunds", "/v1/../x"),
            ("/v1/refunds", "/{rest...}/x"),
            ("idempotency-key", "authorization"),
            ("idempotency-key", "x-forwarded-for"),
            ("idempotency-key", "Accept"),
        ] {
            assert!(Manifest::parse(&STRIPE.replace(from, to)).is_err(), "{to}");
        }
        assert!(Manifest::parse(&format!("{STRIPE}\n[surprise]\n")).is_err());
    }

    #[test]
    fn n35_a_host_from_a_grant_is_exactly_one_label_more() {
        let rule: HostRule = "{grant}.my.salesforce.com".parse().expect("parses");
        let admits = |text: &str| rule.admits(&text.parse().expect("host"));
        assert!(admits("acme.my.salesforce.com"));
        assert!(!admits("my.salesforce.com"));
        assert!(!admits("a.b.my.salesforce.com"));
        assert!(!admits("evilmy.salesforce.com"));
        assert!(!admits("acme.my.salesforce.com.evil"));
    }

    #[test]
    fn path_patterns_are_anchored_and_cover_what_they_match() {
        let pattern = |text: &str| text.parse::<PathPattern>().expect("parses");
        let one = pattern("/v1/charges/{id}");
        assert!(one.matches("/v1/charges/ch_1"));
        assert!(!one.matches("/v1/charges/"));
        assert!(!one.matches("/v1/charges/ch_1/x"));
        let rest = pattern("/v1/{rest...}");
        assert!(rest.matches("/v1/a/b") && !rest.matches("/v1/") && !rest.matches("/v1"));
        assert!(pattern("/").matches("/"));
        assert!(rest.covers(&one) && !one.covers(&rest));
        assert!(one.covers(&pattern("/v1/charges/search")) && !pattern("/v1/charges/search").covers(&one));
    }
}
