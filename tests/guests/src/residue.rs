//! G08: one call leaves something in all of its memory, the next one, of another tenant, looks for it.

use core::arch::wasm32;

use keybearer_guest::prelude::*;

/// A page of linear memory.
const PAGE_BYTES: usize = 64 << 10;

/// How far both grow.
const PAGES: usize = 128;

/// What both are told: turned by [`TURN`], so that to be told it is not to find it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// The mark, every byte of it turned.
    turned: Vec<u8>,
}

const TURN: u8 = 0xa5;

/// What was found.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// Bytes that were looked at.
    looked_at: usize,
    /// Times that the mark was there.
    marks: usize,
    /// Bytes that are not zero in pages that were just grown.
    not_zero: usize,
}

// Shown by: limits::g08_nothing_of_a_call_is_left_for_the_next
/// Fills its memory with a mark.
#[tool(read_only)]
pub(crate) fn residue_write(args: Args) -> Result<usize, ToolError> {
    let mark: Vec<u8> = args.turned.iter().map(|byte| byte ^ TURN).collect();
    if mark.is_empty() {
        return Err(ToolError::invalid("a mark has bytes"));
    }
    // Some of it lies on the heap, where any tool's data lies.
    let heap = std::hint::black_box(mark.repeat(16 << 10));
    let from = wasm32::memory_size::<0>() * PAGE_BYTES;
    wasm32::memory_grow::<0>(PAGES.saturating_sub(from / PAGE_BYTES));
    let to = wasm32::memory_size::<0>() * PAGE_BYTES;
    for at in (from..to.saturating_sub(mark.len())).step_by(mark.len()) {
        put(at, &mark);
    }
    Ok(to - from + heap.len())
}

// Shown by: limits::g08_nothing_of_a_call_is_left_for_the_next
/// Looks through its memory for a mark.
#[tool(read_only)]
pub(crate) fn residue_read(args: Args) -> Result<Out, ToolError> {
    let turned = args.turned;
    if turned.is_empty() {
        return Err(ToolError::invalid("a mark has bytes"));
    }
    let from = wasm32::memory_size::<0>() * PAGE_BYTES;
    wasm32::memory_grow::<0>(PAGES.saturating_sub(from / PAGE_BYTES));
    let to = wasm32::memory_size::<0>() * PAGE_BYTES;
    let marks = (1..to - turned.len())
        .filter(|at| turned.iter().enumerate().all(|(index, byte)| look(at + index) == byte ^ TURN))
        .count();
    Ok(Out { looked_at: to, marks, not_zero: (from..to).filter(|at| look(*at) != 0).count() })
}

#[expect(unsafe_code, reason = "reads memory that it was never given, which is what it is for")]
fn look(at: usize) -> u8 {
    // SAFETY: within linear memory; whatever lies there is bytes.
    unsafe { std::ptr::with_exposed_provenance::<u8>(at).read_volatile() }
}

#[expect(unsafe_code, reason = "the pages that were grown belong to nobody")]
fn put(at: usize, bytes: &[u8]) {
    for (index, byte) in bytes.iter().enumerate() {
        // SAFETY: between the old and the new end of memory, where nothing of Rust's lies.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(at + index).write_volatile(*byte) };
    }
}
