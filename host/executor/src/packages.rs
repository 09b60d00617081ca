//! The operator's catalogue: packages are verified, compiled and asked to describe themselves once, at
//! publish, and what they said is frozen under their digest.

use std::sync::Arc;

use keybearer_contract::Code;
use keybearer_contract::Digest;
use keybearer_contract::Finding;
use keybearer_contract::Manifest;
use keybearer_contract::Problem;
use keybearer_contract::TenantId;
use keybearer_contract::ToolDescription;
use keybearer_contract::ToolRef;
use keybearer_contract::UnixMillis;
use keybearer_gate::OperatorContext;
use keybearer_gate::TenantContext;
use keybearer_ledger::Act;
use keybearer_ledger::ActKind;
use keybearer_sandbox::Sandbox;
use keybearer_store::PackageRecord;
use keybearer_store::Rollback;

use crate::Executor;
use crate::PackageView;
use crate::ToolView;
use crate::bundle::Bundle;
use crate::rows::one_more;
use crate::schemas::Schemas;

/// How a package is published.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// Whether a version number that is older than one that is there is published (threats W13).
    pub rollback: Rollback,
    /// The tenants that may see it; none means every one.
    pub visible_to: Option<Vec<TenantId>>,
}

impl Executor {
    /// Publishes a signed bundle.
    ///
    /// # Errors
    /// [`Code::SignatureRefused`] unless a trusted signer signed it; [`Code::PackageInvalid`] with the reason for a
    /// component, manifest or schema that is refused; [`Code::Conflict`] for an older version number; [`Code::TooMany`].
    pub async fn publish(
        &self,
        operator: &OperatorContext,
        bundle: Vec<u8>,
        options: PublishOptions,
    ) -> Result<PackageView, Problem> {
        let bundle = Bundle::from_bytes(&bundle)?;
        let signature = bundle.signature().ok_or_else(|| {
            Problem::new(Code::SignatureRefused, "the package is not signed: use `keybearer tool sign`")
        })?;
        if !self.signers.trusts(&signature.signer) || self.store.is_signer_revoked(&signature.signer) {
            let hint = format!(
                "if you trust `{}`, list it under `packages.trusted_signers` and restart the server, which reads the \
                 list when it starts",
                signature.signer
            );
            return Err(Problem::new(Code::SignatureRefused, hint));
        }
        let signer = signature.signer.clone();
        let (tools, findings) = describe(&self.sandbox, &bundle).await?;
        if let Some(finding) = findings.first() {
            let detail = format!("{}: {}", finding.place, finding.message);
            return Err(Problem::new(Code::PackageInvalid, detail));
        }
        let record = PackageRecord {
            name: bundle.manifest().package.name.clone(),
            digest: bundle.digest(),
            manifest: bundle.manifest().clone(),
            manifest_text: bundle.manifest_text().as_bytes().to_vec(),
            tools,
            signer,
            published: UnixMillis::now(),
            visible_to: options.visible_to,
            withdrawn: None,
        };
        let turn = self.rows.turn().await;
        // The same one once more takes no further place.
        let others = self.store.packages().iter().filter(|other| other.digest != record.digest).count();
        one_more("packages", others, self.rows.ceilings.packages, "no further version can be published")?;
        let (store, stored, component) = (Arc::clone(&self.store), record.clone(), bundle.component().to_vec());
        let known = self.store.package(&record.digest);
        if known.is_some_and(|known| known.withdrawn.is_some() || known.signer != record.signer) {
            // Said before it can run again: the ledger never shows a use that looks forbidden.
            self.record_published(operator, &record).await?;
        }
        crate::blocking(move || store.publish(stored, &component, options.rollback)).await?;
        drop(turn);
        self.record_published(operator, &record).await?;
        Ok(view(&record, findings))
    }

    /// Every published version of every package.
    #[must_use]
    pub fn packages(&self, _operator: &OperatorContext) -> Vec<PackageView> {
        self.store.packages().iter().map(|record| view(record, Vec::new())).collect()
    }

    /// One version.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn package(&self, operator: &OperatorContext, digest: &Digest) -> Result<PackageView, Problem> {
        self.packages(operator).into_iter().find(|view| view.digest == *digest).ok_or_else(Problem::not_found)
    }

    /// The tools that the tenant may see.
    ///
    /// # Errors
    /// [`Code::Forbidden`] without the scope.
    pub fn tools(&self, context: &TenantContext) -> Result<Vec<ToolView>, Problem> {
        context.require(keybearer_gate::Scope::Call)?;
        let mut names: Vec<_> = self.store.packages().iter().map(|record| record.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        let mut views = Vec::new();
        for name in names.iter().filter(|name| context.may_see(name)) {
            let versions = self.catalogue.visible(context.tenant(), name);
            let grants = self.catalogue.grants(context, name);
            let covered = versions.iter().find(|record| self.catalogue.is_covered(context, &grants, record));
            let granted = !grants.is_empty() && covered.is_some();
            if let Some(record) = covered.or(versions.first()) {
                let running = record.tools.iter().filter(|tool| {
                    let name = ToolRef { package: record.name.clone(), tool: tool.name.clone() };
                    !self.store.is_tool_revoked(&name) && context.may_call(&name)
                });
                views.extend(running.map(|tool| tool_view(record, tool, granted)));
            }
        }
        Ok(views)
    }

    /// One tool that the tenant may see.
    ///
    /// # Errors
    /// [`Code::NotFound`] for what is not there or not visible.
    pub fn tool(&self, context: &TenantContext, name: &ToolRef) -> Result<ToolView, Problem> {
        self.tools(context)?.into_iter().find(|view| view.name == *name).ok_or_else(Problem::not_found)
    }

    /// Recorded with who signed it: so the ledger alone shows whose packages ran after their signer was revoked.
    async fn record_published(&self, operator: &OperatorContext, record: &PackageRecord) -> Result<(), Problem> {
        let act = crate::act::of_operator(operator, ActKind::PackagePublished, &record.digest.to_string());
        self.record(Act { note: record.signer.clone(), ..act }).await
    }
}

/// Compiles a component and has it describe itself, without publishing: what `keybearer tool check` runs.
///
/// # Errors
/// [`Code::PackageInvalid`] with the reason.
pub async fn check_component(bundle: &Bundle) -> Result<(Vec<ToolDescription>, Vec<Finding>), Problem> {
    let sandbox = Sandbox::new(crate::open::checking_sandbox()).map_err(|error| {
        tracing::error!(%error, "the sandbox cannot be made");
        Problem::new(Code::Internal, "the sandbox cannot be made: try `keybearer doctor`")
    })?;
    describe(&sandbox, bundle).await
}

async fn describe(sandbox: &Sandbox, bundle: &Bundle) -> Result<(Vec<ToolDescription>, Vec<Finding>), Problem> {
    let refuse = |why: String| Problem::new(Code::PackageInvalid, why);
    let wasi = &bundle.manifest().wasi;
    let loaded = sandbox.load(&bundle.digest(), bundle.component(), wasi).await;
    let tool = loaded.map_err(|refused| refuse(refused.to_string()))?;
    let limits = &bundle.manifest().limits;
    let tools =
        sandbox.describe(&tool, limits).await.map_err(|why| refuse(format!("the component is refused: {why}")))?;
    Schemas::compile(&tools)?;
    let findings = keybearer_contract::check_description(bundle.manifest(), &tools);
    Ok((tools, findings))
}

fn tool_view(record: &PackageRecord, tool: &ToolDescription, granted: bool) -> ToolView {
    let manifest: &Manifest = &record.manifest;
    ToolView {
        name: ToolRef { package: record.name.clone(), tool: tool.name.clone() },
        package: record.digest,
        version: manifest.package.version.clone(),
        description: tool.description.clone(),
        input_schema: tool.input_schema.clone(),
        output_schema: tool.output_schema.clone(),
        read_only: tool.read_only,
        idempotent: tool.idempotent,
        granted,
        slots: manifest.slots.iter().map(|slot| slot.name.clone()).collect(),
    }
}

fn view(record: &PackageRecord, findings: Vec<Finding>) -> PackageView {
    PackageView {
        name: record.name.clone(),
        version: record.manifest.package.version.clone(),
        digest: record.digest,
        signer: record.signer.clone(),
        manifest: record.manifest.clone(),
        tools: record.tools.clone(),
        published: record.published,
        withdrawn: record.withdrawn,
        findings,
    }
}
