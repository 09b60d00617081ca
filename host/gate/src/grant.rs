//! Grants: tenant × package × slot → credential, and the surface that the tenant's administrator
//! approved. A new version of the package that asks for more has no grant until he approves the
//! difference (threats P08, W12).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use keybearer_contract::Allow;
use keybearer_contract::Binding;
use keybearer_contract::CredentialId;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::HostRule;
use keybearer_contract::Limits;
use keybearer_contract::Manifest;
use keybearer_contract::PackageName;
use keybearer_contract::Slot;
use keybearer_contract::SlotName;
use keybearer_contract::TenantId;
use keybearer_contract::ToolDescription;
use keybearer_contract::ToolName;
use keybearer_contract::UnixMillis;
use keybearer_contract::Wasi;
use serde::Deserialize;
use serde::Serialize;

use crate::Destination;
use crate::NotCanonical;
use crate::Target;
use crate::UrlMalformed;

/// A grant. One without a slot is leave to run the package with what its allowlist names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// The id.
    pub id: GrantId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which package.
    pub package: PackageName,
    /// Which slot; none for the package as such.
    pub slot: Option<SlotName>,
    /// What fills the slot; none where there is no slot.
    pub credential: Option<CredentialId>,
    /// Where the binding leaves its host to the grant: which.
    pub base_url: Option<BaseUrl>,
    /// The tools that may use it; none means every one of the package.
    pub actions: Option<Vec<ToolName>>,
    /// What was approved.
    pub approved: Arc<Approved>,
    /// When it was given.
    pub created: UnixMillis,
}

/// The surface that was approved, copied out of the package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The package as it was looked at.
    pub package: Digest,
    /// Who had signed it: hex of an ed25519 public key.
    pub signer: String,
    /// The slot as declared; none for a grant of the package as such.
    pub slot: Option<Slot>,
    /// Places without a credential.
    pub allow: Vec<Allow>,
    /// Parts of WASI.
    pub wasi: Wasi,
    /// Limits.
    pub limits: Limits,
    /// What the tools said of themselves.
    pub tools: Vec<ToolDescription>,
}

/// One thing that a version asks beyond what was approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where: `signer`, `slots.api.bindings`, `limits`, …
    pub place: String,
    /// What was approved.
    pub approved: String,
    /// What is asked.
    pub asked: String,
    /// Whether it needs approval; otherwise it is shown only.
    pub widens: bool,
}

impl Approved {
    /// The surface of a package as it stands, for one slot or for the package as such.
    #[must_use]
    pub fn of(
        manifest: &Manifest,
        package: Digest,
        signer: &str,
        tools: &[ToolDescription],
        slot: Option<&SlotName>,
    ) -> Self {
        Self {
            package,
            signer: signer.to_owned(),
            slot: slot.and_then(|name| manifest.slot(name)).cloned(),
            allow: manifest.allow.clone(),
            wasi: manifest.wasi.clone(),
            limits: manifest.limits,
            tools: tools.to_vec(),
        }
    }

    /// Whether a version asks for nothing beyond what was approved.
    #[must_use]
    pub fn covers(&self, asked: &Self) -> bool {
        (self.package == asked.package && self.signer == asked.signer) || !self.widenings(asked).contains(&true)
    }

    /// Whether each place asks for more, in the order of [`Self::differences`].
    fn widenings(&self, asked: &Self) -> [bool; 6] {
        [
            self.signer != asked.signer,
            !slot_covers(self.slot.as_ref(), asked.slot.as_ref()),
            !asked.allow.iter().all(|new| self.allow.iter().any(|old| allow_covers(old, new))),
            !wasi_covers(&self.wasi, &asked.wasi),
            self.limits.min(asked.limits) != asked.limits,
            !asked.tools.iter().all(|tool| self.tools.contains(tool)),
        ]
    }

    /// What differs, place by place: place, kind and signer widen, and so do WASI, limits, allowlist and
    /// descriptions, since a model acts on them.
    #[must_use]
    pub fn differences(&self, asked: &Self) -> Vec<Difference> {
        let texts = [
            ("signer", self.signer.clone(), asked.signer.clone()),
            ("slot", text(&self.slot), text(&asked.slot)),
            ("allow", text(&self.allow), text(&asked.allow)),
            ("wasi", text(&self.wasi), text(&asked.wasi)),
            ("limits", text(&self.limits), text(&asked.limits)),
            ("tools", text(&self.tools), text(&asked.tools)),
        ];
        let places = texts.into_iter().zip(self.widenings(asked));
        places
            .filter(|((_, approved, asked), _)| approved != asked)
            .map(|((place, approved, asked), widens)| Difference { place: place.to_owned(), approved, asked, widens })
            .collect()
    }
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn slot_covers(approved: Option<&Slot>, asked: Option<&Slot>) -> bool {
    match (approved, asked) {
        (None, None) => true,
        (Some(approved), Some(asked)) => {
            approved.name == asked.name
                && approved.placement == asked.placement
                && asked.bindings.iter().all(|new| approved.bindings.iter().any(|old| binding_covers(old, new)))
        }
        _ => false,
    }
}

fn binding_covers(old: &Binding, new: &Binding) -> bool {
    old.host == new.host
        && old.port == new.port
        && new.methods.iter().all(|method| old.methods.contains(method))
        && new.paths.iter().all(|path| old.paths.iter().any(|pattern| pattern.covers(path)))
        && new.headers.iter().all(|header| old.headers.contains(header))
}

fn allow_covers(old: &Allow, new: &Allow) -> bool {
    old.scheme == new.scheme
        && old.host == new.host
        && old.port() == new.port()
        && new.methods.iter().all(|method| old.methods.contains(method))
        && new.paths.iter().all(|path| old.paths.iter().any(|pattern| pattern.covers(path)))
        && new.headers.iter().all(|header| old.headers.contains(header))
}

fn wasi_covers(old: &Wasi, new: &Wasi) -> bool {
    (old.clocks || !new.clocks)
        && (old.random || !new.random)
        && (old.stdio || !new.stdio)
        && old.scratch_bytes >= new.scratch_bytes
}

/// A base URL that a grant fixes: `https://host[:port]`, without a path.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(Destination);

impl BaseUrl {
    /// The place that it names.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.0
    }

    /// Whether a binding admits it: same scheme, same port, host within the pattern.
    #[must_use]
    pub fn fits(&self, binding: &Binding) -> bool {
        matches!(binding.host, HostRule::FromGrant { .. })
            && self.0.scheme() == keybearer_contract::Scheme::Https
            && self.0.port() == binding.port
            && binding.host.admits(self.0.host())
    }
}

impl FromStr for BaseUrl {
    type Err = NotCanonical;

    fn from_str(text: &str) -> Result<Self, NotCanonical> {
        let target: Target = format!("{text}/").parse()?;
        Ok(Self(target.destination().clone()))
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = UrlMalformed;

    fn try_from(text: String) -> Result<Self, UrlMalformed> {
        Ok(text.parse::<Self>()?)
    }
}

impl From<BaseUrl> for String {
    fn from(base: BaseUrl) -> Self {
        base.0.to_string()
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        limits = { wall_ms = 1000 }
        [package]
        name = "stripe"
        version = "0.1.0"
        description = "d"
        [[slots]]
        name = "api"
        description = "d"
        placement = { kind = "bearer" }
        bindings = [{ host = "api.stripe.com", methods = ["POST"], paths = ["/v1/refunds"] }]
    "#;

    fn surface(text: &str, signer: &str) -> Approved {
        let manifest = Manifest::parse(text).expect("parses");
        let digest = Digest::of_package(b"", text.as_bytes());
        Approved::of(&manifest, digest, signer, &[], Some(&"api".parse().expect("name")))
    }

    #[test]
    fn p08_a_version_that_asks_for_more_is_not_covered() {
        let approved = surface(TEXT, "a");
        for (from, to) in [
            ("api.stripe.com", "evil.test"),
            ("\"POST\"", "\"POST\", \"GET\""),
            ("/v1/refunds", "/v1/{rest...}"),
            ("bearer\" }", "header\", name = \"x-key\" }"),
            ("1000", "2000"),
        ] {
            assert!(!approved.covers(&surface(&TEXT.replace(from, to), "a")), "{to}");
        }
        assert!(!approved.covers(&surface(&format!("wasi = {{ random = true }}\n{TEXT}"), "a")));
        assert!(!approved.covers(&surface(TEXT, "b")));
    }

    #[test]
    fn p08_p09_a_version_that_has_another_thing_signed_is_not_covered() {
        let mac = r#"{ kind = "hmac", header = "x-signature", algorithm = "hmac-sha256", over = "body", encoding = "hex", prefix = "v1=" }"#;
        let url = r#"{ kind = "function", for_caller = false, signs = { kind = "sigv4", region = "eu-west-1", service = "s3", max_expires_s = 300 } }"#;
        let jwt = r#"{ kind = "jwt", algorithm = "ES256", claims = { iss = "us", aud = "them" }, lifetime_s = 60 }"#;
        for (placement, from, to) in [
            (mac, "x-signature", "x-other"),
            (mac, "over = \"body\"", "over = \"timestamp_body\", timestamp_header = \"x-timestamp\""),
            (mac, "\"hex\"", "\"base64\""),
            (mac, "v1=", "v2="),
            (jwt, "ES256", "EdDSA"),
            (jwt, "aud = \"them\"", "aud = \"others\""),
            (jwt, "aud = \"them\"", "aud = \"them\", scope = \"all\""),
            (jwt, "= 60", "= 61"),
            (url, "for_caller = false", "for_caller = true"),
            (url, "= 300", "= 301"),
            (url, "eu-west-1", "us-east-1"),
        ] {
            let text = TEXT.replace("{ kind = \"bearer\" }", placement);
            let approved = surface(&text, "a");
            assert!(approved.covers(&surface(&text, "a")));
            assert!(!approved.covers(&surface(&text.replace(from, to), "a")), "{to}");
        }
    }

    #[test]
    fn a_version_that_asks_for_less_is_covered() {
        let approved = surface(&TEXT.replace("/v1/refunds", "/v1/{rest...}"), "a");
        assert!(approved.covers(&surface(TEXT, "a")));
        assert!(approved.covers(&surface(&TEXT.replace("1000", "900"), "a")));
    }
}
