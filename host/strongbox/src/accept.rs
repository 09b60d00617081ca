//! Accepting a value: what comes in at the edge is checked against the place where it will go, sealed,
//! and fingerprinted. A value that could not be sent, or could not be scrubbed without tearing up
//! ordinary text, is refused here, before anything depends on it.
//!
//! Not for recipes that fetch a value elsewhere: what they mint is read in `minted`.

use keybearer_contract::SigningAlgorithm;
use keybearer_gate::CredentialKind;
use keybearer_gate::Sealed;
use keybearer_gate::StoredForm;
use keybearer_gate::Yields;
use zeroize::Zeroizing;

use crate::ClientIdentity;
use crate::IdentityRefused;
use crate::secret::Secret;
use crate::secret::assert_lacks;
use crate::sign::SigningKey;

/// Below this, a value may stand in ordinary text, and scrubbing would tear it up (threats X24).
pub(crate) const VALUE_BYTES_MIN: usize = 16;

/// What common servers take for one header field.
pub(crate) const VALUE_BYTES_MAX: usize = 8 << 10;

/// An RSA key of 4096 bits and three certificates beside it.
const IDENTITY_BYTES_MAX: usize = 16 << 10;

/// `xxxxxxxxxxxxxxxx`, `----------------`: a placeholder that was never filled, or a rule between
/// paragraphs. Scrubbing it would tear up ordinary text just as a short value would.
const DISTINCT_BYTES_MIN: usize = 4;

/// A value as it came in at the edge. Wiped at its end; cannot be printed, cloned or compared.
pub struct SecretInput(Secret);

assert_lacks!(SecretInput: std::fmt::Debug, std::fmt::Display, Clone, PartialEq, serde::Serialize, std::ops::Deref);

impl SecretInput {
    /// Takes the bytes over. Exactly one line end (`\n` or `\r\n`) is taken off the end: values are read
    /// from files, and editors add one. Anything else stays as it is.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let bytes = Zeroizing::new(bytes);
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
        Self(Secret::take(line.to_vec()))
    }

    pub(crate) fn exactly(secret: Secret) -> Self {
        Self(secret)
    }

    pub(crate) fn into_secret(self) -> Secret {
        self.0
    }
}

/// A value that was accepted: what is stored of it.
pub struct Accepted {
    /// The value, sealed for this tenant, credential and version.
    pub sealed: Sealed,
    /// Keyed blake3 of the value, the same under every tenant: it finds the same value elsewhere, and is
    /// the operator's to see, never a tenant's.
    pub fingerprint: [u8; 32],
}

/// Why a value was refused. Nothing of the value is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueRefused {
    /// Too short to be scrubbed from ordinary text (of `user:password`, the password).
    #[error("the value is shorter than {VALUE_BYTES_MIN} bytes: ask its issuer for a longer one")]
    TooShort,
    /// Too long for a header.
    #[error(
        "the value is longer than {VALUE_BYTES_MAX} bytes, or than {IDENTITY_BYTES_MAX} of a key and its certificates"
    )]
    TooLong,
    /// It is made of three different characters or less.
    #[error("the value looks like a placeholder: it has fewer than {DISTINCT_BYTES_MIN} different characters")]
    Placeholder,
    /// It holds a byte that its place on the request does not take.
    #[error(
        "the value holds a character that cannot be sent in its place: printable ASCII only, and no spaces in a header"
    )]
    Unfit,
    /// It is not `user:password` with both filled.
    #[error("the value of a credential of this kind is two texts with a colon between them, and neither may be empty")]
    NotUserAndPassword,
    /// It is no private key with its certificates.
    #[error("{}", IdentityRefused)]
    NotAnIdentity,
    /// There is a value where none is needed.
    #[error("a credential of this kind has no value: leave it empty")]
    NotNeeded,
    /// It is no access key of AWS.
    #[error("the value of an access key is its id, its secret and perhaps a session token, on lines of their own")]
    NotAwsKeys,
    /// It is no private key that the algorithm takes.
    #[error("the value is no private key of its algorithm: PEM that is not encrypted, or a JWK")]
    NotAKey,
    /// A recipe with a client's secret and a token has each on lines of its own.
    #[error("the value of this recipe is the client's secret or key and, on a line of its own, the token")]
    NotKeyAndToken,
    /// The tenant has no data key, or one that does not open.
    #[error("the tenant's data key is missing or does not open")]
    Unsealable,
}

/// Checks a value that is to be stored.
pub(crate) fn check(kind: &CredentialKind, value: &Secret) -> Result<(), ValueRefused> {
    if !kind.is_recipe() {
        return check_yielded(kind.yields(), value);
    }
    let bytes = value.expose();
    match kind.stored() {
        // What asks a source stands in a form or an object, where spaces may be.
        StoredForm::Text => check_bytes(value, bytes, is_printable),
        StoredForm::Pair => check_yielded(Yields::Basic, value),
        StoredForm::AwsKeys => check_yielded(Yields::AwsKeys, value),
        StoredForm::Key(alg) => check_key(value, bytes, alg),
        StoredForm::KeyAndToken(alg) => {
            let (key, token) = key_and_token(bytes).ok_or(ValueRefused::NotKeyAndToken)?;
            check_bytes(value, token, |byte| is_printable(byte) || *byte == b'\n')?;
            match alg {
                Some(alg) => check_key(value, key, alg),
                None if key.contains(&b'\n') => Err(ValueRefused::Unfit),
                None => check_bytes(value, key, |byte| is_printable(byte) || *byte == b'\n'),
            }
        }
        StoredForm::Identity => check_yielded(Yields::Identity, value),
        StoredForm::Nothing if value.len() > 0 => Err(ValueRefused::NotNeeded),
        StoredForm::Nothing => Ok(()),
    }
}

fn check_key(value: &Secret, key: &[u8], alg: SigningAlgorithm) -> Result<(), ValueRefused> {
    check_bytes(value, key, |byte| is_printable(byte) || matches!(byte, b'\n' | b'\r' | b'\t'))?;
    SigningKey::read(alg, key).map(drop).map_err(|_| ValueRefused::NotAKey)
}

/// Checks a value against the place where it goes.
pub(crate) fn check_yielded(yields: Yields, value: &Secret) -> Result<(), ValueRefused> {
    let bytes = value.expose();
    match yields {
        // RFC 9110 §5.5, less the space: a credential with one would be a scheme and a credential.
        Yields::Bearer | Yields::Header => check_bytes(value, bytes, u8::is_ascii_graphic),
        // Percent-encoded (RFC 3986), base64 (RFC 7617), not sent at all: spaces may be.
        Yields::Query | Yields::HmacKey => check_bytes(value, bytes, is_printable),
        Yields::Basic => {
            let (_, password) = user_and_password(bytes).ok_or(ValueRefused::NotUserAndPassword)?;
            check_bytes(value, password, is_printable)
        }
        Yields::JwtKey(alg) => check_key(value, bytes, alg),
        Yields::AwsKeys => {
            let keys = aws_keys(bytes).ok_or(ValueRefused::NotAwsKeys)?;
            for part in [Some(keys.id), Some(keys.secret), keys.token].into_iter().flatten() {
                check_bytes(value, part, |byte| byte.is_ascii_graphic() || *byte == b'\n')?;
            }
            Ok(())
        }
        Yields::Identity if value.len() > IDENTITY_BYTES_MAX => Err(ValueRefused::TooLong),
        Yields::Identity => ClientIdentity::parse(value).map(drop).map_err(|_| ValueRefused::NotAnIdentity),
    }
}

fn check_bytes(value: &Secret, secret_part: &[u8], fits: fn(&u8) -> bool) -> Result<(), ValueRefused> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(ValueRefused::TooLong);
    }
    if secret_part.len() < VALUE_BYTES_MIN {
        return Err(ValueRefused::TooShort);
    }
    if !value.expose().iter().all(fits) {
        return Err(ValueRefused::Unfit);
    }
    if is_monotonous(secret_part) {
        return Err(ValueRefused::Placeholder);
    }
    Ok(())
}

/// The parts of a basic credential, both filled. The user cannot hold a colon (RFC 7617 §2).
pub(crate) fn user_and_password(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = value.iter().position(|byte| *byte == b':')?;
    let (user, password) = (&value[..colon], &value[colon + 1..]);
    (!user.is_empty() && !password.is_empty()).then_some((user, password))
}

/// An access key of AWS, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct AwsKeys<'value> {
    pub(crate) id: &'value [u8],
    pub(crate) secret: &'value [u8],
    pub(crate) token: Option<&'value [u8]>,
}

/// The two or three lines of an access key, each filled.
pub(crate) fn aws_keys(value: &[u8]) -> Option<AwsKeys<'_>> {
    let mut lines = value.split(|byte| *byte == b'\n');
    let keys = AwsKeys { id: lines.next()?, secret: lines.next()?, token: lines.next() };
    (keys.are_whole() && lines.next().is_none()).then_some(keys)
}

/// The access key of a session, in its parts.
pub(crate) fn aws_session<'value>(
    id: &'value [u8],
    secret: &'value [u8],
    token: &'value [u8],
) -> Option<AwsKeys<'value>> {
    let keys = AwsKeys { id, secret, token: Some(token) };
    keys.are_whole().then_some(keys)
}

impl AwsKeys<'_> {
    fn are_whole(&self) -> bool {
        let is_filled =
            !self.id.is_empty() && !self.secret.is_empty() && self.token.is_none_or(|token| !token.is_empty());
        // The id stands in a header of which commas and slashes are part.
        is_filled && self.id.iter().all(u8::is_ascii_alphanumeric)
    }
}

/// What is before and after the last line end, both filled: a client's secret or key, and a token. Neither a secret
/// nor a token can hold a line end (RFC 6749 appendix A).
pub(crate) fn key_and_token(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = value.iter().rposition(|byte| *byte == b'\n')?;
    let (key, token) = (&value[..end], &value[end + 1..]);
    (!key.is_empty() && !token.is_empty()).then_some((key, token))
}

fn is_printable(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn is_monotonous(value: &[u8]) -> bool {
    let mut seen = [false; 256];
    value.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    seen.iter().filter(|seen| **seen).count() < DISTINCT_BYTES_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: &CredentialKind, value: &[u8]) -> Result<(), ValueRefused> {
        check(kind, &SecretInput::new(value.to_vec()).into_secret())
    }

    #[test]
    fn x24_values_that_would_tear_up_ordinary_text_are_refused() {
        for kind in [CredentialKind::Bearer, CredentialKind::Header, CredentialKind::Query] {
            assert_eq!(outcome(&kind, b""), Err(ValueRefused::TooShort));
            assert_eq!(outcome(&kind, b"test"), Err(ValueRefused::TooShort));
            assert_eq!(outcome(&kind, b"fifteen-bytes-x"), Err(ValueRefused::TooShort));
            assert_eq!(outcome(&kind, b"sixteen-bytes-xy"), Ok(()));
            assert_eq!(outcome(&kind, b"----------------------"), Err(ValueRefused::Placeholder));
        }
        assert_eq!(outcome(&CredentialKind::Basic, b"a-very-long-user-name:short"), Err(ValueRefused::TooShort));
    }

    #[test]
    fn r04_a_value_that_does_not_fit_its_place_is_refused() {
        for bad in [
            b"sixteen bytes xy".as_slice(),
            b"sixteen-bytes-\r\nx: y",
            b"sixteen-bytes-\0xy",
            b"sixteen-bytes-x\x7f",
            b"sixteen-bytes-\xc3\xa4",
            b"\tsixteen-bytes-xy",
            b"sixteen-bytes-xy\n\n",
        ] {
            assert_eq!(outcome(&CredentialKind::Bearer, bad), Err(ValueRefused::Unfit), "{bad:?}");
            assert_eq!(outcome(&CredentialKind::Header, bad), Err(ValueRefused::Unfit), "{bad:?}");
        }
        assert_eq!(outcome(&CredentialKind::Query, b"sixteen bytes xy"), Ok(()));
        assert_eq!(outcome(&CredentialKind::Query, b"sixteen\nbytes xy"), Err(ValueRefused::Unfit));
        assert_eq!(outcome(&CredentialKind::Bearer, &b"0123456789".repeat(820)), Err(ValueRefused::TooLong));
        for bad in [b"no-colon-in-this-value".as_slice(), b":sixteen-bytes-xy", b"user:"] {
            assert_eq!(outcome(&CredentialKind::Basic, bad), Err(ValueRefused::NotUserAndPassword));
        }
        assert_eq!(outcome(&CredentialKind::Basic, b"user:sixteen:bytes:xy"), Ok(()));
    }

    #[test]
    fn an_access_key_is_two_or_three_lines_each_of_which_can_be_looked_for() {
        let keys = |value: &[u8]| outcome(&CredentialKind::AwsKeys, value);
        assert_eq!(keys(b"AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n"), Ok(()));
        assert_eq!(
            keys(b"ASIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\nsession-token+/0123=="),
            Ok(())
        );
        for bad in [
            b"AKIAIOSFODNN7EXAMPLE".as_slice(),
            b"AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            b"AKIAIOSFODNN7EXAMPLE\n\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            b"AKIAIOSFODNN7EXAMP/E\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            b"AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\na\nb",
        ] {
            assert_eq!(keys(bad), Err(ValueRefused::NotAwsKeys));
        }
        assert_eq!(keys(b"AKIAIOSFODNN7EXAMPLE\ntoo-short"), Err(ValueRefused::TooShort));
        assert_eq!(keys(b"AKIAIOSFODNN7EXAMPLE\nwJalrXUtnFEMI K7MDENG/bPxRfiCYEXAMPLEKEY"), Err(ValueRefused::Unfit));
        assert_eq!(
            keys(b"AKIAIOSFODNN7EXAMPLE\r\nwJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            Err(ValueRefused::NotAwsKeys)
        );
    }

    #[test]
    fn a_key_of_macs_is_sixteen_bytes_or_more_and_one_of_jwts_a_key_of_its_algorithm() {
        let mac = |value: &[u8]| outcome(&CredentialKind::HmacKey, value);
        assert_eq!(mac(b"fifteen-bytes-x"), Err(ValueRefused::TooShort));
        assert_eq!(mac(b"sixteen bytes xy"), Ok(()));
        assert_eq!(mac(b"sixteen-bytes-xy\n\n"), Err(ValueRefused::Unfit));
        let jwt =
            |alg, value: &[u8]| outcome(&CredentialKind::JwtKey(keybearer_gate::JwtKey { alg, kid: None }), value);
        let key = br#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert_eq!(jwt(SigningAlgorithm::EdDsa, key), Ok(()));
        assert_eq!(jwt(SigningAlgorithm::Es256, key), Err(ValueRefused::NotAKey));
        assert_eq!(jwt(SigningAlgorithm::EdDsa, b"no key at all, 0123456789"), Err(ValueRefused::NotAKey));
    }

    #[test]
    fn exactly_one_line_end_is_taken_off() {
        let kept = |bytes: &[u8]| SecretInput::new(bytes.to_vec()).into_secret().expose().to_vec();
        assert_eq!(kept(b"value\n"), b"value");
        assert_eq!(kept(b"value\r\n"), b"value");
        assert_eq!(kept(b"value\n\n"), b"value\n");
        assert_eq!(kept(b"value\r"), b"value\r");
        assert_eq!(kept(b"\n"), b"");
        assert_eq!(kept(b" value "), b" value ");
    }
}
