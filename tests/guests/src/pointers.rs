//! G11: hands the imports pointers and numbers that no bindings would make.

#![expect(unsafe_code, reason = "the bindings would refuse to say any of this")]

use core::arch::wasm32;

use keybearer_guest::prelude::*;

// The imports as the canonical ABI flattens them.
#[link(wasm_import_module = "keybearer:tool/http@0.1.0")]
unsafe extern "C" {
    #[link_name = "send"]
    fn raw_send(
        method: u32,
        url: usize,
        url_length: usize,
        headers: usize,
        headers_length: usize,
        has_body: u32,
        body: usize,
        body_length: usize,
        answer: usize,
    );
    #[link_name = "send-all"]
    fn raw_send_all(requests: usize, requests_length: usize, answer: usize);
}

#[link(wasm_import_module = "keybearer:tool/log@0.1.0")]
unsafe extern "C" {
    #[link_name = "write"]
    fn raw_write(level: u32, message: usize, message_length: usize);
}

#[link(wasm_import_module = "keybearer:tool/call@0.1.0")]
unsafe extern "C" {
    #[link_name = "base-url"]
    fn raw_base_url(slot: usize, slot_length: usize, answer: usize);
}

/// Which trick.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// Its name.
    trick: String,
}

const URL: &str = "https://upstream.test/pointers";

/// Room for an answer of any import; aligned, as the ABI wants it.
#[repr(align(8))]
struct Room([u8; 64]);

// Shown by: abi::g11_pointers_out_of_bounds_trap_before_anything_is_copied
/// Hands the imports pointers that lead nowhere.
#[tool(read_only)]
pub(crate) fn pointers(args: Args) -> Result<&'static str, ToolError> {
    let mut room = Room([0; 64]);
    let answer = room.0.as_mut_ptr().expose_provenance();
    let url = (URL.as_ptr().expose_provenance(), URL.len());
    let end = wasm32::memory_size::<0>() * (64 << 10);
    // SAFETY: none is claimed. The host must bear every one of these; the guest may lose itself.
    unsafe {
        match args.trick.as_str() {
            "text_beyond_the_end" => raw_write(1, end - 4, 16),
            "text_of_4_gib" => raw_write(1, 0, usize::MAX),
            "text_wraps_around" => raw_write(1, usize::MAX - 8, 16),
            "level_unknown" => raw_write(99, url.0, url.1),
            "slot_beyond_the_end" => raw_base_url(end, 1, answer),
            "url_beyond_the_end" => raw_send(0, end - 1, 4096, 0, 0, 0, 0, 0, answer),
            "headers_beyond_the_end" => raw_send(0, url.0, url.1, end - 16, 2, 0, 0, 0, answer),
            "headers_of_4_gib" => raw_send(0, url.0, url.1, 8, usize::MAX / 16, 0, 0, 0, answer),
            "headers_times_size_wraps" => raw_send(0, url.0, url.1, 8, (usize::MAX / 16) + 2, 0, 0, 0, answer),
            "headers_unaligned" => raw_send(0, url.0, url.1, 9, 1, 0, 0, 0, answer),
            "body_beyond_the_end" => raw_send(2, url.0, url.1, 0, 0, 1, end - 8, 9, answer),
            "body_neither_some_nor_none" => raw_send(2, url.0, url.1, 0, 0, 2, 0, 0, answer),
            "method_unknown" => raw_send(7, url.0, url.1, 0, 0, 0, 0, 0, answer),
            "answer_beyond_the_end" => raw_send(0, url.0, url.1, 0, 0, 0, 0, 0, end - 4),
            "answer_unaligned" => raw_send(0, url.0, url.1, 0, 0, 0, 0, 0, answer + 1),
            "requests_beyond_the_end" => raw_send_all(end - 8, 64, answer),
            "requests_of_4_gib" => raw_send_all(8, usize::MAX / 36, answer),
            "text_overlaps_everything" => raw_write(1, 0, end),
            other => return Err(ToolError::invalid(format!("there is no {other}"))),
        }
    }
    Ok("the host took it")
}
