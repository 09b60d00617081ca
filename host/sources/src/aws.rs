//! AWS: how Secrets Manager is asked for a secret, by requests that an access key signs.

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::AwsKeys;
use keybearer_gate::AwsSecret;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Yield;

use crate::MintFault;
use crate::Transport;
use crate::way::Way;

/// What was read may be echoed by an upstream long after it was rotated out; the strongbox looks no longer than this.
const LOOKED_FOR_S: u64 = 24 * 3_600;

/// Of GetSecretValue, and of every request that is signed.
const SECRET_CODES: &[&str] = &[
    "AccessDeniedException",
    "DecryptionFailure",
    "ExpiredTokenException",
    "InternalServiceError",
    "InvalidParameterException",
    "InvalidRequestException",
    "InvalidSignatureException",
    "ResourceNotFoundException",
    "ThrottlingException",
    "UnrecognizedClientException",
];

/// A secret of Secrets Manager, with the stored access key. A stage can be moved back to an older version on purpose, and
/// versions have no order: what is read is what is current.
pub(crate) async fn secret(recipe: &AwsSecret, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let body = vec![
        ("SecretId", Field::Text(recipe.secret_id.clone())),
        ("VersionStage", Field::Text(recipe.version_stage.clone())),
    ];
    let keys = AwsKeys::Lines(Ingredient::Stored);
    let mut exchange = Exchange::new(Method::Post, recipe.target()?)
        .auth(Auth::Sigv4 { region: recipe.region.clone(), service: "secretsmanager", keys })
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", "secretsmanager.GetSecretValue")
        .body(ExchangeBody::Json(body))
        .tells("name", &["Name"])
        .tells("arn", &["ARN"])
        .tells("version", &["VersionId"])
        .fails_with(&["__type"], SECRET_CODES);
    let mut parts = Vec::with_capacity(2);
    if let Some(user) = &recipe.user_field {
        exchange = exchange.holds_within("user", &["SecretString"], user);
        parts.push("user");
    }
    exchange = match &recipe.field {
        Some(field) => exchange.holds_within("value", &["SecretString"], field),
        None => exchange.holds("value", &["SecretString"]),
    };
    parts.push("value");
    let told = way.ask(exchange).await?;
    // Threats A04: another's secret, by whatever mistake.
    let is_asked_for = [told.get("name"), told.get("arn")].into_iter().flatten().any(|name| recipe.is_at(name));
    if !is_asked_for {
        return Err(AnswerRefused::Unexpected("it is of another secret than the recipe names").into());
    }
    tracing::debug!(version = told.get("version"), "a secret was read");
    let (life_s, use_max_s) = (Some(LOOKED_FOR_S), Some(recipe.ttl_s));
    Ok(Yield { parts, life_s, use_max_s, ..Yield::default() })
}
