//! The imports of `signing`: a guest's words become what the outlet is asked to sign, within the limits of the call,
//! and what comes back is counted before it is copied into the guest. Not for deciding what may be signed.

use keybearer_contract::GuestSignature;
use keybearer_contract::Method;
use keybearer_contract::ToSign;

use crate::bindings::http;
use crate::bindings::signing;
use crate::outlet::Signing;
use crate::outlet::SigningFault;
use crate::state::State;
use crate::state::URL_BYTES_MAX;

/// The longest name of a slot is a quarter of this, and whoever clears is stricter; this keeps megabytes from
/// travelling there.
const SLOT_BYTES_MAX: usize = 256;

/// Of names and values together; whoever clears admits a few short ones.
const CLAIMS_BYTES_MAX: usize = 16 << 10;
const CLAIMS_MAX: usize = 64;

impl State {
    /// Counts a signature and hands over what is to be signed, or says what is wrong with it.
    fn begin_signing(&mut self, slot: String, what: ToSign) -> Result<Signing, SigningFault> {
        let Some(way) = &self.way else { return Err(SigningFault::Denied) };
        if self.requests >= self.limits().requests {
            return Err(SigningFault::TooManyRequests);
        }
        if slot.len() > SLOT_BYTES_MAX {
            return Err(SigningFault::Denied);
        }
        let bytes = match &what {
            ToSign::Message(message) if message.len() as u64 > self.limits().request_bytes => {
                return Err(SigningFault::MessageTooLarge);
            }
            ToSign::Message(message) => message.len(),
            ToSign::Claims(claims) => {
                let bytes = claims.iter().map(|(name, value)| name.len() + value.len()).sum();
                if claims.len() > CLAIMS_MAX || bytes > CLAIMS_BYTES_MAX {
                    return Err(SigningFault::MalformedClaim);
                }
                bytes
            }
            ToSign::Url { url, .. } if url.len() > URL_BYTES_MAX => return Err(SigningFault::MalformedUrl),
            ToSign::Url { url, .. } => url.len(),
        };
        let bytes = self.bytes.saturating_add(bytes as u64);
        if bytes > self.limits().total_bytes {
            return Err(SigningFault::TooManyBytes);
        }
        let signing = way.sign(GuestSignature { slot, what });
        self.requests += 1;
        self.bytes = bytes;
        Ok(signing)
    }

    async fn signed(&mut self, slot: String, what: ToSign) -> Result<Vec<u8>, signing::Error> {
        let made = self.begin_signing(slot, what)?.await?;
        self.bytes = self.bytes.saturating_add(made.len() as u64);
        if self.bytes > self.limits().total_bytes {
            return Err(SigningFault::TooManyBytes.into());
        }
        Ok(made)
    }

    async fn signed_text(&mut self, slot: String, what: ToSign) -> Result<String, signing::Error> {
        String::from_utf8(self.signed(slot, what).await?).map_err(|_| signing::Error::Host)
    }
}

impl signing::Host for State {
    async fn mac(&mut self, slot: String, message: Vec<u8>) -> wasmtime::Result<Result<Vec<u8>, signing::Error>> {
        Ok(self.signed(slot, ToSign::Message(message)).await)
    }

    async fn jwt(
        &mut self,
        slot: String,
        claims: Vec<signing::Claim>,
    ) -> wasmtime::Result<Result<String, signing::Error>> {
        let claims = claims.into_iter().map(|claim| (claim.name, claim.value)).collect();
        Ok(self.signed_text(slot, ToSign::Claims(claims)).await)
    }

    async fn presign(
        &mut self,
        slot: String,
        method: http::Method,
        url: String,
        expires_s: u32,
    ) -> wasmtime::Result<Result<String, signing::Error>> {
        let method = Method::from(method);
        Ok(self.signed_text(slot, ToSign::Url { method, url, expires_s }).await)
    }
}

impl From<SigningFault> for signing::Error {
    fn from(fault: SigningFault) -> Self {
        use signing::GuestFault;
        Self::Guest(match fault {
            SigningFault::Denied => return Self::Denied,
            SigningFault::Host => return Self::Host,
            SigningFault::MessageTooLarge => GuestFault::MessageTooLarge,
            SigningFault::MalformedClaim => GuestFault::MalformedClaim,
            SigningFault::MalformedUrl => GuestFault::MalformedUrl,
            SigningFault::ExpiresOutOfRange => GuestFault::ExpiresOutOfRange,
            SigningFault::TooManyRequests => GuestFault::TooManyRequests,
            SigningFault::TooManyBytes => GuestFault::TooManyBytes,
        })
    }
}
