//! On which terms a credential is held: how often it is rotated, and the places it may go to at the most. The
//! slot of a package says where a credential is wanted; this says where its owner lets it go, and both must
//! agree ("least binding"). Not who may use it: that is a grant.

use keybearer_contract::Binding;
use keybearer_contract::Method;
use keybearer_contract::Scheme;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Target;

/// An hour, in milliseconds.
const HOUR_MS: u64 = 3_600_000;

/// How often a credential is rotated if nobody says: the longest that common baselines allow for a secret that
/// is no platform's (CIS Controls 5, PCI DSS 8.3.9: 90 days).
pub const ROTATION_HOURS: u32 = 90 * 24;

/// How often a sensitive one is.
pub const SENSITIVE_ROTATION_HOURS: u32 = 24;

/// The terms of one credential.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// How often it is rotated.
    #[serde(default)]
    pub rotation: RotationPolicy,
    /// The places that it may go to; empty leaves that to the slots that it is granted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binding: Vec<Binding>,
}

/// How often a credential is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotationPolicy {
    /// At the latest after so many hours.
    pub every_h: u32,
    /// Whether much is lost with it: such a one is rotated every day.
    pub sensitive: bool,
}

/// Why terms cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TermsRefused {
    /// Too long or too short.
    #[error("a credential is rotated every 1 to 2160 hours (90 days), a sensitive one every 1 to 24 hours")]
    Rotation,
    /// Too many places.
    #[error("a binding has 16 places at the most")]
    Places,
    /// A place without methods or paths names nothing.
    #[error("a place of a binding names at least one method and one path")]
    Empty,
    /// Headers are not the credential's.
    #[error("a credential's binding has no `headers`: they are the package's to say")]
    Headers,
}

/// What a page shows, and what is compared at each request.
const PLACES_MAX: usize = 16;

impl Default for RotationPolicy {
    fn default() -> Self {
        Self { every_h: ROTATION_HOURS, sensitive: false }
    }
}

impl RotationPolicy {
    /// What a person would choose where something is left out.
    ///
    /// # Errors
    /// [`TermsRefused::Rotation`].
    pub fn chosen(every_h: Option<u32>, sensitive: bool) -> Result<Self, TermsRefused> {
        let most = if sensitive { SENSITIVE_ROTATION_HOURS } else { ROTATION_HOURS };
        let every_h = every_h.unwrap_or(most);
        if every_h == 0 || every_h > most {
            return Err(TermsRefused::Rotation);
        }
        Ok(Self { every_h, sensitive })
    }

    /// When a version that was stored then is to be replaced.
    #[must_use]
    pub fn due(self, stored: UnixMillis) -> UnixMillis {
        UnixMillis(stored.0.saturating_add(u64::from(self.every_h) * HOUR_MS))
    }
}

impl Terms {
    /// Looks at terms before they are stored.
    ///
    /// # Errors
    /// [`TermsRefused`].
    pub fn check(&self) -> Result<(), TermsRefused> {
        RotationPolicy::chosen(Some(self.rotation.every_h), self.rotation.sensitive)?;
        if self.binding.len() > PLACES_MAX {
            return Err(TermsRefused::Places);
        }
        for place in &self.binding {
            if place.methods.is_empty() || place.paths.is_empty() {
                return Err(TermsRefused::Empty);
            }
            if !place.headers.is_empty() {
                return Err(TermsRefused::Headers);
            }
        }
        Ok(())
    }

    /// Whether the credential may go there at all.
    #[must_use]
    pub fn allow(&self, method: Method, target: &Target) -> bool {
        let destination = target.destination();
        let names = |place: &Binding| {
            destination.scheme() == Scheme::Https
                && place.host.admits(destination.host())
                && place.port == destination.port()
                && place.methods.contains(&method)
                && place.paths.iter().any(|pattern| pattern.matches(target.path()))
        };
        self.binding.is_empty() || self.binding.iter().any(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_is_not_said_is_what_a_person_would_choose() {
        assert_eq!(RotationPolicy::chosen(None, false).map(|policy| policy.every_h), Ok(90 * 24));
        assert_eq!(RotationPolicy::chosen(None, true).map(|policy| policy.every_h), Ok(24));
        assert_eq!(RotationPolicy::chosen(Some(30 * 24), false).map(|policy| policy.every_h), Ok(720));
        for (every_h, sensitive) in [(0, false), (90 * 24 + 1, false), (25, true)] {
            assert_eq!(RotationPolicy::chosen(Some(every_h), sensitive), Err(TermsRefused::Rotation), "{every_h}");
        }
        assert_eq!(RotationPolicy::default().due(UnixMillis(5)), UnixMillis(5 + 90 * 24 * HOUR_MS));
    }

    #[test]
    fn a_binding_names_places_and_nothing_beside_them() {
        let terms = |text: &str| Terms { binding: serde_json::from_str(text).expect("parses"), ..Terms::default() };
        let one = r#"[{"host": "api.stripe.com", "methods": ["POST"], "paths": ["/v1/refunds"]}]"#;
        let allows = |terms: &Terms, method, url: &str| terms.allow(method, &url.parse().expect("a URL"));
        let narrow = terms(one);
        assert_eq!(narrow.check(), Ok(()));
        assert!(allows(&narrow, Method::Post, "https://api.stripe.com/v1/refunds?a=b"));
        for (method, url) in [
            (Method::Get, "https://api.stripe.com/v1/refunds"),
            (Method::Post, "https://api.stripe.com/v1/refunds/x"),
            (Method::Post, "https://api.stripe.com:8443/v1/refunds"),
            (Method::Post, "https://apistripe.com/v1/refunds"),
            (Method::Post, "http://api.stripe.com:443/v1/refunds"),
        ] {
            assert!(!allows(&narrow, method, url), "{url}");
        }
        assert!(allows(&Terms::default(), Method::Get, "https://example.com/"));
        assert_eq!(terms(&one.replace(r#"["POST"]"#, "[]")).check(), Err(TermsRefused::Empty));
        assert_eq!(terms(&one.replace('}', r#", "headers": ["x"]}"#)).check(), Err(TermsRefused::Headers));
    }
}
