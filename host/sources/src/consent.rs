//! Consent: an account let a client in, and the code that says so is redeemed for the refresh token that is stored
//! (RFC 6749 §4.1.3, RFC 7636 §4.5). Not for using that token: that is `oauth`.

use keybearer_gate::ClientAuth;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthClient;
use keybearer_strongbox::CLIENT_KEY;
use keybearer_strongbox::CODE;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::VERIFIER;
use keybearer_strongbox::Vessel;

use crate::MintFault;
use crate::Transport;
use crate::Wanted;
use crate::oauth;
use crate::way::Way;

/// What was redeemed.
pub struct Redeemed {
    /// Holds it.
    pub vessel: Vessel,
    /// What of it is stored, in this order.
    pub parts: Vec<Ingredient>,
}

/// Redeems the code in the vessel. A code is good once: whatever comes of it, it is not sent again.
///
/// # Errors
/// [`MintFault`]; also [`MintFault::Unavailable`] if no refresh token comes with the answer.
pub async fn redeem(
    wanted: Wanted<'_>,
    (client, redirect_uri): (&OauthClient, &str),
    vessel: Vessel,
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Result<Redeemed, MintFault> {
    // What is asked for was said to the authorization endpoint (RFC 6749 §4.1.1).
    let plain = OauthClient { scope: None, audience: None, ..client.clone() };
    let more = vec![
        ("code", Field::Secret(Ingredient::Held(CODE))),
        ("redirect_uri", Field::Text(redirect_uri.to_owned())),
        ("code_verifier", Field::Secret(Ingredient::Held(VERIFIER))),
    ];
    let key = Ingredient::Held(CLIENT_KEY);
    let exchange = oauth::token_request(&plain, key.clone(), "authorization_code", more);
    let mut way = Way::with(wanted, strongbox, transport, vessel);
    let told = way.ask(exchange.holds(oauth::REFRESH, &["refresh_token"])).await?;
    oauth::bearer(&told)?;
    let token = Ingredient::Held(oauth::REFRESH);
    let parts = if client.client_auth == ClientAuth::None { vec![token] } else { vec![key, token] };
    Ok(Redeemed { vessel: way.into_vessel(), parts })
}
