//! G12: much from little. Lists of a million empty things, and one list that a thousand requests share,
//! so that what the host would make of it is far larger than the guest's memory.

#![expect(unsafe_code, reason = "the bindings would lay every request out by itself")]

use keybearer_guest::prelude::*;

#[link(wasm_import_module = "keybearer:tool/http@0.1.0")]
unsafe extern "C" {
    #[link_name = "send-all"]
    fn raw_send_all(requests: usize, requests_length: usize, answer: usize);
}

/// How much of it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Requests, all with the same list of header fields.
    requests: usize,
    /// Empty header fields in that list.
    headers: usize,
}

/// A request as the canonical ABI lays it out in memory.
#[repr(C)]
#[derive(Clone, Copy)]
struct Laid {
    method: u8,
    url: (usize, usize),
    headers: (usize, usize),
    body: (u32, usize, usize),
}

/// A header field: two empty texts are 16 zero bytes.
const HEADER_BYTES: usize = 16;

// Shown by: abi::g12_lists_of_nothing_cost_what_they_would_make
/// Sends requests with as many empty header fields as it can.
#[tool(read_only)]
pub(crate) fn empties(args: Args) -> Result<usize, ToolError> {
    let url = "https://upstream.test/empties";
    // Pointers of empty texts may lead anywhere within memory: 0 will do.
    let headers = vec![0_u32; args.headers * HEADER_BYTES / 4];
    let one = Laid {
        method: 0,
        url: (url.as_ptr().expose_provenance(), url.len()),
        headers: (headers.as_ptr().expose_provenance(), args.headers),
        body: (0, 0, 0),
    };
    let requests = vec![one; args.requests];
    let mut answer = [0_usize; 2];
    // SAFETY: every pointer leads to what the ABI wants there; the host writes the answer's two words.
    unsafe {
        raw_send_all(requests.as_ptr().expose_provenance(), requests.len(), answer.as_mut_ptr().expose_provenance());
    }
    Ok(answer[1])
}
