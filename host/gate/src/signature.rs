//! Clearing what a guest asks to have signed, as its requests are cleared: the slot, the grant, the credential's own
//! terms, and that what is to be signed is what the slot's manifest says (threats P09). What is cleared is whole, but
//! for what only the holder of the key knows; it holds no key.

use keybearer_contract::Function;
use keybearer_contract::GuestSignature;
use keybearer_contract::Method;
use keybearer_contract::Placement;
use keybearer_contract::SigningAlgorithm;
use keybearer_contract::Signs;
use keybearer_contract::SignsJwt;
use keybearer_contract::SignsMac;
use keybearer_contract::SignsUrl;
use keybearer_contract::Slot;
use keybearer_contract::ToSign;
use keybearer_contract::UnixMillis;
use keybearer_contract::is_claim_text;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;

use crate::Attach;
use crate::CredentialRecord;
use crate::Destination;
use crate::Facts;
use crate::Refusal;
use crate::Rights;
use crate::Target;
use crate::Withheld;
use crate::clear::attach;
use crate::clear::check_parameters;
use crate::clear::check_terms;
use crate::clear::names;
use crate::clear::no_binding;
use crate::withheld::JWT_PLACE;
use crate::withheld::MAC_PLACE;

/// What may be signed, once its intent is recorded. Made here only; not `Clone`: a retry is cleared anew.
pub struct ClearedSignature {
    facts: Facts,
    attach: Attach,
    work: SigningWork,
}

/// What is signed.
pub enum SigningWork {
    /// A MAC over these bytes: the slot's context and the guest's message.
    Mac(Vec<u8>),
    /// A JWT.
    Jwt {
        /// How it is signed.
        algorithm: SigningAlgorithm,
        /// Its claims, as JSON text.
        claims: String,
    },
    /// A URL.
    Url(UrlToSign),
}

/// A URL that is to be signed.
pub struct UrlToSign {
    /// The region of the signature's scope.
    pub region: String,
    /// Its service.
    pub service: String,
    /// The method.
    pub method: Method,
    /// Where to.
    pub destination: Destination,
    /// The path.
    pub path: String,
    /// The query, as given.
    pub query: Option<String>,
    /// How long it is good, in seconds.
    pub expires_s: u32,
}

/// What was signed, for records: enough to know it again, and not what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// blake3, in hex.
    pub blake3: String,
    /// Whether under a key of the tenant's, so that nobody without it finds by trying what was signed.
    #[serde(default, rename = "keyed", skip_serializing_if = "std::ops::Not::not")]
    pub is_keyed: bool,
    /// Its length.
    pub bytes: u64,
}

impl ClearedSignature {
    /// Whose it is, for records.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// With which credential, and by which right.
    #[must_use]
    pub fn attach(&self) -> &Attach {
        &self.attach
    }

    /// The method of a URL.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        match &self.work {
            SigningWork::Url(url) => Some(url.method),
            SigningWork::Mac(_) | SigningWork::Jwt { .. } => None,
        }
    }

    /// Where a URL goes, for records: destination, method and path.
    #[must_use]
    pub fn target(&self, withheld: &dyn Withheld) -> Option<(&Destination, Method, String)> {
        match &self.work {
            SigningWork::Url(url) => Some((&url.destination, url.method, withheld.without(&url.path))),
            SigningWork::Mac(_) | SigningWork::Jwt { .. } => None,
        }
    }

    /// The place of a URL, without its query; of what has none, which function it is.
    #[must_use]
    pub fn place(&self, withheld: &dyn Withheld) -> String {
        match &self.work {
            SigningWork::Mac(_) => MAC_PLACE.to_owned(),
            SigningWork::Jwt { .. } => JWT_PLACE.to_owned(),
            SigningWork::Url(url) => format!("{}{}", url.destination, withheld.without(&url.path)),
        }
    }

    /// What is signed, for records: the bytes under a MAC; the claims of a JWT as they stand in it; method, a space
    /// and the URL as the guest said it. Under a key of the tenant's: an amount or a number would be found by trying. Not
    /// so a JWT, whose `jti` cannot be guessed: whoever comes upon one finds its call.
    #[must_use]
    pub fn signed(&self, key: &[u8; 32]) -> Signed {
        let of = |bytes: &[u8]| {
            let blake3 = blake3::keyed_hash(key, bytes).to_string();
            Signed { blake3, is_keyed: true, bytes: bytes.len() as u64 }
        };
        match &self.work {
            SigningWork::Mac(bytes) => of(bytes),
            SigningWork::Jwt { claims, .. } => {
                let blake3 = blake3::hash(claims.as_bytes()).to_string();
                Signed { blake3, is_keyed: false, bytes: claims.len() as u64 }
            }
            SigningWork::Url(url) => {
                let UrlToSign { method, destination, path, query, .. } = url;
                let query = query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
                of(format!("{} {destination}{path}{query}", method.as_str()).as_bytes())
            }
        }
    }

    /// Takes it apart, for the strongbox to sign.
    #[must_use]
    pub fn into_parts(self) -> (Facts, Attach, SigningWork) {
        (self.facts, self.attach, self.work)
    }
}

/// Decides whether what a guest asks for may be signed, and with which credential.
///
/// # Errors
/// A [`Refusal`]; nothing has been opened or signed.
pub fn clear_signature(
    facts: &Facts,
    manifest: &keybearer_contract::Manifest,
    rights: Rights<'_>,
    asked: GuestSignature,
    now: UnixMillis,
) -> Result<ClearedSignature, Refusal> {
    let name = asked.slot.parse().map_err(|_| Refusal::NoSlot)?;
    let slot = manifest.slot(&name).ok_or(Refusal::NoSlot)?;
    let Placement::Function(Function { signs, .. }) = &slot.placement else {
        return Err(Refusal::NotItsFunction { slot: name });
    };
    let attach = attach(facts, slot, rights.grants)?;
    let record = rights.credentials.credential(&facts.tenant, &attach.credential);
    let record = record.as_deref().ok_or_else(|| Refusal::CredentialUnusable { slot: name.clone() })?;
    let work = match (signs, asked.what) {
        (Signs::Hmac(said), ToSign::Message(message)) => {
            check_placeless(record, slot)?;
            mac(slot, said, &message)?
        }
        (Signs::Jwt(said), ToSign::Claims(claims)) => {
            check_placeless(record, slot)?;
            jwt(said, claims, now)?
        }
        (Signs::Sigv4(said), ToSign::Url { method, url, expires_s }) => {
            let target: Target = url.parse().map_err(|error| Refusal::NotCanonical { why: format!("{error}") })?;
            let grant = rights.grants.iter().find(|grant| Some(&grant.id) == attach.grant.as_ref());
            if !slot.bindings.iter().any(|binding| names(binding, grant, method, &target)) {
                return Err(no_binding(method, &target));
            }
            check_terms(Some(record), slot, method, &target)?;
            check_parameters(&slot.placement, method, target.query())?;
            SigningWork::Url(url_to_sign(slot, said, method, target, expires_s)?)
        }
        _ => return Err(Refusal::NotItsFunction { slot: name }),
    };
    Ok(ClearedSignature { facts: facts.clone(), attach, work })
}

/// A credential whose owner names the places that it may go to signs nothing that may go anywhere.
fn check_placeless(record: &CredentialRecord, slot: &Slot) -> Result<(), Refusal> {
    if record.terms.binding.is_empty() { Ok(()) } else { Err(Refusal::OutsideBinding { slot: slot.name.clone() }) }
}

fn mac(slot: &Slot, said: &SignsMac, message: &[u8]) -> Result<SigningWork, Refusal> {
    if message.len() as u64 > u64::from(said.max_bytes) {
        return Err(Refusal::MessageTooLarge { slot: slot.name.clone(), bytes_max: said.max_bytes });
    }
    Ok(SigningWork::Mac([said.context.as_bytes(), message].concat()))
}

/// The slot's claims, those of the guest's that it admits, and the host's own (RFC 7519 §4.1).
fn jwt(said: &SignsJwt, asked: Vec<(String, String)>, now: UnixMillis) -> Result<SigningWork, Refusal> {
    let mut claims: Map<String, Value> =
        said.claims.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let mut added: Vec<String> = Vec::new();
    for (index, (name, value)) in asked.into_iter().enumerate() {
        // The slot admits a few; so whoever says thousands is refused at one of the first.
        if !said.admits(&name) {
            let name = name.chars().filter(|character| !character.is_control()).collect();
            return Err(Refusal::ClaimNotAllowed { name });
        }
        if !is_claim_text(&value) || added.contains(&name) {
            return Err(Refusal::MalformedClaim { index });
        }
        claims.insert(name.clone(), value.into());
        added.push(name);
    }
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce).expect("the kernel's random source does not fail once seeded");
    let now = now.0 / 1_000;
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + u64::from(said.lifetime_s)).into());
    claims.insert("jti".to_owned(), format!("{:032x}", u128::from_be_bytes(nonce)).into());
    Ok(SigningWork::Jwt { algorithm: said.algorithm, claims: Value::Object(claims).to_string() })
}

fn url_to_sign(
    slot: &Slot,
    said: &SignsUrl,
    method: Method,
    target: Target,
    expires_s: u32,
) -> Result<UrlToSign, Refusal> {
    if !(1..=said.max_expires_s).contains(&expires_s) {
        return Err(Refusal::ExpiresOutOfRange { slot: slot.name.clone(), most_s: said.max_expires_s });
    }
    let (destination, path, query) = target.into_parts();
    let (region, service) = (said.region.clone(), said.service.clone());
    Ok(UrlToSign { region, service, method, destination, path, query, expires_s })
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
