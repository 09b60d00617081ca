//! The policy of a session in a role: what the slot binds, said in the words of IAM, and of that only what the recipe's
//! own policy allows as well. IAM then lets the session do what this, and the role, both allow.
//!
//! Not for deciding about requests: every one is held against its binding as well, whatever IAM would let it do.

use std::collections::BTreeSet;

use keybearer_contract::Binding;
use keybearer_contract::HostRule;
use keybearer_contract::Method;
use keybearer_contract::Placement;
use keybearer_contract::RunId;
use keybearer_contract::Slot;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use serde_json::Value;
use serde_json::json;

use super::AwsRole;
use super::POLICY_BYTES_MAX;
use super::filled;
use super::partition_of;
use super::suffix_of;
use crate::BaseUrl;

/// Whose calls a session is for.
#[derive(Debug, Clone, Copy)]
pub struct SessionOf<'call> {
    /// The slot that the credential fills.
    pub slot: &'call Slot,
    /// What the grant fixes of the slot's place.
    pub base_url: Option<&'call BaseUrl>,
    /// Whose.
    pub tenant: &'call TenantId,
    /// Of which tool.
    pub tool: &'call ToolRef,
    /// In which run, if in any.
    pub run: Option<&'call RunId>,
}

/// There is no policy that is as narrow as both the slot and the recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionUnsayable {
    /// The slot does not place a signature of AWS.
    #[error("the slot does not sign for AWS: a role's session would be of no use there")]
    NoSignature,
    /// None of the slot's methods is one that the service's own permissions know.
    #[error("none of the slot's methods stands for an action of its service: let the package name `actions`")]
    NoAction,
    /// AWS's own limit.
    #[error(
        "the session's policy would be longer than the {POLICY_BYTES_MAX} characters that AWS takes: let the package name fewer \
         `actions` and `resources`, or make the recipe's `policy` shorter"
    )]
    TooLong,
}

/// Actions and what they may be done to. No action of one is another's.
struct Allowed {
    actions: Vec<String>,
    /// None for everything that the service has.
    resources: Option<BTreeSet<String>>,
}

impl AwsRole {
    /// The policy of a session for these calls. Names of ours are filled in, in which no wildcard can stand.
    ///
    /// # Errors
    /// [`SessionUnsayable`]: then there must be no session.
    pub fn session_policy(&self, of: SessionOf<'_>) -> Result<String, SessionUnsayable> {
        let Placement::Sigv4 { region, .. } = &of.slot.placement else { return Err(SessionUnsayable::NoSignature) };
        let allowed = allowed(of)?;
        let own = self.policy.as_ref().map(|own| {
            let run = of.run.map_or("none", RunId::as_str);
            let (tenant, tool) = (of.tenant.as_str(), of.tool.to_string());
            let fill = |text: &str| text.replace("{tenant}", tenant).replace("{tool}", &tool).replace("{run}", run);
            filled(&Value::Object(own.clone()), &fill)
        });
        let policy = match own {
            None => granting(&allowed, region),
            Some(own) => narrowing(own, &allowed, region),
        };
        let text = policy.to_string();
        if text.len() > POLICY_BYTES_MAX { Err(SessionUnsayable::TooLong) } else { Ok(text) }
    }
}

fn granting(allowed: &[Allowed], region: &str) -> Value {
    let here = json!({"StringEquals": {"aws:RequestedRegion": region}});
    let statements = allowed.iter().map(|Allowed { actions, resources }| {
        let resources = resources.as_ref().map_or_else(|| json!("*"), |resources| json!(resources));
        json!({"Effect": "Allow", "Action": actions, "Resource": resources, "Condition": here})
    });
    json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()})
}

/// The recipe's policy, whatever it says, and a denial of all that the slot does not allow: a denial goes before
/// everything that is allowed, so that what is left is what both allow.
fn narrowing(own: Value, allowed: &[Allowed], region: &str) -> Value {
    let Value::Object(mut own) = own else { return json!({}) };
    let mut statements = match own.remove("Statement") {
        Some(Value::Array(statements)) => statements,
        statement => statement.into_iter().collect(),
    };
    let all: Vec<_> = allowed.iter().flat_map(|allowed| &allowed.actions).collect();
    statements.push(json!({"Effect": "Deny", "NotAction": all, "Resource": "*"}));
    for Allowed { actions, resources } in allowed {
        if let Some(resources) = resources {
            statements.push(json!({"Effect": "Deny", "Action": actions, "NotResource": resources}));
        }
    }
    // True as well where a request has no region: what is not said is denied.
    let elsewhere = json!({"StringNotEquals": {"aws:RequestedRegion": region}});
    statements.push(json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": elsewhere}));
    own.insert("Statement".to_owned(), Value::Array(statements));
    Value::Object(own)
}

/// What the slot allows: what its manifest names, and for the rest what follows from its bindings.
fn allowed(of: SessionOf<'_>) -> Result<Vec<Allowed>, SessionUnsayable> {
    let Placement::Sigv4 { region, service, actions, resources } = &of.slot.placement else {
        return Err(SessionUnsayable::NoSignature);
    };
    let named = (!resources.is_empty()).then(|| resources.iter().cloned().collect::<BTreeSet<_>>());
    let place = Place { region, service, base_url: of.base_url };
    let derived = |methods: &[Method]| {
        let bindings = of.slot.bindings.iter();
        let all: Option<Vec<_>> = bindings.map(|binding| place.resources(binding, methods)).collect();
        all.map(|all| all.into_iter().flatten().collect::<BTreeSet<_>>())
    };
    if !actions.is_empty() {
        return Ok(vec![Allowed { actions: actions.clone(), resources: named.or_else(|| derived(&EVERY_METHOD)) }]);
    }
    let groups: &[(&[Method], &[&str])] = if service == "s3" { S3 } else { &[(&EVERY_METHOD, &["*"])] };
    let mut allowed = Vec::with_capacity(groups.len());
    for (methods, names) in groups {
        let used = of.slot.bindings.iter().flat_map(|binding| &binding.methods);
        if used.into_iter().any(|method| methods.contains(method)) {
            let actions = names.iter().map(|name| format!("{service}:{name}")).collect();
            let resources = named.clone().or_else(|| derived(methods));
            if resources.as_ref().is_none_or(|resources| !resources.is_empty()) {
                allowed.push(Allowed { actions, resources });
            }
        }
    }
    if allowed.is_empty() { Err(SessionUnsayable::NoAction) } else { Ok(allowed) }
}

const EVERY_METHOD: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options];

/// What S3's methods stand for, on a bucket and on an object, each action by its whole name: `Put*` would be `PutObjectAcl`
/// and `PutBucketPolicy` as well. A tool that does more with one (`PUT ?acl`, `POST ?delete`, a copy) names its actions;
/// clearing refuses the parameters that ask for it (`contract/src/placement/s3.rs`).
const S3: &[(&[Method], &[&str])] = &[
    (&[Method::Get, Method::Head], &["GetObject", "ListBucket"]),
    (&[Method::Put, Method::Post], &["PutObject"]),
    (&[Method::Delete], &["DeleteObject", "AbortMultipartUpload"]),
];

/// Where a slot's requests go.
struct Place<'slot> {
    region: &'slot str,
    service: &'slot str,
    base_url: Option<&'slot BaseUrl>,
}

impl Place<'_> {
    /// The resources that a binding names by these methods; none if its service does not say by host and path what is
    /// meant, or its host is not the service's own.
    fn resources(&self, binding: &Binding, methods: &[Method]) -> Option<Vec<String>> {
        let host = match &binding.host {
            HostRule::Exact(host) => host,
            HostRule::FromGrant { .. } => self.base_url.filter(|base| base.fits(binding))?.destination().host(),
        };
        let methods = binding.methods.iter().filter(|method| methods.contains(method));
        let paths: Vec<_> = binding.paths.iter().map(|path| in_iam(path.as_str())).collect();
        match self.service {
            "s3" => {
                let bucket = self.s3_bucket(host.as_str())?;
                let any = methods.count() > 0;
                Some(paths.iter().filter(|_| any).filter_map(|path| self.s3_resource(bucket, path)).collect())
            }
            "execute-api" => {
                let api = self.label(host.as_str(), "execute-api")?;
                let each = methods.flat_map(|method| paths.iter().map(move |path| (method, path)));
                Some(each.map(|(method, path)| self.api_resource(api, *method, path)).collect())
            }
            _ => None,
        }
    }

    /// The one label before the service's own name in the region.
    fn label<'host>(&self, host: &'host str, service: &str) -> Option<&'host str> {
        let own = format!(".{service}.{}.{}", self.region, suffix_of(self.region));
        host.strip_suffix(&own).filter(|label| !label.contains('.'))
    }

    /// The bucket that a host names; an empty one where the path does.
    fn s3_bucket<'host>(&self, host: &'host str) -> Option<&'host str> {
        let whole = format!("s3.{}.{}", self.region, suffix_of(self.region));
        if host == whole { Some("") } else { host.strip_suffix(&format!(".{whole}")) }
    }

    /// None for the list of all buckets, which is no bucket.
    fn s3_resource(&self, bucket: &str, path: &str) -> Option<String> {
        let named = format!("{bucket}{path}");
        let named = named.trim_start_matches('/');
        // A bucket's own name, with or without a slash behind it, is the bucket; what has a name behind that is an object.
        let is_bucket = named.find('/').is_none_or(|at| at + 1 == named.len());
        let named = if is_bucket { named.trim_end_matches('/') } else { named };
        (!named.is_empty()).then(|| format!("arn:{}:s3:::{named}", self.partition()))
    }

    /// The first segment of a path is the stage.
    fn api_resource(&self, api: &str, method: Method, path: &str) -> String {
        let (stage, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        // What matches any path matches every stage, and all that is in it.
        let rest = if stage == "*" && rest.is_empty() { "*" } else { rest };
        format!("arn:{}:execute-api:{}:*:{api}/{stage}/{}/{rest}", self.partition(), self.region, method.as_str())
    }

    fn partition(&self) -> &'static str {
        partition_of(self.region)
    }
}

/// A pattern of paths as IAM writes it. Its asterisk goes over slashes, which is wider than `{name}`: the binding is looked
/// at as well. No other character of a pattern means anything to IAM.
fn in_iam(path: &str) -> String {
    path.split('/').map(|segment| if segment.starts_with('{') { "*" } else { segment }).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
