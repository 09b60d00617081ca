//! Registration of clients at their issuer (RFC 7591), and taking them back (RFC 7592). Not for using a client: that is
//! `oauth`.

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::CredentialKind;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Ingredient;
use keybearer_gate::OauthRegistration;
use keybearer_gate::Registration;
use keybearer_gate::Target;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::CLIENT_KEY;
use keybearer_strongbox::ClientKey;
use keybearer_strongbox::INITIAL_TOKEN;
use keybearer_strongbox::REGISTRATION_TOKEN;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::Told;
use keybearer_strongbox::Vessel;

use crate::MintFault;
use crate::Transport;
use crate::Wanted;
use crate::way::Way;

/// RFC 7591 §3.2.2, RFC 6750 §3.1.
const ERROR_CODES: &[&str] = &[
    "invalid_redirect_uri",
    "invalid_client_metadata",
    "invalid_software_statement",
    "unapproved_software_statement",
    "invalid_token",
    "insufficient_scope",
];

/// A client that its issuer registered.
pub struct Registered {
    /// Holds what is stored, and what manages the client.
    pub vessel: Vessel,
    /// What is stored: the client's secret or key.
    pub parts: Vec<Ingredient>,
    /// Where the client is managed, if that is where it was registered.
    pub management_url: Option<Target>,
    client_id: Result<String, AnswerRefused>,
    told: Told,
}

/// Registers a client for credentials of this kind. What is in the vessel lets it in, and has its key.
///
/// # Errors
/// [`MintFault`]; an answer that cannot be read may leave a client behind that nobody uses.
pub async fn register(
    wanted: Wanted<'_>,
    (asked, kind): (&OauthRegistration, &CredentialKind),
    (vessel, key): (Vessel, Option<&ClientKey>),
    strongbox: &Strongbox,
    transport: &impl Transport,
) -> Result<Registered, MintFault> {
    let auth = match vessel.has(INITIAL_TOKEN) {
        true => Auth::Bearer(Ingredient::Held(INITIAL_TOKEN)),
        false => Auth::None,
    };
    let members = asked.members(kind, key.map(|key| key.public.clone()));
    let exchange = Exchange::new(Method::Post, asked.registration_url.clone())
        .auth(auth)
        .body(ExchangeBody::Json(members))
        .may_hold(REGISTRATION_TOKEN, &["registration_access_token"])
        .tells("client_id", &["client_id"])
        .tells("method", &["token_endpoint_auth_method"])
        .tells("secret_expires", &["client_secret_expires_at"])
        .tells("management_url", &["registration_client_uri"])
        .fails_with(&["error"], ERROR_CODES);
    // A client with a key is given no secret, and one that is given all the same is not read.
    let exchange = if key.is_some() { exchange } else { exchange.holds(CLIENT_KEY, &["client_secret"]) };
    let mut way = Way::with(wanted, strongbox, transport, vessel);
    let told = way.ask(exchange).await?;
    let url = told.get("management_url").and_then(|url| url.parse().ok());
    let management_url = url.filter(|url| Registration::may_be_managed_at(&asked.registration_url, url));
    // It is kept, and shown, in the open.
    let client_id = match told.get("client_id") {
        Some(id) if way.scrubbed(id) != id => Err(AnswerRefused::Unexpected("it gave the client a secret for its id")),
        id => id.map(str::to_owned).ok_or(AnswerRefused::Malformed),
    };
    let parts = vec![Ingredient::Held(CLIENT_KEY)];
    Ok(Registered { vessel: way.into_vessel(), parts, management_url, client_id, told })
}

impl Registered {
    /// The recipe of a client that was asked for as this kind, now that its issuer said how it is called.
    ///
    /// # Errors
    /// [`AnswerRefused::Unexpected`] if its issuer registered something else, or named a secret where its id belongs;
    /// [`AnswerRefused::Malformed`] if it does not say what: the client is to be taken back.
    pub fn recipe(&self, kind: &CredentialKind, key: Option<&ClientKey>) -> Result<CredentialKind, AnswerRefused> {
        // An issuer may put something else in place of what was asked for (RFC 7591 §3.2.1).
        let asked = kind.oauth_client().map(|client| client.client_auth.name());
        if self.told.get("method").is_some_and(|method| Some(method) != asked) {
            return Err(AnswerRefused::Unexpected("it registered another way for the client to prove itself"));
        }
        let id = self.client_id.as_deref().map_err(|refused| *refused)?;
        let mut recipe = kind.clone();
        recipe.set_client(id, key.map(|key| key.id.as_str()));
        recipe.check().map_err(|_| AnswerRefused::Malformed)?;
        Ok(recipe)
    }

    /// When the client's secret ends, in seconds since 1970; none if it does not.
    ///
    /// # Errors
    /// [`AnswerRefused::Malformed`].
    pub fn secret_expires_s(&self) -> Result<Option<u64>, AnswerRefused> {
        Ok(self.told.number("secret_expires")?.filter(|at| *at > 0))
    }
}

/// How a client is taken back that is managed there (RFC 7592 §2.3).
#[must_use]
pub fn deregister(url: &Target) -> Exchange {
    let token = Ingredient::Held(REGISTRATION_TOKEN);
    Exchange::new(Method::Delete, url.clone()).auth(Auth::Bearer(token))
}
