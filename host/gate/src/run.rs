//! Runs: an agent's sealed context. What is in a record does not change while the run is open, but for its
//! token, which a resumption replaces. A run's token is `kbr_ID_SECRET`, kept as an API token is: as a hash
//! of 256 random bits. What a run is good for at a dispatch is decided there: what was sealed ∩ what holds now.

use std::fmt;
use std::str::FromStr;

use keybearer_contract::AgentName;
use keybearer_contract::Digest;
use keybearer_contract::GrantId;
use keybearer_contract::NameMalformed;
use keybearer_contract::PackageName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Principal;
use crate::PrincipalLabel;
use crate::RunDirectory;
use crate::Scope;
use crate::Scopes;
use crate::Unauthenticated;
use crate::token;

/// How every run's token begins.
pub const RUN_TOKEN_PREFIX: &str = "kbr_";
const HASH_CONTEXT: &str = "keybearer 2026-11 run token";

/// A run as it is stored: references, names and times, and the hash of its token.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunRecord {
    /// The id.
    pub id: RunId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The runs that it was opened within: the first of them was opened by a principal, the last opened this one.
    pub parents: Vec<RunId>,
    /// Who opened it, or the first of its parents.
    pub principal: PrincipalLabel,
    /// What the agent is called.
    pub agent: AgentName,
    /// The grants that held when it was opened, and what had been approved of each.
    pub sealed: Vec<SealedGrant>,
    /// What it may call; none means all that its grants allow.
    pub tools: Option<Vec<ToolScope>>,
    /// When it was opened.
    pub created: UnixMillis,
    /// When it ends by itself.
    pub deadline: UnixMillis,
    /// Whether it goes on.
    pub state: RunState,
    /// Raised by every resumption: a checkpoint of an earlier generation resumes nothing.
    pub generation: u64,
    /// Hash of the secret half of its token.
    pub token_hash: [u8; 32],
}

/// A grant as it was when a run was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedGrant {
    /// The grant.
    pub grant: GrantId,
    /// The version of the package that had been approved: what was approved later is not the run's.
    pub approved: Digest,
}

/// Whether a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It does.
    Open,
    /// It does not, and never will again.
    Ended {
        /// Why.
        how: RunEnd,
        /// Since when.
        at: UnixMillis,
    },
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// The agent is done.
    Finished,
    /// Somebody stopped it.
    Aborted,
    /// Its deadline has passed.
    Expired,
    /// What it stood on was taken: its principal, its tenant, or itself in an incident.
    Revoked,
}

impl RunEnd {
    /// As it stands in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Aborted => "aborted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl RunRecord {
    /// Whether it has neither ended nor passed its deadline by the wall clock.
    #[must_use]
    pub fn is_open(&self, now: UnixMillis) -> bool {
        self.state == RunState::Open && now < self.deadline
    }

    /// Whether it may call this tool, as far as the run goes.
    #[must_use]
    pub fn allows(&self, tool: &ToolRef) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.iter().any(|scope| scope.covers_tool(tool)))
    }

    /// Whether it may call anything of this package.
    #[must_use]
    pub fn has_package(&self, package: &PackageName) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.iter().any(|scope| scope.package() == package))
    }

    /// Whether this grant held when it was opened.
    #[must_use]
    pub fn seals(&self, grant: &GrantId) -> bool {
        self.sealed.iter().any(|sealed| sealed.grant == *grant)
    }

    /// Whether it was opened within that run, at whatever depth.
    #[must_use]
    pub fn is_within(&self, other: &RunId) -> bool {
        self.parents.contains(other)
    }
}

/// What a run may call: every tool of a package, `stripe`, or one of them, `stripe.create_refund`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ToolScope {
    /// Every tool of the package.
    Package(PackageName),
    /// One tool.
    Tool(ToolRef),
}

impl ToolScope {
    /// The package.
    #[must_use]
    pub fn package(&self) -> &PackageName {
        match self {
            Self::Package(package) => package,
            Self::Tool(tool) => &tool.package,
        }
    }

    /// Whether the tool is within it.
    #[must_use]
    pub fn covers_tool(&self, tool: &ToolRef) -> bool {
        match self {
            Self::Package(package) => *package == tool.package,
            Self::Tool(own) => own == tool,
        }
    }

    /// Whether the other asks for nothing beyond it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Package(package) => matches!(self, Self::Package(own) if own == package),
            Self::Tool(tool) => self.covers_tool(tool),
        }
    }
}

impl FromStr for ToolScope {
    type Err = NameMalformed;

    fn from_str(text: &str) -> Result<Self, NameMalformed> {
        if text.contains('.') { text.parse().map(Self::Tool) } else { text.parse().map(Self::Package) }
    }
}

impl TryFrom<String> for ToolScope {
    type Error = NameMalformed;

    fn try_from(text: String) -> Result<Self, NameMalformed> {
        text.parse()
    }
}

impl From<ToolScope> for String {
    fn from(scope: ToolScope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for ToolScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(package) => fmt::Display::fmt(package, formatter),
            Self::Tool(tool) => fmt::Display::fmt(tool, formatter),
        }
    }
}

impl fmt::Debug for ToolScope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A new token of a run: the hash to store, and the text to show once.
pub struct IssuedRunToken {
    /// What is stored.
    pub hash: [u8; 32],
    /// What the caller gets, this once.
    pub text: Zeroizing<String>,
}

/// Issues a token for a run.
#[must_use]
pub fn issue_run_token(id: &RunId) -> IssuedRunToken {
    let secret = token::new_secret();
    let text = Zeroizing::new(format!("{RUN_TOKEN_PREFIX}{id}_{}", *secret));
    IssuedRunToken { hash: hash(&secret), text }
}

/// Verifies a presented run's token. The principal may call, within the run, and nothing else.
///
/// # Errors
/// [`Unauthenticated`], the same for every reason: unknown, ended, past its deadline, resumed since.
pub fn authenticate_run(
    presented: &str,
    runs: &dyn RunDirectory,
    now: UnixMillis,
) -> Result<Principal, Unauthenticated> {
    let (id, secret): (RunId, _) = token::split(presented, RUN_TOKEN_PREFIX).ok_or(Unauthenticated)?;
    let record = runs.run_of_token(&id).ok_or(Unauthenticated)?;
    let equal: bool = hash(secret).ct_eq(&record.token_hash).into();
    if !equal || record.id != id || !record.is_open(now) {
        return Err(Unauthenticated);
    }
    Ok(Principal {
        tenant: record.tenant.clone(),
        label: record.principal.clone(),
        scopes: Scopes::of(&[Scope::Call]),
        packages: None,
        issued: record.created,
        expires: Some(record.deadline),
        run: Some(record),
    })
}

fn hash(secret: &str) -> [u8; 32] {
    blake3::derive_key(HASH_CONTEXT, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct One(Arc<RunRecord>);

    impl RunDirectory for One {
        fn run_of_token(&self, id: &RunId) -> Option<Arc<RunRecord>> {
            (*id == self.0.id).then(|| Arc::clone(&self.0))
        }
    }

    fn opened() -> (RunRecord, Zeroizing<String>) {
        let id = RunId::random();
        let issued = issue_run_token(&id);
        let record = RunRecord {
            id,
            tenant: TenantId::random(),
            parents: Vec::new(),
            principal: PrincipalLabel::new("token:tok"),
            agent: "support".parse().expect("a name"),
            sealed: Vec::new(),
            tools: Some(vec!["echo".parse().expect("a name"), "stripe.refund".parse().expect("a name")]),
            created: UnixMillis(1_000),
            deadline: UnixMillis(2_000),
            state: RunState::Open,
            generation: 0,
            token_hash: issued.hash,
        };
        (record, issued.text)
    }

    #[test]
    fn r07_a_runs_token_is_good_for_calls_until_the_run_ends() {
        let (record, text) = opened();
        let principal = authenticate_run(&text, &One(Arc::new(record.clone())), UnixMillis(1_500)).expect("verifies");
        assert_eq!(principal.scopes, Scopes::of(&[Scope::Call]));
        assert_eq!(principal.run.map(|run| run.id.clone()), Some(record.id.clone()));
        let good = One(Arc::new(record.clone()));
        assert!(authenticate_run(&text, &good, UnixMillis(2_000)).is_err(), "past its deadline");
        for how in [RunEnd::Finished, RunEnd::Aborted, RunEnd::Expired, RunEnd::Revoked] {
            let ended = RunRecord { state: RunState::Ended { how, at: UnixMillis(1_100) }, ..record.clone() };
            assert!(authenticate_run(&text, &One(Arc::new(ended)), UnixMillis(1_500)).is_err(), "{how:?}");
        }
        let resumed = RunRecord { token_hash: issue_run_token(&record.id).hash, ..record };
        assert!(authenticate_run(&text, &One(Arc::new(resumed)), UnixMillis(1_500)).is_err(), "an earlier token");
    }

    #[test]
    fn a_runs_token_with_one_character_changed_or_of_another_kind_is_refused() {
        let (record, text) = opened();
        let good = One(Arc::new(record));
        for index in 0..text.len() {
            let mut text = text.to_string().into_bytes();
            text[index] = if text[index] == b'a' { b'b' } else { b'a' };
            let text = String::from_utf8(text).expect("ascii");
            assert!(authenticate_run(&text, &good, UnixMillis(1_500)).is_err(), "{index}");
        }
        assert!(authenticate_run(&text.replace("kbr_", "kb_"), &good, UnixMillis(1_500)).is_err());
    }

    #[test]
    fn t15_a_scope_of_tools_covers_what_is_within_it_and_nothing_wider() {
        let scope = |text: &str| text.parse::<ToolScope>().expect("a scope");
        for (wide, narrow, covers) in [
            ("stripe", "stripe", true),
            ("stripe", "stripe.refund", true),
            ("stripe.refund", "stripe.refund", true),
            ("stripe.refund", "stripe", false),
            ("stripe.refund", "stripe.charge", false),
            ("stripe", "stripe-eu", false),
            ("stripe", "github.refund", false),
        ] {
            assert_eq!(scope(wide).covers(&scope(narrow)), covers, "{wide} {narrow}");
        }
        let (record, _) = opened();
        assert!(record.allows(&"echo.anything".parse().expect("a tool")));
        assert!(record.allows(&"stripe.refund".parse().expect("a tool")));
        assert!(!record.allows(&"stripe.charge".parse().expect("a tool")));
        assert!(record.has_package(&"stripe".parse().expect("a name")));
        assert!(!record.has_package(&"github".parse().expect("a name")));
        for bad in ["", "Stripe", "stripe.", ".refund", "stripe.refund.x", "*"] {
            assert!(bad.parse::<ToolScope>().is_err(), "{bad}");
        }
    }
}
