//! `/v1/credentials`: storing, rotating, revoking. A value goes from the body into a [`SecretInput`]
//! and nowhere else; no answer ever holds one.

use std::sync::Arc;

use keybearer_contract::Binding;
use keybearer_contract::CredentialId;
use keybearer_contract::Problem;
use keybearer_contract::UnixMillis;
use keybearer_executor::NewCredential;
use keybearer_executor::NewRotation;
use keybearer_executor::NewTerms;
use keybearer_executor::Retiring;
use keybearer_gate::TenantContext;
use keybearer_strongbox::SecretInput;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Visitor;
use utoipa::ToSchema;

use crate::api::App;
use crate::api::input::Input;
use crate::api::kind::Kind;
use crate::api::reply::Reply;

/// A new credential with its value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StoreCredential)]
pub(crate) struct StoreBody {
    /// What people call it; unique within the tenant.
    name: String,
    /// What kind it is: `{"kind": "bearer"}`, `basic`, `header`, `query`, `aws_keys`,
    /// `hmac_key`, `jwt_key` with `alg` and `kid`; or a recipe:
    /// `oauth_client_credentials`, `oauth_refresh_token` with `token_url`, `client_id`, `scope`; `oauth_token_exchange`,
    /// `oauth_jwt_bearer` with these under `client`; `vault_kv` with `server`, `mount`, `path`, `field`;
    /// `vault_database` with `server`, `role`; `aws_secret` with `region`, `secret_id`; `aws_role` with `region`, `role_arn`;
    /// `spiffe_x509` with `spiffe_id`; `spiffe_jwt` with `spiffe_id`, `audience`. An OAuth recipe that names its `issuer`
    /// and no `token_url` gets its endpoints from the issuer's metadata, once; `endpoint_hosts` are hosts that they may be
    /// on beside the issuer's.
    #[schema(value_type = Object)]
    kind: Kind,
    /// Who answers for it.
    owner: String,
    /// Why it is here.
    justification: String,
    /// When it ends, in milliseconds since 1970; after a year, where none is named.
    #[serde(default)]
    #[schema(value_type = Option<u64>)]
    expires: Option<UnixMillis>,
    /// How often it is rotated: every 90 days, or every 24 hours for a sensitive one, where nothing is named.
    #[serde(default)]
    rotation: Option<NewRotation>,
    /// The places that it may go to at the most, as a manifest writes the bindings of a slot; none leaves that to
    /// the slots that it is granted to.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    binding: Vec<Binding>,
    /// The value. Never shown again. Left out for `spiffe_x509` and `spiffe_jwt` and for recipes that log in by them.
    #[serde(default)]
    #[schema(value_type = String)]
    value: Value,
}

/// A new value.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RotateCredential)]
pub(crate) struct RotateBody {
    /// The value. Never shown again.
    #[schema(value_type = String)]
    value: Value,
    /// For how many seconds the credential can go back to the version before; its bytes are destroyed then. 0 or
    /// left out: there is no way back, and the bytes stay, to be scrubbed from answers, until they are destroyed.
    #[serde(default)]
    overlap_s: u64,
    /// Keep the bytes of the version before after the overlap, too, to be scrubbed from answers.
    #[serde(default)]
    pinned: bool,
}

/// Which version to go back to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RollBackCredential)]
pub(crate) struct RollbackBody {
    /// The version; the last one that was rotated out, where none is named.
    #[serde(default)]
    version: Option<u32>,
}

/// A value on its way in.
pub(crate) struct Value(pub(crate) SecretInput);

impl Default for Value {
    fn default() -> Self {
        Self(SecretInput::new(Vec::new()))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(Value(SecretInput::new(text.as_bytes().to_vec())))
            }

            fn visit_string<E>(self, text: String) -> Result<Value, E> {
                Ok(Value(SecretInput::new(text.into_bytes())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// POST /v1/credentials
pub(crate) async fn store(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let body: StoreBody = input.json(&app.limits).await?;
    let kind = body.kind.found(&app.executor, &context, &body.name).await?.kind;
    let new = NewCredential {
        name: body.name,
        kind,
        owner: body.owner,
        justification: body.justification,
        expires: body.expires,
        rotation: body.rotation,
        binding: body.binding,
    };
    Reply::created(&app.executor.store_credential(&context, new, body.value.0).await?)
}

/// GET /v1/credentials
pub(crate) async fn list(app: Arc<App>, context: TenantContext, _input: Input) -> Result<Reply, Problem> {
    Reply::items(&app.executor.credentials(&context)?)
}

/// GET /v1/credentials/{id}
pub(crate) async fn get(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.credential(&context, &id)?)
}

/// POST /v1/credentials/{id}/terms
pub(crate) async fn change_terms(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    let new: NewTerms = input.json(&app.limits).await?;
    Reply::ok(&app.executor.change_terms(&context, &id, new).await?)
}

/// POST /v1/credentials/{id}/versions
pub(crate) async fn rotate(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    let body: RotateBody = input.json(&app.limits).await?;
    let retiring = Retiring { overlap_s: body.overlap_s, pinned: body.pinned };
    Reply::created(&app.executor.rotate_credential(&context, &id, body.value.0, retiring).await?)
}

/// POST /v1/credentials/{id}/unwrap
pub(crate) async fn unwrap(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.unwrap_credential(&context, &id).await?)
}

/// POST /v1/credentials/{id}/check
pub(crate) async fn check(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.ask_about_credential(&context, &id).await?)
}

/// POST /v1/credentials/{id}/rotate-at-source
pub(crate) async fn rotate_at_source(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.rotate_at_source(&context, &id).await?)
}

/// POST /v1/credentials/{id}/forget-source-version
pub(crate) async fn forget_source_version(
    app: Arc<App>,
    context: TenantContext,
    input: Input,
) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.forget_source_version(&context, &id).await?)
}

/// POST /v1/credentials/{id}/rollback
pub(crate) async fn rollback(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    let body: RollbackBody = input.json(&app.limits).await?;
    Reply::created(&app.executor.rollback_credential(&context, &id, body.version).await?)
}

/// POST /v1/credentials/{id}/revoke
pub(crate) async fn revoke(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    Reply::ok(&app.executor.revoke_credential(&context, &id).await?)
}

/// DELETE /v1/credentials/{id}/versions/{version}
pub(crate) async fn destroy(app: Arc<App>, context: TenantContext, input: Input) -> Result<Reply, Problem> {
    let id: CredentialId = input.parameter(0)?;
    let version: u32 = input.parameter(1)?;
    Reply::ok(&app.executor.destroy_version(&context, &id, version).await?)
}
