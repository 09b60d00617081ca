//! Proofs: what a credential makes over a request once all else is on it, and that stands on the request instead of the
//! credential. Which proof, and of what, is said by a slot or an exchange (threats P09). Not for AWS's own way of
//! signing, which is in `sigv4`, nor for reading keys.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;
use http::header;
use keybearer_contract::Hmac;
use keybearer_contract::HmacAlgorithm;
use keybearer_contract::HmacEncoding;
use keybearer_contract::HmacOver;
use keybearer_contract::Jwt;
use keybearer_contract::Placement;
use keybearer_contract::UnixMillis;
use keybearer_gate::CredentialKind;
use serde_json::Map;
use serde_json::Value;

use crate::Derived;
use crate::OpenArmed;
use crate::PlaceRefused;
use crate::accept::AwsKeys;
use crate::accept::aws_keys;
use crate::place::HOST_HEADERS;
use crate::place::authorization;
use crate::secret::Secret;
use crate::sigv4;
use crate::sigv4::Scope;

/// What is made, and with what.
pub(crate) enum Proof<'lease> {
    /// A signature as AWS reads it.
    Sigv4(Scope<'lease>, AwsKeys<'lease>),
    /// A MAC over the body, by this key.
    Hmac(&'lease Hmac, &'lease [u8]),
    /// A JWT, by this key, of this id.
    Jwt(&'lease Jwt, &'lease [u8], Option<&'lease str>),
}

impl<'lease> Proof<'lease> {
    /// What a slot has made of its credential; none where the credential itself goes out.
    ///
    /// # Errors
    /// [`PlaceRefused::WrongKind`] if it is no key for that.
    pub(crate) fn of_slot(
        placement: &'lease Placement,
        kind: &'lease CredentialKind,
        secret: &'lease Secret,
    ) -> Result<Option<Self>, PlaceRefused> {
        let key = secret.expose();
        match (placement, kind) {
            (Placement::Sigv4 { region, service, .. }, _) => {
                let keys = aws_keys(key).ok_or(PlaceRefused::WrongKind)?;
                Ok(Some(Self::Sigv4(Scope { region, service }, keys)))
            }
            (Placement::Hmac(hmac), _) => Ok(Some(Self::Hmac(hmac, key))),
            (Placement::Jwt(jwt), CredentialKind::JwtKey(known)) => Ok(Some(Self::Jwt(jwt, key, known.kid.as_deref()))),
            (Placement::Jwt(_), _) => Err(PlaceRefused::WrongKind),
            (Placement::Bearer | Placement::Basic | Placement::Header { .. }, _) => Ok(None),
            (Placement::Query { .. } | Placement::MutualTls | Placement::Function(_), _) => Ok(None),
        }
    }

    /// Puts it on a request on which everything else is. Returns the signature, to be looked for in the answer.
    ///
    /// # Errors
    /// [`PlaceRefused::AlreadyPresent`] if somebody else set what it adds.
    pub(crate) fn put(self, open: &mut OpenArmed, now: UnixMillis) -> Result<Derived, PlaceRefused> {
        match self {
            Self::Sigv4(scope, keys) => sigv4::sign(open, scope, keys, now),
            Self::Hmac(hmac, key) => authenticate(open, hmac, key, now),
            Self::Jwt(jwt, key, kid) => vouch(open, jwt, key, kid, now),
        }
    }
}

/// The MAC of the body as it goes on the wire: nothing changes it any more.
fn authenticate(open: &mut OpenArmed, said: &Hmac, key: &[u8], now: UnixMillis) -> Result<Derived, PlaceRefused> {
    let HmacAlgorithm::HmacSha256 = said.algorithm;
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    if said.over == HmacOver::TimestampBody {
        let seconds = (now.0 / 1_000).to_string();
        mac.update(seconds.as_bytes());
        mac.update(b".");
        let name = said.timestamp_header.as_deref().ok_or(PlaceRefused::Malformed)?;
        add(open, name, HeaderValue::try_from(seconds).map_err(|_| PlaceRefused::Malformed)?)?;
    }
    mac.update(&open.body);
    let tag = mac.sign();
    let written = match said.encoding {
        HmacEncoding::Hex => hex::encode(tag.as_ref()),
        HmacEncoding::Base64 => STANDARD.encode(tag.as_ref()),
    };
    let signature = Secret::take(written.into_bytes());
    add(open, &said.header, authorization(&said.prefix, signature.expose())?)?;
    Ok(Derived::of(signature))
}

/// A JWT of what the manifest says, good from now for as long as it says, and no two alike.
fn vouch(
    open: &mut OpenArmed,
    said: &Jwt,
    key: &[u8],
    kid: Option<&str>,
    now: UnixMillis,
) -> Result<Derived, PlaceRefused> {
    let mut fields = Map::new();
    fields.extend(kid.map(|kid| ("kid".to_owned(), kid.into())));
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce).expect("the kernel's random source does not fail once seeded");
    let now = now.0 / 1_000;
    let mut claims: Map<String, Value> =
        said.claims.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + u64::from(said.lifetime_s)).into());
    claims.insert("jti".to_owned(), hex::encode(nonce).into());
    let jwt = crate::sign::sign_jwt(said.algorithm, key, fields, &claims).map_err(|_| PlaceRefused::WrongKind)?;
    add(open, header::AUTHORIZATION.as_str(), authorization("Bearer ", jwt.expose())?)?;
    // Without it, the rest is of no use, and is the manifest's own words.
    let dot = jwt.expose().iter().rposition(|byte| *byte == b'.').ok_or(PlaceRefused::Malformed)?;
    Ok(Derived::of(Secret::take(jwt.expose()[dot + 1..].to_vec())))
}

fn add(open: &mut OpenArmed, name: &str, value: HeaderValue) -> Result<(), PlaceRefused> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| PlaceRefused::Malformed)?;
    if HOST_HEADERS.contains(&name) || open.headers.insert(name, value).is_some() {
        return Err(PlaceRefused::AlreadyPresent);
    }
    Ok(())
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
