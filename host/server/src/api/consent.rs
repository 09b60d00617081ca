//! `/v1/credentials/authorize` and the callback of a browser that was sent to an account's issuer. The callback is
//! asked without a token: its `state` proves that it belongs here. It answers with one of two pages, and nothing of
//! the request is on either.

use std::sync::Arc;

use http::StatusCode;
use keybearer_contract::Binding;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_executor::Callback;
use keybearer_executor::NewCredential;
use keybearer_executor::NewRotation;
use keybearer_gate::OauthConsent;
use keybearer_gate::Target;
use keybearer_gate::TenantContext;
use keybearer_strongbox::SecretInput;
use serde::Deserialize;
use url::form_urlencoded;
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::api::App;
use crate::api::credentials::Value;
use crate::api::input::Input;
use crate::api::kind;
use crate::api::kind::Kind;
use crate::api::reply::Reply;

/// A credential that is to wait for its account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AuthorizeCredential)]
pub(crate) struct AuthorizeBody {
    /// What people call it; unique within the tenant. One that waits already, or must be authorized again, is asked
    /// for anew if its kind is the same.
    name: String,
    /// The recipe, `oauth_refresh_token`: `token_url`, `client_id`, `scope` and so on.
    #[schema(value_type = Object)]
    kind: Kind,
    /// Where the account is asked. Its query is added to. As the issuer's metadata says, where the recipe names its issuer
    /// only.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    authorize_url: Option<Target>,
    /// This host's `/v1/oauth/callback` as the account's browser reaches it, and as registered with the client.
    redirect_uri: String,
    /// Who answers for it.
    owner: String,
    /// Why it is here.
    justification: String,
    /// When it ends, in milliseconds since 1970; after a year, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    expires: Option<UnixMillis>,
    /// How often it is rotated, as for `POST /v1/credentials`.
    #[serde(default)]
    rotation: Option<NewRotation>,
    /// The places that it may go to at the most, as for `POST /v1/credentials`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    binding: Vec<Binding>,
    /// The client's secret or key; left out for a public client. Never shown again.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    value: Option<Value>,
}

/// POST /v1/credentials/authorize
pub(crate) async fn authorize(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let body: AuthorizeBody = input.json(&app.limits).await?;
    let found = body.kind.found(&app.executor, &context, &body.name).await?;
    let new = NewCredential {
        name: body.name,
        kind: found.kind,
        owner: body.owner,
        justification: body.justification,
        expires: body.expires,
        rotation: body.rotation,
        binding: body.binding,
    };
    let authorize_url = kind::named(body.authorize_url, found.authorize_url, "authorize_url")?;
    let consent = OauthConsent { authorize_url, redirect_uri: body.redirect_uri };
    let key = body.value.map(|value| value.0);
    Reply::created(&app.executor.begin_authorization(&context, new, consent, key).await?)
}

/// GET /v1/oauth/callback
pub(crate) async fn callback(app: Arc<App>, input: Input) -> Result<Reply, Problem> {
    let is_active = match brought_back(&input) {
        Some(callback) => app.executor.end_authorization(callback).await,
        None => false,
    };
    let (status, page) = if is_active { (StatusCode::OK, CONNECTED) } else { (StatusCode::BAD_REQUEST, NOT_CONNECTED) };
    Ok(Reply::bytes(status, "text/html; charset=utf-8", page))
}

/// What a browser brought back; none if it is not that, or says something twice (RFC 6749 §3.1). What it says beside
/// that is not looked at (RFC 6749 §4.1.2).
fn brought_back(input: &Input) -> Option<Callback> {
    let one = |name: &str| {
        let mut found = form_urlencoded::parse(input.raw_query().as_bytes()).filter(|(key, _)| key == name);
        match (found.next(), found.next()) {
            (None, _) => Some(None),
            (Some((_, value)), None) => Some(Some(value.into_owned())),
            _ => None,
        }
    };
    let (state, issuer, mut code, error) = (one("state")??, one("iss")?, one("code")?, one("error")?);
    let held = code.as_ref().filter(|_| error.is_none()).map(|code| SecretInput::new(code.as_bytes().to_vec()));
    code.zeroize();
    Some(Callback { state, issuer, code: held })
}

const CONNECTED: &str = "<!doctype html><html lang=\"en\"><title>Connected</title>\
    <h1>The account is connected.</h1><p>You can close this page.</p></html>\n";

/// For whatever is wrong: who asks to find out learns nothing.
const NOT_CONNECTED: &str = "<!doctype html><html lang=\"en\"><title>Not connected</title>\
    <h1>The account is not connected.</h1><p>Begin again where you were sent from.</p></html>\n";
