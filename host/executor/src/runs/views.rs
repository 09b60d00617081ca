//! What is asked of runs and what is shown of them: plain data. A run's token is no part of it.

use keybearer_contract::AgentName;
use keybearer_contract::GrantId;
use keybearer_contract::RunId;
use keybearer_contract::UnixMillis;
use keybearer_gate::PrincipalLabel;
use keybearer_gate::RunRecord;
use keybearer_gate::RunState;
use keybearer_gate::ToolScope;
use serde::Deserialize;
use serde::Serialize;
use utoipa::ToSchema;

/// A new run.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// What the agent is called: 1 to 63 of `a-z`, `A-Z`, `0-9` and `-_.:/@`.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// What it may call, `package` or `package.tool`; all that its opener may, where none are named.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    pub tools: Option<Vec<ToolScope>>,
    /// How long it lasts at the most, in milliseconds; never longer than the run that it is opened within, the
    /// token that opens it, or the operator's ceiling.
    #[serde(default)]
    pub life_ms: Option<u64>,
}

/// A run, without its token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The id.
    #[schema(value_type = String)]
    pub id: RunId,
    /// The runs that it was opened within, the first of the chain first.
    #[schema(value_type = Vec<String>)]
    pub parents: Vec<RunId>,
    /// Who opened it, or the first of its parents.
    #[schema(value_type = String)]
    pub principal: PrincipalLabel,
    /// What the agent is called.
    #[schema(value_type = String)]
    pub agent: AgentName,
    /// What it may call.
    #[schema(value_type = Option<Vec<String>>)]
    pub tools: Option<Vec<ToolScope>>,
    /// The grants that it holds, as far as the tenant holds them still.
    #[schema(value_type = Vec<String>)]
    pub grants: Vec<GrantId>,
    /// When it was opened, in milliseconds since 1970.
    #[schema(value_type = u64)]
    pub created: UnixMillis,
    /// When it ends by itself.
    #[schema(value_type = u64)]
    pub deadline: UnixMillis,
    /// `open`, `finished`, `aborted`, `expired` or `revoked`.
    pub state: String,
    /// Since when it is over.
    #[schema(value_type = Option<u64>)]
    pub ended: Option<UnixMillis>,
    /// How often it was resumed.
    pub generation: u64,
    /// Calls of it that run now.
    pub running: u64,
}

/// A run that was ended.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunEnded {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// Runs that were ended by this, the sub-runs among them; 0 if it had ended before.
    pub runs: u64,
    /// Calls that were cut off.
    pub cancelled: u64,
}

impl RunView {
    pub(crate) fn of(run: &RunRecord, running: usize) -> Self {
        let (state, ended) = match run.state {
            RunState::Open => ("open", None),
            RunState::Ended { how, at } => (how.as_str(), Some(at)),
        };
        Self {
            id: run.id.clone(),
            parents: run.parents.clone(),
            principal: run.principal.clone(),
            agent: run.agent.clone(),
            tools: run.tools.clone(),
            grants: run.sealed.iter().map(|sealed| sealed.grant.clone()).collect(),
            created: run.created,
            deadline: run.deadline,
            state: state.to_owned(),
            ended,
            generation: run.generation,
            running: running as u64,
        }
    }
}
