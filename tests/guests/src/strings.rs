//! G13: texts that are none, or that no header and no URL can hold.

#![expect(unsafe_code, reason = "no `String` holds what is not UTF-8")]

use keybearer_guest::bindings::keybearer::tool::call as raw_call;
use keybearer_guest::bindings::keybearer::tool::http as raw;
use keybearer_guest::bindings::keybearer::tool::log as raw_log;
use keybearer_guest::prelude::*;

use crate::wire;

/// Which text, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Args {
    /// `invalid`, `surrogate`, `overlong`, `cut`, `nul` or `long:N`.
    text: String,
    /// `url`, `name`, `value`, `slot` or `log`.
    place: String,
}

// Shown by: abi::g13_texts_that_are_none_stop_the_guest_and_odd_ones_are_refused
/// Says what cannot be said.
#[tool(read_only)]
pub(crate) fn bad_strings(args: Args) -> Result<String, ToolError> {
    let bytes = match args.text.as_str() {
        "invalid" => b"a\xff\xfeb".to_vec(),
        "surrogate" => b"a\xed\xa0\x80b".to_vec(),
        "overlong" => b"a\xc0\xafb".to_vec(),
        "cut" => b"a\xf0\x9f\x98".to_vec(),
        "nul" => b"a\0b".to_vec(),
        other => match other.strip_prefix("long:").and_then(|length| length.parse().ok()) {
            Some(length) => vec![b'a'; length],
            None => return Err(ToolError::invalid(format!("there is no {other}"))),
        },
    };
    let lie = |bytes: &[u8]| {
        // SAFETY: it is not UTF-8, and that is the point: nothing in the guest looks at it again.
        unsafe { String::from_utf8_unchecked(bytes.to_vec()) }
    };
    let mut request = raw::Request {
        method: raw::Method::Get,
        url: "https://upstream.test/strings".to_owned(),
        headers: Vec::new(),
        body: None,
    };
    match args.place.as_str() {
        "url" => request.url.push_str(&lie(&bytes)),
        "name" => request.headers.push(raw::Header { name: lie(&bytes), value: b"x".to_vec() }),
        "value" => request.headers.push(raw::Header { name: "x-note".to_owned(), value: bytes }),
        "slot" => return Ok(format!("{:?}", raw_call::base_url(&lie(&bytes)))),
        "log" => {
            raw_log::write(raw_log::Level::Info, &lie(&bytes));
            return Ok("logged".to_owned());
        }
        other => return Err(ToolError::invalid(format!("there is no {other}"))),
    }
    Ok(wire::outcome(&raw::send(&request)))
}
