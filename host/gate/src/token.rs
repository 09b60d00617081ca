//! API tokens: `kb_ID_SECRET`. The secret half is 256 random bits; the store holds a blake3 hash of
//! it, derived with a context of its own. A fast hash is right here: there is nothing to guess.

use keybearer_contract::PackageName;
use keybearer_contract::TenantId;
use keybearer_contract::TokenId;
use keybearer_contract::UnixMillis;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Principal;
use crate::PrincipalLabel;
use crate::Scopes;
use crate::TokenDirectory;
use crate::TokenRecord;
use crate::Unauthenticated;

const PREFIX: &str = "kb_";
const HASH_CONTEXT: &str = "keybearer 2026-11 api token";
/// 256 bits in base64url without padding.
const SECRET_CHARS: usize = 43;

/// A new token: the record to store, and the text to show once.
pub struct IssuedToken {
    /// What is stored.
    pub record: TokenRecord,
    /// What the caller gets, this once.
    pub text: Zeroizing<String>,
}

/// Issues a token.
#[must_use]
pub fn issue_token(
    tenant: TenantId,
    label: String,
    scopes: Scopes,
    packages: Option<Vec<PackageName>>,
    life: std::ops::Range<UnixMillis>,
) -> IssuedToken {
    let id = TokenId::random();
    let secret = new_secret();
    let text = Zeroizing::new(format!("{PREFIX}{id}_{}", *secret));
    let hash = hash(&secret);
    let (issued, expires) = (life.start, life.end);
    let onboarding = crate::Onboarding::default();
    let record = TokenRecord { id, tenant, label, hash, scopes, packages, issued, expires, revoked: None, onboarding };
    IssuedToken { record, text }
}

/// Verifies a presented token.
///
/// # Errors
/// [`Unauthenticated`], the same for every reason.
pub fn authenticate_token(
    presented: &str,
    tokens: &dyn TokenDirectory,
    now: UnixMillis,
) -> Result<Principal, Unauthenticated> {
    let (id, secret): (TokenId, _) = split(presented, PREFIX).ok_or(Unauthenticated)?;
    let record = tokens.token(&id).ok_or(Unauthenticated)?;
    let equal: bool = hash(secret).ct_eq(&record.hash).into();
    if !equal || record.revoked.is_some() || record.expires <= now {
        return Err(Unauthenticated);
    }
    Ok(Principal {
        tenant: record.tenant.clone(),
        label: PrincipalLabel::new(&format!("token:{id}")),
        scopes: record.scopes.clone(),
        packages: record.packages.clone(),
        issued: record.issued,
        expires: Some(record.expires),
        run: None,
    })
}

/// The secret half of a token: 256 random bits.
pub(crate) fn new_secret() -> Zeroizing<String> {
    use base64::Engine as _;
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).expect("the kernel's random source does not fail once seeded");
    Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes))
}

/// The id and the secret half of a presented token; none if it has another form.
pub(crate) fn split<'text, Id: std::str::FromStr>(presented: &'text str, prefix: &str) -> Option<(Id, &'text str)> {
    let body = presented.strip_prefix(prefix)?;
    if !body.is_ascii() || body.len() < SECRET_CHARS + 2 {
        return None;
    }
    let (id, secret) = body.split_at(body.len() - SECRET_CHARS);
    Some((id.strip_suffix('_')?.parse().ok()?, secret))
}

fn hash(secret: &str) -> [u8; 32] {
    blake3::derive_key(HASH_CONTEXT, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scope;
    use std::sync::Arc;

    struct One(Arc<TokenRecord>);

    impl TokenDirectory for One {
        fn token(&self, id: &TokenId) -> Option<Arc<TokenRecord>> {
            (*id == self.0.id).then(|| Arc::clone(&self.0))
        }
    }

    fn issued() -> IssuedToken {
        let life = UnixMillis(1_000)..UnixMillis(2_000);
        issue_token(TenantId::random(), "ci".to_owned(), Scopes::of(&[Scope::Call]), None, life)
    }

    #[test]
    fn a_token_authenticates_until_it_expires_or_is_revoked() {
        let token = issued();
        let good = One(Arc::new(token.record.clone()));
        assert!(authenticate_token(&token.text, &good, UnixMillis(1_500)).is_ok());
        assert!(authenticate_token(&token.text, &good, UnixMillis(2_000)).is_err());
        let revoked = One(Arc::new(TokenRecord { revoked: Some(UnixMillis(1_100)), ..token.record }));
        assert!(authenticate_token(&token.text, &revoked, UnixMillis(1_500)).is_err());
    }

    #[test]
    fn a_row_from_before_owners_were_asked_for_is_read() {
        // If this failed, nobody could call after an upgrade.
        let mut row = serde_json::to_value(issued().record).expect("serialises");
        assert!(row.as_object_mut().expect("an object").remove("onboarding").is_some());
        let read: TokenRecord = serde_json::from_value(row).expect("is read");
        assert_eq!(read.onboarding, crate::Onboarding::default());
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused() {
        let token = issued();
        let good = One(Arc::new(token.record));
        for index in 0..token.text.len() {
            let mut text = token.text.to_string().into_bytes();
            text[index] = if text[index] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(text).expect("ascii");
            assert!(authenticate_token(&text, &good, UnixMillis(1_500)).is_err(), "{index}");
        }
        for bad in ["", "kb_", "Bearer x", "kb_tok_é"] {
            assert!(authenticate_token(bad, &good, UnixMillis(1_500)).is_err());
        }
    }
}
