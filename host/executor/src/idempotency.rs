//! Idempotency keys: the same key of the same tenant never runs twice. What is kept is the scrubbed
//! answer, sealed under the tenant's key (P7). A call that was cut off before it could say how it ended
//! answers `outcome_unknown` and is never run again.

use std::sync::Arc;

use keybearer_contract::CallId;
use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Problem;
use keybearer_contract::RunId;
use keybearer_contract::TenantId;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::Facts;
use keybearer_store::Begun;
use keybearer_store::IdempotencyKey;
use keybearer_store::IdempotentCall;
use keybearer_store::PURGED_AT_ONCE;
use serde::Deserialize;
use serde::Serialize;

use crate::Answer;
use crate::CallRequest;
use crate::Executor;
use crate::LogView;

/// The longest key (draft-ietf-httpapi-idempotency-key-header leaves it to the server; threats H17).
const KEY_BYTES_MAX: usize = 255;

const SEAL_CONTEXT: &str = "idempotency answer";

/// How a call with or without a key goes on.
pub(crate) enum Once {
    /// It ran before: this is its answer.
    Replay(Answer),
    /// It runs now, under its key if it has one.
    Run(Option<IdempotentCall>),
}

/// What is kept of an answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) call: CallId,
    pub(crate) run: RunId,
    pub(crate) tool: ToolRef,
    pub(crate) package: Digest,
    pub(crate) result: String,
    pub(crate) logs: Vec<LogView>,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Answered(Kept),
    Failed(Problem),
}

impl Executor {
    pub(crate) async fn once(self: &Arc<Self>, facts: &Facts, request: &CallRequest) -> Result<Once, Problem> {
        let Some(key) = &request.idempotency_key else { return Ok(Once::Run(None)) };
        if key.is_empty() || key.len() > KEY_BYTES_MAX || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let hint = "an Idempotency-Key is 1 to 255 visible ASCII characters, such as a UUID";
            return Err(Problem::new(Code::MalformedRequest, hint));
        }
        let key_hash = blake3::derive_key("keybearer 2026-11 idempotency key", key.as_bytes());
        let request_hash = hash_of(request);
        let (store, call) = (Arc::clone(&self.store), facts.call.clone());
        let key = IdempotencyKey { tenant: facts.tenant.clone(), hash: key_hash };
        let begun = crate::blocking(move || store.begin(key, &request_hash, &call, UnixMillis::now())).await?;
        match begun {
            Begun::New(running) => Ok(Once::Run(Some(running))),
            Begun::InFlight(_) => Err(Problem::new(Code::IdempotencyInFlight, "wait for the first one to answer")),
            Begun::Mismatch => Err(Problem::new(Code::IdempotencyMismatch, "use a new key for a new request")),
            Begun::Unknown(_) => {
                let hint = "find out at the upstream whether it acted, then use a new key";
                Err(Problem::new(Code::OutcomeUnknown, hint))
            }
            Begun::Done(_, sealed) => {
                let internal = || Problem::new(Code::Internal, "the kept answer cannot be read: use a new key");
                let plain =
                    self.strongbox.open_for_tenant(&facts.tenant, SEAL_CONTEXT, &sealed).map_err(|_| internal())?;
                match serde_json::from_slice(&plain).map_err(|_| internal())? {
                    Outcome::Answered(kept) => Ok(Once::Replay(Answer::kept(kept))),
                    Outcome::Failed(problem) => Err(problem),
                }
            }
        }
    }
}

impl Executor {
    /// Keeps how the call ended, before its caller hears of it. Where the ledger failed it is not known how it
    /// ended: the key then answers `outcome_unknown`.
    pub(crate) async fn finish(
        &self,
        key: IdempotentCall,
        tenant: &TenantId,
        outcome: &Result<Answer, Problem>,
    ) -> Result<(), Problem> {
        if outcome.as_ref().is_err_and(|problem| problem.code == Code::Overloaded) {
            // No instance was free: nothing has run, and the key is free again.
            return crate::blocking(move || key.forget()).await;
        }
        if outcome.as_ref().is_err_and(|problem| problem.code == Code::LedgerUnavailable) {
            return Ok(());
        }
        let kept = match outcome {
            Ok(answer) => Outcome::Answered(Kept {
                call: answer.call().clone(),
                run: answer.run().clone(),
                tool: answer.tool().clone(),
                package: answer.package(),
                result: answer.result().to_owned(),
                logs: answer.logs().to_vec(),
            }),
            Err(problem) => Outcome::Failed(problem.clone()),
        };
        let plain = serde_json::to_vec(&kept).map_err(|_| Problem::new(Code::Internal, "try again with a new key"))?;
        let sealed = self
            .strongbox
            .seal_for_tenant(tenant, SEAL_CONTEXT, &plain)
            .map_err(|_| Problem::new(Code::Internal, "the answer cannot be kept: use a new key"))?;
        crate::blocking(move || key.finish(&sealed)).await
    }
}

impl Executor {
    /// Removes the keys that have ended their life, with what was answered. What cannot be removed is tried again in
    /// a minute.
    pub(crate) async fn purge_answers(&self) {
        loop {
            let store = Arc::clone(&self.store);
            match crate::blocking(move || store.purge(UnixMillis::now())).await {
                Ok(PURGED_AT_ONCE) => {}
                Ok(_) => return,
                Err(problem) => {
                    tracing::warn!(%problem, "idempotency keys whose life is over could not be removed");
                    return;
                }
            }
        }
    }
}

/// What makes two requests the same one: tool, arguments (however they are written) and pinned package. Not the
/// attempt's number.
fn hash_of(request: &CallRequest) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("keybearer 2026-11 idempotent request");
    for part in [
        request.tool.to_string().as_bytes(),
        crate::canonical::canonical(&request.arguments).as_bytes(),
        request.package.as_ref().map_or(&[][..], |digest| &digest.as_bytes()[..]),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}
