//! AWS: how Secrets Manager is asked for a secret and STS for a session in a role, by requests that an access key signs.

use std::time::Duration;

use keybearer_contract::Method;
use keybearer_gate::Auth;
use keybearer_gate::AwsProof;
use keybearer_gate::AwsRole;
use keybearer_gate::AwsSecret;
use keybearer_gate::Exchange;
use keybearer_gate::ExchangeBody;
use keybearer_gate::Field;
use keybearer_gate::Ingredient;
use keybearer_gate::Target;
use keybearer_strongbox::AnswerRefused;
use keybearer_strongbox::Yield;

use crate::MintFault;
use crate::Transport;
use crate::spiffe;
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

/// The names under which a session's access key is held that reads a secret.
const READER: [&str; 3] = ["reader_id", "reader_secret", "reader_token"];

/// A session is not used in its last seconds: a request takes time, and clocks differ.
const BUFFER: Duration = Duration::from_secs(30);

/// What a session hears that is not taken any more; one that was ended by a denial of older ones hears the first.
const NOT_TAKEN: &[&str] =
    &["AccessDeniedException", "ExpiredTokenException", "InvalidSignatureException", "UnrecognizedClientException"];

/// A secret is read in a second; AWS makes no shorter session than this, in seconds.
const READER_S: u64 = 900;

/// A secret of Secrets Manager, with the stored access key or a session in the recipe's role. A stage can be moved back to
/// an older version on purpose, and versions have no order: what is read is what is current.
pub(crate) async fn secret(recipe: &AwsSecret, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let Some(role) = &recipe.role else { return read(recipe, Ingredient::Stored, way).await };
    let keys = Ingredient::HeldAwsKeys(READER);
    if way.vessel().has(READER[2]) {
        match read(recipe, keys.clone(), way).await {
            // It may have been ended there, or the role changed: with a new one, once.
            Err(MintFault::Refused(AnswerRefused::Status { code: Some(code), .. })) if NOT_TAKEN.contains(&code) => {
                READER.iter().for_each(|name| way.vessel().forget(name));
            }
            read => return read,
        }
    }
    let taking = Taking {
        target: role.target(&recipe.region)?,
        region: &recipe.region,
        role_arn: &role.role_arn,
        proof: &role.proof,
        external_id: role.external_id.as_deref(),
        policy: recipe.reading_policy(),
        life_s: READER_S,
        tags: if role.tags { vec![("keybearer-tenant", way.facts().tenant.to_string())] } else { Vec::new() },
        held: READER,
    };
    take(taking, way).await?;
    READER.iter().for_each(|name| way.stay_logged_in(name, Duration::from_secs(READER_S) - BUFFER, None, None));
    read(recipe, keys, way).await
}

async fn read(recipe: &AwsSecret, keys: Ingredient, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let body = vec![
        ("SecretId", Field::Text(recipe.secret_id.clone())),
        ("VersionStage", Field::Text(recipe.version_stage.clone())),
    ];
    let keys = Box::new(keys);
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

/// A session in a role: for this tenant's calls of this tool through one slot, within this run. It cannot be given back:
/// it ends by itself.
pub(crate) async fn role(recipe: &AwsRole, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    const HELD: [&str; 3] = ["id", "secret", "token"];
    // A session that nothing narrows is none that a call should have.
    let policy = way.selected().policy().ok_or(MintFault::Stale)?.to_string();
    let life_s = recipe.session_s(way.wanted_s());
    let taking = Taking {
        target: recipe.target()?,
        region: &recipe.region,
        role_arn: &recipe.role_arn,
        proof: &recipe.proof,
        external_id: recipe.external_id.as_deref(),
        policy,
        life_s,
        tags: if recipe.tags { tags(way) } else { Vec::new() },
        held: HELD,
    };
    take(taking, way).await?;
    Ok(Yield { parts: HELD.to_vec(), life_s: Some(life_s), ..Yield::default() })
}

/// For whom a session is. Its call is the one that it was made for; later ones of the same tool and run use it as well.
fn tags(way: &Way<'_, impl Transport>) -> Vec<(&'static str, String)> {
    let facts = way.facts();
    let mut tags = vec![
        ("keybearer-tenant", facts.tenant.to_string()),
        ("keybearer-tool", facts.tool.to_string()),
        ("keybearer-call", facts.call.to_string()),
    ];
    tags.extend(way.run().map(|run| ("keybearer-run", run.to_string())));
    tags
}

/// A role that is to be taken.
struct Taking<'recipe> {
    target: Target,
    region: &'recipe str,
    role_arn: &'recipe str,
    proof: &'recipe AwsProof,
    external_id: Option<&'recipe str>,
    policy: String,
    life_s: u64,
    tags: Vec<(&'static str, String)>,
    /// The names under which the session's id, secret and token are held.
    held: [&'static str; 3],
}

async fn take(taking: Taking<'_>, way: &mut Way<'_, impl Transport>) -> Result<(), MintFault> {
    const WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
    const WEB_ROOT: [&str; 2] = ["AssumeRoleWithWebIdentityResponse", "AssumeRoleWithWebIdentityResult"];
    let (action, auth, root, web_identity) = match taking.proof {
        AwsProof::AccessKey => {
            let keys = Box::new(Ingredient::Stored);
            let auth = Auth::Sigv4 { region: taking.region.to_owned(), service: "sts", keys };
            ("AssumeRole", auth, ["AssumeRoleResponse", "AssumeRoleResult"], None)
        }
        AwsProof::WebIdentity => (WEB_IDENTITY, Auth::None, WEB_ROOT, Some(Ingredient::Stored)),
        AwsProof::SpiffeJwt(svid) => {
            spiffe::hold_jwt(&svid.spiffe_id, &svid.audience, way).await?;
            (WEB_IDENTITY, Auth::None, WEB_ROOT, Some(Ingredient::Held(spiffe::SVID)))
        }
    };
    let mut form = vec![
        ("Action", Field::from(action)),
        ("Version", Field::from("2011-06-15")),
        ("RoleArn", Field::from(taking.role_arn)),
        ("RoleSessionName", Field::Text(session_name(way.facts().tenant.as_str()))),
        ("DurationSeconds", Field::Text(taking.life_s.to_string())),
        ("Policy", Field::Text(taking.policy)),
    ];
    form.extend(taking.external_id.map(|id| ("ExternalId", Field::from(id))));
    match web_identity {
        // Its own claims say the tags.
        Some(jwt) => form.push(("WebIdentityToken", Field::Secret(jwt))),
        None => form.extend(
            TAGS.iter()
                .zip(taking.tags)
                .flat_map(|((key, value), (name, text))| [(*key, Field::from(name)), (*value, Field::Text(text))]),
        ),
    }
    let at = |name| [root[0], root[1], "Credentials", name];
    let [id, secret, token] = taking.held;
    let exchange = Exchange::new(Method::Post, taking.target)
        .auth(auth)
        .body(ExchangeBody::Form(form))
        .xml()
        .holds(id, &at("AccessKeyId"))
        .holds(secret, &at("SecretAccessKey"))
        .holds(token, &at("SessionToken"))
        .fails_with(&["ErrorResponse", "Error", "Code"], ROLE_CODES);
    way.ask(exchange).await.map(drop)
}

/// The names of the fields of tags: AWS counts them from one.
const TAGS: [(&str, &str); 4] = [
    ("Tags.member.1.Key", "Tags.member.1.Value"),
    ("Tags.member.2.Key", "Tags.member.2.Value"),
    ("Tags.member.3.Key", "Tags.member.3.Value"),
    ("Tags.member.4.Key", "Tags.member.4.Value"),
];

/// What CloudTrail shows: up to 64 letters, digits and `+=,.@-_`.
fn session_name(tenant: &str) -> String {
    let mut name = format!("keybearer-{tenant}");
    name.truncate(64);
    name
}
