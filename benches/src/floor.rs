//! The floor: a fresh instance for each call with the sandbox's engine settings, and none of its limits:
//! no epochs, no limiter, no wall clock, no meter, no cap on what is lifted. What a call cannot cost less
//! than, not something to run tools on.

pub(crate) mod commit;
pub(crate) mod outbound;
pub(crate) mod server;

use std::sync::Arc;

use wasmtime::Config;
use wasmtime::Enabled;
use wasmtime::Engine;
use wasmtime::PoolingAllocationConfig;
use wasmtime::Store;
use wasmtime::component::Component;
use wasmtime::component::HasSelf;
use wasmtime::component::Linker;

use crate::floor::outbound::Outbound;

#[expect(clippy::error_impl_error, reason = "the world calls it so")]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package keybearer:floor;
            world guest { include keybearer:tool/tool@0.1.0; }
        ",
        world: "keybearer:floor/guest",
        imports: {
            "keybearer:tool/http": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        require_store_data_send: true,
    });
}

use bindings::Guest;
use bindings::GuestPre;
use bindings::keybearer::tool::call;
use bindings::keybearer::tool::http;
use bindings::keybearer::tool::log;
use bindings::keybearer::tool::signing;
use bindings::keybearer::tool::types;

/// A linked component and its engine.
pub(crate) struct Floor {
    engine: Engine,
    pre: GuestPre<State>,
    outbound: Option<Arc<Outbound>>,
}

struct State {
    outbound: Option<Arc<Outbound>>,
}

impl Floor {
    /// Compiles and links.
    ///
    /// # Errors
    /// wasmtime's own.
    pub(crate) fn new(component: &[u8], outbound: Option<Arc<Outbound>>) -> anyhow::Result<Self> {
        let engine = Engine::new(&config()).map_err(told)?;
        let component = Component::new(&engine, component).map_err(told)?;
        let mut linker = Linker::new(&engine);
        Guest::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state).map_err(told)?;
        let pre = linker.instantiate_pre(&component).and_then(GuestPre::new).map_err(told)?;
        Ok(Self { engine, pre, outbound })
    }

    /// One call in a fresh instance.
    ///
    /// # Errors
    /// If it has no result.
    pub(crate) async fn call(&self, tool: &str, arguments: &str) -> anyhow::Result<String> {
        let mut store = Store::new(&self.engine, State { outbound: self.outbound.clone() });
        let instance = self.pre.instantiate_async(&mut store).await.map_err(told)?;
        let result = instance.call_invoke(&mut store, tool, arguments).await.map_err(told)?;
        result.map_err(|error| anyhow::anyhow!("the tool failed: {error:?}"))
    }
}

fn told(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// The sandbox's engine (host/sandbox/src/engine.rs) without what limits a guest. Repeated here, as the
/// sandbox lets nobody have its engine; a difference would show in the comparison of instances.
fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(256)
        .total_core_instances(1024)
        .total_memories(512)
        .total_tables(1024)
        .total_stacks(256)
        .max_memory_size(64 << 20)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto)
        .decommit_batch_size(16);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .consume_fuel(false)
        .epoch_interruption(false)
        .async_stack_zeroing(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(None)
        .native_unwind_info(false)
        .generate_address_map(false)
        .allocation_strategy(pool);
    config
}

impl http::Host for State {
    async fn send(&mut self, request: http::Request) -> wasmtime::Result<Result<http::Response, http::Error>> {
        let Some(outbound) = &self.outbound else { return Ok(Err(http::Error::Denied)) };
        let (status, headers, body) = outbound
            .get(&request.url)
            .await
            .map_err(|error| wasmtime::Error::msg(format!("the upstream did not answer: {error:#}")))?;
        let header = |(name, value)| http::Header { name, value };
        Ok(Ok(http::Response { status, headers: headers.into_iter().map(header).collect(), body }))
    }

    async fn send_all(
        &mut self,
        _requests: Vec<http::Request>,
    ) -> wasmtime::Result<Vec<Result<http::Response, http::Error>>> {
        Err(wasmtime::Error::msg("nothing that is measured sends several requests"))
    }
}

/// Nothing that is measured has anything signed.
impl signing::Host for State {
    fn mac(&mut self, _slot: String, _message: Vec<u8>) -> wasmtime::Result<Result<Vec<u8>, signing::Error>> {
        Ok(Err(signing::Error::Denied))
    }

    fn jwt(&mut self, _slot: String, _claims: Vec<signing::Claim>) -> wasmtime::Result<Result<String, signing::Error>> {
        Ok(Err(signing::Error::Denied))
    }

    fn presign(
        &mut self,
        _slot: String,
        _method: http::Method,
        _url: String,
        _expires_s: u32,
    ) -> wasmtime::Result<Result<String, signing::Error>> {
        Ok(Err(signing::Error::Denied))
    }
}

impl log::Host for State {
    fn write(&mut self, _level: log::Level, _message: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl call::Host for State {
    fn current(&mut self) -> wasmtime::Result<call::Context> {
        Ok(call::Context { call_id: String::new(), remaining_ms: 0, attempt: 1 })
    }

    fn base_url(&mut self, _slot: String) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl types::Host for State {}
