//! The SPIFFE Workload API: two calls of gRPC to an agent on a local socket. The X.509-SVIDs come on a stream that is
//! held open, and each message is handed to the strongbox as it arrives; a JWT-SVID is asked for when it is needed.
//!
//! Not for reading a message: the keys stand in them. The operator names the socket, and says which tenant may use
//! which id; no answer and no recipe does.

mod grpc;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use keybearer_contract::TenantId;
use keybearer_contract::UnixMillis;
use keybearer_gate::Refusal;
use keybearer_gate::SpiffeId;
use keybearer_gate::SpiffeJwt;
use keybearer_gate::SpiffeX509;
use keybearer_strongbox::Strongbox;
use keybearer_strongbox::SvidsChanged;
use keybearer_strongbox::Yield;
use parking_lot::Mutex;

use crate::MintFault;
use crate::Transport;
use crate::spiffe::grpc::CallFault;
use crate::way::Way;

/// The Workload API of this host, and who may use what it gives.
pub struct WorkloadApi {
    socket: PathBuf,
    tenants: HashMap<SpiffeId, Vec<TenantId>>,
    state: Mutex<WorkloadState>,
}

/// How it stands with the stream of X.509-SVIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkloadState {
    /// It has not given anything yet.
    #[default]
    Connecting,
    /// It is open: what is held is the newest.
    Live,
    /// It is broken: what is held is used until it ends.
    Broken,
    /// The agent says that this host has no identity: nothing is held.
    Denied,
}

/// The first wait before the agent is asked again; doubled each time (Workload API §4.3 asks for a backoff).
const RETRY_MIN: Duration = Duration::from_millis(250);

/// An agent that comes back is found within this.
const RETRY_MAX: Duration = Duration::from_secs(15);

impl WorkloadApi {
    /// The one at this socket; `tenants` says whose each id is.
    #[must_use]
    pub fn new(socket: PathBuf, tenants: HashMap<SpiffeId, Vec<TenantId>>) -> Self {
        Self { socket, tenants, state: Mutex::default() }
    }

    /// How it stands with the stream.
    #[must_use]
    pub fn state(&self) -> WorkloadState {
        *self.state.lock()
    }

    /// Whether the operator lets a tenant use an id.
    #[must_use]
    pub fn is_for(&self, tenant: &TenantId, id: &SpiffeId) -> bool {
        self.tenants.get(id).is_some_and(|tenants| tenants.contains(tenant))
    }

    /// Holds the stream of X.509-SVIDs open for ever, and hands what comes to the strongbox; `changed` hears what that
    /// changed.
    pub async fn watch(&self, strongbox: &Strongbox, changed: impl Fn(SvidsChanged)) {
        let mut retry = RETRY_MIN;
        loop {
            let was_told = self.stream(strongbox, &changed).await;
            match was_told {
                Ok(()) => retry = RETRY_MIN,
                Err(CallFault::Denied) => {
                    self.enter(WorkloadState::Denied);
                    changed(strongbox.forget_svids());
                }
                Err(fault) => {
                    if matches!(fault, CallFault::Cut) {
                        retry = RETRY_MIN;
                    }
                    if self.state() != WorkloadState::Denied {
                        self.enter(WorkloadState::Broken);
                    }
                    tracing::debug!(%fault, "the Workload API gave no more");
                }
            }
            tokio::time::sleep(retry).await;
            retry = (2 * retry).min(RETRY_MAX);
        }
    }

    /// One stream, to its end.
    async fn stream(&self, strongbox: &Strongbox, changed: &impl Fn(SvidsChanged)) -> Result<(), CallFault> {
        let mut stream = grpc::call(&self.socket, "FetchX509SVID", &[]).await?;
        let mut has_told = false;
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                // It had worked: the next try is soon.
                Ok(None) | Err(CallFault::Unreachable) if has_told => return Err(CallFault::Cut),
                Ok(None) => return Err(CallFault::Unreachable),
                Err(fault) => return Err(fault),
            };
            match strongbox.take_svids(message) {
                Ok(told) => {
                    has_told = true;
                    self.enter(WorkloadState::Live);
                    changed(told);
                }
                Err(refused) => {
                    tracing::warn!(%refused, "what is held stays");
                    return Err(CallFault::Malformed);
                }
            }
        }
    }

    fn enter(&self, state: WorkloadState) {
        let before = std::mem::replace(&mut *self.state.lock(), state);
        if before == state {
            return;
        }
        match state {
            WorkloadState::Connecting | WorkloadState::Live => tracing::info!("the Workload API gives identities"),
            WorkloadState::Broken => {
                tracing::warn!("the Workload API cannot be reached: what is held is used until it ends");
            }
            WorkloadState::Denied => tracing::warn!("the Workload API has no identity for this host: none is held"),
        }
    }
}

/// The name under which an SVID is held.
pub(crate) const SVID: &str = "svid";

/// The newest X.509-SVID, for a connection to an upstream.
pub(crate) fn x509(recipe: &SpiffeX509, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let life_s = hold_x509(&recipe.spiffe_id, way)?;
    Ok(Yield { parts: vec![SVID], life_s: Some(life_s), ..Yield::default() })
}

/// A JWT-SVID, for an upstream that takes it as a bearer token.
pub(crate) async fn jwt(recipe: &SpiffeJwt, way: &mut Way<'_, impl Transport>) -> Result<Yield, MintFault> {
    let life_s = hold_jwt(&recipe.spiffe_id, &recipe.audience, way).await?;
    Ok(Yield { parts: vec![SVID], life_s: Some(life_s), ..Yield::default() })
}

/// Puts the newest X.509-SVID of an id into the vessel. Returns for how many seconds it holds.
pub(crate) fn hold_x509(id: &SpiffeId, way: &mut Way<'_, impl Transport>) -> Result<u64, MintFault> {
    way.workload_of(id)?;
    let now = UnixMillis::now();
    let (strongbox, vessel) = way.strongbox_and_vessel();
    let facts = strongbox.svid(id, vessel, SVID, now).ok_or_else(|| no_svid(id))?;
    Ok(facts.ends.0.saturating_sub(now.0) / 1_000)
}

/// Asks for a JWT-SVID and puts it into the vessel. Returns for how many seconds it holds.
pub(crate) async fn hold_jwt(
    id: &SpiffeId,
    audience: &str,
    way: &mut Way<'_, impl Transport>,
) -> Result<u64, MintFault> {
    let api = way.workload_of(id)?;
    let request = grpc::jwt_request(audience, id.as_str());
    let asked = async {
        let mut stream = grpc::call(&api.socket, "FetchJWTSVID", &request).await?;
        stream.message().await?.ok_or(CallFault::Malformed)
    };
    let message = match tokio::time::timeout_at(way.deadline(), asked).await {
        Ok(Ok(message)) => message,
        Ok(Err(CallFault::Denied)) => return Err(no_svid(id)),
        Ok(Err(fault)) => {
            tracing::debug!(%fault, "the Workload API gave no JWT-SVID");
            return Err(MintFault::Unavailable);
        }
        Err(_) => return Err(MintFault::TimedOut),
    };
    let (strongbox, vessel) = way.strongbox_and_vessel();
    strongbox.take_jwt_svid(message, (id, audience), (vessel, SVID), UnixMillis::now()).map_err(|refused| {
        tracing::warn!(%refused, "a JWT-SVID is not used");
        MintFault::Unavailable
    })
}

/// One answer for an id that is not held, and for one that is not this tenant's.
pub(crate) fn no_svid(id: &SpiffeId) -> MintFault {
    MintFault::NotCleared(Refusal::NoSvid { spiffe_id: id.as_str().to_owned() })
}
