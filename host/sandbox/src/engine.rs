//! The engine: every switch that decides what a guest's code may be and what an instance costs, and
//! the one thread that moves the epoch. The child that compiles builds its engine here too, so that
//! what it compiles fits.

use std::num::NonZero;
use std::thread;
use std::thread::available_parallelism;
use std::time::Duration;

use keybearer_contract::Limits;
use wasmtime::Config;
use wasmtime::Enabled;
use wasmtime::Engine;
use wasmtime::PoolingAllocationConfig;
use wasmtime::WasmFeatures;

/// What a composed component may hold at the most. wit-component makes two or three core instances;
/// adapters and compositions a few more.
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
const MEMORIES_PER_COMPONENT: u32 = 2;
const TABLES_PER_COMPONENT: u32 = 4;

/// Memory of an instance that stays mapped when its slot is free, and is zeroed by hand: a small guest
/// then costs no page fault and no madvise. Larger is slower, as all of what was touched is zeroed.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// A table of some hundred elements, as above.
const TABLE_KEEP_RESIDENT_BYTES: usize = 16 << 10;

/// How many freed slots are given back to the kernel at once, at the most: wasmtime's own measure of when
/// one system call for several pays.
const DECOMMIT_BATCH_MAX: usize = 16;

/// What slots that are free may hold of what guests touched beyond what is kept, in the whole process, until
/// they are given back: as much as sixteen guests at the default ceiling of 64 MiB.
const DECOMMIT_HELD_BYTES_MAX: u64 = 1 << 30;

/// wasmtime makes as many queues of freed slots as there are processors, up to this.
const DECOMMIT_QUEUES_MAX: usize = 16;

/// What a guest's own recursion may use; wasmtime's default, named because the fiber must hold it and
/// the host's functions on top of it.
const WASM_STACK_BYTES: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 2 << 20;

/// What decides whether compiled code fits an engine; equal in the server and in the compiling child.
fn base() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // A guest is one thread of one call: none of these could be used, each of them could be misused.
        .concurrency_support(false)
        .wasm_features(
            WasmFeatures::THREADS
                | WasmFeatures::SHARED_EVERYTHING_THREADS
                | WasmFeatures::MEMORY64
                | WasmFeatures::MULTI_MEMORY
                | WasmFeatures::CUSTOM_PAGE_SIZES
                | WasmFeatures::GC
                | WasmFeatures::EXCEPTIONS
                | WasmFeatures::LEGACY_EXCEPTIONS
                | WasmFeatures::STACK_SWITCHING
                | WasmFeatures::CM_ASYNC,
            false,
        )
        // The same call gives the same answer on every machine (threats G20).
        .wasm_relaxed_simd(false)
        .cranelift_nan_canonicalization(true)
        // The budget is time, by epochs; fuel would cost a tight loop 60 % for a number that nobody asks for.
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        // No guest can read a native stack, so there is nobody to zero it for.
        .async_stack_zeroing(false)
        .memory_init_cow(true)
        // Traps are told by kind: no backtrace, no dump, no text from the guest's names.
        .wasm_backtrace_max_frames(None)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .generate_address_map(false);
    config
}

/// An engine that only compiles: it reserves nothing.
///
/// # Errors
/// wasmtime's own, if this machine cannot have such an engine.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&base())
}

/// An engine that runs up to `instances` guests at once, each within `ceilings`.
///
/// # Errors
/// wasmtime's own: mostly that the address space for the pool cannot be reserved.
pub(crate) fn running(ceilings: &Limits, instances: u32) -> wasmtime::Result<Engine> {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_memory_size(size(ceilings.memory_bytes))
        .table_elements(size(ceilings.table_elements))
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        // Finds the pages that were touched, where the kernel tells (Linux 6.7, and a process that may open its
        // own pagemap): a fifth less a call than zeroing all of what is kept.
        .pagemap_scan(Enabled::Auto)
        .decommit_batch_size(decommit_batch(ceilings.memory_bytes, available_parallelism().map_or(1, NonZero::get)));
    let mut config = base();
    config.allocation_strategy(pool);
    Engine::new(&config)
}

/// How many freed slots wait together. Each queue is emptied when its last place is taken, so it holds one
/// slot less than a batch, and a slot no more than one memory: with the queues together at most
/// [`DECOMMIT_HELD_BYTES_MAX`]. A batch of one gives back at once.
fn decommit_batch(memory_bytes: u64, processors: usize) -> usize {
    let queues = processors.min(DECOMMIT_QUEUES_MAX) as u64;
    let waiting = DECOMMIT_HELD_BYTES_MAX / queues.saturating_mul(memory_bytes).max(1);
    usize::try_from(waiting).unwrap_or(usize::MAX).saturating_add(1).min(DECOMMIT_BATCH_MAX)
}

/// Starts the thread that moves the engine's epoch every `tick`, until the engine is gone.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn start_ticking(engine: &Engine, tick: Duration) -> std::io::Result<()> {
    let engine = engine.weak();
    thread::Builder::new().name("sandbox-ticker".to_owned()).stack_size(64 << 10).spawn(move || {
        loop {
            thread::sleep(tick);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_freed_slots_hold_is_bounded_by_bytes() {
        for memory_bytes in [1 << 16, 16 << 20, 64 << 20, 1 << 30, 4 << 30] {
            for processors in [1, 2, 16, 256] {
                let batch = decommit_batch(memory_bytes, processors);
                let held = (batch as u64 - 1) * memory_bytes * processors.min(DECOMMIT_QUEUES_MAX) as u64;
                assert!((1..=DECOMMIT_BATCH_MAX).contains(&batch), "{memory_bytes} x {processors}: {batch}");
                assert!(held <= DECOMMIT_HELD_BYTES_MAX, "{memory_bytes} x {processors}: {held} bytes");
            }
        }
        assert_eq!(decommit_batch(1 << 16, 2), DECOMMIT_BATCH_MAX, "small guests are given back together");
        assert_eq!(decommit_batch(4 << 30, 2), 1, "large ones at once");
    }
}
