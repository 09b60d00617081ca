//! OAuth 2.0 token endpoints: how they are asked for an access token, and given it back.

use keybearer_contract::Method;
use keybearer_gate::ClientAuth;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::ExchangeSubject;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthAssertion;
use keybearer_gate::OauthClient;
use keybearer_gate::OauthExchange;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Told;
use keybearer_strongbox::Yield;

use crate::MintFault;
use crate::Transport;
use crate::way::Way;

/// RFC 6749 §5.2.
const ERROR_CODES: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// The name under which an access token is held.
pub(crate) const ACCESS: &str = "access_token";

/// The name under which the token is held that is exchanged.
const SUBJECT: &str = "subject_token";

/// RFC 8693 §3.
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The name under which a new refresh token is held.
pub(crate) const REFRESH: &str = "refresh_token";

/// Client credentials (RFC 6749 §4.4).
pub(crate) async fn client_credentials(
    client: &OauthClient,
    way: &mut Way<'_, impl Transport>,
) -> Result<Yield, MintFault> {
    let told = way.ask(token_request(client, Ingredient::Stored, "client_credentials", Vec::new())).await?;
    let undo = give_back(client, Ingredient::Stored, Ingredient::Held(ACCESS), "access_token");
    Ok(Yield { undo, ..bearer(&told)? })
}

/// A refresh token (RFC 6749 §6). A new one that comes with the answer is stored before the access token is used: who
/// uses an old one twice loses the whole family (RFC 9700 §4.14.2). An issuer that does not take it will not the next
/// time either, and is not asked again.
pub(crate) async fn refresh(client: &OauthClient, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let (key, token) = client.key_and_token();
    way.begin_renewal().await?;
    let more = vec![("refresh_token", Field::Secret(token))];
    let exchange = token_request(client, key.clone(), "refresh_token", more).may_hold(REFRESH, &["refresh_token"]);
    let told = match way.ask(exchange).await {
        Err(MintFault::Refused(AnswerRefused::Status { code: Some("invalid_grant"), .. })) => {
            way.lapse().await?;
            return Err(MintFault::Lapsed);
        }
        told => told?,
    };
    if way.vessel().has(REFRESH) {
        let held = Ingredient::Held(REFRESH);
        let parts = if client.client_auth == ClientAuth::None { vec![held] } else { vec![key, held] };
        way.renew(&parts).await?;
    } else {
        way.renew(&[]).await?;
    }
    bearer(&told)
}

/// Token exchange (RFC 8693 §2.1).
pub(crate) async fn exchange(recipe: &OauthExchange, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let OauthExchange { client, subject, subject_token_type } = recipe;
    let (key, token) = match subject {
        ExchangeSubject::Stored => client.key_and_token(),
        ExchangeSubject::ClientCredentials => {
            // Its own, of no audience in particular: the exchange is what narrows it.
            let own = OauthClient { scope: None, resource: None, audience: None, ..client.clone() };
            let told =
                way.ask(token_request_as(&own, Ingredient::Stored, "client_credentials", vec![], SUBJECT)).await?;
            bearer(&told)?;
            (Ingredient::Stored, Ingredient::Held(SUBJECT))
        }
    };
    let more = vec![
        ("subject_token", Field::Secret(token)),
        ("subject_token_type", Field::Text(subject_token_type.clone())),
        ("requested_token_type", Field::from(ACCESS_TOKEN)),
    ];
    let asked = token_request(client, key.clone(), "urn:ietf:params:oauth:grant-type:token-exchange", more);
    let told = way.ask(asked.tells("issued_token_type", &["issued_token_type"])).await?;
    if told.get("issued_token_type").is_some_and(|kind| kind != ACCESS_TOKEN && kind != JWT) {
        return Err(AnswerRefused::Unexpected("it is a token of another type than was asked for").into());
    }
    Ok(Yield { undo: give_back(client, key, Ingredient::Held(ACCESS), "access_token"), ..bearer(&told)? })
}

/// An assertion as a grant (RFC 7523 §2.1).
pub(crate) async fn jwt_bearer(recipe: &OauthAssertion, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let more = vec![("assertion", Field::Secret(Ingredient::Assertion(Box::new(recipe.assertion()))))];
    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let told = way.ask(token_request(&recipe.client, Ingredient::Stored, grant, more)).await?;
    let undo = give_back(&recipe.client, Ingredient::Stored, Ingredient::Held(ACCESS), "access_token");
    Ok(Yield { undo, ..bearer(&told)? })
}

/// What every grant asks in the same way.
pub(crate) fn token_request(
    client: &OauthClient,
    key: Ingredient,
    grant: &'static str,
    more: Vec<(&'static str, Field)>,
) -> Exchange {
    token_request_as(client, key, grant, more, ACCESS)
}

/// The same, and what comes is held under this name.
fn token_request_as(
    client: &OauthClient,
    key: Ingredient,
    grant: &'static str,
    more: Vec<(&'static str, Field)>,
    name: &'static str,
) -> Exchange {
    let mut form = vec![("grant_type", Field::from(grant))];
    form.extend(more);
    for (name, value) in [("scope", &client.scope), ("resource", &client.resource), ("audience", &client.audience)] {
        form.extend(value.as_ref().map(|value| (name, Field::Text(value.clone()))));
    }
    let (auth, proof) = client.proof(key);
    form.extend(proof);
    Exchange::new(Method::Post, client.token_url.clone())
        .auth(auth)
        .body(ExchangeBody::Form(form))
        .holds(name, &["access_token"])
        .tells("token_type", &["token_type"])
        .tells("expires_in", &["expires_in"])
        .fails_with(&["error"], ERROR_CODES)
}

/// How what is stored is given back to its issuer when the credential is revoked; none if there is no such way.
#[must_use]
pub fn farewell(kind: &CredentialKind) -> Option<Exchange> {
    match kind {
        CredentialKind::OauthRefreshToken(client) => {
            let (key, token) = client.key_and_token();
            give_back(client, key, token, "refresh_token")
        }
        _ => None,
    }
}

/// How a token is given back (RFC 7009); none if its issuer has no place for that.
pub(crate) fn give_back(
    client: &OauthClient,
    key: Ingredient,
    token: Ingredient,
    kind: &'static str,
) -> Option<Exchange> {
    let (auth, proof) = client.proof(key);
    let mut form = vec![("token", Field::Secret(token)), ("token_type_hint", kind.into())];
    form.extend(proof);
    Some(Exchange::new(Method::Post, client.revocation_url.clone()?).auth(auth).body(ExchangeBody::Form(form)))
}

/// What a token endpoint's answer gives (RFC 6749 §5.1).
pub(crate) fn bearer(told: &Told) -> Result<Yield, MintFault> {
    if !told.get("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(AnswerRefused::Unexpected("its token is of another type than Bearer").into());
    }
    Ok(Yield { parts: vec![ACCESS], life_s: told.number("expires_in")?, ..Yield::default() })
}
