//! Minted tokens: what a token endpoint answers is read here and nowhere else, and kept in memory only.
//! A token is used until shortly before it ends, and looked for in answers until it has ended.
//!
//! Not for asking: the request to the token endpoint is cleared, armed and sent like any other one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use keybearer_contract::UnixMillis;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::Raw;
use crate::ScrubFault;
use crate::Selected;
use crate::Strongbox;
use crate::accept::VALUE_BYTES_MAX;
use crate::accept::VALUE_BYTES_MIN;
use crate::guards::GuardKey;
use crate::secret::Secret;

/// A token endpoint's answer is small; the longest tokens in use are JWTs of a few KiB.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where the answer does not say (RFC 6749 §5.1 only recommends to): short, so that a wrong guess is
/// corrected soon.
const LIFE_S_DEFAULT: u64 = 300;

/// A token is not used longer than this, whatever its endpoint says: an endpoint that revokes says
/// nothing to us.
const USE_S_MAX: u64 = 3_600;

/// A token is looked for in answers no longer than this.
const SCRUB_S_MAX: u64 = 24 * 3_600;

/// A token is not used in its last seconds (or last quarter, if that is less): a request takes time,
/// and clocks differ.
const BUFFER_S: u64 = 30;

/// Tokens of one credential that are looked for in answers; what is beyond is older than an hour each.
const TOKENS_MAX: usize = 32;

/// What is known of a token that was minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minted {
    /// Until when it is used.
    pub expires: UnixMillis,
}

/// Why a token endpoint's answer gave no token. Nothing of the answer is in it but its status and an
/// error code of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefused {
    /// The endpoint refused.
    #[error("the token endpoint answered {status}{}", code.map(|code| format!(" {code}")).unwrap_or_default())]
    Status {
        /// The status.
        status: u16,
        /// The code, if it is one of RFC 6749 §5.2.
        code: Option<&'static str>,
    },
    /// The answer is longer than a token's can be.
    #[error("the token endpoint's answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer is not what RFC 6749 §5.1 says, or in a coding that was not asked for.
    #[error("the token endpoint's answer is malformed")]
    Malformed,
    /// Another type than `Bearer`.
    #[error("the token endpoint's answer is of a token type other than Bearer")]
    NotBearer,
    /// The token does not fit a header, or is too short to be scrubbed.
    #[error("the token cannot be sent, or is shorter than {VALUE_BYTES_MIN} bytes")]
    Unfit,
    /// The credential was rotated or revoked meanwhile: the token is forgotten.
    #[error("the credential changed while a token was being minted")]
    Stale,
}

/// RFC 6749 §5.2.
const ERROR_CODES: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// The tokens of all credentials.
#[derive(Default)]
pub(crate) struct MintedTokens(Mutex<HashMap<GuardKey, Tokens>>);

/// The tokens of one credential, oldest first.
#[derive(Default)]
struct Tokens {
    held: Vec<Token>,
    /// Raised when a token is added: a scrub set of an earlier generation lacks one.
    generation: u64,
}

struct Token {
    secret: Arc<Secret>,
    epoch: u64,
    use_until: UnixMillis,
    /// The same by the clock that does not jump (threats R07).
    use_deadline: Instant,
    scrub_deadline: Instant,
}

impl MintedTokens {
    /// The newest token of that epoch that may still be used.
    pub(crate) fn fresh(&self, key: &GuardKey, epoch: u64, now: UnixMillis) -> Option<Arc<Secret>> {
        let tokens = self.0.lock();
        let instant = Instant::now();
        let fresh = |token: &&Token| token.epoch == epoch && now < token.use_until && instant < token.use_deadline;
        tokens.get(key)?.held.iter().rfind(fresh).map(|token| Arc::clone(&token.secret))
    }

    /// A number that changes whenever a token is added.
    pub(crate) fn generation(&self, key: &GuardKey) -> u64 {
        self.0.lock().get(key).map_or(0, |tokens| tokens.generation)
    }

    /// Every token of every epoch that has not ended.
    pub(crate) fn all(&self, key: &GuardKey) -> Vec<Arc<Secret>> {
        let now = Instant::now();
        let tokens = self.0.lock();
        let held = tokens.get(key).map_or(&[][..], |tokens| tokens.held.as_slice());
        held.iter().filter(|token| now < token.scrub_deadline).map(|token| Arc::clone(&token.secret)).collect()
    }

    fn keep(&self, key: GuardKey, token: Token) {
        let now = Instant::now();
        let mut all = self.0.lock();
        // Here and not by a timer: what is minted is what makes it grow.
        all.retain(|_, tokens| {
            tokens.held.retain(|token| now < token.scrub_deadline);
            !tokens.held.is_empty()
        });
        let tokens = all.entry(key).or_default();
        if tokens.held.len() >= TOKENS_MAX {
            tokens.held.remove(0);
        }
        tokens.held.push(token);
        tokens.generation = next_generation();
    }

    fn spoil(&self, key: &GuardKey, epoch: u64) {
        let now = Instant::now();
        if let Some(tokens) = self.0.lock().get_mut(key) {
            tokens.held.iter_mut().filter(|token| token.epoch == epoch).for_each(|token| token.use_deadline = now);
        }
    }
}

/// Never the same twice in a process, so that a credential that was forgotten and came back is not taken
/// for what it was.
fn next_generation() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
}

/// The members that matter; the rest of the answer is dropped unread.
#[derive(Deserialize)]
struct TokenAnswer<'body> {
    access_token: String,
    token_type: &'body str,
    #[serde(borrow, default)]
    expires_in: Option<&'body RawValue>,
}

#[derive(Deserialize)]
struct ErrorAnswer<'body> {
    error: &'body str,
}

impl Strongbox {
    /// Reads a token endpoint's answer and keeps the token for leases of the same epoch. Nothing of the
    /// answer reaches anybody else.
    ///
    /// # Errors
    /// [`TokenRefused`]; nothing is kept.
    pub fn read_token_answer(&self, raw: Raw, selected: &Selected, now: UnixMillis) -> Result<Minted, TokenRefused> {
        let status = raw.status;
        let body = crate::scrub::decoded_body(raw, ANSWER_BYTES_MAX).map_err(|fault| match fault {
            ScrubFault::TooLarge => TokenRefused::TooLarge,
            _ => TokenRefused::Malformed,
        })?;
        let body = Zeroizing::new(body);
        if status != 200 {
            let error = serde_json::from_slice::<ErrorAnswer<'_>>(&body).ok().map(|answer| answer.error);
            let code = ERROR_CODES.into_iter().find(|code| Some(*code) == error);
            return Err(TokenRefused::Status { status, code });
        }
        let answer: TokenAnswer<'_> = serde_json::from_slice(&body).map_err(|_| TokenRefused::Malformed)?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(TokenRefused::NotBearer);
        }
        let mut token = Zeroizing::new(answer.access_token.into_bytes());
        if !(VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenRefused::Unfit);
        }
        let life_s = match answer.expires_in {
            None => LIFE_S_DEFAULT,
            Some(number) => seconds(number.get()).ok_or(TokenRefused::Malformed)?,
        };
        let key = selected.guard_key();
        if self.guards.is_over(&key, selected.epoch()) {
            return Err(TokenRefused::Stale);
        }
        let use_s = (life_s - BUFFER_S.min(life_s / 4)).min(USE_S_MAX);
        let use_until = UnixMillis(now.0.saturating_add(use_s * 1_000));
        let instant = Instant::now();
        self.minted.keep(
            key,
            Token {
                secret: Arc::new(Secret::take(std::mem::take(&mut *token))),
                epoch: selected.epoch(),
                use_until,
                use_deadline: instant + Duration::from_secs(use_s),
                scrub_deadline: instant + Duration::from_secs(life_s.clamp(LIFE_S_DEFAULT, SCRUB_S_MAX)),
            },
        );
        Ok(Minted { expires: use_until })
    }

    /// Whether a lease of what was selected would find a fresh token; true for what needs none.
    #[must_use]
    pub fn is_ready(&self, selected: &Selected, now: UnixMillis) -> bool {
        !matches!(selected.kind(), keybearer_gate::CredentialKind::OauthClientCredentials(_))
            || self.minted.fresh(&selected.guard_key(), selected.epoch(), now).is_some()
    }

    /// The upstream did not take the token: it is not leased again, and still looked for in answers.
    pub fn spoil_token(&self, selected: &Selected) {
        self.minted.spoil(&selected.guard_key(), selected.epoch());
    }
}

/// A number of seconds, as a number or, as some endpoints write it, as a string.
fn seconds(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let whole = digits.split_once('.').map_or(digits, |(whole, _)| whole);
    whole.parse().ok()
}

#[cfg(test)]
#[path = "minted_tests.rs"]
mod tests;
