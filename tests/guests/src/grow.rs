//! G04: takes all the memory that it can get, and touches every page of it.

use core::arch::wasm32;

use keybearer_guest::prelude::*;

/// A page of linear memory.
const PAGE_BYTES: usize = 64 << 10;

/// What it got.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// Pages at the end, touched, every one.
    pages: usize,
}

// Shown by: limits::g04_memory_ends_at_its_limit
/// Takes all the memory that it can get.
#[tool(read_only)]
pub(crate) fn grow() -> Result<Out, ToolError> {
    let before = wasm32::memory_size::<0>();
    // First by great steps, then by one page, so that nothing is left.
    for step in [64, 8, 1] {
        while wasm32::memory_grow::<0>(step) != usize::MAX {}
    }
    let after = wasm32::memory_size::<0>();
    touch(before * PAGE_BYTES, after * PAGE_BYTES);
    Ok(Out { pages: after })
}

#[expect(unsafe_code, reason = "the pages that were grown belong to nobody")]
fn touch(from: usize, to: usize) {
    for at in (from..to).step_by(4096) {
        // SAFETY: between the old and the new end of memory, where nothing of Rust's lies.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at).write_volatile(1) };
    }
}
