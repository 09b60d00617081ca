//! The host's own identities: the Workload API is watched while the executor runs, and connections that proved an
//! identity which was replaced are closed.

use std::sync::Arc;

use keybearer_gate::SpiffeId;
use keybearer_sources::WorkloadApi;
use keybearer_sources::WorkloadState;
use keybearer_strongbox::SvidsChanged;
use tokio::task::AbortHandle;

use crate::Executor;

/// How it stands with the host's identities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkloadView {
    /// The stream from the Workload API.
    pub state: WorkloadState,
    /// Identities that are held and not over.
    pub held: u64,
    /// Identities that are over: no newer one came in time.
    pub over: u64,
}

impl Executor {
    /// Watches the Workload API from now on, once; nothing happens the second time. What is returned ends it.
    pub fn attach_workload(self: &Arc<Self>, api: WorkloadApi) -> Option<AbortHandle> {
        let api = Arc::new(api);
        self.workload.set(Arc::clone(&api)).ok()?;
        let executor = Arc::clone(self);
        let watching = tokio::spawn(async move {
            api.watch(&executor.strongbox, |changed| executor.take_changed(&changed)).await;
        });
        Some(watching.abort_handle())
    }

    /// How it stands with the host's identities; none if the operator named no Workload API.
    #[must_use]
    pub fn workload(&self) -> Option<WorkloadView> {
        let state = self.workload.get()?.state();
        let now = keybearer_contract::UnixMillis::now();
        let ends: Vec<_> = self.strongbox.svid_facts().iter().map(|facts| now < facts.ends).collect();
        let held = ends.iter().filter(|holds| **holds).count() as u64;
        Some(WorkloadView { state, held, over: ends.len() as u64 - held })
    }

    /// Connections that proved an earlier identity are not used again (the pool's key holds the certificate), and are
    /// closed here instead of when they have idled.
    fn take_changed(&self, changed: &SvidsChanged) {
        for svid in &changed.fresh {
            tracing::info!(id = %svid.id, serial = svid.serial, ends_ms = svid.ends.0, "an identity was replaced");
        }
        for id in &changed.gone {
            tracing::warn!(%id, "an identity was taken away");
        }
        let is_changed = |id: &SpiffeId| changed.gone.contains(id) || changed.fresh.iter().any(|svid| svid.id == *id);
        for tenant in self.store.tenants() {
            for record in self.store.credentials(&tenant.id) {
                if record.kind.x509_svid().is_some_and(is_changed) {
                    self.egress.close_connections(&tenant.id, &record.id);
                }
            }
        }
    }
}
