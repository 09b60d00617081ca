//! What travels on a call: the guest's request, the tool's description, who is at fault.

use serde::Deserialize;
use serde::Serialize;

/// Milliseconds since 1970-01-01 UTC. For records only: what must not jump uses a monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The wall clock, now; 0 on a machine whose clock stands before 1970.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Methods that a guest can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// RFC 9110 §9.3.1
    Get,
    /// RFC 9110 §9.3.2
    Head,
    /// RFC 9110 §9.3.3
    Post,
    /// RFC 9110 §9.3.4
    Put,
    /// RFC 5789
    Patch,
    /// RFC 9110 §9.3.5
    Delete,
    /// RFC 9110 §9.3.7
    Options,
}

impl Method {
    /// The method as on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// One header field as a guest says it: unchecked.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestHeader {
    /// The name as the guest spelled it.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
}

/// A request as a guest says it: unchecked, and without any credential.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestRequest {
    /// The method.
    pub method: Method,
    /// The URL as the guest spelled it.
    pub url: String,
    /// The header fields in order.
    pub headers: Vec<GuestHeader>,
    /// The body.
    pub body: Option<Vec<u8>>,
}

/// Whether an upstream may have acted on a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// No byte of it left the host.
    NotSent,
    /// Some or all of it left.
    MaybeSent,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Party {
    /// Who submitted the call.
    Caller,
    /// The tool.
    Guest,
    /// The upstream, or the way to it.
    Upstream,
    /// Keybearer itself.
    Host,
}

/// A tool's word about one of its operations, frozen at publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolDescription {
    /// The name within the package.
    pub name: crate::ToolName,
    /// For the model and for the person who approves.
    pub description: String,
    /// JSON Schema 2020-12 of the arguments.
    pub input_schema: serde_json::Value,
    /// JSON Schema 2020-12 of the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<serde_json::Value>,
    /// It changes nothing anywhere.
    pub read_only: bool,
    /// Twice is the same as once.
    pub idempotent: bool,
}
