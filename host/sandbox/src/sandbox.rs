//! The sandbox: an engine, its linked tools, and the ways in: load, describe, instance.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::ToolDescription;
use keybearer_contract::Wasi;
use keybearer_gate::Permit;
use parking_lot::Mutex;
use wasmtime::Engine;
use zeroize::Zeroizing;

use crate::describe;
use crate::describe::DescribeFailed;
use crate::engine;
use crate::instance::CallSetup;
use crate::instance::Instance;
use crate::outlet::Outlet;
use crate::precompiled;
use crate::precompiled::Vouched;
use crate::refused::ComponentRefused;
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
    /// How many guests may run at once.
    pub instances: u32,
    /// Where components are compiled.
    pub compile: CompileMode,
    /// How long a guest holds a thread before it gives it back.
    pub tick: Duration,
}

/// Where components are compiled.
#[derive(Debug, Clone)]
pub enum CompileMode {
    /// In this process: for one's own tools.
    InProcess,
    /// In a limited child, one a component.
    Child {
        /// The executable that calls [`crate::compile_child_main`].
        exe: PathBuf,
        /// What to start it with.
        args: Vec<String>,
    },
}

/// The sandbox cannot be set up; says why, for the operator.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox cannot be set up: {0}")]
pub struct SetupFailed(pub(crate) String);

/// An engine and the tools that it has loaded.
pub struct Sandbox {
    engine: Engine,
    ceilings: Limits,
    tools: Mutex<std::collections::HashMap<Digest, Arc<Tool>>>,
}

impl Sandbox {
    /// Sets a sandbox up: reserves the pool, starts the ticker.
    ///
    /// # Errors
    /// [`SetupFailed`].
    pub fn new(config: SandboxConfig) -> Result<Self, SetupFailed> {
        let engine =
            engine::running(&config.ceilings, config.instances).map_err(|error| SetupFailed(format!("{error:#}")))?;
        engine::start_ticking(&engine, config.tick).map_err(|error| SetupFailed(error.to_string()))?;
        Ok(Self { engine, ceilings: config.ceilings, tools: Mutex::default() })
    }

    /// The tool, if it is loaded. The way of every call but the first: nothing is read or compiled.
    #[must_use]
    pub fn loaded(&self, digest: &Digest) -> Option<Arc<Tool>> {
        self.tools.lock().get(digest).cloned()
    }

    /// Loads a package's component: from memory, from the cache, or by compiling it.
    ///
    /// `digest` is the package's, and the caller has verified that it covers `component` and the
    /// manifest from which `wasi` is.
    ///
    /// # Errors
    /// [`LoadFailed`], by the party at fault.
    pub async fn load(&self, digest: &Digest, component: &[u8], wasi: &Wasi) -> Result<Arc<Tool>, LoadFailed> {
        if let Some(tool) = self.loaded(digest) {
            return Ok(tool);
        }
        let engine = self.engine.clone();
        let component = component.to_vec();
        let wasi = wasi.clone();
        let key = *digest;
        let tool = tokio::task::spawn_blocking(move || {
            let code = engine.precompile_component(&component).map_err(|error| ComponentRefused::of(&error))?;
            let component =
                precompiled::load(&engine, &Vouched::on_my_word(code)).map_err(|error| ComponentRefused::of(&error))?;
            Tool::link(key, &component, &wasi)
        })
        .await
        .map_err(|error| LoadFailed::Host(error.to_string()))??;
        let tool = Arc::new(tool);
        self.tools.lock().insert(*digest, Arc::clone(&tool));
        Ok(tool)
    }

    /// Asks a package what it holds, in a fresh instance without a way out: every request is denied.
    ///
    /// # Errors
    /// [`DescribeFailed`].
    pub async fn describe(&self, tool: &Tool) -> Result<Vec<ToolDescription>, DescribeFailed> {
        describe::describe(&self.engine, tool, self.ceilings).await
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
