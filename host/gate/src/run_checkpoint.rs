//! A run's checkpoint: the document from which it is resumed. It holds references, names and times; every
//! credential is fetched anew when the run goes on. A MAC by a key of the tenant's, which the strongbox makes,
//! says that it is ours, whole and that tenant's.

use keybearer_contract::AgentName;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::RunRecord;
use crate::SealedGrant;
use crate::ToolScope;

/// What a run is, for whoever keeps it while the agent sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCheckpoint {
    /// The form of this document, 1.
    pub format: u32,
    /// Whose run it is. Compared, never believed: the tenant comes from the token of who resumes.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The runs that it was opened within.
    pub parents: Vec<RunId>,
    /// What the agent is called.
    pub agent: AgentName,
    /// The grants that were sealed.
    pub grants: Vec<SealedGrant>,
    /// What it may call.
    pub tools: Option<Vec<ToolScope>>,
    /// When the run was opened.
    pub created: UnixMillis,
    /// When it ends by itself; a resumption does not move it.
    pub deadline: UnixMillis,
    /// When this was written.
    pub issued: UnixMillis,
    /// How often the run had been resumed by then.
    pub generation: u64,
}

/// A checkpoint with its MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCheckpoint {
    /// The document.
    pub checkpoint: RunCheckpoint,
    /// 64 hex digits.
    pub mac: String,
}

/// The form of the document that this build writes and reads.
const FORMAT: u32 = 1;

impl RunCheckpoint {
    /// The checkpoint of a run as it stands.
    #[must_use]
    pub fn of(run: &RunRecord, now: UnixMillis) -> Self {
        Self {
            format: FORMAT,
            tenant: run.tenant.clone(),
            run: run.id.clone(),
            parents: run.parents.clone(),
            agent: run.agent.clone(),
            grants: run.sealed.clone(),
            tools: run.tools.clone(),
            created: run.created,
            deadline: run.deadline,
            issued: now,
            generation: run.generation,
        }
    }

    /// The bytes that the MAC is over: one text for one meaning, since every field has one spelling.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a checkpoint is plain data")
    }

    /// Whether it is this run's, as it stands.
    #[must_use]
    pub fn is_of(&self, run: &RunRecord) -> bool {
        *self == Self::of(run, self.issued)
    }
}

impl SignedCheckpoint {
    /// A document with its MAC.
    #[must_use]
    pub fn new(checkpoint: RunCheckpoint, mac: [u8; 32]) -> Self {
        Self { checkpoint, mac: blake3::Hash::from_bytes(mac).to_hex().to_string() }
    }

    /// Whether the MAC is the expected one. Compares in constant time.
    #[must_use]
    pub fn has_mac(&self, expected: [u8; 32]) -> bool {
        // The MAC has one spelling, too: lower-case hex.
        let lower = self.mac.bytes().all(|byte| !byte.is_ascii_uppercase());
        lower && blake3::Hash::from_hex(&self.mac).is_ok_and(|mac| mac == blake3::Hash::from_bytes(expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PrincipalLabel;
    use crate::RunState;
    use keybearer_contract::Digest;
    use keybearer_contract::GrantId;

    fn run() -> RunRecord {
        RunRecord {
            id: RunId::random(),
            tenant: TenantId::random(),
            parents: vec![RunId::random()],
            principal: PrincipalLabel::host(),
            agent: "sleeper".parse().expect("a name"),
            sealed: vec![SealedGrant { grant: GrantId::random(), approved: Digest::of_package(b"a", b"b") }],
            tools: Some(vec!["stripe.refund".parse().expect("a scope")]),
            created: UnixMillis(1),
            deadline: UnixMillis(2),
            state: RunState::Open,
            generation: 3,
            token_hash: [7; 32],
        }
    }

    #[test]
    fn p7_a_checkpoint_is_made_of_references_names_and_times() {
        // Whole and typed: a field that is added must be looked at here.
        let RunCheckpoint { format, tenant, run, parents, agent, grants, tools, created, deadline, issued, generation } =
            RunCheckpoint::of(&run(), UnixMillis(5));
        let _: (u32, u64) = (format, generation);
        let _: (TenantId, RunId, Vec<RunId>, AgentName) = (tenant, run, parents, agent);
        let _: (Vec<SealedGrant>, Option<Vec<ToolScope>>) = (grants, tools);
        let _: [UnixMillis; 3] = [created, deadline, issued];
    }

    #[test]
    fn t08_a_checkpoint_survives_its_text_and_is_of_its_run_only() {
        let run = run();
        let signed = SignedCheckpoint::new(RunCheckpoint::of(&run, UnixMillis(5)), [0xab; 32]);
        let text = serde_json::to_string_pretty(&signed).expect("plain data");
        let read: SignedCheckpoint = serde_json::from_str(&text).expect("reads");
        assert_eq!(read.checkpoint.canonical(), signed.checkpoint.canonical(), "whatever its white space");
        assert!(read.has_mac([0xab; 32]) && !read.has_mac([0xac; 32]));
        assert!(read.checkpoint.is_of(&run));
        assert!(!read.checkpoint.is_of(&RunRecord { generation: 4, ..run.clone() }));
        assert!(!read.checkpoint.is_of(&RunRecord { tools: None, ..run.clone() }));
        assert!(!read.checkpoint.is_of(&RunRecord { deadline: UnixMillis(9), ..run }));
        let upper = SignedCheckpoint { mac: read.mac.to_uppercase(), ..read };
        assert!(!upper.has_mac([0xab; 32]), "it has one spelling");
    }
}
