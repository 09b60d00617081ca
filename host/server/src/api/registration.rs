//! `/v1/credentials/register`: a client is registered at its issuer, and what it is given is stored. The token that lets
//! it in goes from the body into a [`keybearer_strongbox::SecretInput`] and nowhere else; what the issuer answers is in
//! no answer of ours.

use std::sync::Arc;

use keybearer_contract::Binding;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_executor::NewCredential;
use keybearer_executor::NewRotation;
use keybearer_gate::ClientMetadata;
use keybearer_gate::OauthRegistration;
use keybearer_gate::Target;
use keybearer_gate::TenantContext;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::App;
use crate::api::credentials::Value;
use crate::api::input::Input;
use crate::api::kind;
use crate::api::kind::Kind;
use crate::api::reply::Reply;

/// A client that is to be registered.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RegisterCredential)]
pub(crate) struct RegisterBody {
    /// What people call it; unique within the tenant. One whose registration came to nothing is tried again.
    name: String,
    /// The recipe without `client_id`: `oauth_client_credentials`, `oauth_jwt_bearer`, or an `oauth_token_exchange` whose
    /// `subject` is `client_credentials`. `client_auth` says how the client proves itself; for `private_key_jwt` the host
    /// makes the key.
    #[schema(value_type = Object)]
    kind: Kind,
    /// Where clients are registered (RFC 7591 §3), by HTTPS. As the issuer's metadata says, where the recipe names its
    /// issuer only.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    registration_url: Option<Target>,
    /// What the issuer is told of the client beside what the recipe says: `client_name`, `client_uri`, `contacts`,
    /// `tos_uri`, `policy_uri`, `software_id`, `software_version`, `software_statement`.
    #[serde(default)]
    #[schema(value_type = Object)]
    client: ClientMetadata,
    /// Who answers for it.
    owner: String,
    /// Why it is here.
    justification: String,
    /// When it ends, in milliseconds since 1970; after a year, or with the client's secret.
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
    /// The initial access token, where the issuer wants one. It is used once, and not stored.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    value: Option<Value>,
}

/// POST /v1/credentials/register
pub(crate) async fn register(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let body: RegisterBody = input.json(&app.limits).await?;
    let found = body.kind.found(&app.executor, &context, &body.name).await?;
    let registration_url = kind::named(body.registration_url, found.registration_url, "registration_url")?;
    let new = NewCredential {
        name: body.name,
        kind: found.kind,
        owner: body.owner,
        justification: body.justification,
        expires: body.expires,
        rotation: body.rotation,
        binding: body.binding,
    };
    let asked = OauthRegistration { registration_url, client: body.client };
    let initial = body.value.map(|value| value.0);
    Reply::created(&app.executor.register_credential(&context, new, asked, initial).await?)
}
