//! G01: never ends, and never calls the host.

use keybearer_guest::prelude::*;

// Shown by: limits::g01_a_guest_that_never_ends_is_stopped_and_slows_nobody
/// Never ends.
#[tool(read_only)]
pub(crate) fn spin() -> Result<u64, ToolError> {
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}
