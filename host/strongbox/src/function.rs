//! Signing for a guest: cleared signature + recorded intent + lease → what was made. This is where a key meets what a
//! tool asked to have signed, and the last look before it: that all three belong together, and that the key is of the
//! slot's kind. Not for deciding what may be signed: that is the gate's.

use aws_lc_rs::hmac;
use keybearer_contract::Function;
use keybearer_contract::Placement;
use keybearer_contract::UnixMillis;
use keybearer_gate::Attach;
use keybearer_gate::ClearedSignature;
use keybearer_gate::CredentialKind;
use keybearer_gate::How;
use keybearer_gate::SigningWork;
use keybearer_ledger::Intent;
use serde_json::Map;

use crate::Lease;
use crate::Made;
use crate::PlaceRefused;
use crate::accept::aws_keys;
use crate::lease::Leased;
use crate::secret::Secret;
use crate::sigv4;

/// Signs what was cleared, with the leased key. What is made holds the lease's guard until it is handed over.
///
/// # Errors
/// [`PlaceRefused`]; the lease is given up, and the key wiped.
pub fn sign(cleared: ClearedSignature, intent: Intent, lease: Lease, now: UnixMillis) -> Result<Made, PlaceRefused> {
    let is_recorded = intent.is_signature()
        && intent.call() == &cleared.facts().call
        && intent.credential() == Some(&cleared.attach().credential)
        && intent.version() == Some(lease.version)
        && intent.epoch() == Some(lease.epoch);
    if !is_recorded {
        return Err(PlaceRefused::Mismatch);
    }
    sign_recorded(cleared, lease, now)
}

/// [`sign`], without the proof of the intent.
pub(crate) fn sign_recorded(cleared: ClearedSignature, lease: Lease, now: UnixMillis) -> Result<Made, PlaceRefused> {
    let (facts, attach, work) = cleared.into_parts();
    if lease.tenant != facts.tenant || lease.credential != attach.credential {
        return Err(PlaceRefused::Mismatch);
    }
    let Attach { how: How::Slot(placement), .. } = attach else { return Err(PlaceRefused::WrongKind) };
    let Placement::Function(Function { for_caller, .. }) = placement else { return Err(PlaceRefused::WrongKind) };
    let made = match &lease.value {
        Leased::Stored(kind, secret) if kind.fits(&placement) => make(work, kind, secret, now)?,
        Leased::Minted(kind, secret) if kind.fits(&placement) => make(work, kind, secret, now)?,
        _ => return Err(PlaceRefused::WrongKind),
    };
    Ok(made.under(for_caller, lease.guard))
}

fn make(work: SigningWork, kind: &CredentialKind, secret: &Secret, now: UnixMillis) -> Result<Made, PlaceRefused> {
    let key = secret.expose();
    match work {
        SigningWork::Mac(message) => {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
            Ok(Made::mac(tag.as_ref()))
        }
        SigningWork::Jwt { algorithm, claims } => {
            let CredentialKind::JwtKey(known) = kind else { return Err(PlaceRefused::WrongKind) };
            let mut header = Map::new();
            header.extend(known.kid.as_deref().map(|kid| ("kid".to_owned(), kid.into())));
            let jwt = crate::sign::sign_claims(algorithm, key, header, claims.as_bytes());
            Made::jwt(jwt.map_err(|_| PlaceRefused::WrongKind)?).ok_or(PlaceRefused::Malformed)
        }
        SigningWork::Url(url) => {
            let keys = aws_keys(key).ok_or(PlaceRefused::WrongKind)?;
            if keys.token.is_some() {
                return Err(PlaceRefused::SessionToken);
            }
            let (url, signature) = sigv4::presign(&url, keys, now);
            Ok(Made::url(url, signature))
        }
    }
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
