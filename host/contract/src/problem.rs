//! Problems: what a caller is told when there is no result (RFC 9457). The code is stable and is
//! what programs look at; the detail is a sentence that says what to do, and never more than the
//! caller need know (P10).

use serde::Deserialize;
use serde::Serialize;

use crate::Party;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:literal, $party:ident, $title:literal;)*) => {
        /// A stable code of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it stands in a problem's `code` and `type`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status; always 4xx or 5xx.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub fn party(self) -> Party {
                match self { $(Self::$name => Party::$party,)* }
            }

            /// The same few words every time.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// No, unknown, expired or revoked token: one answer for all.
    Unauthenticated = "unauthenticated", 401, Caller, "no valid credentials for Keybearer itself";
    /// The token is good, but not for this.
    Forbidden = "forbidden", 403, Caller, "the token's scopes do not allow this";
    /// A tenant was named that is not the token's.
    TenantMismatch = "tenant_mismatch", 403, Caller, "the tenant comes from the token and from nothing else";
    /// A browser's page asked: it named its origin.
    OriginRefused = "origin_refused", 403, Caller, "this API is not for browsers";
    /// Unknown, or another tenant's: the same answer.
    NotFound = "not_found", 404, Caller, "there is no such thing here";
    /// The path has other methods.
    MethodNotAllowed = "method_not_allowed", 405, Caller, "this path does not have that method";
    /// The name is taken, or the state does not allow it.
    Conflict = "conflict", 409, Caller, "the state of the thing does not allow this";
    /// The body has no length or is longer than allowed.
    BodyTooLarge = "body_too_large", 413, Caller, "the request body is too large";
    /// The content type is not one of those that are understood.
    UnsupportedMediaType = "unsupported_media_type", 415, Caller, "the content type is not understood here";
    /// The body is not well-formed JSON or MessagePack of this shape.
    MalformedBody = "malformed_body", 400, Caller, "the request body is malformed";
    /// A parameter, header or name is malformed.
    MalformedRequest = "malformed_request", 400, Caller, "the request is malformed";
    /// The arguments do not fit the tool's schema.
    InvalidArguments = "invalid_arguments", 422, Caller, "the arguments do not fit the tool's schema";
    /// The tenant has no grant that covers this tool.
    GrantMissing = "grant_missing", 403, Caller, "no grant of this tenant covers this tool";
    /// A credential is blank, expired or revoked.
    CredentialUnusable = "credential_unusable", 409, Caller, "a granted credential has no usable version";
    /// An incident is open that the tool, or the tenant's use of it, is a part of.
    Quarantined = "quarantined", 409, Host, "the tool is quarantined until an incident is closed";
    /// A run's checkpoint is another tenant's, was changed, or its run can no longer be resumed from it.
    CheckpointRefused = "checkpoint_refused", 409, Caller, "the run cannot be resumed from this checkpoint";
    /// The value is too short, or not fit for its place.
    CredentialRefused = "credential_refused", 422, Caller, "the credential's value was refused";
    /// The same Idempotency-Key came with another request.
    IdempotencyMismatch = "idempotency_mismatch", 422, Caller, "this idempotency key belongs to another request";
    /// The same Idempotency-Key is running now.
    IdempotencyInFlight = "idempotency_in_flight", 409, Caller, "a request with this idempotency key is running";
    /// A call with this Idempotency-Key was cut off: it may or may not have acted.
    OutcomeUnknown = "outcome_unknown", 409, Host, "an earlier call with this idempotency key was cut off";
    /// The tenant is at its rate or its queue is full, or too many requests of an address were refused.
    RateLimited = "rate_limited", 429, Caller, "too many requests for now";
    /// As many are stored as may be; the detail names the number.
    TooMany = "too_many", 409, Caller, "there are as many as there may be";
    /// The package is refused.
    PackageInvalid = "package_invalid", 422, Caller, "the package is refused";
    /// The signature is missing, wrong, or of a signer who is not trusted.
    SignatureRefused = "signature_refused", 422, Caller, "the package's signature is refused";
    /// The guest trapped.
    ToolTrapped = "tool_trapped", 502, Guest, "the tool trapped";
    /// The guest reached a limit; the detail names it and its value.
    ToolLimit = "tool_limit", 502, Guest, "the tool reached a limit";
    /// The call ran out of time.
    Timeout = "timeout", 504, Guest, "the call ran out of time";
    /// The tool says that it failed.
    ToolFailed = "tool_failed", 502, Guest, "the tool failed";
    /// The tool's result does not fit its own schema.
    ResultInvalid = "result_invalid", 502, Guest, "the tool's result does not fit its schema";
    /// The tool says that the upstream failed.
    UpstreamFailed = "upstream_failed", 502, Upstream, "the upstream failed";
    /// A request of the tool was refused; `explain` tells the tenant's administrator why.
    Denied = "denied", 403, Guest, "a request of the tool was refused";
    /// What it needs, or its run, was revoked while it ran: it was stopped.
    Revoked = "revoked", 409, Host, "what the call needs was revoked";
    /// It was stopped: its run was ended, or the server went down.
    Cancelled = "cancelled", 409, Host, "the call was stopped";
    /// The ledger cannot be written: nothing is dispatched.
    LedgerUnavailable = "ledger_unavailable", 503, Host, "the ledger cannot be written";
    /// The store cannot be reached or is read-only.
    StoreUnavailable = "store_unavailable", 503, Host, "the store cannot be used";
    /// Every instance is in use.
    Overloaded = "overloaded", 503, Host, "every place is taken";
    /// It is going down and takes no new calls.
    ShuttingDown = "shutting_down", 503, Host, "the server is going down";
    /// Something of ours broke; the log has it under the request's id.
    Internal = "internal", 500, Host, "an error of the server's own";
}

/// A problem as it is sent (RFC 9457 §3, with `code` and `party` as extension members).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub code: Code,
    /// What to do about it, for a person.
    pub detail: String,
    /// JSON pointer (RFC 6901) to what is wrong: into the arguments for [`Code::InvalidArguments`], into the body for
    /// [`Code::MalformedBody`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<Box<str>>,
    /// The limit that was reached and its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<(Box<str>, u64)>,
    /// The call, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Box<crate::CallId>>,
    /// Seconds after which to try again (RFC 9110 §10.2.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// What the tool logged before it failed: scrubbed, and within the call's `log_bytes`.
    #[serde(default, skip_serializing_if = "<[Logged]>::is_empty")]
    pub logs: Box<[Logged]>,
}

/// A line that a tool logged, as its caller may see it: one line, escaped and scrubbed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The line.
    pub message: String,
}

impl Problem {
    /// A problem with a sentence that says what to do.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            pointer: None,
            limit: None,
            call: None,
            retry_after_s: None,
            logs: Box::default(),
        }
    }

    /// The one answer for everything that is not there or not the caller's.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(Code::NotFound, "check the name; what belongs to another tenant is not here either")
    }

    /// Says which limit was reached.
    #[must_use]
    pub fn at_limit(mut self, name: &str, value: u64) -> Self {
        self.limit = Some((name.into(), value));
        self
    }

    /// Says where in the arguments, or the body, it is.
    #[must_use]
    pub fn at_pointer(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into().into_boxed_str());
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}; {}", self.code.as_str(), self.code.title(), self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h15_every_code_has_an_error_status_and_a_text_of_its_own() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.status())));
    }

    #[test]
    fn every_code_is_documented_with_its_status() {
        let paper = include_str!("../../../docs/codes.md");
        let (table, _) = paper.split_once("\n## ").expect("the codes of problems are its first chapter");
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let documented: Vec<(&str, u16)> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split(" | ").collect();
                assert!(cells.len() == 4 && ["no", "later", "ask first"].contains(&cells[3]), "{row}");
                (cells[0].trim_end_matches('`'), cells[1].parse().expect("a status"))
            })
            .collect();
        let codes: Vec<(&str, u16)> = Code::ALL.iter().map(|code| (code.as_str(), code.status())).collect();
        assert_eq!(documented, codes);
    }
}
