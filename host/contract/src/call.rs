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

    /// As `2026-11-22T08:16:53Z` (RFC 3339; the calendar by H. Hinnant's `civil_from_days`).
    #[must_use]
    pub fn to_utc(self) -> String {
        let (days, seconds) = (self.0 / 86_400_000, self.0 / 1000 % 86_400);
        // Days since 0000-03-01, in eras of 400 years: what is below cannot overflow for any u64 of ms.
        let since = days + 719_468;
        let (era, day_of_era) = (since / 146_097, since % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
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

/// What a guest asks to have signed: unchecked.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestSignature {
    /// The slot's name as the guest spelled it.
    pub slot: String,
    /// What is to be signed.
    pub what: ToSign,
}

/// What is to be signed, by the function that the guest called.
#[derive(Clone, PartialEq, Eq)]
pub enum ToSign {
    /// A message, for a MAC.
    Message(Vec<u8>),
    /// Names and texts, for a JWT to claim beside what its slot says.
    Claims(Vec<(String, String)>),
    /// The line of a request, for a URL that is good by itself.
    Url {
        /// The method.
        method: Method,
        /// The URL as the guest spelled it.
        url: String,
        /// How long it is to be good, in seconds.
        expires_s: u32,
    },
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
