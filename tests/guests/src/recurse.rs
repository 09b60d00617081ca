//! G07: recurses until the stack ends.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use keybearer_guest::prelude::*;

/// How it recurses.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Whether every level holds something in linear memory too: then that stack ends first.
    heavy: bool,
}

// Shown by: limits::g07_recursion_ends_in_a_trap_and_not_in_a_crash
/// Recurses until the stack ends.
#[tool(read_only)]
pub(crate) fn recurse(args: Args) -> Result<u64, ToolError> {
    Ok(if args.heavy { heavy(1) } else { light(1) })
}

/// Never 0; but the compiler does not know, and asks at every level.
static GOES_ON: AtomicU64 = AtomicU64::new(1);

/// Keeps nothing in linear memory, and cannot be made a loop of.
fn light(level: u64) -> u64 {
    if GOES_ON.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    light(level.wrapping_add(1)).rotate_left(7) ^ level
}

fn heavy(level: u64) -> u64 {
    let room = std::hint::black_box([level; 64]);
    if room[0] == 0 {
        return 0;
    }
    heavy(level.wrapping_add(1)).wrapping_add(std::hint::black_box(room)[63])
}
