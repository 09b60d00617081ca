//! AWS: how Secrets Manager is asked for a secret and STS for a session in a role, by requests that an access key signs.

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::AwsProof;
use keybearer_gate::AwsRole;
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
    let keys = Box::new(Ingredient::Stored);
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

/// Of STS, and of every request that is signed.
const ROLE_CODES: &[&str] = &[
    "AccessDenied",
    "ExpiredToken",
    "ExpiredTokenException",
    "IDPCommunicationError",
    "IDPRejectedClaim",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "MalformedPolicyDocument",
    "PackedPolicyTooLarge",
    "RegionDisabledException",
    "SignatureDoesNotMatch",
    "Throttling",
    "ValidationError",
];

/// A session in a role: for this tenant's calls of this tool, within this run. It cannot be given back: it ends by itself.
pub(crate) async fn role(recipe: &AwsRole, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let facts = way.facts();
    let (tenant, tool) = (facts.tenant.to_string(), facts.tool.to_string());
    let run = way.run().map(ToString::to_string);
    let (action, auth, root) = match recipe.proof {
        AwsProof::AccessKey => {
            let keys = Box::new(Ingredient::Stored);
            let auth = Auth::Sigv4 { region: recipe.region.clone(), service: "sts", keys };
            ("AssumeRole", auth, ["AssumeRoleResponse", "AssumeRoleResult"])
        }
        AwsProof::WebIdentity => {
            let root = ["AssumeRoleWithWebIdentityResponse", "AssumeRoleWithWebIdentityResult"];
            ("AssumeRoleWithWebIdentity", Auth::None, root)
        }
    };
    let mut form = vec![
        ("Action", Field::from(action)),
        ("Version", Field::from("2011-06-15")),
        ("RoleArn", Field::Text(recipe.role_arn.clone())),
        ("RoleSessionName", Field::Text(session_name(&tenant))),
        ("DurationSeconds", Field::Text(recipe.duration_s.to_string())),
    ];
    let policy = recipe.policy_for(&tenant, &tool, run.as_deref().unwrap_or("none"));
    form.extend(policy.map(|policy| ("Policy", Field::Text(policy))));
    form.extend(recipe.external_id.as_ref().map(|id| ("ExternalId", Field::Text(id.clone()))));
    match recipe.proof {
        AwsProof::AccessKey if recipe.tags => {
            form.extend([
                ("Tags.member.1.Key", Field::from("keybearer-tenant")),
                ("Tags.member.1.Value", Field::Text(tenant)),
            ]);
            form.extend([
                ("Tags.member.2.Key", Field::from("keybearer-tool")),
                ("Tags.member.2.Value", Field::Text(tool)),
            ]);
            if let Some(run) = run {
                form.extend([
                    ("Tags.member.3.Key", Field::from("keybearer-run")),
                    ("Tags.member.3.Value", Field::Text(run)),
                ]);
            }
        }
        AwsProof::AccessKey => {}
        AwsProof::WebIdentity => form.push(("WebIdentityToken", Field::Secret(Ingredient::Stored))),
    }
    let at = |name| [root[0], root[1], "Credentials", name];
    let exchange = Exchange::new(Method::Post, recipe.target()?)
        .auth(auth)
        .body(ExchangeBody::Form(form))
        .xml()
        .holds("id", &at("AccessKeyId"))
        .holds("secret", &at("SecretAccessKey"))
        .holds("token", &at("SessionToken"))
        .fails_with(&["ErrorResponse", "Error", "Code"], ROLE_CODES);
    way.ask(exchange).await?;
    Ok(Yield { parts: vec!["id", "secret", "token"], life_s: Some(recipe.duration_s), ..Yield::default() })
}

/// What CloudTrail shows: up to 64 letters, digits and `+=,.@-_`.
fn session_name(tenant: &str) -> String {
    let mut name = format!("keybearer-{tenant}");
    name.truncate(64);
    name
}
