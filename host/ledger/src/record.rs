//! What stands in a record: the kinds, their fields, and how their text is made. Names of things only;
//! no field has room for a value of a secret.
//!
//! The types are for reading. On the way of a call the same text is put together by hand ([`encode`]),
//! without the many small strings that serde would make of the ids; a test holds both to the same text.

pub(crate) mod encode;

use std::net::SocketAddr;

use keybearer_contract::Code;
use keybearer_contract::CredentialId;
use keybearer_contract::Delivery;
use keybearer_contract::DispatchId;
use keybearer_contract::GrantId;
use keybearer_contract::Method;
use keybearer_contract::SlotName;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::Refusal;
use keybearer_gate::Signed;
use serde::Deserialize;
use serde::Serialize;

use crate::ChainHash;
use crate::Checkpoint;
use crate::PublicKey;
use crate::Purpose;
use crate::RunFacts;
use crate::RunOutcome;

/// One record, as it stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1, without gaps. Order is by this and never by time.
    pub seq: u64,
    /// The wall clock when it was written; may jump either way.
    pub time: UnixMillis,
    /// The hash of the record before.
    pub prev: ChainHash,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
    /// blake3 over the line's text up to this field.
    pub hash: ChainHash,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Body {
    /// A segment begins. What was open when it did is said again in the records that follow, so that a
    /// start need read one segment only.
    Segment {
        /// The format of the records, 1.
        format: u32,
        /// Who signs the checkpoints.
        public_key: PublicKey,
    },
    /// Said again at the head of a segment: this call has begun and not ended.
    OpenCall {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
    },
    /// Said again at the head of a segment: this dispatch was intended and has not ended.
    OpenDispatch {
        /// Which dispatch.
        #[serde(flatten)]
        dispatch: DispatchFacts,
    },
    /// Said again at the head of a segment: the highest epochs so far.
    Epochs {
        /// Some of them; there may be several such records.
        epochs: Vec<EpochSeen>,
        /// The store's last commit that an act named.
        #[serde(default)]
        commit: u64,
    },
    /// A call was admitted.
    CallBegun {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
    },
    /// A call ended, and its answer may leave.
    CallClosed {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
        /// How.
        #[serde(flatten)]
        outcome: CallOutcome,
    },
    /// The task that held a call went away without an outcome.
    CallAbandoned {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
    },
    /// Found at a start: a call that an earlier process began and did not end.
    CallUnknown {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
    },
    /// A request is about to leave.
    DispatchIntended {
        /// Which.
        #[serde(flatten)]
        dispatch: DispatchFacts,
    },
    /// A request ended.
    DispatchClosed {
        /// Which.
        #[serde(flatten)]
        dispatch: DispatchFacts,
        /// How.
        #[serde(flatten)]
        outcome: DispatchOutcome,
    },
    /// The task that held a dispatch went away without an outcome: the upstream may have acted.
    DispatchAbandoned {
        /// Which.
        #[serde(flatten)]
        dispatch: DispatchFacts,
    },
    /// Found at a start: a dispatch of an earlier process without outcome. The upstream may have acted.
    DispatchUnknown {
        /// Which.
        #[serde(flatten)]
        dispatch: DispatchFacts,
    },
    /// A guest's request was refused; nothing of it left.
    DispatchRefused {
        /// Which call.
        #[serde(flatten)]
        facts: Facts,
        /// What the guest asked for: the method, where it was understood.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        method: Option<Method>,
        /// What the guest asked for: the place, without query and user.
        place: String,
        /// Why.
        refusal: Refusal,
    },
    /// Somebody administered something.
    Act {
        /// What.
        #[serde(flatten)]
        act: Act,
    },
    /// A run was opened.
    RunOpened {
        /// Which.
        #[serde(flatten)]
        run: RunFacts,
    },
    /// A checkpoint of a run was written.
    RunCheckpointed {
        /// Which.
        #[serde(flatten)]
        run: RunFacts,
    },
    /// A run was resumed: its earlier token is good for nothing.
    RunResumed {
        /// Which.
        #[serde(flatten)]
        run: RunFacts,
    },
    /// A run ended, and what it held is destroyed.
    RunEnded {
        /// Which.
        #[serde(flatten)]
        run: RunFacts,
        /// How.
        #[serde(flatten)]
        outcome: RunOutcome,
    },
    /// A signed head.
    Checkpoint {
        /// The head of the chain before this record.
        #[serde(flatten)]
        checkpoint: Checkpoint,
    },
    /// Writing works again after it did not.
    Resumed {
        /// What had been wrong.
        why: String,
        /// How many records were refused meanwhile.
        refused: u64,
    },
}

impl Body {
    /// The call that the record is about, where it is about one.
    #[must_use]
    pub fn facts(&self) -> Option<&Facts> {
        match self {
            Self::OpenCall { facts }
            | Self::CallBegun { facts }
            | Self::CallClosed { facts, .. }
            | Self::CallAbandoned { facts }
            | Self::CallUnknown { facts }
            | Self::DispatchRefused { facts, .. } => Some(facts),
            Self::OpenDispatch { dispatch }
            | Self::DispatchIntended { dispatch }
            | Self::DispatchClosed { dispatch, .. }
            | Self::DispatchAbandoned { dispatch }
            | Self::DispatchUnknown { dispatch } => Some(&dispatch.facts),
            Self::Segment { .. }
            | Self::Epochs { .. }
            | Self::Act { .. }
            | Self::RunOpened { .. }
            | Self::RunCheckpointed { .. }
            | Self::RunResumed { .. }
            | Self::RunEnded { .. }
            | Self::Checkpoint { .. }
            | Self::Resumed { .. } => None,
        }
    }

    /// The tenant to whom the record may be shown.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Act { act } => act.tenant.as_ref(),
            Self::RunOpened { run }
            | Self::RunCheckpointed { run }
            | Self::RunResumed { run }
            | Self::RunEnded { run, .. } => Some(&run.tenant),
            other => other.facts().map(|facts| &facts.tenant),
        }
    }
}

/// What is known of one dispatch before it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchFacts {
    /// The call that it belongs to.
    #[serde(flatten)]
    pub facts: Facts,
    /// The dispatch.
    pub dispatch: DispatchId,
    /// On whose behalf.
    pub purpose: Purpose,
    /// The method; none where a signature has no place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Scheme, host, port and path, never the query; `signing:mac` or `signing:jwt` where a signature has no place.
    pub place: String,
    /// The vetted address that is dialled; none for a signature, with which nothing leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// What is signed, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Signed>,
    /// The credential, where one is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialId>,
    /// The slot, where one is filled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotName>,
    /// The grant, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// The version that goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The credential's epoch at selection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The serial number of the X.509-SVID that the connection proves, in hexadecimal, where it proves one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<String>,
}

/// How a dispatch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchOutcome {
    /// The upstream's status, where it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What failed, where something did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Whether the upstream may have acted.
    pub delivery: Delivery,
    /// Bytes of the request's body that were sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body, decoded, that were received.
    pub received_bytes: u64,
    /// How often the credential stood in the answer and was taken out.
    pub reflected: u32,
    /// From intent to outcome.
    pub wall_ms: u64,
}

impl DispatchOutcome {
    /// The upstream answered.
    #[must_use]
    pub fn answered(status: u16) -> Self {
        Self { status: Some(status), fault: None, ..Self::failed(Fault::Host, Delivery::MaybeSent) }
    }

    /// Something was signed: there is no answer, and what was made may be used anywhere.
    #[must_use]
    pub fn signed() -> Self {
        Self { fault: None, ..Self::failed(Fault::Host, Delivery::MaybeSent) }
    }

    /// There is no answer, or none that may be used.
    #[must_use]
    pub fn failed(fault: Fault, delivery: Delivery) -> Self {
        Self { status: None, fault: Some(fault), delivery, sent_bytes: 0, received_bytes: 0, reflected: 0, wall_ms: 0 }
    }
}

/// What failed in a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// The name does not resolve.
    Unresolvable,
    /// No connection could be made.
    Unreachable,
    /// TLS failed.
    Untrusted,
    /// No answer within the deadline.
    Timeout,
    /// The answer is not HTTP, is in an unknown coding, or broke off.
    MalformedAnswer,
    /// The answer is larger than the call's limit.
    AnswerTooLarge,
    /// The answer is partial, or asks for something else than the whole.
    PartialAnswer,
    /// The credential was rotated or revoked between selection and use.
    Stale,
    /// A revocation cut the connection.
    Revoked,
    /// The call or its run was stopped.
    Stopped,
    /// The intent could not be made durable.
    LedgerUnavailable,
    /// Something of the host's own.
    Host,
}

/// How a call ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallOutcome {
    /// The problem that the caller is told; none for a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Code>,
    /// The limit that was reached, by its name in the settings, cut to 64 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// From admission to this record.
    pub wall_ms: u64,
    /// Outbound requests that the guest made.
    pub requests: u32,
    /// Size of the result, as JSON text.
    pub result_bytes: u64,
}

/// An administrative act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Whose thing it is; none for the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Who did it.
    pub principal: PrincipalLabel,
    /// What was done.
    pub what: ActKind,
    /// The id or name of what it was done to, cut to 300 characters.
    pub subject: String,
    /// The version that it made or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The epoch after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How many changes the store had committed, the act's own included: where nothing else tells that a store is
    /// older than this act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<u64>,
    /// A word to the auditor, cut to 500 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each name is a thing and what was done to it")]
pub enum ActKind {
    TenantCreated,
    TenantChanged,
    TenantSuspended,
    TenantResumed,
    TenantOffboarded,
    TokenIssued,
    TokenRevoked,
    CredentialStored,
    CredentialRotated,
    CredentialRolledBack,
    CredentialRevoked,
    /// What is stored was replaced by what its source gave.
    CredentialRenewed,
    /// Its account consented, and what came of it is stored.
    CredentialAuthorized,
    /// Its client was registered, and what it was given is stored.
    CredentialRegistered,
    /// Its account must authorize it again.
    CredentialLapsed,
    CredentialTermsChanged,
    /// Its issuer was asked whether it is good.
    CredentialChecked,
    /// Whatever its source gives next is taken, also if it gave a higher version before.
    SourceVersionForgotten,
    RotationAsked,
    #[serde(alias = "notify_changed")]
    NoticesSet,
    NoticesRemoved,
    CredentialRefused,
    VersionDestroyed,
    CredentialInvalidated,
    HookMade,
    HookRemoved,
    IncidentOpened,
    IncidentClosed,
    Quarantined,
    /// A notice is about to be sent: each try has one.
    NoticeSent,
    NoticeDelivered,
    /// It is not tried again.
    NoticeFailed,
    GrantGiven,
    GrantApproved,
    GrantTaken,
    PackagePublished,
    PackageWithdrawn,
    SignerRevoked,
    ToolRevoked,
    ToolRestored,
    PrincipalRevoked,
    PrincipalRestored,
    AgentRevoked,
    AgentRestored,
    MasterKeyRotated,
    DangerousSetting,
    ServerStarted,
    ServerStopped,
    /// A caller was refused for who it is or says it is.
    AccessRefused,
}

/// The highest epoch of one credential that the ledger has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochSeen {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub credential: CredentialId,
    /// The highest epoch.
    pub epoch: u64,
}

/// Cuts text to so many characters.
pub(crate) fn cut(text: &mut String, chars: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars) {
        text.truncate(end);
    }
}
