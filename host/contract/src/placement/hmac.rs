//! A MAC as a placement: over what of a request it is, and how it is written on it. Not for computing it.

use serde::Deserialize;
use serde::Serialize;

use crate::manifest::is_ownable_header;

/// The longest text before a MAC, in bytes: `sha256=`, `HMAC-SHA256 Signature=`.
const PREFIX_BYTES_MAX: usize = 32;

/// A MAC over the body of the request (RFC 2104), in a header field of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hmac {
    /// Lower-case field name.
    pub header: String,
    /// Over which hash.
    pub algorithm: HmacAlgorithm,
    /// What is under the MAC.
    pub over: HmacOver,
    /// How the MAC is written.
    pub encoding: HmacEncoding,
    /// What stands before it: `sha256=`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// Lower-case name of the field that tells the time; where the time is under the MAC, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_header: Option<String>,
}

/// The hash of a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HmacAlgorithm {
    /// HMAC-SHA-256 (RFC 4231).
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// What is under a MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HmacOver {
    /// The body, byte for byte; nothing, where there is none.
    Body,
    /// Seconds since 1970 in decimal, a full stop, and the body.
    TimestampBody,
}

/// How a MAC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacEncoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Padded base64 (RFC 4648 §4).
    Base64,
}

impl Hmac {
    /// Whether a header field, lower-case, is set by this.
    pub(super) fn owns_header(&self, header: &str) -> bool {
        header == self.header || self.timestamp_header.as_deref() == Some(header)
    }

    /// Whether a manifest may say this.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let named = [Some(&self.header), self.timestamp_header.as_ref()];
        if let Some(name) = named.into_iter().flatten().find(|name| !is_ownable_header(name)) {
            return Err(format!(
                "header `{name}` cannot carry a signature or its time (lower-case, and not one that frames the request)"
            ));
        }
        if (self.over == HmacOver::TimestampBody) != self.timestamp_header.is_some() {
            return Err("`timestamp_header` goes with `over = \"timestamp_body\"`, and with nothing else".to_owned());
        }
        if self.timestamp_header.as_ref() == Some(&self.header) {
            return Err(format!("header `{}` cannot carry both the signature and its time", self.header));
        }
        let is_plain = self.prefix.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !self.prefix.starts_with(' ');
        if !is_plain || self.prefix.len() > PREFIX_BYTES_MAX {
            return Err(format!("the prefix of a signature is at most {PREFIX_BYTES_MAX} printable ASCII characters"));
        }
        Ok(())
    }
}
