//! From a component's bytes to a linked tool: look it over, take its code from the cache or compile it,
//! load, link. All of it away from the runtime's threads, and no more than a few compilations at once,
//! so that a publisher's worst component slows nobody's calls.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use keybearer_contract::Digest;
use keybearer_contract::Limits;
use keybearer_contract::Wasi;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use wasmtime::Engine;

use crate::cache;
use crate::cache::CODE_BYTES_MAX;
use crate::cache::Cache;
use crate::child;
use crate::inspect::Inspected;
use crate::inspect::inspect;
use crate::precompiled;
use crate::precompiled::Vouched;
use crate::refused::ComponentRefused;
use crate::refused::LoadFailed;
use crate::shelf::Shelf;
use crate::tool::Tool;

/// Where components are compiled.
#[derive(Debug, Clone)]
pub enum CompileMode {
    /// In this process: for one's own tools.
    InProcess,
    /// In a limited child, one a component: for everybody else's.
    Child {
        /// The executable that calls [`crate::compile_child_main`].
        exe: PathBuf,
        /// What to start it with.
        args: Vec<String>,
    },
}

/// Loads tools and keeps them.
pub(crate) struct Loader {
    engine: Engine,
    ceilings: Limits,
    cache: Option<Arc<Cache>>,
    mode: CompileMode,
    compiling: Semaphore,
    shelf: Shelf,
}

impl Loader {
    pub(crate) fn new(engine: Engine, ceilings: Limits, cache: Option<Cache>, mode: CompileMode) -> Self {
        // Half of the machine, so that calls have the other half.
        let at_once = available_parallelism().map_or(1, NonZeroUsize::get).div_ceil(2);
        Self {
            engine,
            ceilings,
            cache: cache.map(Arc::new),
            mode,
            compiling: Semaphore::new(at_once),
            shelf: Shelf::default(),
        }
    }

    pub(crate) fn loaded(&self, digest: &Digest) -> Option<Arc<Tool>> {
        self.shelf.find(digest)
    }

    pub(crate) async fn load(&self, digest: &Digest, bytes: &[u8], wasi: &Wasi) -> Result<Arc<Tool>, LoadFailed> {
        if let Some(tool) = self.loaded(digest) {
            return Ok(tool);
        }
        let package = Package { digest: *digest, bytes: bytes.into(), wasi: wasi.clone() };
        let (inspected, name) = self.look(&package).await?;
        if let Some(cache) = &self.cache {
            let cache = Arc::clone(cache);
            let found = blocking(move || Ok(cache.find(&name))).await?;
            if let Some(code) = found {
                // What does not fit after all was compiled by something else, and is compiled anew below.
                if let Ok(tool) = self.link(&package, inspected, Arc::new(code)).await {
                    return Ok(self.shelf.put(tool));
                }
            }
        }
        let _turn = self.compiling.acquire().await.expect("the semaphore is never closed");
        // Whoever waited for the same package finds it done.
        if let Some(tool) = self.loaded(digest) {
            return Ok(tool);
        }
        let code = Arc::new(self.compile(&package).await?);
        let tool = self.link(&package, inspected, Arc::clone(&code)).await?;
        if let Some(cache) = self.cache.clone() {
            blocking(move || {
                cache.keep(&name, &code);
                Ok(())
            })
            .await?;
        }
        Ok(self.shelf.put(tool))
    }

    async fn look(&self, package: &Package) -> Result<(Inspected, blake3::Hash), LoadFailed> {
        let (bytes, wasi, ceilings) = (Arc::clone(&package.bytes), package.wasi.clone(), self.ceilings);
        blocking(move || Ok((inspect(&bytes, &wasi, &ceilings)?, cache::name(&bytes)))).await
    }

    async fn compile(&self, package: &Package) -> Result<Vouched, LoadFailed> {
        let code = match &self.mode {
            CompileMode::InProcess => {
                let (engine, bytes) = (self.engine.clone(), Arc::clone(&package.bytes));
                blocking(move || {
                    engine.precompile_component(&bytes).map_err(|error| ComponentRefused::of(&error).into())
                })
                .await?
            }
            CompileMode::Child { exe, args } => child::compile(exe, args, package.bytes.to_vec()).await?,
        };
        if code.len() > CODE_BYTES_MAX {
            return Err(ComponentRefused::new("its compiled code is too large").into());
        }
        Ok(Vouched::on_my_word(code))
    }

    async fn link(&self, package: &Package, inspected: Inspected, code: Arc<Vouched>) -> Result<Arc<Tool>, LoadFailed> {
        let engine = self.engine.clone();
        let (digest, wasi) = (package.digest, package.wasi.clone());
        blocking(move || {
            let component = precompiled::load(&engine, &code).map_err(|error| ComponentRefused::of(&error))?;
            let grant = inspected.imports_wasi.then_some(wasi);
            Ok(Arc::new(Tool::link(digest, &component, grant)?))
        })
        .await
    }
}

/// What is being loaded.
struct Package {
    digest: Digest,
    bytes: Arc<[u8]>,
    wasi: Wasi,
}

/// Runs work that takes its time away from the runtime's threads. A panic in it is a component's that a
/// parser did not survive: refused, and not the server's end (threats W01).
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadFailed> + Send + 'static,
) -> Result<T, LoadFailed> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => Err(ComponentRefused::new("the compiler panicked on it").into()),
        Err(_) => Err(LoadFailed::Host("the server is ending".to_owned())),
    }
}
