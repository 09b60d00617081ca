//! What a query asks of S3 beside what method and path say: `PUT /key?acl` stores no object, it changes who may read one. A
//! parameter that is not known to be harmless is refused, for S3 has new ones every year; unless an action of the slot's
//! names what it is for. Not for other services, whose queries mean what their own permissions know.

use crate::Method;

/// The signing names of S3.
const SERVICES: [&str; 4] = ["s3", "s3-object-lambda", "s3-outposts", "s3express"];

/// With these, `GET` still reads objects or lists them, `PUT` and `POST` store one or a part of one, and `DELETE` deletes
/// it (Amazon S3 API Reference: `GetObject`, `ListObjectsV2`, `ListParts`, `CreateMultipartUpload`, `UploadPart`).
/// Case matters to S3, and so here.
const PLAIN: &[&str] = &[
    "continuation-token",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "key-marker",
    "list-type",
    "marker",
    "max-keys",
    "max-parts",
    "max-uploads",
    "part-number-marker",
    "partNumber",
    "prefix",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "start-after",
    "upload-id-marker",
    "uploadId",
    "uploads",
    "x-id",
];

/// Whether a query parameter, decoded, asks a service for what neither method nor path nor one of `actions` says.
pub(super) fn asks_for_more(service: &str, actions: &[String], method: Method, parameter: &str) -> bool {
    SERVICES.contains(&service)
        && !PLAIN.contains(&parameter)
        && !actions.iter().any(|action| is_named(action, method, parameter))
}

/// `acl` by `s3:PutObjectAcl` for `PUT`, `versionId` by `s3:GetObjectVersion` for `GET`. A header may stand in a query
/// with its whole name, as `x-amz-acl`.
fn is_named(action: &str, method: Method, parameter: &str) -> bool {
    let action = action.rsplit(':').next().unwrap_or_default().to_ascii_lowercase();
    let parameter = parameter.to_ascii_lowercase().replace('-', "");
    let what = match parameter.strip_prefix("xamz").unwrap_or(&parameter) {
        "versionid" => "objectversion",
        what => what,
    };
    let reads = action.starts_with("get") || action.starts_with("list");
    // Shorter ones stand in any word; none of S3's is.
    what.len() > 2 && action.contains(what) && reads == matches!(method, Method::Get | Method::Head)
}

#[cfg(test)]
mod tests {
    use super::*;

    // If it failed, a tool that may store an object could open it to everybody, or delete its versions for good.
    #[test]
    fn p09_a_parameter_that_makes_another_action_of_a_method_is_refused_unless_that_is_named() {
        let more = |actions: &[&str], method: Method, parameter: &str| {
            let actions: Vec<_> = actions.iter().map(|action| format!("s3:{action}")).collect();
            asks_for_more("s3", &actions, method, parameter)
        };
        for parameter in [
            "acl",
            "ACL",
            "policy",
            "tagging",
            "retention",
            "legal-hold",
            "versionId",
            "publicAccessBlock",
            "lifecycle",
            "cors",
            "website",
            "replication",
            "delete",
            "restore",
            "x-amz-acl",
            "X-Amz-Tagging",
            "x-amz-copy-source",
            "UPLOADID",
            "unheard-of",
            "",
            "a",
        ] {
            assert!(more(&[], Method::Put, parameter), "{parameter}");
            assert!(more(&["PutObject", "Put*"], Method::Put, parameter), "{parameter}");
        }
        for plain in ["list-type", "prefix", "uploadId", "partNumber", "response-content-type"] {
            assert!(!more(&[], Method::Get, plain), "{plain}");
        }
        assert!(!asks_for_more("execute-api", &[], Method::Get, "acl"));
        for (action, method, parameter) in [
            ("PutObjectAcl", Method::Put, "acl"),
            ("GetObjectVersion", Method::Get, "versionId"),
            ("PutBucketPublicAccessBlock", Method::Put, "publicAccessBlock"),
            ("PutObjectLegalHold", Method::Put, "legal-hold"),
            ("DeleteObject", Method::Post, "delete"),
            ("DeleteObjectVersion", Method::Delete, "versionId"),
        ] {
            assert!(!more(&[action], method, parameter), "{action}");
            assert!(more(&[action], Method::Get, parameter) != action.starts_with("Get"), "{action}");
        }
    }
}
