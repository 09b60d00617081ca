//! A function as a placement: the credential goes on no request. A tool asks the host to sign something with it, and
//! holds what is made; what it can be made of stands here. Not for making it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::HmacAlgorithm;
use super::SigningAlgorithm;
use super::is_scope_word;
use super::jwt;
use crate::Slot;

/// What a slot signs for its tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// What can be signed.
    pub signs: Signs,
    /// Whether what is made may stand in the tool's result; otherwise it is taken out of that, too.
    #[serde(default, skip_serializing_if = "is_not")]
    pub for_caller: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_not(so: &bool) -> bool {
    !so
}

/// What a slot of this kind signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Signs {
    /// A MAC over a message of the tool's.
    Hmac(SignsMac),
    /// A JWT, of which the tool may say a part.
    Jwt(SignsJwt),
    /// The URL of a request, for whoever holds it (AWS Signature Version 4 in a query).
    Sigv4(SignsUrl),
}

/// A MAC (RFC 2104) over `context` and a message of the tool's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignsMac {
    /// Over which hash.
    pub algorithm: HmacAlgorithm,
    /// Stands before each message, under the MAC: so that the tool has nothing signed that means another thing
    /// elsewhere, where the same key is used.
    pub context: String,
    /// The longest message, in bytes.
    pub max_bytes: u32,
}

/// A JWT (RFC 7519) that the host makes and signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignsJwt {
    /// How it is signed.
    pub algorithm: SigningAlgorithm,
    /// What every one claims, beside `iat`, `exp` and `jti`, which the host sets.
    pub claims: BTreeMap<String, String>,
    /// The names of the claims that the tool may add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_claim: Vec<String>,
    /// From `iat` to `exp`, in seconds; at most an hour.
    pub lifetime_s: u32,
}

/// A URL with a signature in its query, within the slot's bindings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignsUrl {
    /// As in the service's endpoint: `eu-west-1`.
    pub region: String,
    /// The service's signing name: `s3`.
    pub service: String,
    /// How long one is good at the most, in seconds.
    pub max_expires_s: u32,
}

/// The shortest and the longest context, in bytes. A word and a mark.
const CONTEXT_BYTES: std::ops::RangeInclusive<usize> = 4..=64;

/// The longest message of any slot, in bytes: what a webhook's receiver takes.
const MESSAGE_BYTES_MAX: u32 = 64 << 10;

/// The most claims that a tool may add.
const MAY_CLAIM_MAX: usize = 8;

/// Whose JWT it is and for whom decides what it opens: these are the manifest's to say.
const MANIFEST_CLAIMS: [&str; 2] = ["iss", "aud"];

/// AWS's own limit: seven days.
const EXPIRES_S_MAX: u32 = 7 * 24 * 3_600;

impl Function {
    /// Whether it signs what goes to some place, and so has bindings.
    pub(super) fn has_place(&self) -> bool {
        matches!(self.signs, Signs::Sigv4(_))
    }

    /// What it signs, and for whom.
    pub(super) fn words(&self) -> String {
        let what = match &self.signs {
            Signs::Hmac(mac) => format!("messages behind `{}`", mac.context),
            Signs::Jwt(jwt) if jwt.may_claim.is_empty() => format!("JWTs ({})", jwt.algorithm.as_str()),
            Signs::Jwt(jwt) => format!("JWTs ({}) that may claim {}", jwt.algorithm.as_str(), jwt.may_claim.join(", ")),
            Signs::Sigv4(url) => format!("URLs of {} in {}, good for {} s", url.service, url.region, url.max_expires_s),
        };
        let whom = if self.for_caller { "the tool and its caller" } else { "the tool" };
        format!("{what}, for {whom}")
    }

    /// Whether a manifest may say this.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        match &self.signs {
            Signs::Hmac(mac) => mac.check(),
            Signs::Jwt(jwt) => jwt.check(),
            Signs::Sigv4(url) => url.check(),
        }
    }
}

impl SignsMac {
    fn check(&self) -> Result<(), String> {
        let context = self.context.as_bytes();
        // A letter first: what a placement signs with the time begins with a digit. A mark last: `orders` is not
        // the beginning of `orders-v2` then.
        let is_apart = context.first().is_some_and(u8::is_ascii_alphabetic)
            && context.last().is_some_and(u8::is_ascii_punctuation)
            && context.iter().all(u8::is_ascii_graphic);
        if !CONTEXT_BYTES.contains(&context.len()) || !is_apart {
            return Err(format!(
                "`context` is {} to {} printable characters without spaces, a letter first and a mark last, as `orders-v1.`",
                CONTEXT_BYTES.start(),
                CONTEXT_BYTES.end()
            ));
        }
        if !(1..=MESSAGE_BYTES_MAX).contains(&self.max_bytes) {
            return Err(format!("`max_bytes` is 1 to {MESSAGE_BYTES_MAX}"));
        }
        Ok(())
    }
}

impl SignsJwt {
    fn check(&self) -> Result<(), String> {
        jwt::check(&self.claims, self.lifetime_s)?;
        if self.may_claim.len() > MAY_CLAIM_MAX {
            return Err(format!("a tool may add {MAY_CLAIM_MAX} claims at the most"));
        }
        for (index, name) in self.may_claim.iter().enumerate() {
            let is_fixed = self.claims.contains_key(name) || MANIFEST_CLAIMS.contains(&name.as_str());
            if is_fixed || jwt::is_hosts(name) || self.may_claim[..index].contains(name) {
                return Err(format!("the claim `{name}` is not a tool's to say, or stands there twice"));
            }
            if !jwt::is_name(name) {
                return Err("the name of a claim is printable ASCII, and not too long".to_owned());
            }
        }
        Ok(())
    }

    /// Whether the tool may add this claim.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        self.may_claim.iter().any(|admitted| admitted == name)
    }
}

impl SignsUrl {
    fn check(&self) -> Result<(), String> {
        if ![&self.region, &self.service].into_iter().all(|word| is_scope_word(word)) {
            return Err("region and service are 1 to 32 lower-case letters, digits and hyphens".to_owned());
        }
        if !(1..=EXPIRES_S_MAX).contains(&self.max_expires_s) {
            return Err(format!("`max_expires_s` is 1 to {EXPIRES_S_MAX}"));
        }
        Ok(())
    }
}

/// Looks at the contexts of a package together: if one began with another, a message could be read as either's.
///
/// # Errors
/// A sentence that names both slots.
pub(crate) fn check_contexts(slots: &[Slot]) -> Result<(), String> {
    let context = |slot: &Slot| match &slot.placement {
        super::Placement::Function(Function { signs: Signs::Hmac(mac), .. }) => Some(mac.context.clone()),
        _ => None,
    };
    let contexts: Vec<_> = slots.iter().filter_map(|slot| Some((&slot.name, context(slot)?))).collect();
    for (name, context) in &contexts {
        let other = contexts.iter().find(|(other, begins)| other != name && context.starts_with(begins.as_str()));
        if let Some((other, _)) = other {
            return Err(format!("slots `{other}` and `{name}`: the context of one begins with that of the other"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
