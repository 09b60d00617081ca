//! OAuth 2.0 token endpoints: how they are asked for an access token, and given it back.

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthClient;
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
const ACCESS: &str = "access_token";

/// Client credentials (RFC 6749 §4.4).
pub(crate) async fn client_credentials(
    client: &OauthClient,
    way: &mut Way<'_, impl Transport>,
) -> Result<Yield, MintFault> {
    let mut form = vec![("grant_type", Field::from("client_credentials"))];
    for (name, value) in [("scope", &client.scope), ("resource", &client.resource)] {
        form.extend(value.as_ref().map(|value| (name, Field::Text(value.clone()))));
    }
    let exchange = Exchange::new(Method::Post, client.token_url.clone())
        .auth(Auth::Client { id: client.client_id.clone(), secret: Ingredient::Stored })
        .body(ExchangeBody::Form(form))
        .holds(ACCESS, &["access_token"])
        .tells("token_type", &["token_type"])
        .tells("expires_in", &["expires_in"])
        .fails_with(&["error"], ERROR_CODES);
    let told = way.ask(exchange).await?;
    bearer(&told)
}

/// What a token endpoint's answer gives (RFC 6749 §5.1).
fn bearer(told: &Told) -> Result<Yield, MintFault> {
    if !told.get("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(AnswerRefused::Unexpected("its token is of another type than Bearer").into());
    }
    Ok(Yield { parts: vec![ACCESS], life_s: told.number("expires_in")?, ..Yield::default() })
}
