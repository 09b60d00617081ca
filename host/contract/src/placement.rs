//! Placements: where a slot's credential goes on a request, and what of the request is the slot's alone from
//! then on. Not for putting it there.

mod function;
mod hmac;
mod jwt;
mod s3;

use serde::Deserialize;
use serde::Serialize;

pub use self::function::Function;
pub use self::function::Signs;
pub use self::function::SignsJwt;
pub use self::function::SignsMac;
pub use self::function::SignsUrl;
pub(crate) use self::function::check_contexts;
pub use self::hmac::Hmac;
pub use self::hmac::HmacAlgorithm;
pub use self::hmac::HmacEncoding;
pub use self::hmac::HmacOver;
pub use self::jwt::Jwt;
pub use self::jwt::SigningAlgorithm;
pub use self::jwt::is_claim_text;
use crate::Method;
use crate::manifest::is_ownable_header;
use crate::manifest::is_token;

/// Where a credential goes on a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Placement {
    /// `Authorization: Bearer …` (RFC 6750).
    Bearer,
    /// `Authorization: Basic …` (RFC 7617); the value is `user:password`.
    Basic,
    /// A header of its own.
    Header {
        /// Lower-case field name.
        name: String,
    },
    /// A query parameter, appended to the query.
    Query {
        /// The parameter's name.
        name: String,
    },
    /// A signature over the request (AWS Signature Version 4); the value is an access key. What it is good for
    /// stands here and not in a guest's hands (threats P09).
    Sigv4 {
        /// As in the service's endpoint: `eu-west-1`.
        region: String,
        /// The service's signing name: `s3`, `execute-api`, `dynamodb`.
        service: String,
        /// What the tool does there, as IAM writes it (`s3:GetObject`): a session that is made for its calls may do
        /// nothing else. Not named, it follows from the bindings where the service says so much, and else is all that
        /// the service has.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        actions: Vec<String>,
        /// What it does that to: ARNs. Not named, they follow from the bindings, as the actions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        resources: Vec<String>,
    },
    /// Nothing on the request: the connection proves an identity by a client certificate (RFC 8446 §4.4.2), if the
    /// peer asks for one.
    MutualTls,
    /// A MAC over the body; the value is its key. What is under it stands here, too.
    Hmac(Hmac),
    /// `Authorization: Bearer …` of a JWT that the host makes and signs; the value is a private key. What it claims
    /// stands here.
    Jwt(Jwt),
    /// Nothing on any request: the tool asks the host to sign with it, and holds what is made. What that can be stands
    /// here.
    Function(Function),
}

/// What a signature of AWS adds to a request.
const SIGV4_HEADERS: &[&str] = &["authorization", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"];

/// What a signature of AWS can be written as in a query: one that a guest brings along would stand beside the host's.
const SIGV4_PARAMETERS: &[&str] = &[
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

impl Placement {
    /// Whether a header field, lower-case, is this placement's and no guest's.
    #[must_use]
    pub fn owns_header(&self, header: &str) -> bool {
        match self {
            Self::Bearer | Self::Basic | Self::Jwt(_) => header == "authorization",
            Self::Header { name } => header == name,
            Self::Query { .. } | Self::MutualTls | Self::Function(_) => false,
            Self::Sigv4 { .. } => SIGV4_HEADERS.contains(&header),
            Self::Hmac(hmac) => hmac.owns_header(header),
        }
    }

    /// Whether a query parameter is this placement's and no guest's, in any case of letters.
    #[must_use]
    pub fn owns_parameter(&self, parameter: &str) -> bool {
        match self {
            Self::Query { name } => parameter.eq_ignore_ascii_case(name),
            Self::Sigv4 { .. } => is_sigv4_parameter(parameter),
            Self::Bearer | Self::Basic | Self::Header { .. } => false,
            Self::Function(function) => function.has_place() && is_sigv4_parameter(parameter),
            Self::MutualTls | Self::Hmac(_) | Self::Jwt(_) => false,
        }
    }

    /// Whether a query parameter, decoded, asks for what neither the method and path of a request nor the slot's actions
    /// say, so that no binding could have meant it.
    #[must_use]
    pub fn is_beyond(&self, method: Method, parameter: &str) -> bool {
        match self {
            Self::Sigv4 { service, actions, .. } => s3::asks_for_more(service, actions, method, parameter),
            Self::Function(Function { signs: Signs::Sigv4(url), .. }) => {
                s3::asks_for_more(&url.service, &[], method, parameter)
            }
            _ => false,
        }
    }

    /// What a slot of it signs for its tools, and for whom, in words for the person who approves it.
    #[must_use]
    pub fn signs(&self) -> Option<String> {
        match self {
            Self::Function(function) => Some(function.words()),
            _ => None,
        }
    }

    /// Whether a slot of it has bindings: what is signed without a place has none, everything else some.
    #[must_use]
    pub fn has_place(&self) -> bool {
        match self {
            Self::Function(function) => function.has_place(),
            _ => true,
        }
    }

    /// Whether it puts anything on requests to the places that its bindings name.
    #[must_use]
    pub fn is_on_requests(&self) -> bool {
        !matches!(self, Self::Function(_))
    }

    /// Whether a manifest may say this.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Header { name } if !is_ownable_header(name) => Err(format!(
                "header `{name}` cannot carry a credential (lower-case, and not one that frames the request)"
            )),
            Self::Query { name } if !is_token(name) => Err(format!("query parameter `{name}` is not a plain token")),
            Self::Sigv4 { region, service, actions, resources } => check_sigv4([region, service], actions, resources),
            Self::Hmac(hmac) => hmac.check(),
            Self::Jwt(jwt) => jwt.check(),
            Self::Function(function) => function.check(),
            _ => Ok(()),
        }
    }
}

/// Of actions, and of resources: what a person still reads before he approves it.
const SIGV4_WORDS_MAX: usize = 32;

fn check_sigv4(scope: [&String; 2], actions: &[String], resources: &[String]) -> Result<(), String> {
    if !scope.into_iter().all(|word| is_scope_word(word)) {
        return Err("region and service are 1 to 32 lower-case letters, digits and hyphens".to_owned());
    }
    if actions.len() > SIGV4_WORDS_MAX || resources.len() > SIGV4_WORDS_MAX {
        return Err(format!("a signature's `actions` and `resources` are {SIGV4_WORDS_MAX} each at the most"));
    }
    if let Some(action) = actions.iter().find(|action| !is_action(action)) {
        return Err(format!("action `{action}` is not written as `s3:GetObject` or `s3:Get*`"));
    }
    match resources.iter().find(|resource| !is_resource(resource)) {
        Some(resource) => {
            Err(format!("resource `{resource}` is no ARN in plain characters, such as `arn:aws:s3:::reports/*`"))
        }
        None => Ok(()),
    }
}

/// A service's prefix and a name that begins with a letter; at its end may stand an asterisk.
fn is_action(text: &str) -> bool {
    let Some((prefix, name)) = text.split_once(':') else { return false };
    let name = name.strip_suffix('*').unwrap_or(name);
    is_scope_word(prefix) && (1..=96).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// An ARN whose resource may have asterisks. No `$`: variables of a policy are AWS's to fill in.
fn is_resource(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:*?=@+,~!'".contains(&byte);
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let [arn, partition, service, _region, _account, resource] = parts[..] else { return false };
    let is_arn = arn == "arn" && (partition == "aws" || partition.starts_with("aws-")) && is_scope_word(service);
    is_arn && !resource.is_empty() && text.len() <= 512 && text.bytes().all(fits)
}

fn is_sigv4_parameter(parameter: &str) -> bool {
    SIGV4_PARAMETERS.iter().any(|owned| parameter.eq_ignore_ascii_case(owned))
}

/// A part of a signature's scope, where `/` separates.
fn is_scope_word(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p09_what_a_signature_is_good_for_is_plain_words_of_the_manifest() {
        let placed = |region: &str, service: &str| {
            let (region, service) = (region.to_owned(), service.to_owned());
            Placement::Sigv4 { region, service, actions: Vec::new(), resources: Vec::new() }.check()
        };
        assert_eq!(placed("eu-west-1", "s3"), Ok(()));
        for (region, service) in [("", "s3"), ("eu-west-1", ""), ("eu-west-1/iam", "s3"), ("EU", "s3"), ("*", "s3")] {
            assert!(placed(region, service).is_err(), "{region} {service}");
        }
    }

    #[test]
    fn p09_what_a_signature_adds_is_no_guests_in_field_or_query() {
        let signed = parsed("kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\"").expect("may be said");
        for field in ["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"] {
            assert!(signed.owns_header(field), "{field}");
        }
        assert!(!signed.owns_header("x-amz-target"), "is signed, and for the tool to say where its binding lets it");
        for parameter in ["X-Amz-Credential", "x-amz-signature", "X-AMZ-EXPIRES", "X-Amz-SignedHeaders"] {
            assert!(signed.owns_parameter(parameter), "{parameter}");
        }
        assert!(!signed.owns_parameter("list-type"));
    }

    fn parsed(text: &str) -> Result<Placement, String> {
        #[derive(Deserialize)]
        struct Holder {
            placement: Placement,
        }
        let holder: Holder = toml::from_str(&format!("placement = {{ {text} }}")).map_err(|error| error.to_string())?;
        holder.placement.check().map(|()| holder.placement)
    }

    // If it failed, a manifest could put into a session's policy what nobody reads as what it is.
    #[test]
    fn p09_what_a_session_may_do_is_named_in_plain_words() {
        let sigv4 = |more: &str| parsed(&format!("kind = \"sigv4\", region = \"eu-west-1\", service = \"s3\", {more}"));
        for good in [
            "actions = [\"s3:GetObject\", \"s3:List*\"]",
            "actions = [\"s3:GetObject\"], resources = [\"arn:aws:s3:::reports/*\"]",
            "resources = [\"arn:aws-cn:execute-api:cn-north-1:123456789012:a1b2/prod/GET/*\"]",
        ] {
            assert!(sigv4(good).is_ok(), "{good}");
        }
        for bad in [
            "actions = [\"*\"]",
            "actions = [\"s3:*\"]",
            "actions = [\"s3:Get*Object\"]",
            "actions = [\"s3:Get?bject\"]",
            "actions = [\"GetObject\"]",
            "actions = [\"S3:GetObject\"]",
            "actions = [\"\"]",
            "resources = [\"*\"]",
            "resources = [\"arn:aws:s3\"]",
            "resources = [\"arn:aws:s3:::\"]",
            "resources = [\"arn:other:s3:::reports\"]",
            "resources = [\"arn:aws:s3:::${aws:username}\"]",
            "resources = [\"arn:aws:s3:::a b\"]",
            "resources = [\"arn:aws:s3:::a\\\"b\"]",
        ] {
            assert!(sigv4(bad).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..33).map(|n| format!("\"s3:Get{n}\"")).collect();
        assert!(sigv4(&format!("actions = [{}]", many.join(", "))).is_err());
    }

    #[test]
    fn p09_n20_a_mac_is_written_in_fields_that_are_no_guests_and_over_what_the_manifest_says() {
        let hmac = |rest: &str| parsed(&format!("kind = \"hmac\", algorithm = \"hmac-sha256\", {rest}"));
        let body = "over = \"body\", encoding = \"hex\"";
        let timed = "over = \"timestamp_body\", encoding = \"base64\"";
        let placed =
            hmac(&format!("header = \"x-signature\", prefix = \"v1=\", timestamp_header = \"x-timestamp\", {timed}"));
        let placed = placed.expect("may be said");
        assert!(placed.owns_header("x-signature") && placed.owns_header("x-timestamp"));
        assert!(!placed.owns_header("x-other") && !placed.owns_parameter("x-signature"));
        assert!(hmac(&format!("header = \"authorization\", prefix = \"HMAC \", {body}")).is_ok());
        for bad in [
            format!("header = \"X-Signature\", {body}"),
            format!("header = \"x signature\", {body}"),
            format!("header = \"host\", {body}"),
            format!("header = \"content-length\", {body}"),
            format!("header = \"proxy-authorization\", {body}"),
            format!("header = \"x-signature\", timestamp_header = \"x-timestamp\", {body}"),
            format!("header = \"x-signature\", {timed}"),
            format!("header = \"x-signature\", timestamp_header = \"x-signature\", {timed}"),
            format!("header = \"x-signature\", timestamp_header = \"Host\", {timed}"),
            format!("header = \"x-signature\", prefix = \"a\\nb\", {body}"),
            format!("header = \"x-signature\", prefix = \"{}\", {body}", "p".repeat(33)),
            format!("header = \"x-signature\", key = \"in the manifest\", {body}"),
            "header = \"x-signature\", over = \"url\", encoding = \"hex\"".to_owned(),
        ] {
            assert!(hmac(&bad).is_err(), "{bad}");
        }
        assert!(
            parsed(&format!("kind = \"hmac\", algorithm = \"hmac-md5\", header = \"x-signature\", {body}")).is_err()
        );
    }

    #[test]
    fn p09_n20_what_a_jwt_claims_is_bounded_texts_of_the_manifest() {
        let jwt = |claims: &str, life: &str| {
            parsed(&format!("kind = \"jwt\", algorithm = \"ES256\", claims = {{ {claims} }}, lifetime_s = {life}"))
        };
        let placed = jwt("iss = \"us\", aud = \"https://api.example.com\"", "60").expect("may be said");
        assert!(placed.owns_header("authorization") && !placed.owns_header("x-signature"));
        let nine: Vec<_> = (0..9).map(|n| format!("c{n} = \"x\"")).collect();
        for (claims, life) in [
            ("", "60"),
            ("iss = \"us\"", "0"),
            ("iss = \"us\"", "3601"),
            ("iss = \"us\", exp = \"1\"", "60"),
            ("iss = \"us\", jti = \"mine\"", "60"),
            ("iss = \"\"", "60"),
            ("iss = \"a\\u0000b\"", "60"),
            ("iss = 7", "60"),
            (nine.join(", ").as_str(), "60"),
            (format!("iss = \"{}\"", "x".repeat(513)).as_str(), "60"),
        ] {
            assert!(jwt(claims, life).is_err(), "{claims} {life}");
        }
        assert!(parsed("kind = \"jwt\", algorithm = \"none\", claims = { iss = \"us\" }, lifetime_s = 60").is_err());
    }
}
