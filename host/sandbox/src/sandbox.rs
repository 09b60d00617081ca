//! The sandbox: an engine, its linked tools, and the ways in: load, describe, instance.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::ToolDescription;
use keybearer_contract::Wasi;
use keybearer_gate::Permit;
use wasmtime::Engine;
use zeroize::Zeroizing;

use crate::cache::Cache;
use crate::describe;
use crate::describe::DescribeFailed;
use crate::engine;
use crate::instance::CallSetup;
use crate::instance::Instance;
use crate::load::CompileMode;
use crate::load::Loader;
use crate::outlet::Outlet;
use crate::refused::LoadFailed;
use crate::tool::Tool;

/// How a sandbox is set up.
pub struct SandboxConfig {
    /// Where compiled code is kept; none for nowhere.
    pub cache_dir: Option<PathBuf>,
    /// Under which the MAC of a cache entry is made.
    pub cache_key: Zeroizing<[u8; 32]>,
    /// What no call exceeds; the pool's slots are cut to it.
    pub ceilings: Limits,
    /// How many guests may run at once. Each reserves some 8 GiB of address space, and no memory.
    pub instances: u32,
    /// Where components are compiled.
    pub compile: CompileMode,
    /// How long a guest holds a thread before it gives it back.
    pub tick: Duration,
}

/// The sandbox cannot be set up; says why, for the operator.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot be set up: {0}")]
pub struct SetupFailed(pub(crate) String);

/// An engine and the tools that it has loaded.
pub struct Sandbox {
    engine: Engine,
    ceilings: Limits,
    loader: Loader,
}

impl Sandbox {
    /// Sets a sandbox up: reserves the pool, opens the cache, starts the ticker.
    ///
    /// # Errors
    /// [`SetupFailed`].
    pub fn new(config: SandboxConfig) -> Result<Self, SetupFailed> {
        let SandboxConfig { cache_dir, cache_key, ceilings, instances, compile, tick } = config;
        let engine = engine::running(&ceilings, instances).map_err(|error| SetupFailed(format!("{error:#}")))?;
        let cache = cache_dir
            .map(|folder| Cache::open(folder, &cache_key, &engine))
            .transpose()
            .map_err(|error| SetupFailed(format!("the folder of compiled code: {error}")))?;
        engine::start_ticking(&engine, tick).map_err(|error| SetupFailed(error.to_string()))?;
        Ok(Self { loader: Loader::new(engine.clone(), ceilings, cache, compile), engine, ceilings })
    }

    /// The tool, if it is loaded. The way of every call but the first: nothing is read or compiled.
    #[must_use]
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Tool>> {
        self.loader.loaded(digest)
    }

    /// Loads a package's component: from memory, from the cache, or by compiling it. At publish this is
    /// the check of the component, too: what does not load is refused there.
    ///
    /// `digest` is the package's, and the caller has verified that it covers `component` and the
    /// manifest from which `wasi` is.
    ///
    /// # Errors
    /// [`LoadFailed`], by the party at fault.
    pub async fn load(&self, digest: &Digest, component: &[u8], wasi: &Wasi) -> Result<Arc<Tool>, LoadFailed> {
        self.loader.load(digest, component, wasi).await
    }

    /// Asks a package what it holds, in a fresh instance without a way out: every request is denied. `limits`
    /// are its manifest's: what does not even begin within them is refused.
    ///
    /// # Errors
    /// [`DescribeFailed`].
    pub async fn describe(&self, tool: &Tool, limits: &Limits) -> Result<Vec<ToolDescription>, DescribeFailed> {
        describe::describe(&self.engine, tool, self.ceilings, limits).await
    }

    /// Makes a fresh instance for one call. The permit is spent.
    pub fn instance<O: Outlet>(&self, permit: Permit, tool: &Arc<Tool>, outlet: O, setup: CallSetup) -> Instance {
        Instance {
            engine: self.engine.clone(),
            tool: Arc::clone(tool),
            facts: permit.spend(),
            way: Box::new(outlet),
            setup: CallSetup { limits: setup.limits.min(self.ceilings), ..setup },
        }
    }
}
