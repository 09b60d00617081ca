//! Sends a request, and then gives back its whole memory, masked: what the host may have left there
//! beside the answer (oracle O1).

use core::arch::wasm32;

use keybearer_guest::prelude::*;

use crate::mask::mask_into;
use crate::wire;
use crate::wire::Said;

/// The grain at which memory is given back.
const BLOCK_BYTES: usize = 1 << 10;

/// What lies in memory.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Out {
    /// What became of the request.
    outcome: String,
    /// Bytes of memory that were looked at.
    looked_at: usize,
    /// All blocks of memory that are not zero, in order: each byte turned by 0x5a, as hex.
    masked: String,
}

// Shown by: outbound::o1_no_byte_of_a_credential_reaches_a_guest
/// Sends a request and gives back its memory.
#[tool]
pub(crate) fn gather(args: Said) -> Result<Out, ToolError> {
    let heard = wire::send(args)?;
    let looked_at = wasm32::memory_size::<0>() * (64 << 10);
    let mut masked = String::new();
    for at in (0..looked_at).step_by(BLOCK_BYTES) {
        let block = copy(at);
        if block.iter().any(|byte| *byte != 0) {
            mask_into(&mut masked, &block);
        }
    }
    Ok(Out { outcome: wire::outcome(&heard), looked_at, masked })
}

#[expect(unsafe_code, reason = "reads memory that it was never given, which is what it is for")]
fn copy(at: usize) -> [u8; BLOCK_BYTES] {
    // Volatile, and byte by byte: address 0 is memory like any other here.
    std::array::from_fn(|index| {
        // SAFETY: within linear memory; whatever lies there is bytes.
        unsafe { std::ptr::with_exposed_provenance::<u8>(at + index).read_volatile() }
    })
}
