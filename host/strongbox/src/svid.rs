//! The host's own identities, as the SPIFFE Workload API gives them: its messages are read here and nowhere else,
//! for the keys stand in them. Held in memory, each until it ends or another takes its place.
//!
//! Not for talking to the Workload API, and not for who may use which id: that is for the room of sources.

mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_contract::UnixMillis;
use keybearer_gate::Auth;
use keybearer_gate::Carried;
use keybearer_gate::CredentialKind;
use keybearer_gate::Ingredient;
use keybearer_gate::SpiffeId;
use keybearer_gate::svid_chain;
use parking_lot::RwLock;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::ClientIdentity;
use crate::Selected;
use crate::Strongbox;
use crate::Vessel;
use crate::accept::VALUE_BYTES_MAX;
use crate::secret::Secret;
use crate::secret::assert_lacks;
use crate::svid::wire::bytes_of;
use crate::svid::wire::text_of;

/// A message of the Workload API on its way in. Wiped at its end; cannot be printed, cloned or compared.
pub struct SvidMessage {
    bytes: Zeroizing<Vec<u8>>,
    length: usize,
}

assert_lacks!(SvidMessage: std::fmt::Debug, std::fmt::Display, Clone, PartialEq, serde::Serialize, std::ops::Deref);

/// A dozen of identities with RSA keys and bundles; SPIRE's own agent sends a few KiB.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

impl SvidMessage {
    /// An empty one of which it is known how long it will be. None if that is longer than 256 KiB.
    #[must_use]
    pub fn of_length(length: usize) -> Option<Self> {
        // Reserved whole, so that it is never moved while it grows.
        (length <= MESSAGE_BYTES_MAX).then(|| Self { bytes: Zeroizing::new(Vec::with_capacity(length)), length })
    }

    /// Takes on what belongs to it, up to its length; the others are left. Returns how many it took.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.length - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Whether all of it is there.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.bytes.len() == self.length
    }
}

/// Identities at once: what one workload is registered for.
const SVIDS_MAX: usize = 64;

/// A message of the Workload API is not as it should be. Nothing of it is in this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Workload API's message is not as it should be: {0}")]
pub struct SvidRefused(&'static str);

/// A newer identity came, or this one was taken away, since it was chosen: choose again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the identity was replaced since it was chosen")]
pub struct SvidReplaced;

/// What is known of an identity that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidFacts {
    /// Whose.
    pub id: SpiffeId,
    /// The serial number of its certificate, in hexadecimal.
    pub serial: String,
    /// When it ends.
    pub ends: UnixMillis,
}

struct Held {
    /// PEM: the key and the chain.
    secret: Arc<Secret>,
    facts: SvidFacts,
}

/// The newest of each id.
#[derive(Default)]
pub(crate) struct Svids(RwLock<HashMap<SpiffeId, Held>>);

impl Svids {
    /// Whether a value is the newest identity of what its kind names; true for a kind that names none.
    pub(crate) fn is_newest(&self, kind: &CredentialKind, value: &Secret) -> bool {
        let CredentialKind::SpiffeX509(recipe) = kind else { return true };
        self.serial_of(&recipe.spiffe_id, value).is_some()
    }

    /// The serial number of a value that is the newest identity of an id.
    pub(crate) fn serial_of(&self, id: &SpiffeId, value: &Secret) -> Option<String> {
        let held = self.0.read();
        let held = held.get(id).filter(|held| held.secret.expose() == value.expose())?;
        Some(held.facts.serial.clone())
    }
}

impl Strongbox {
    /// Takes over a message with X.509-SVIDs (`X509SVIDResponse`): what it names replaces all that was held (Workload
    /// API §5.2.1). Returns those that are new, and those that are held no more.
    ///
    /// # Errors
    /// [`SvidRefused`]: what was held stays, until it ends.
    pub fn take_svids(&self, message: SvidMessage) -> Result<SvidsChanged, SvidRefused> {
        let mut fresh = HashMap::new();
        for svid in bytes_of(&message.bytes, 1) {
            let held = read_svid(svid.ok_or(SvidRefused("it is no protobuf"))?)?;
            if fresh.len() == SVIDS_MAX {
                return Err(SvidRefused("it holds too many identities"));
            }
            // The first is the default where two have one id (Workload API §5.3).
            fresh.entry(held.facts.id.clone()).or_insert(held);
        }
        Ok(self.svids.replace(fresh))
    }

    /// Forgets all X.509-SVIDs: the Workload API says that the host has none.
    pub fn forget_svids(&self) -> SvidsChanged {
        self.svids.replace(HashMap::new())
    }

    /// Puts the newest X.509-SVID of an id into a vessel. None if there is none that holds now.
    pub fn svid(&self, id: &SpiffeId, vessel: &mut Vessel, name: &'static str, now: UnixMillis) -> Option<SvidFacts> {
        let held = self.svids.0.read();
        let held = held.get(id).filter(|held| now < held.facts.ends)?;
        vessel.put(name, Arc::clone(&held.secret));
        Some(held.facts.clone())
    }

    /// The serial number of the identity that a connection to an upstream would prove now; none for a credential that is
    /// none, or of which there is none.
    #[must_use]
    pub fn svid_of(&self, selected: &Selected) -> Option<String> {
        let CredentialKind::SpiffeX509(recipe) = selected.kind() else { return None };
        self.svids.0.read().get(&recipe.spiffe_id).map(|held| held.facts.serial.clone())
    }

    /// The serial number of the identity that the connection of a request to a source will prove; none for a request that
    /// proves none.
    ///
    /// # Errors
    /// [`SvidReplaced`].
    pub fn svid_carried(
        &self,
        carried: &Carried,
        selected: &Selected,
        vessel: &Vessel,
    ) -> Result<Option<String>, SvidReplaced> {
        let (Auth::ClientCertificate(Ingredient::Held(name)), Some(id)) = (&carried.auth, selected.kind().x509_svid())
        else {
            return Ok(None);
        };
        let serial = vessel.get(name).and_then(|secret| self.svids.serial_of(id, secret));
        serial.map(Some).ok_or(SvidReplaced)
    }

    /// What is held, for records.
    #[must_use]
    pub fn svid_facts(&self) -> Vec<SvidFacts> {
        self.svids.0.read().values().map(|held| held.facts.clone()).collect()
    }

    /// Puts the JWT-SVID of a message (`JWTSVIDResponse`) into a vessel. Returns for how many seconds it holds.
    ///
    /// # Errors
    /// [`SvidRefused`], also for one that is of another id, for another audience, or over.
    pub fn take_jwt_svid(
        &self,
        message: SvidMessage,
        (id, audience): (&SpiffeId, &str),
        (vessel, name): (&mut Vessel, &'static str),
        now: UnixMillis,
    ) -> Result<u64, SvidRefused> {
        let first = bytes_of(&message.bytes, 1).next().flatten().ok_or(SvidRefused("it holds no JWT-SVID"))?;
        let token = text_of(first, 2).ok_or(SvidRefused("it holds no JWT-SVID"))?;
        if token.len() > VALUE_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SvidRefused("the JWT-SVID is too long, or no token"));
        }
        let claims = token.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
        // Whether it is signed as it should be is for whom it is for to say: we only carry it.
        let Claims { sub, aud, exp } = claims.ok_or(SvidRefused("the JWT-SVID has no claims"))?;
        let is_for = match &aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => matches!(&many[..], [one] if one == audience),
        };
        if sub != id.as_str() || text_of(first, 1) != Some(id.as_str()) || !is_for {
            return Err(SvidRefused("the JWT-SVID is of another id or for another audience"));
        }
        let life_s = exp.saturating_sub(now.0 / 1_000);
        if life_s == 0 {
            return Err(SvidRefused("the JWT-SVID is over"));
        }
        vessel.put(name, Arc::new(Secret::take(token.as_bytes().to_vec())));
        Ok(life_s)
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What a message changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SvidsChanged {
    /// New ones, or newer ones.
    pub fresh: Vec<SvidFacts>,
    /// Those that are held no more.
    pub gone: Vec<SpiffeId>,
}

impl Svids {
    fn replace(&self, fresh: HashMap<SpiffeId, Held>) -> SvidsChanged {
        let mut held = self.0.write();
        let is_same =
            |new: &Held| held.get(&new.facts.id).is_some_and(|old| old.secret.expose() == new.secret.expose());
        let changed = SvidsChanged {
            fresh: fresh.values().filter(|new| !is_same(new)).map(|new| new.facts.clone()).collect(),
            gone: held.keys().filter(|id| !fresh.contains_key(*id)).cloned().collect(),
        };
        *held = fresh;
        changed
    }
}

/// One `X509SVID` (Workload API, `workload.proto`).
fn read_svid(svid: &[u8]) -> Result<Held, SvidRefused> {
    let id = text_of(svid, 1).ok_or(SvidRefused("an identity has no id"))?;
    let der = bytes_of(svid, 2).next().flatten().ok_or(SvidRefused("an identity has no certificate"))?;
    let key = bytes_of(svid, 3).next().flatten().ok_or(SvidRefused("an identity has no key"))?;
    let chain = svid_chain(der).ok_or(SvidRefused("a certificate is no X.509-SVID"))?;
    if chain.id.as_str() != id {
        return Err(SvidRefused("a certificate is of another id than the message says"));
    }
    let certificates = chain.certificates.iter().map(|range| &der[range.clone()]);
    let secret = pem(key, certificates);
    ClientIdentity::parse(&secret).map_err(|_| SvidRefused("a key and its certificates do not belong together"))?;
    let facts = SvidFacts { id: chain.id, serial: chain.serial, ends: chain.ends };
    Ok(Held { secret: Arc::new(secret), facts })
}

/// One private key (PKCS #8) and its certificates in the form in which the strongbox reads every identity.
fn pem<'der>(key: &'der [u8], certificates: impl Iterator<Item = &'der [u8]>) -> Secret {
    let parts: Vec<_> =
        std::iter::once(("PRIVATE KEY", key)).chain(certificates.map(|der| ("CERTIFICATE", der))).collect();
    // Reserved whole, so that it is never moved while it grows: base64, a line end each 64, and the two rules.
    let length = parts.iter().map(|(_, der)| der.len() * 3 / 2 + 128).sum();
    let mut pem = Zeroizing::new(Vec::with_capacity(length));
    for (what, der) in parts {
        let mut text = Zeroizing::new(vec![0_u8; der.len().div_ceil(3) * 4]);
        let written = STANDARD.encode_slice(der, &mut text).expect("has the length of what is encoded");
        pem.extend_from_slice(format!("-----BEGIN {what}-----\n").as_bytes());
        for line in text[..written].chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(format!("-----END {what}-----\n").as_bytes());
    }
    Secret::take(std::mem::take(&mut *pem))
}

#[cfg(test)]
#[path = "svid_tests.rs"]
mod tests;
