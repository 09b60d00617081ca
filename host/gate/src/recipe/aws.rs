//! Recipes of AWS: what is read from Secrets Manager, and in whose name the host asks.

mod session;

use keybearer_contract::Scheme;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

pub use self::session::SessionOf;
pub use self::session::SessionUnsayable;
use crate::NotCanonical;
use crate::RecipeRefused;
use crate::SpiffeJwt;
use crate::StoredForm;
use crate::Target;
use crate::Yields;

/// A secret of Secrets Manager. The stored value is the access key that may read it, or what takes the role that may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsSecret {
    /// Where it is: `eu-west-1`.
    pub region: String,
    /// Its name, or its ARN.
    pub secret_id: String,
    /// Which member of its JSON object goes out; the password, if there is a `user_field`. Without, its whole text goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For `basic`: the member with the user. Without it, `field` holds `user:password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_field: Option<String>,
    /// `AWSCURRENT`; `AWSPREVIOUS` for what was so before.
    #[serde(default = "current")]
    pub version_stage: String,
    /// Another endpoint than the region's own, as that of a private network. HTTPS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Target>,
    /// The role that reads it. Without, the stored access key does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<AwsReader>,
    /// In which form it goes out.
    #[serde(default = "bearer")]
    pub yields: Yields,
    /// For how many seconds what was read is used before it is read again.
    #[serde(default = "ttl_s")]
    pub ttl_s: u64,
}

fn current() -> String {
    "AWSCURRENT".to_owned()
}

fn bearer() -> Yields {
    Yields::Bearer
}

/// A new version is used within a minute.
fn ttl_s() -> u64 {
    60
}

/// As for what is read from Vault.
const TTL_S_MAX: u64 = 3_600;

/// AWS's own limit of a secret's name; its ARN adds less than a hundred.
const ID_BYTES_MAX: usize = 640;

/// Of a member's name: what fits a line of a report.
const TEXT_BYTES_MAX: usize = 200;

impl AwsSecret {
    /// Where it is asked for.
    ///
    /// # Errors
    /// [`NotCanonical`] for a region that was not checked.
    pub fn target(&self) -> Result<Target, NotCanonical> {
        endpoint(self.endpoint.as_ref(), "secretsmanager", &self.region)
    }

    /// The region, the account, the resource of an ARN say where a secret is; its name, followed by six characters that AWS
    /// adds, is what people call it.
    #[must_use]
    pub fn is_at(&self, reference: &str) -> bool {
        let named = |arn: &str, id: &str| match name_in(arn) {
            Some((region, name)) => region == self.region && name == id,
            None => false,
        };
        reference == self.secret_id || named(reference, &self.secret_id) || named(&self.secret_id, reference)
    }

    /// The policy of the session that reads it: this one secret, and its key by way of Secrets Manager. AWS adds a hyphen and six
    /// characters to a secret's name.
    #[must_use]
    pub fn reading_policy(&self) -> String {
        let Self { region, secret_id, .. } = self;
        let secret = if secret_id.starts_with("arn:") {
            secret_id.clone()
        } else {
            format!("arn:{}:secretsmanager:{region}:*:secret:{secret_id}-??????", partition_of(region))
        };
        let by_way_of = format!("secretsmanager.{region}.{}", suffix_of(region));
        serde_json::json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret},
            {
                "Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*",
                "Condition": {"StringEquals": {"kms:ViaService": by_way_of}},
            },
        ]})
        .to_string()
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        check_place(self.endpoint.as_ref(), &self.region)?;
        if let Some(reader) = &self.role {
            check_role(&reader.role_arn, &reader.proof, reader.external_id.as_ref())?;
            check_place(reader.endpoint.as_ref(), &self.region)?;
        }
        // What AWS takes for a name, and the colons of an ARN.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte);
        let id = &self.secret_id;
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(fits) {
            return Err(RecipeRefused("`secret_id` is the name or the ARN of a secret"));
        }
        if id.starts_with("arn:") && name_in(id).is_none_or(|(region, _)| region != self.region) {
            return Err(RecipeRefused("`secret_id` is an ARN of a secret in `region`"));
        }
        let is_stage = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=256).contains(&self.version_stage.len()) || !self.version_stage.bytes().all(is_stage) {
            return Err(RecipeRefused("`version_stage` is a label as `AWSCURRENT`"));
        }
        let is_plain =
            |text: &String| (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if ![&self.field, &self.user_field].into_iter().flatten().all(is_plain) {
            return Err(RecipeRefused("`field` and `user_field` are 1 to 200 bytes of plain text"));
        }
        if self.user_field.is_some() && (self.yields != Yields::Basic || self.field.is_none()) {
            return Err(RecipeRefused("`user_field` is for what yields `basic`, beside a `field`"));
        }
        if !(1..=TTL_S_MAX).contains(&self.ttl_s) {
            return Err(RecipeRefused("`ttl_s` is 1 to 3600"));
        }
        Ok(())
    }
}

/// A role that the host takes to read a secret. Its session is asked for with a policy that lets it read this one only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsReader {
    /// The role's ARN.
    pub role_arn: String,
    /// What takes the role.
    #[serde(default)]
    pub proof: AwsProof,
    /// What the role's trust policy may demand (`sts:ExternalId`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether the session has the tag `keybearer-tenant`.
    #[serde(default = "yes")]
    pub tags: bool,
    /// Another endpoint of STS than that of the secret's region. HTTPS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Target>,
}

impl AwsReader {
    /// Where the role is asked for.
    ///
    /// # Errors
    /// [`NotCanonical`] for a region that was not checked.
    pub fn target(&self, region: &str) -> Result<Target, NotCanonical> {
        endpoint(self.endpoint.as_ref(), "sts", region)
    }
}

/// A role that the host takes for a call (STS). What goes out is a session's access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsRole {
    /// Whose endpoint of STS is asked: `eu-west-1`.
    pub region: String,
    /// The role's ARN.
    pub role_arn: String,
    /// What takes the role.
    #[serde(default)]
    pub proof: AwsProof,
    /// What the role's trust policy may demand (`sts:ExternalId`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The session's policy: it may do no more than this, no more than the slot binds, and no more than the role. In its texts, `{tenant}`, `{tool}` and `{run}`
    /// stand for the call's; `{run}` is `none` for a call outside of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<serde_json::Map<String, Value>>,
    /// Whether the session has the tags `keybearer-tenant`, `keybearer-tool`, `keybearer-call` and, within a run,
    /// `keybearer-run`.
    #[serde(default = "yes")]
    pub tags: bool,
    /// For how many seconds a session is good at the most: 900 (AWS's least) to 3600 (the least that AWS lets a role be
    /// configured to, and its most for a role that is taken from another one). It is asked for as long as its run, and no longer.
    #[serde(default = "session_s")]
    pub duration_s: u64,
    /// Another endpoint than the region's own. HTTPS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Target>,
}

/// What takes a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AwsProof {
    /// The stored value: an access key that may take the role (AssumeRole).
    #[default]
    AccessKey,
    /// The stored value: a JWT of an issuer that the role trusts (AssumeRoleWithWebIdentity). Its own claims say the session's
    /// tags.
    WebIdentity,
    /// The host's own identity: a JWT-SVID, fetched each time (AssumeRoleWithWebIdentity). No value is stored.
    SpiffeJwt(SpiffeJwt),
}

impl AwsProof {
    /// What the stored value must look like.
    #[must_use]
    pub fn stored(&self) -> StoredForm {
        match self {
            Self::AccessKey => StoredForm::AwsKeys,
            Self::WebIdentity => StoredForm::Text,
            Self::SpiffeJwt(_) => StoredForm::Nothing,
        }
    }
}

fn yes() -> bool {
    true
}

fn session_s() -> u64 {
    SESSION_S_MAX
}

/// AWS's own least.
const SESSION_S_MIN: u64 = 900;

/// What every role allows.
const SESSION_S_MAX: u64 = 3_600;

/// Requests that are under way when a run ends are waited for, and clocks differ.
const SESSION_BUFFER_S: u64 = 60;

/// AWS's own limit of a session policy in the open, in characters.
const POLICY_BYTES_MAX: usize = 2_048;

impl AwsRole {
    /// Where the role is asked for.
    ///
    /// # Errors
    /// [`NotCanonical`] for a region that was not checked.
    pub fn target(&self) -> Result<Target, NotCanonical> {
        endpoint(self.endpoint.as_ref(), "sts", &self.region)
    }

    /// For how many seconds a session is asked for that is wanted for so many: those and a few more, as far as AWS and
    /// the recipe allow.
    #[must_use]
    pub fn session_s(&self, wanted_s: u64) -> u64 {
        wanted_s.saturating_add(SESSION_BUFFER_S).clamp(SESSION_S_MIN, self.duration_s.max(SESSION_S_MIN))
    }

    pub(crate) fn check(&self) -> Result<(), RecipeRefused> {
        check_place(self.endpoint.as_ref(), &self.region)?;
        check_role(&self.role_arn, &self.proof, self.external_id.as_ref())?;
        if self.policy.as_ref().is_some_and(|policy| !is_policy(policy)) {
            return Err(RecipeRefused("`policy` is up to 2048 bytes of JSON with statements in `Statement`"));
        }
        if !(SESSION_S_MIN..=SESSION_S_MAX).contains(&self.duration_s) {
            return Err(RecipeRefused("`duration_s` is 900 to 3600"));
        }
        Ok(())
    }
}

fn check_role(arn: &str, proof: &AwsProof, external_id: Option<&String>) -> Result<(), RecipeRefused> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=,.@-:".contains(&byte);
    let is_role = arn.starts_with("arn:") && arn.contains(":role/");
    if !is_role || arn.len() > ID_BYTES_MAX || !arn.bytes().all(fits) {
        return Err(RecipeRefused("`role_arn` is the ARN of a role"));
    }
    let is_id = |id: &String| (2..=1_224).contains(&id.len()) && id.bytes().all(fits);
    if !external_id.is_none_or(is_id) {
        return Err(RecipeRefused("`external_id` is 2 to 1224 letters, digits and `+=,.@:/-_`"));
    }
    if *proof != AwsProof::AccessKey && external_id.is_some() {
        return Err(RecipeRefused("`external_id` is for an access key"));
    }
    if let AwsProof::SpiffeJwt(svid) = proof { svid.check() } else { Ok(()) }
}

/// One to which statements can be added.
fn is_policy(policy: &serde_json::Map<String, Value>) -> bool {
    let is_said = match policy.get("Statement") {
        Some(Value::Array(statements)) => statements.iter().all(Value::is_object),
        Some(statement) => statement.is_object(),
        None => false,
    };
    is_said && Value::Object(policy.clone()).to_string().len() <= POLICY_BYTES_MAX
}

/// A value with every text in it filled in; names of members stay.
fn filled(value: &Value, fill: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text)),
        Value::Array(items) => items.iter().map(|item| filled(item, fill)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), filled(member, fill))).collect())
        }
        plain => plain.clone(),
    }
}

/// Region and name in `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME-a1B2c3`.
fn name_in(arn: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", _, "secretsmanager", region, _, "secret", full] = parts[..] else { return None };
    let (name, added) = full.rsplit_once('-')?;
    (added.len() == 6 && added.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some((region, name))
}

fn endpoint(own: Option<&Target>, service: &str, region: &str) -> Result<Target, NotCanonical> {
    let suffix = suffix_of(region);
    own.map_or_else(|| format!("https://{service}.{region}.{suffix}/").parse(), |own| Ok(own.clone()))
}

/// China's regions are another partition, with a suffix of its own.
fn suffix_of(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn partition_of(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn check_place(endpoint: Option<&Target>, region: &str) -> Result<(), RecipeRefused> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = !region.starts_with('-') && !region.ends_with('-');
    if !(1..=32).contains(&region.len()) || !region.bytes().all(fits) || !is_label {
        return Err(RecipeRefused("`region` is 1 to 32 lower-case letters, digits and hyphens"));
    }
    if endpoint.is_some_and(|endpoint| endpoint.destination().scheme() != Scheme::Https || endpoint.query().is_some()) {
        return Err(RecipeRefused("`endpoint` begins with `https://` and has no query"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::CredentialKind;

    fn kind(more: &serde_json::Value) -> Result<CredentialKind, String> {
        let mut kind = json!({"kind": "aws_secret", "region": "eu-west-1", "secret_id": "acme/stripe"});
        for (name, value) in more.as_object().into_iter().flatten() {
            kind[name] = value.clone();
        }
        let kind: CredentialKind = serde_json::from_value(kind).map_err(|error| error.to_string())?;
        kind.check().map_err(|refused| refused.to_string())?;
        Ok(kind)
    }

    const ROLE: &str = "arn:aws:iam::123456789012:role/reader";

    const ID: &str = "spiffe://acme.example/keybearer";

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:acme/stripe-a1B2c3";

    // If it failed, the access key would sign for a place that the recipe does not name, or go out in the open.
    #[test]
    fn t03_a_recipe_of_aws_that_leads_elsewhere_is_refused_when_it_is_stored() {
        for good in [
            json!({}),
            json!({"secret_id": ARN}),
            json!({"field": "key"}),
            json!({"field": "password", "user_field": "username", "yields": "basic", "version_stage": "AWSPREVIOUS"}),
            json!({"endpoint": "https://vpce-1.secretsmanager.eu-west-1.vpce.amazonaws.com/"}),
            json!({"role": {"role_arn": ROLE}}),
            json!({"role": {"role_arn": ROLE, "external_id": "acme-7", "endpoint": "https://sts.internal.test/"}}),
            json!({"role": {"role_arn": ROLE, "proof": "web_identity"}}),
            json!({"role": {"role_arn": ROLE, "proof": {"spiffe_jwt": {"spiffe_id": ID, "audience": "sts"}}}}),
        ] {
            assert!(kind(&good).is_ok(), "{good}");
        }
        for bad in [
            json!({"region": ""}),
            json!({"region": "evil.test/"}),
            json!({"region": "eu-west-1.evil"}),
            json!({"region": "-eu"}),
            json!({"secret_id": ""}),
            json!({"secret_id": "a b"}),
            json!({"secret_id": "a\"b"}),
            json!({"secret_id": ARN.replace("eu-west-1", "us-east-1")}),
            json!({"secret_id": "arn:aws:iam::123456789012:role/x"}),
            json!({"version_stage": ""}),
            json!({"endpoint": "http://secretsmanager.eu-west-1.amazonaws.com/"}),
            json!({"endpoint": "https://10.0.0.1/"}),
            json!({"user_field": "username", "yields": "basic"}),
            json!({"field": "password", "user_field": "username"}),
            json!({"field": ""}),
            json!({"role": {}}),
            json!({"role": {"role_arn": "arn:aws:iam::123456789012:user/x"}}),
            json!({"role": {"role_arn": ROLE, "proof": "web_identity", "external_id": "acme-7"}}),
            json!({"role": {"role_arn": ROLE, "endpoint": "http://sts.internal.test/"}}),
            json!({"role": {"role_arn": ROLE, "proof": {"spiffe_jwt": {"spiffe_id": ID, "audience": ""}}}}),
            json!({"role": {"role_arn": ROLE, "proof": {"spiffe_jwt": {"spiffe_id": "https://a.b/c", "audience": "sts"}}}}),
            json!({"ttl_s": 0}),
            json!({"ttl_s": 3601}),
            json!({"unknown": 1}),
        ] {
            assert!(kind(&bad).is_err(), "{bad}");
        }
    }

    // If it failed, the role that reads one secret would be taken for a session that reads them all.
    #[test]
    fn p09_a_session_that_reads_a_secret_reads_no_other_one() {
        for (id, resource) in
            [("acme/stripe", "arn:aws:secretsmanager:eu-west-1:*:secret:acme/stripe-??????"), (ARN, ARN)]
        {
            let Ok(CredentialKind::AwsSecret(recipe)) = kind(&json!({"secret_id": id})) else { panic!("a secret") };
            let policy: Value = serde_json::from_str(&recipe.reading_policy()).expect("JSON");
            let statement = &policy["Statement"][0];
            assert_eq!(
                (&statement["Action"], &statement["Resource"]),
                (&json!("secretsmanager:GetSecretValue"), &json!(resource))
            );
            let key = &policy["Statement"][1];
            assert_eq!(key["Condition"]["StringEquals"]["kms:ViaService"], "secretsmanager.eu-west-1.amazonaws.com");
            assert_eq!(policy["Statement"].as_array().map(Vec::len), Some(2));
        }
    }

    #[test]
    fn an_event_names_a_secret_by_its_name_or_its_arn() {
        for id in ["acme/stripe", ARN] {
            let kind = kind(&json!({"secret_id": id})).expect("fits");
            assert!(kind.changes_unseen());
            assert!(kind.is_fetched_from("acme/stripe") && kind.is_fetched_from(ARN), "{id}");
            for other in
                ["acme", "acme/stripe-a1B2c3", "acme/stripe2", &ARN.replace("eu-west-1", "us-east-1"), "", "arn:aws"]
            {
                assert!(!kind.is_fetched_from(other), "{id} {other}");
            }
        }
    }

    // If it failed, a session would be asked for that AWS refuses, or that outlives its run for no reason.
    #[test]
    fn a_role_is_taken_for_as_long_as_its_run_within_what_aws_and_the_recipe_allow() {
        let role = |more: serde_json::Value| {
            let mut kind =
                json!({"kind": "aws_role", "region": "eu-west-1", "role_arn": "arn:aws:iam::123456789012:role/reader"});
            more.as_object().into_iter().flatten().for_each(|(name, value)| kind[name] = value.clone());
            serde_json::from_value::<CredentialKind>(kind).map_err(|error| error.to_string())
        };
        let policy = json!({"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}});
        let Ok(CredentialKind::AwsRole(recipe)) = role(json!({"policy": policy})) else { panic!("a role") };
        assert_eq!(recipe.check(), Ok(()));
        for (wanted_s, asked_s) in [(0, 900), (30, 900), (841, 901), (1_200, 1_260), (3_600, 3_600), (u64::MAX, 3_600)]
        {
            assert_eq!(recipe.session_s(wanted_s), asked_s, "{wanted_s}");
        }
        let Ok(CredentialKind::AwsRole(short)) = role(json!({"duration_s": 900})) else { panic!("a role") };
        assert_eq!(short.session_s(3_600), 900);
        for bad in [
            json!({"role_arn": "arn:aws:iam::123456789012:user/x"}),
            json!({"role_arn": "arn:aws:iam::123456789012:role/x&Action=x"}),
            json!({"policy": {"Statement": [{"Effect": "x".repeat(2_048)}]}}),
            json!({"policy": {"Statement": "allow"}}),
            json!({"policy": {"Statement": ["allow"]}}),
            json!({"policy": {}}),
            json!({"duration_s": 899}),
            json!({"duration_s": 43_200}),
            json!({"external_id": "a b"}),
            json!({"external_id": "ab", "proof": "web_identity"}),
            json!({"region": "a.b"}),
        ] {
            assert!(role(bad.clone()).is_ok_and(|kind| kind.check().is_err()), "{bad}");
        }
    }

    #[test]
    fn the_regions_own_endpoint_is_asked_unless_the_recipe_names_one() {
        let target = |region: &str| endpoint(None, "secretsmanager", region).expect("canonical").to_string();
        assert_eq!(target("eu-west-1"), "https://secretsmanager.eu-west-1.amazonaws.com/");
        assert_eq!(target("cn-north-1"), "https://secretsmanager.cn-north-1.amazonaws.com.cn/");
    }
}
