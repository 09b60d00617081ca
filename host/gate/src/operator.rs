//! The operator: who keeps tenants, packages and keys. One token, on a listener of its own; the
//! configuration holds its hash. An operator is no tenant and can never call a tool.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::PrincipalLabel;
use crate::Unauthenticated;

const PREFIX: &str = "kbop_";
const HASH_CONTEXT: &str = "keybearer 2026-11 operator token";

/// A verified operator. No public constructor, not `Clone`.
pub struct OperatorContext(());

impl OperatorContext {
    /// Who it is, for records.
    #[must_use]
    pub fn principal(&self) -> PrincipalLabel {
        PrincipalLabel::operator()
    }
}

/// What is kept of the operator's token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OperatorHash([u8; 32]);

impl OperatorHash {
    /// The hash of a token's text.
    #[must_use]
    pub fn of(token: &str) -> Self {
        Self(blake3::derive_key(HASH_CONTEXT, token.as_bytes()))
    }
}

/// A new operator token: 256 random bits.
#[must_use]
pub fn issue_operator_token() -> Zeroizing<String> {
    use base64::Engine as _;
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).expect("the kernel's random source does not fail once seeded");
    Zeroizing::new(format!("{PREFIX}{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes)))
}

/// Verifies a presented operator token.
///
/// # Errors
/// [`Unauthenticated`], the same for every reason.
pub fn authenticate_operator(presented: &str, expected: &OperatorHash) -> Result<OperatorContext, Unauthenticated> {
    let equal: bool = OperatorHash::of(presented).0.ct_eq(&expected.0).into();
    if equal && presented.starts_with(PREFIX) { Ok(OperatorContext(())) } else { Err(Unauthenticated) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_makes_an_operator() {
        let token = issue_operator_token();
        let hash = OperatorHash::of(&token);
        assert!(authenticate_operator(&token, &hash).is_ok());
        assert!(authenticate_operator(&issue_operator_token(), &hash).is_err());
        assert!(authenticate_operator("", &hash).is_err());
    }
}
