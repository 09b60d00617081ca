//! Guests that misbehave: one file for each way, one tool or two in each file. The tests call them
//! through the built server. Above each `#[tool]` stands the test that shows what becomes of it; the
//! tests' build script reads that line, and a guest without a test does not build.
//!
//! They speak to the component's bindings directly, below the SDK's courtesies, so there is nothing of
//! them outside of wasm32.
#![cfg(target_arch = "wasm32")]

mod calm;
mod echo_back;
mod empties;
mod exfiltrate;
mod flood;
mod gather;
mod grow;
mod header_tricks;
mod hostcall_flood;
mod log_flood;
mod log_forge;
mod mask;
mod pointers;
mod recurse;
mod residue;
mod response_bomb;
mod result;
mod sign;
mod spin;
mod strings;
mod trap_text;
mod url_tricks;
mod wire;

keybearer_guest::export!(
    calm::calm,
    echo_back::echo_back,
    empties::empties,
    exfiltrate::exfiltrate,
    flood::parallel_flood,
    flood::requests_flood,
    gather::gather,
    grow::grow,
    header_tricks::header_tricks,
    hostcall_flood::hostcall_flood,
    log_flood::log_flood,
    log_forge::log_forge,
    pointers::pointers,
    recurse::recurse,
    residue::residue_read,
    residue::residue_write,
    response_bomb::response_bomb,
    result::big_result,
    sign::sign,
    spin::spin,
    strings::bad_strings,
    trap_text::failed_text,
    trap_text::trap_text,
    url_tricks::url_tricks,
);
