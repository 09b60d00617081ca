//! The description of a call: who, for whom, what. Facts are copied into records, spans and errors;
//! they are not authority, and nothing can be opened with them.

use std::fmt;
use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::Digest;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use serde::Deserialize;
use serde::Serialize;

/// Who called, as a label for records: `token:tok_…`, `jwt:issuer#subject`, `spiffe://…`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalLabel(Arc<str>);

/// The longest label that is kept; a subject of a JWT is text of somebody else's making.
const LABEL_CHARS_MAX: usize = 200;

impl PrincipalLabel {
    /// A label, cut to what a record holds, with control characters replaced.
    pub(crate) fn new(text: &str) -> Self {
        if text.len() <= LABEL_CHARS_MAX && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Self(text.into());
        }
        let clean: String = text
            .chars()
            .take(LABEL_CHARS_MAX)
            .map(|character| if character.is_control() { '\u{fffd}' } else { character })
            .collect();
        Self(clean.into())
    }

    /// The operator, in records of administrative acts.
    #[must_use]
    pub fn operator() -> Self {
        Self("operator".into())
    }

    /// The host itself, in records of what it does by itself.
    #[must_use]
    pub fn host() -> Self {
        Self("host".into())
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for PrincipalLabel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is known of a call, for records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whose call it is.
    pub tenant: TenantId,
    /// Who submitted it.
    pub principal: PrincipalLabel,
    /// The run it belongs to.
    pub run: RunId,
    /// The call.
    pub call: CallId,
    /// What was called.
    pub tool: ToolRef,
    /// Which package exactly.
    pub package: Digest,
}
