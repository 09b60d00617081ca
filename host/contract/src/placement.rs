//! Placements: where a slot's credential goes on a request, and what of the request is the slot's alone from
//! then on. Not for putting it there.

use serde::Deserialize;
use serde::Serialize;

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
    },
    /// Nothing on the request: the connection proves an identity by a client certificate (RFC 8446 §4.4.2), if the
    /// peer asks for one.
    MutualTls,
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
            Self::Bearer | Self::Basic => header == "authorization",
            Self::Header { name } => header == name,
            Self::Query { .. } | Self::MutualTls => false,
            Self::Sigv4 { .. } => SIGV4_HEADERS.contains(&header),
        }
    }

    /// Whether a query parameter is this placement's and no guest's, in any case of letters.
    #[must_use]
    pub fn owns_parameter(&self, parameter: &str) -> bool {
        match self {
            Self::Query { name } => parameter.eq_ignore_ascii_case(name),
            Self::Sigv4 { .. } => SIGV4_PARAMETERS.iter().any(|owned| parameter.eq_ignore_ascii_case(owned)),
            Self::Bearer | Self::Basic | Self::Header { .. } | Self::MutualTls => false,
        }
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
            Self::Sigv4 { region, service } if ![region, service].into_iter().all(|word| is_scope_word(word)) => {
                Err("region and service are 1 to 32 lower-case letters, digits and hyphens".to_owned())
            }
            _ => Ok(()),
        }
    }
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
            Placement::Sigv4 { region: region.to_owned(), service: service.to_owned() }.check()
        };
        assert_eq!(placed("eu-west-1", "s3"), Ok(()));
        for (region, service) in [("", "s3"), ("eu-west-1", ""), ("eu-west-1/iam", "s3"), ("EU", "s3"), ("*", "s3")] {
            assert!(placed(region, service).is_err(), "{region} {service}");
        }
    }

    #[test]
    fn p09_what_a_signature_adds_is_no_guests_in_field_or_query() {
        let signed = Placement::Sigv4 { region: "eu-west-1".to_owned(), service: "s3".to_owned() };
        for field in ["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"] {
            assert!(signed.owns_header(field), "{field}");
        }
        assert!(!signed.owns_header("x-amz-target"), "is signed, and for the tool to say where its binding lets it");
        for parameter in ["X-Amz-Credential", "x-amz-signature", "X-AMZ-EXPIRES", "X-Amz-SignedHeaders"] {
            assert!(signed.owns_parameter(parameter), "{parameter}");
        }
        assert!(!signed.owns_parameter("list-type"));
    }
}
