//! Packages as calls see them: which version of a package a tenant's call runs, with its compiled
//! component and schemas at hand. The newest version that the tenant's grants cover is what runs, so
//! that a new version which asks for more breaks nobody before its differences are approved.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::IdMap;
use keybearer_contract::PackageName;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_gate::Approved;
use keybearer_gate::Grant;
use keybearer_gate::RunRecord;
use keybearer_gate::TenantContext;
use keybearer_sandbox::Sandbox;
use keybearer_sandbox::Tool;
use keybearer_store::PackageRecord;
use keybearer_store::Store;
use parking_lot::RwLock;
use tokio::sync::OnceCell;

use crate::CallRequest;
use crate::schemas::Schemas;

/// Packages that were called, ready to run.
pub(crate) struct Catalogue {
    store: Arc<Store>,
    sandbox: Arc<Sandbox>,
    revoked: Vec<String>,
    ready: RwLock<IdMap<Digest, Arc<Package>>>,
}

/// One version of a package, ready to run.
pub(crate) struct Package {
    pub(crate) record: Arc<PackageRecord>,
    pub(crate) schemas: Schemas,
    tool: OnceCell<Arc<Tool>>,
}

/// What a call runs: the package, and the grants of its tenant that hold for it.
pub(crate) struct Resolved {
    pub(crate) package: Arc<Package>,
    pub(crate) grants: Arc<[Grant]>,
}

impl Catalogue {
    /// `revoked` are the signers whose packages run no more, though they are published and approved.
    pub(crate) fn new(store: Arc<Store>, sandbox: Arc<Sandbox>, revoked: Vec<String>) -> Self {
        Self { store, sandbox, revoked, ready: RwLock::default() }
    }

    /// Whether packages of this signer may run.
    pub(crate) fn is_trusted(&self, signer: &String) -> bool {
        !self.revoked.contains(signer) && !self.store.is_signer_revoked(signer)
    }

    /// Lets go of a package that was held ready, and says whether it was.
    pub(crate) fn forget(&self, digest: &Digest) -> bool {
        self.ready.write().remove(digest).is_some()
    }

    fn is_open(&self, record: &PackageRecord, tenant: &TenantId) -> bool {
        record.is_open_to(tenant) && self.is_trusted(&record.signer)
    }

    /// The versions of a package that a tenant may see, newest first. Unknown and not visible are the
    /// same empty answer.
    pub(crate) fn visible(&self, tenant: &TenantId, name: &PackageName) -> Vec<Arc<PackageRecord>> {
        let versions = self.store.versions(name);
        versions.iter().filter(|record| self.is_open(record, tenant)).cloned().collect()
    }

    /// What a call runs.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or not visible; [`Code::GrantMissing`] where no grant covers it.
    pub(crate) fn resolve(&self, context: &TenantContext, request: &CallRequest) -> Result<Resolved, Problem> {
        let tenant = context.tenant();
        if !context.may_call(&request.tool) || self.store.is_tool_revoked(&request.tool) {
            return Err(Problem::not_found());
        }
        let versions = self.store.versions(&request.tool.package);
        let mut candidates = versions
            .iter()
            .filter(|record| self.is_open(record, tenant))
            .filter(|record| request.package.is_none_or(|digest| digest == record.digest))
            .filter(|record| record.tools.iter().any(|tool| tool.name == request.tool.tool))
            .peekable();
        if candidates.peek().is_none() {
            return Err(Problem::not_found());
        }
        let grants = self.grants(context, &request.tool.package);
        if grants.is_empty() {
            let hint = "give one with `keybearer grant add`, after a look at what the package asks for";
            return Err(Problem::new(Code::GrantMissing, hint));
        }
        // After the grants: whoever has none learns of no incident.
        if self.store.is_quarantined(tenant, &request.tool) {
            return Err(Problem::new(Code::Quarantined, "nothing was done: ask the operator when it runs again"));
        }
        let covered = candidates.find(|record| self.is_covered(context, &grants, record));
        let Some(record) = covered else {
            let hint =
                "this version asks for more than was approved: look at the differences of its grants and approve them";
            return Err(Problem::new(Code::GrantMissing, hint));
        };
        Ok(Resolved { package: self.ready(record)?, grants })
    }

    /// The tenant's grants of a package; within a run those that were sealed.
    pub(crate) fn grants(&self, context: &TenantContext, name: &PackageName) -> Arc<[Grant]> {
        let grants = self.store.grants_of_package(context.tenant(), name);
        match context.run() {
            None => grants,
            Some(run) => grants.iter().filter(|grant| run.seals(&grant.id)).cloned().collect(),
        }
    }

    /// Whether all of these grants cover a version, as they are now and as they were when the run was opened.
    pub(crate) fn is_covered(&self, context: &TenantContext, grants: &[Grant], record: &PackageRecord) -> bool {
        let was_sealed = |grant: &Grant| context.run().is_none_or(|run| self.was_sealed(run, grant, record));
        grants.iter().all(|grant| covers(grant, record) && was_sealed(grant))
    }

    /// Whether a version asks for nothing beyond what had been approved when the run was opened: what is approved
    /// later is not the run's.
    fn was_sealed(&self, run: &RunRecord, grant: &Grant, record: &PackageRecord) -> bool {
        let Some(sealed) = run.sealed.iter().find(|sealed| sealed.grant == grant.id) else { return false };
        if sealed.approved == grant.approved.package || sealed.approved == record.digest {
            return true;
        }
        let approved = self.store.package(&sealed.approved);
        approved.is_some_and(|approved| surface(grant, &approved).covers(&surface(grant, record)))
    }

    /// The compiled component, compiled or taken from the cache at the first call.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] or [`Code::Internal`]: a published component has compiled before.
    pub(crate) async fn tool(&self, package: &Package) -> Result<Arc<Tool>, Problem> {
        if let Some(tool) = package.tool.get() {
            return Ok(Arc::clone(tool));
        }
        // Boxed: every call would carry it about, and one in thousands needs it.
        let tool = Box::pin(package.tool.get_or_try_init(|| async {
            let (store, digest) = (Arc::clone(&self.store), package.record.digest);
            let component = tokio::task::spawn_blocking(move || store.component(&digest))
                .await
                .map_err(|_| Problem::new(Code::Internal, "try again"))?
                .map_err(Problem::from)?;
            let wasi = &package.record.manifest.wasi;
            self.sandbox.load(&digest, &component, wasi).await.map_err(|refused| {
                tracing::error!(package = %digest, reason = %refused, "a published component does not load");
                Problem::new(Code::Internal, "tell the operator that this package does not load")
            })
        }));
        tool.await.map(Arc::clone)
    }

    fn ready(&self, record: &Arc<PackageRecord>) -> Result<Arc<Package>, Problem> {
        if let Some(package) = self.ready.read().get(&record.digest) {
            return Ok(Arc::clone(package));
        }
        let schemas = Schemas::compile(&record.tools)?;
        let package = Arc::new(Package { record: Arc::clone(record), schemas, tool: OnceCell::new() });
        Ok(Arc::clone(self.ready.write().entry(record.digest).or_insert(package)))
    }
}

/// Whether a grant covers a version. The common case, the very version that was approved, compares two
/// digests and the signers.
pub(crate) fn covers(grant: &Grant, record: &PackageRecord) -> bool {
    if grant.approved.package == record.digest && grant.approved.signer == record.signer {
        return true;
    }
    grant.approved.covers(&surface(grant, record))
}

/// What a version asks for, seen from one grant.
pub(crate) fn surface(grant: &Grant, record: &PackageRecord) -> Approved {
    Approved::of(&record.manifest, record.digest, &record.signer, &record.tools, grant.slot.as_ref())
}
