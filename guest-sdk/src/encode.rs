//! Percent-encoding in the one form that the host accepts: everything but RFC 3986's unreserved
//! characters, as `%` and two upper-case hex digits. Not for decoding: a tool gets text, not URLs.

use crate::http::Error;

/// Encodes a text for a query's name or value, or for a form.
#[must_use]
pub fn component(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    component_into(&mut encoded, text);
    encoded
}

/// Encodes a text as one segment of a path.
///
/// # Errors
/// [`Error::Segment`] for what no encoding makes one segment: nothing, `.`, `..`, and what holds a
/// `/`, a `\`, a `%` or a control character, which some servers decode twice.
pub fn segment(text: &str) -> Result<String, Error> {
    let fits = !matches!(text, "" | "." | "..")
        && !text.bytes().any(|byte| matches!(byte, b'/' | b'\\' | b'%') || byte.is_ascii_control());
    if fits { Ok(component(text)) } else { Err(Error::Segment(text.to_owned())) }
}

/// Appends a name and a value, with `&` before them where there is something already.
pub(crate) fn pair_into(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('?') {
        text.push('&');
    }
    component_into(text, name);
    text.push('=');
    component_into(text, value);
}

fn component_into(encoded: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_unreserved_is_encoded_in_upper_case() {
        assert_eq!(component("aZ09-._~"), "aZ09-._~");
        assert_eq!(component("a b&c=ü/[x]+'"), "a%20b%26c%3D%C3%BC%2F%5Bx%5D%2B%27");
    }

    #[test]
    fn n17_what_climbs_or_splits_is_no_segment() {
        for bad in ["", ".", "..", "a/b", "a\\b", "%2e%2e", "a\0b", "a\r\nb"] {
            assert!(segment(bad).is_err(), "{bad:?}");
        }
        assert_eq!(segment("a b?").expect("a segment"), "a%20b%3F");
        assert_eq!(segment("...").expect("a segment"), "...");
    }
}
