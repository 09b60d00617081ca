//! Introspection: an issuer is asked whether a token is good (RFC 7662). Of its answer three words are taken: whether it
//! is, for what, and until when. What they say is the issuer's, and is told on only as far as it can be no secret of ours.

use keybearer_contract::Method;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::ExchangeSubject;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthClient;
use keybearer_gate::Target;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Vessel;

use crate::MintFault;
use crate::Transport;
use crate::Wanted;
use crate::oauth::ACCESS;
use crate::way::Way;

/// What an issuer says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introspected {
    /// Whether it is good.
    pub is_active: bool,
    /// For what: a scope as RFC 6749 §3.3 writes it, of at most 512 characters, in which nothing stands that is stored
    /// or was minted. None if its issuer wrote something else.
    pub scope: Option<String>,
    /// Until when, in seconds since 1970.
    pub expires_s: Option<u64>,
}

/// Asks the issuer of a credential about what it issued: about what is stored, where that is a token that access tokens
/// are minted with; else about what was minted, which is in the vessel. None for a kind whose issuer is not asked.
///
/// # Errors
/// [`MintFault`]: it is not known.
pub async fn introspect(
    wanted: Wanted<'_>,
    vessel: Vessel,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Option<Result<Introspected, MintFault>> {
    let (client, url) = endpoint(&wanted.record.kind)?;
    let asked = exchange(&wanted.record.kind, client, url.clone());
    let mut way = Way::with(wanted, strongbox, transport, vessel);
    Some(way.ask(asked).await.and_then(|told| {
        let is_active = match told.get("active") {
            Some("true") => true,
            Some("false") => false,
            _ => return Err(AnswerRefused::Malformed.into()),
        };
        // Of a token that is not good, nothing else is said (RFC 7662 §2.2).
        let scope = told.get("scope").filter(|scope| is_active && is_a_scope(scope)).map(|scope| way.scrubbed(scope));
        let expires_s = if is_active { told.number("exp")? } else { None };
        Ok(Introspected { is_active, scope, expires_s })
    }))
}

/// Of one word of a scope. The longest in use are URLs of some 80 characters; the assertion that a client may have sent
/// along is a JWT, and never so short.
const SCOPE_WORD_CHARS_MAX: usize = 128;

/// RFC 6749 §3.3: printable ASCII but for the quotation mark and the backslash. So nothing in it has to be escaped, for a
/// terminal or for a page.
fn is_a_scope(text: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b'"' && byte != b'\\';
    text.split(' ').all(|word| word.len() <= SCOPE_WORD_CHARS_MAX && word.bytes().all(is_allowed))
}

/// Whether the issuer of such a credential can be asked about it.
#[must_use]
pub fn can_be_introspected(kind: &CredentialKind) -> bool {
    endpoint(kind).is_some()
}

/// The name under which [`introspect`] looks for what was minted.
pub const MINTED: &str = ACCESS;

fn endpoint(kind: &CredentialKind) -> Option<(&OauthClient, &Target)> {
    let client = kind.oauth_client()?;
    Some((client, client.introspection_url.as_ref()?))
}

fn exchange(kind: &CredentialKind, client: &OauthClient, url: Target) -> Exchange {
    let (key, stored) = client.key_and_token();
    let (key, token, hint) = match kind {
        CredentialKind::OauthRefreshToken(_) => (key, stored, "refresh_token"),
        CredentialKind::OauthTokenExchange(exchange) if exchange.subject == ExchangeSubject::Stored => {
            (key, Ingredient::Held(MINTED), "access_token")
        }
        _ => (Ingredient::Stored, Ingredient::Held(MINTED), "access_token"),
    };
    let (auth, proof) = client.proof(key);
    let mut form = vec![("token", Field::Secret(token)), ("token_type_hint", hint.into())];
    form.extend(proof);
    Exchange::new(Method::Post, url)
        .auth(auth)
        .body(ExchangeBody::Form(form))
        .tells("active", &["active"])
        .tells("scope", &["scope"])
        .tells("exp", &["exp"])
}
