//! Signatures of webhooks, as the Standard Webhooks specification has them: HMAC-SHA256 over
//! `id.timestamp.body`, in base64, with a version before it. The secrets are sealed like everything of a
//! tenant's, and opened here only.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keybearer_contract::HookId;
use keybearer_contract::TenantId;
use keybearer_gate::Sealed;
use zeroize::Zeroizing;

use crate::SealBroken;
use crate::Strongbox;
use crate::master::random_key;
use crate::seal;

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Webhook<'request> {
    /// The event's own id: `webhook-id`.
    pub id: &'request str,
    /// Seconds since 1970, as text: `webhook-timestamp`.
    pub timestamp: &'request str,
    /// The body, byte for byte.
    pub body: &'request [u8],
}

/// Signatures that are looked at in one header: a sender signs with two secrets while it rotates them.
const SIGNATURES_MAX: usize = 8;

impl Strongbox {
    /// A new secret for a hook: what is stored, and the text to show once.
    ///
    /// # Errors
    /// [`SealBroken`] if the tenant's data key is missing or does not open.
    pub fn new_hook_secret(&self, tenant: &TenantId, hook: &HookId) -> Result<(Sealed, Zeroizing<String>), SealBroken> {
        let secret = random_key();
        let sealed = self.seal_for_tenant(tenant, &context(hook), secret.expose())?;
        Ok((sealed, Zeroizing::new(format!("whsec_{}", STANDARD.encode(secret.expose())))))
    }

    /// Whether one of the signatures of the header `webhook-signature` is of this hook's secret.
    #[must_use]
    pub fn is_signed(
        &self,
        tenant: &TenantId,
        hook: &HookId,
        sealed: &Sealed,
        webhook: Webhook<'_>,
        signatures: &str,
    ) -> bool {
        let Ok(key) = self.hook_key(tenant, hook, sealed) else { return false };
        let message = message(webhook);
        let presented = signatures.split(' ').take(SIGNATURES_MAX).filter_map(|one| one.strip_prefix("v1,"));
        // Compared in constant time by the library.
        presented.filter_map(|text| STANDARD.decode(text).ok()).any(|tag| hmac::verify(&key, &message, &tag).is_ok())
    }

    /// The header `webhook-signature` of what this host sends, with the secret of that hook.
    ///
    /// # Errors
    /// [`SealBroken`] if the secret does not open.
    pub fn sign_webhook(
        &self,
        tenant: &TenantId,
        hook: &HookId,
        sealed: &Sealed,
        webhook: Webhook<'_>,
    ) -> Result<String, SealBroken> {
        let tag = hmac::sign(&self.hook_key(tenant, hook, sealed)?, &message(webhook));
        Ok(format!("v1,{}", STANDARD.encode(tag)))
    }

    /// A new secret for what this host sends to the operator, wrapped by the master key: it is no tenant's.
    #[must_use]
    pub fn new_notice_secret(&self, target: &HookId) -> (Sealed, Zeroizing<String>) {
        let secret = random_key();
        let sealed = self.master().wrap(&seal::notice_aad(target), secret.expose());
        (sealed, Zeroizing::new(format!("whsec_{}", STANDARD.encode(secret.expose()))))
    }

    /// The header `webhook-signature` of what is sent to the operator.
    ///
    /// # Errors
    /// [`SealBroken`] if the secret does not open.
    pub fn sign_notice(&self, target: &HookId, sealed: &Sealed, webhook: Webhook<'_>) -> Result<String, SealBroken> {
        let secret = self.master().unwrap(&seal::notice_aad(target), sealed)?;
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()), &message(webhook));
        Ok(format!("v1,{}", STANDARD.encode(tag)))
    }

    /// A secret of [`Self::new_notice_secret`], wrapped by the newest master key instead.
    ///
    /// # Errors
    /// [`SealBroken`] if no key of the master key file opens it.
    pub fn rewrap_notice(&self, target: &HookId, sealed: &Sealed) -> Result<Sealed, SealBroken> {
        let (master, aad) = (self.master(), seal::notice_aad(target));
        let opened = master.unwrap(&aad, sealed)?;
        Ok(seal::wrap_secret(|key| master.wrap(&aad, key), &opened))
    }

    fn hook_key(&self, tenant: &TenantId, hook: &HookId, sealed: &Sealed) -> Result<hmac::Key, SealBroken> {
        let secret = Zeroizing::new(self.open_for_tenant(tenant, &context(hook), sealed)?);
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
    }
}

fn context(hook: &HookId) -> String {
    format!("hook {hook}")
}

fn message(webhook: Webhook<'_>) -> Vec<u8> {
    let Webhook { id, timestamp, body } = webhook;
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::House;

    #[test]
    fn a_hook_knows_its_own_signatures_and_no_others() {
        let house = House::new();
        let (tenant, hook) = (house.tenant(), HookId::random());
        let (sealed, _) = house.strongbox.new_hook_secret(&tenant, &hook).expect("made");
        let webhook = Webhook { id: "msg_1", timestamp: "1800000000", body: b"{}" };
        let signature = house.strongbox.sign_webhook(&tenant, &hook, &sealed, webhook).expect("signed");
        let is_signed =
            |hook: &HookId, webhook, text: &str| house.strongbox.is_signed(&tenant, hook, &sealed, webhook, text);
        assert!(is_signed(&hook, webhook, &signature));
        assert!(is_signed(&hook, webhook, &format!("v1,AAAA v2,x {signature}")));
        assert!(!is_signed(&HookId::random(), webhook, &signature), "sealed for another hook");
        for other in [
            Webhook { id: "msg_2", ..webhook },
            Webhook { timestamp: "1800000001", ..webhook },
            Webhook { body: b"{ }", ..webhook },
            Webhook { id: "msg_1.1800000000", timestamp: "", ..webhook },
        ] {
            assert!(!is_signed(&hook, other, &signature));
        }
        for bad in ["", "v1,", "v1,!!", signature.trim_start_matches("v1,"), &signature.replace("v1", "v0")] {
            assert!(!is_signed(&hook, webhook, bad), "{bad}");
        }
    }

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the specification's reference libraries.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let webhook =
            Webhook { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp: "1614265330", body: br#"{"test": 2432232314}"# };
        let tag = STANDARD.encode(hmac::sign(&key, &message(webhook)));
        assert_eq!(tag, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
