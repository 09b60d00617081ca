//! Authorization of an account's credential (RFC 6749 §4.1 with RFC 7636): the proofs that bind what a browser
//! brings back to who sent it away. Not for asking the issuer: what is made here lies sealed until the answer comes,
//! and goes into a vessel then, unread.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keybearer_contract::CredentialId;
use keybearer_contract::TenantId;
use keybearer_gate::CredentialKind;
use keybearer_gate::CredentialState;
use keybearer_gate::Sealed;
use zeroize::Zeroizing;

use crate::CredentialUnusable;
use crate::SealBroken;
use crate::SecretInput;
use crate::Selected;
use crate::Strongbox;
use crate::ValueRefused;
use crate::Vessel;
use crate::accept;
use crate::master::random_key;
use crate::secret::Secret;

/// The name under which an authorization's code is held.
pub const CODE: &str = "code";

/// The name under which its code verifier is held (RFC 7636 §4.1).
pub const VERIFIER: &str = "code_verifier";

/// The name under which the client's secret or key is held, if it has one.
pub const CLIENT_KEY: &str = "client_key";

/// A code is a reference or a JWT.
const CODE_BYTES_MAX: usize = 4 << 10;

/// 32 random bytes in base64url: what RFC 7636 §4.1 recommends.
const VERIFIER_BYTES: usize = 43;

/// Half of the random bytes of a state name it; the MAC over them and what it is for is the other part.
const STATE_CHARS: usize = 43 + 43;

/// An authorization that was begun.
pub struct Authorization {
    /// Names it among those that wait for their answer.
    pub name: String,
    /// `state` (RFC 6749 §10.12): the name, and a MAC that binds it to tenant and credential.
    pub state: String,
    /// `code_challenge`, by S256 (RFC 7636 §4.2).
    pub challenge: String,
    /// The code verifier, and the client's secret or key.
    pub sealed: Sealed,
}

impl Strongbox {
    /// Begins an authorization of this credential; `key` is the client's secret or key, if it has one.
    ///
    /// # Errors
    /// [`ValueRefused`], also for a key that the kind does not know, and for one that is missing.
    pub fn begin_authorization(
        &self,
        tenant: &TenantId,
        credential: &CredentialId,
        kind: &CredentialKind,
        key: Option<SecretInput>,
    ) -> Result<Authorization, ValueRefused> {
        let verifier = Zeroizing::new(URL_SAFE_NO_PAD.encode(random_key().expose()));
        let key = key.map(SecretInput::into_secret);
        let key_bytes = key.as_ref().map_or(&[][..], Secret::expose);
        // Reserved whole, so that it is never moved while it grows.
        let mut value = Zeroizing::new(Vec::with_capacity(key_bytes.len() + 1 + VERIFIER_BYTES));
        if key.is_some() {
            value.extend_from_slice(key_bytes);
            value.push(b'\n');
        }
        value.extend_from_slice(verifier.as_bytes());
        let value = Secret::take(std::mem::take(&mut *value));
        // The verifier stands where the token will.
        accept::check(kind, &value)?;
        let name = URL_SAFE_NO_PAD.encode(random_key().expose());
        let broken = |_| ValueRefused::Unsealable;
        let sealed = self.seal_for_tenant(tenant, &context(credential, &name), value.expose()).map_err(broken)?;
        let mac = self.state_mac(tenant, credential, &name).map_err(broken)?;
        let state = format!("{name}{}", URL_SAFE_NO_PAD.encode(mac.as_bytes()));
        let digest = digest::digest(&digest::SHA256, verifier.as_bytes());
        Ok(Authorization { name, state, challenge: URL_SAFE_NO_PAD.encode(digest), sealed })
    }

    /// Whether a state is of an authorization of this credential. Compared in constant time.
    #[must_use]
    pub fn is_state(&self, tenant: &TenantId, credential: &CredentialId, state: &str) -> bool {
        let Some(name) = state_name(state) else { return false };
        let mac = URL_SAFE_NO_PAD.decode(&state[name.len()..]).ok().and_then(|mac| <[u8; 32]>::try_from(mac).ok());
        let Some(mac) = mac else { return false };
        self.state_mac(tenant, credential, name).is_ok_and(|known| known == blake3::Hash::from_bytes(mac))
    }

    /// What redeems the code of an authorization, in a vessel.
    ///
    /// # Errors
    /// [`SealBroken`] if it was not sealed for this credential under this name, or if the code is none.
    pub fn resume_authorization(
        &self,
        selected: &Selected,
        name: &str,
        sealed: &Sealed,
        code: SecretInput,
    ) -> Result<Vessel, SealBroken> {
        let opened = self.open_for_tenant(selected.tenant(), &context(selected.credential(), name), sealed)?;
        let opened = Zeroizing::new(opened);
        let split = opened.len().checked_sub(VERIFIER_BYTES).ok_or(SealBroken)?;
        let (key, verifier) = opened.split_at(split);
        let code = code.into_secret();
        if code.len() == 0
            || code.len() > CODE_BYTES_MAX
            || !code.expose().iter().all(|byte| matches!(byte, b' '..=b'~'))
        {
            return Err(SealBroken);
        }
        let mut vessel = Vessel::default();
        vessel.put(VERIFIER, Arc::new(Secret::take(verifier.to_vec())));
        if let Some(key) = key.strip_suffix(b"\n") {
            vessel.put(CLIENT_KEY, Arc::new(Secret::take(key.to_vec())));
        }
        let code = Arc::new(code);
        self.minted.see(selected, &code);
        vessel.put(CODE, code);
        Ok(vessel)
    }

    /// Names a credential that waits for its account, so that the ledger can record what is asked for it. Nothing
    /// that is stored goes out with it: its version is 0.
    ///
    /// # Errors
    /// [`CredentialUnusable`] if it waits for nobody.
    pub fn select_waiting(&self, tenant: &TenantId, credential: &CredentialId) -> Result<Selected, CredentialUnusable> {
        let record = self.record(tenant, credential).ok_or(CredentialUnusable)?;
        if !waits(record.state) {
            return Err(CredentialUnusable);
        }
        Ok(Selected::waiting(&record))
    }

    fn state_mac(&self, tenant: &TenantId, credential: &CredentialId, name: &str) -> Result<blake3::Hash, SealBroken> {
        // Each part ends where its alphabet does.
        let message = format!("{tenant}\n{credential}\n{name}");
        self.mac_for_tenant(tenant, STATES, message.as_bytes()).map(blake3::Hash::from_bytes)
    }
}

/// The key of states has no other use.
const STATES: &str = "keybearer 2026-11 tenant key: states of authorizations";

/// Whether a credential of that state waits for its account.
#[must_use]
pub fn waits(state: CredentialState) -> bool {
    matches!(state, CredentialState::Pending | CredentialState::Reauthorise)
}

/// The name in a state; none if it is not of that form.
#[must_use]
pub fn state_name(state: &str) -> Option<&str> {
    let is_form =
        state.len() == STATE_CHARS && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_form.then(|| &state[..STATE_CHARS / 2])
}

fn context(credential: &CredentialId, name: &str) -> String {
    format!("authorization {credential} {name}")
}

#[cfg(test)]
mod tests {
    use keybearer_gate::OauthClient;

    use super::*;
    use crate::fixture::House;

    fn kind() -> CredentialKind {
        let url = "https://login.example.com/token".parse().expect("a URL");
        CredentialKind::OauthRefreshToken(OauthClient::new(url, "client"))
    }

    #[test]
    fn a_state_is_of_one_credential_of_one_tenant_and_not_of_an_edited_one() {
        let house = House::new();
        let (tenant, credential) = (house.tenant(), CredentialId::random());
        let key = || Some(SecretInput::new(b"a-client-secret-0123456789".to_vec()));
        let begun = house.strongbox.begin_authorization(&tenant, &credential, &kind(), key()).expect("begun");
        assert!(house.strongbox.is_state(&tenant, &credential, &begun.state));
        assert_eq!(state_name(&begun.state), Some(begun.name.as_str()));
        assert!(!house.strongbox.is_state(&tenant, &CredentialId::random(), &begun.state));
        assert!(!house.strongbox.is_state(&TenantId::random(), &credential, &begun.state));
        for at in [0, 42, 43, 80] {
            let mut edited = begun.state.clone().into_bytes();
            edited[at] = if edited[at] == b'A' { b'B' } else { b'A' };
            let edited = String::from_utf8(edited).expect("ASCII");
            assert!(!house.strongbox.is_state(&tenant, &credential, &edited), "{at}");
        }
        for bad in ["", "x", &begun.state[1..], &format!("{}=", begun.state)] {
            assert!(!house.strongbox.is_state(&tenant, &credential, bad), "{bad}");
        }
        let again = house.strongbox.begin_authorization(&tenant, &credential, &kind(), key()).expect("begun");
        assert_ne!((again.state, again.challenge), (begun.state, begun.challenge), "nothing is used twice");
    }

    #[test]
    fn a_client_that_proves_itself_says_by_what_before_its_account_is_asked() {
        let house = House::new();
        let (tenant, credential) = (house.tenant(), CredentialId::random());
        let begin = |key: Option<&[u8]>| {
            let key = key.map(|key| SecretInput::new(key.to_vec()));
            house.strongbox.begin_authorization(&tenant, &credential, &kind(), key).map(drop)
        };
        assert_eq!(begin(None), Err(ValueRefused::NotKeyAndToken));
        assert_eq!(begin(Some(b"short")), Err(ValueRefused::TooShort));
        assert_eq!(begin(Some(b"a-client-secret-0123456789")), Ok(()));
    }
}
