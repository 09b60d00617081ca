//! JWTs of configured issuers. The issuer, the audience, the algorithms and the table from claim to
//! tenant are the operator's configuration; of the token's own word about itself only the key's id is
//! followed, and that only among the issuer's keys (RFC 8725). Fetching keys is not done here: it is
//! a port.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use jsonwebtoken::DecodingKey;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde_json::Value;

use crate::Principal;
use crate::PrincipalLabel;
use crate::Scopes;
use crate::Unauthenticated;

/// Signatures that an issuer may be configured with. There is no symmetric one, so that no public key
/// can ever be taken for a shared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, keys of 2048 bits and more.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl JwtAlgorithm {
    fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn implementation(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

/// An issuer that is trusted, for what, and whose tenants are whose.
#[derive(Debug, Clone)]
pub struct JwtIssuer {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, exactly; a token for several audiences is refused.
    pub audience: String,
    /// The signatures that are taken.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The claim that tells the tenant: a top-level string.
    pub tenant_claim: String,
    /// That claim's values, exactly, and the tenants that they mean.
    pub tenants: HashMap<String, TenantId>,
    /// What its tokens are good for.
    pub scopes: Scopes,
}

/// Where issuers' keys are looked up.
pub trait JwtKeys: Send + Sync {
    /// The key of this issuer with this id.
    fn key(&self, issuer: &str, kid: &str) -> Option<Arc<VerifyingKey>>;
}

/// A longer token is not read: what common servers take for a header field.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How far clocks may be apart, for `exp`, `nbf` and `iat`.
const LEEWAY_S: u64 = 30;

/// A subject is an id, not a text.
const SUBJECT_BYTES_MAX: usize = 255;

/// Verifies a presented JWT. `exp`, `iat`, `iss`, `aud` and `sub` are required, `nbf` is honoured.
///
/// # Errors
/// [`Unauthenticated`], the same for every reason.
pub fn authenticate_jwt(
    presented: &str,
    issuers: &[JwtIssuer],
    keys: &dyn JwtKeys,
    now: UnixMillis,
) -> Result<Principal, Unauthenticated> {
    verify(presented, issuers, keys, now).ok_or(Unauthenticated)
}

fn verify(presented: &str, issuers: &[JwtIssuer], keys: &dyn JwtKeys, now: UnixMillis) -> Option<Principal> {
    if presented.len() > TOKEN_BYTES_MAX || !presented.is_ascii() {
        return None;
    }
    // Exactly three parts: five would be an encrypted token (RFC 7516 §3.1).
    let (message, signature) = presented.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    if claims.contains('.') {
        return None;
    }
    let header = Header::parse(&Members::parse(header)?)?;
    let claims = Members::parse(claims)?;

    // Not verified yet: these two only choose against which configuration it will be.
    let (iss, aud) = (claims.text("iss")?, claims.text("aud")?);
    let issuer = issuers.iter().find(|issuer| issuer.issuer == iss && issuer.audience == aud)?;
    let algorithm = *issuer.algorithms.iter().find(|algorithm| algorithm.name() == header.algorithm)?;
    let key = keys.key(&issuer.issuer, &header.kid)?;
    if key.algorithm != algorithm {
        return None;
    }
    let verified = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm.implementation());
    if !verified.unwrap_or(false) {
        return None;
    }
    principal(issuer, &claims, now.0 / 1000)
}

/// What verified claims say.
fn principal(issuer: &JwtIssuer, claims: &Members, now_s: u64) -> Option<Principal> {
    let (expires, issued) = (claims.number("exp")?, claims.number("iat")?);
    let not_before = if claims.0.contains_key("nbf") { claims.number("nbf")? } else { issued };
    let latest = now_s.saturating_add(LEEWAY_S);
    if expires.saturating_add(LEEWAY_S) <= now_s || issued > latest || not_before > latest || expires <= issued {
        return None;
    }
    let subject = claims.text("sub").filter(|subject| (1..=SUBJECT_BYTES_MAX).contains(&subject.len()))?;
    // Byte for byte: a value that some normalisation would make equal is another value.
    let tenant = issuer.tenants.get(claims.text(&issuer.tenant_claim)?)?;
    Some(Principal {
        tenant: tenant.clone(),
        label: PrincipalLabel::new(&format!("jwt:{}#{subject}", issuer.issuer)),
        scopes: issuer.scopes.clone(),
        packages: None,
        issued: UnixMillis(issued.saturating_mul(1000)),
        expires: None,
        run: None,
    })
}

struct Header {
    algorithm: String,
    kid: String,
}

/// Header parameters that change nothing about how a token is verified. Every other one is refused,
/// not ignored: `jku`, `x5u`, `jwk` and `x5c` bring a key along, `crit` and `b64` change the rules, `enc`
/// and `zip` are of encrypted tokens.
const HEADER_PARAMETERS: &[&str] = &["alg", "kid", "typ", "x5t", "x5t#S256"];

impl Header {
    fn parse(members: &Members) -> Option<Self> {
        if members.0.keys().any(|name| !HEADER_PARAMETERS.contains(&name.as_str())) {
            return None;
        }
        // RFC 8725 §3.11: a logout token or a DPoP proof is no access token.
        if members.0.contains_key("typ") {
            let typ = members.text("typ")?.to_ascii_lowercase();
            let typ = typ.strip_prefix("application/").unwrap_or(&typ);
            if !matches!(typ, "jwt" | "at+jwt") {
                return None;
            }
        }
        let kid = members.text("kid").filter(|kid| is_kid(kid))?;
        Some(Self { algorithm: members.text("alg")?.to_owned(), kid: kid.to_owned() })
    }
}

/// What ids of keys look like in practice; nothing that is a path with dots, a URL or SQL.
fn is_kid(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=:+".contains(&byte))
        && !text.contains("..")
}

/// A JSON object's members; one that is given twice is refused, since two readers would read two things.
struct Members(BTreeMap<String, Value>);

impl Members {
    /// More claims than any issuer sets.
    const MAX: usize = 64;

    fn parse(part: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A whole number of seconds (RFC 7519 §2 would allow fractions; nobody needs them).
    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> Visitor<'de> for Unique {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object without a member given twice")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() || members.len() > Members::MAX {
                        return Err(A::Error::custom("a member given twice, or too many"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

/// A public key and the one algorithm that it is for.
pub struct VerifyingKey {
    algorithm: JwtAlgorithm,
    key: DecodingKey,
}

/// An issuer's keys, by their ids.
pub struct JwkSet(HashMap<String, Arc<VerifyingKey>>);

/// The text is not a JWK set that can be used; says why, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the JWK set cannot be used: {0}")]
pub struct JwkSetMalformed(&'static str);

/// A longer set is not read; those of the largest issuers are a tenth of it.
const SET_BYTES_MAX: usize = 64 << 10;

/// An issuer has two or three keys at a time.
const SET_KEYS_MAX: usize = 64;

impl JwkSet {
    /// Parses a set (RFC 7517 §5). Keys that are not for one of our signatures are left out; so are those
    /// without an id.
    ///
    /// # Errors
    /// [`JwkSetMalformed`] if it is no set, too large, names two keys alike, or no key of it can be used.
    pub fn parse(json: &[u8]) -> Result<Self, JwkSetMalformed> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if json.len() > SET_BYTES_MAX {
            return Err(JwkSetMalformed("it is longer than 64 KiB"));
        }
        let set: Set = serde_json::from_slice(json).map_err(|_| JwkSetMalformed("it is not JSON of this shape"))?;
        if set.keys.len() > SET_KEYS_MAX {
            return Err(JwkSetMalformed("it holds more than 64 keys"));
        }
        let mut keys = HashMap::new();
        for key in set.keys {
            let Some((kid, key)) = serde_json::from_value::<Jwk>(key).ok().and_then(Jwk::usable) else { continue };
            if keys.insert(kid, Arc::new(key)).is_some() {
                return Err(JwkSetMalformed("two keys have one id"));
            }
        }
        if keys.is_empty() {
            return Err(JwkSetMalformed("none of its keys is for RS256, ES256 or EdDSA"));
        }
        Ok(Self(keys))
    }

    /// The key of this id.
    #[must_use]
    pub fn key(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        self.0.get(kid).cloned()
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Jwk {
    fn usable(self) -> Option<(String, VerifyingKey)> {
        let kid = self.kid.filter(|kid| is_kid(kid))?;
        let verifies = self.usage.is_none_or(|usage| usage == "sig")
            && self.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        let coordinate = |text: Option<String>| {
            text.filter(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32))
        };
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (JwtAlgorithm::Rs256, DecodingKey::from_rsa_components(&self.n?, &self.e?)),
            ("EC", Some("P-256")) => {
                (JwtAlgorithm::Es256, DecodingKey::from_ec_components(&coordinate(self.x)?, &coordinate(self.y)?))
            }
            ("OKP", Some("Ed25519")) => (JwtAlgorithm::EdDsa, DecodingKey::from_ed_components(&coordinate(self.x)?)),
            _ => return None,
        };
        let named = self.alg.is_none_or(|name| name == algorithm.name());
        (verifies && named).then_some((kid, VerifyingKey { algorithm, key: key.ok()? }))
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
