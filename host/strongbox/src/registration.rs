//! Registration of a client (RFC 7591): the key that the host makes for one, the tokens that open its issuer, and what is
//! kept so that the client can be taken back. Not for asking the issuer: what is made here goes into a vessel, unread.

use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::encoding::EcPrivateKeyBin;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_contract::CredentialId;
use keybearer_contract::SigningAlgorithm;
use keybearer_gate::CredentialRecord;
use keybearer_gate::Exchange;
use keybearer_gate::Facts;
use keybearer_gate::Management;
use keybearer_gate::Target;
use keybearer_gate::Yields;
use serde_json::Value;
use serde_json::json;
use zeroize::Zeroizing;

use crate::CLIENT_KEY;
use crate::SealBroken;
use crate::SecretInput;
use crate::Selected;
use crate::Strongbox;
use crate::Undo;
use crate::ValueRefused;
use crate::Vessel;
use crate::accept;
use crate::master::random_key;
use crate::secret::Secret;

/// The name under which the token is held that lets a client be registered (RFC 7591 §3).
pub const INITIAL_TOKEN: &str = "initial_access_token";

/// The name under which the token is held that manages a registered client (RFC 7592 §3).
pub const REGISTRATION_TOKEN: &str = "registration_access_token";

/// The public half of a key that was made for a client.
pub struct ClientKey {
    /// Its id: the thumbprint of the key (RFC 7638).
    pub id: String,
    /// The key, as it stands in a key set (RFC 7517 §4).
    pub public: Value,
}

impl Strongbox {
    /// What a registration begins with: the token that lets it in, if it needs one, and the private key of a client that
    /// proves itself by one, with its public half beside it.
    ///
    /// # Errors
    /// [`ValueRefused`] for a token that fits no header, and for an algorithm that no key is made for.
    pub fn begin_registration(
        &self,
        selected: &Selected,
        initial: Option<SecretInput>,
        alg: Option<SigningAlgorithm>,
    ) -> Result<(Vessel, Option<ClientKey>), ValueRefused> {
        let mut vessel = Vessel::default();
        if let Some(initial) = initial {
            let initial = Arc::new(initial.into_secret());
            accept::check_yielded(Yields::Bearer, &initial)?;
            self.minted.see(selected, &initial);
            vessel.put(INITIAL_TOKEN, initial);
        }
        let Some(alg) = alg else { return Ok((vessel, None)) };
        let (private, key) = new_key(alg).ok_or(ValueRefused::NotAKey)?;
        vessel.put(CLIENT_KEY, Arc::new(private));
        Ok((vessel, Some(key)))
    }

    /// Seals where a client is managed, and the token that manages it, if an answer left one in the vessel.
    ///
    /// # Errors
    /// [`SealBroken`] if the tenant's data key is missing or does not open.
    pub fn seal_registration(
        &self,
        selected: &Selected,
        vessel: &Vessel,
        url: &Target,
    ) -> Result<Option<Management>, SealBroken> {
        let Some(token) = vessel.get(REGISTRATION_TOKEN) else { return Ok(None) };
        let (tenant, credential) = (selected.tenant(), selected.credential());
        let token = self.seal_for_tenant(tenant, &context(credential), token.expose())?;
        let url = self.seal_for_tenant(tenant, &url_context(credential), url.to_string().as_bytes())?;
        Ok(Some(Management { url, token }))
    }

    /// Where a client is managed; none if that is not kept, or does not open.
    #[must_use]
    pub fn management_url(&self, record: &CredentialRecord) -> Option<Target> {
        let kept = record.registration.as_ref()?.management.as_ref()?;
        let url = self.open_for_tenant(&record.tenant, &url_context(&record.id), &kept.url).ok()?;
        std::str::from_utf8(&Zeroizing::new(url)).ok()?.parse().ok()
    }

    /// How a client is taken back: part of the act that ends its credential. The last thing of it, for what the client
    /// was given is given back by the client. None if its token is not kept, or does not open.
    #[must_use]
    pub fn undo_registration(&self, facts: Facts, record: &CredentialRecord, exchange: Exchange) -> Option<Undo> {
        let token = self.registration_token(record).ok().flatten()?;
        let mut vessel = Vessel::default();
        vessel.put(REGISTRATION_TOKEN, Arc::new(token));
        let selected = Selected::waiting(record);
        Some(Undo { facts, selected, exchange, orphan: None, vessel, in_act: true, is_logout: true })
    }

    /// The token that manages a client, opened; none if none is kept.
    pub(crate) fn registration_token(&self, record: &CredentialRecord) -> Result<Option<Secret>, SealBroken> {
        let kept = record.registration.as_ref().and_then(|known| known.management.as_ref());
        let open = |kept: &Management| self.open_for_tenant(&record.tenant, &context(&record.id), &kept.token);
        kept.map(open).transpose().map(|opened| opened.map(Secret::take))
    }
}

fn context(credential: &CredentialId) -> String {
    format!("registration {credential}")
}

fn url_context(credential: &CredentialId) -> String {
    format!("registration url {credential}")
}

/// A new private key as a JWK, and its public half; none for an algorithm that no key is made for.
fn new_key(alg: SigningAlgorithm) -> Option<(Secret, ClientKey)> {
    match alg {
        SigningAlgorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
            let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().ok()?;
            // SEC 1 §2.3.3: uncompressed.
            let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_at_checked(32)?;
            let point = format!(r#""crv":"P-256","kty":"EC","x":"{}","y":"{}""#, encoded(x), encoded(y));
            Some((jwk(&point, private.as_ref()), client_key(alg, &point)))
        }
        SigningAlgorithm::EdDsa => {
            let seed = random_key();
            let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).ok()?;
            let point = format!(r#""crv":"Ed25519","kty":"OKP","x":"{}""#, encoded(pair.public_key().as_ref()));
            Some((jwk(&point, seed.expose()), client_key(alg, &point)))
        }
        SigningAlgorithm::Rs256 => None,
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(point: &str, private: &[u8]) -> Secret {
    let private = Zeroizing::new(encoded(private));
    // Reserved whole, so that it is never moved while it grows.
    let mut text = Zeroizing::new(Vec::with_capacity(point.len() + private.len() + 16));
    for part in ["{", point, r#","d":""#, &private, r#""}"#] {
        text.extend_from_slice(part.as_bytes());
    }
    Secret::take(std::mem::take(&mut *text))
}

/// `point` is what RFC 7638 §3.2 takes of a key, in its order and without spaces.
fn client_key(alg: SigningAlgorithm, point: &str) -> ClientKey {
    let thumbprint = digest::digest(&digest::SHA256, format!("{{{point}}}").as_bytes());
    let id = encoded(thumbprint.as_ref());
    let mut public: Value = serde_json::from_str(&format!("{{{point}}}")).expect("base64url needs no escape");
    public["use"] = json!("sig");
    public["alg"] = json!(alg.as_str());
    public["kid"] = json!(id);
    ClientKey { id, public }
}

#[cfg(test)]
mod tests {
    use keybearer_contract::Method;
    use keybearer_gate::CredentialKind;
    use keybearer_gate::CredentialState;
    use keybearer_gate::Registration;

    use super::*;
    use crate::fixture::House;
    use crate::fixture::NOW;
    use crate::fixture::facts;
    use crate::sign::SigningKey;

    #[test]
    fn a_key_that_was_made_signs_and_only_its_public_half_is_told() {
        for alg in [SigningAlgorithm::Es256, SigningAlgorithm::EdDsa] {
            let (private, key) = new_key(alg).expect("a key");
            assert!(SigningKey::read(alg, private.expose()).is_ok_and(|key| key.sign(b"message").is_ok()), "{alg:?}");
            let whole: Value = serde_json::from_slice(private.expose()).expect("a JWK");
            assert_eq!((&whole["x"], &whole["crv"]), (&key.public["x"], &key.public["crv"]));
            assert!(key.public.get("d").is_none() && !key.public.to_string().contains(whole["d"].as_str().expect("d")));
            assert_eq!((key.public["kid"].as_str(), key.id.len()), (Some(key.id.as_str()), 43));
            let (other, _) = new_key(alg).expect("a key");
            assert_ne!(other.expose(), private.expose(), "no two clients have one key");
        }
        assert!(new_key(SigningAlgorithm::Rs256).is_none());
    }

    #[test]
    fn what_manages_a_client_opens_for_its_own_credential_only() {
        let house = House::new();
        let (tenant, other) = (house.tenant(), house.tenant());
        let credential = house.credential(&tenant, CredentialKind::Bearer, "a-value-of-the-tests-0123456789");
        house.change(&tenant, &credential, |record| record.state = CredentialState::Pending);
        let selected = house.strongbox.select_waiting(&tenant, &credential).expect("it waits");
        let mut vessel = Vessel::default();
        vessel.put(REGISTRATION_TOKEN, Arc::new(Secret::take(b"registration-token-0123456789".to_vec())));
        let url: Target = "https://login.example.com/reg/1?token=2".parse().expect("a URL");
        let management = house.strongbox.seal_registration(&selected, &vessel, &url).expect("sealed");
        let sealed = management.as_ref().expect("there is a token").url.0.clone();
        assert!(memchr::memmem::find(&sealed, b"login").is_none());
        house.change(&tenant, &credential, |record| {
            record.registration = Some(Registration { registration_url: url.clone(), at: NOW, management });
        });
        let record = house.strongbox.record(&tenant, &credential).expect("a record");
        let opened = house.strongbox.registration_token(&record).expect("opens").expect("a token");
        assert_eq!(opened.expose(), b"registration-token-0123456789");
        assert_eq!(house.strongbox.management_url(&record).as_ref(), Some(&url));
        for moved in [
            CredentialRecord { id: CredentialId::random(), ..CredentialRecord::clone(&record) },
            CredentialRecord { tenant: other, ..CredentialRecord::clone(&record) },
        ] {
            assert!(house.strongbox.registration_token(&moved).is_err());
            assert!(house.strongbox.management_url(&moved).is_none());
        }
        let undo = |record: &CredentialRecord| {
            house.strongbox.undo_registration(facts(&tenant), record, Exchange::new(Method::Delete, url.clone()))
        };
        assert!(undo(&record).is_some_and(|undo| undo.is_last() && undo.vessel.has(REGISTRATION_TOKEN)));
        let forgotten = CredentialRecord { registration: None, ..CredentialRecord::clone(&record) };
        assert!(undo(&forgotten).is_none());
    }
}
