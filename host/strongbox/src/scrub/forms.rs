//! The forms in which a value is looked for. Forms that change a character at a time (percent-coding,
//! JSON and HTML escapes) are undone in `views`; here are those that change the whole value.

use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::views;
use crate::accept::VALUE_BYTES_MIN;

/// One form of a value. Letters match in either case.
pub(super) struct Needle {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) edges: Edges,
}

/// Whether the character before or after a match holds a few bits of the value as well: of base64 at an
/// offset, the first and last character are shared with what stands beside the value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Edges {
    pub(super) left: bool,
    pub(super) right: bool,
}

/// Every form of one value, each once.
pub(super) fn needles_of(value: &[u8]) -> Vec<Needle> {
    let mut needles = vec![whole(value.to_vec())];
    if value.contains(&b' ') {
        // In a form, a space is a plus.
        needles.push(whole(value.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }).collect()));
    }
    // A value that itself looks encoded is decoded together with the text around it.
    let mut decoded = Zeroizing::new(value.to_vec());
    for _ in 0..views::ROUNDS {
        decoded = Zeroizing::new(views::decoded(&decoded));
        if decoded.len() >= VALUE_BYTES_MIN {
            needles.push(whole(decoded.to_vec()));
        }
    }
    for offset in 0..3 {
        needles.push(base64_at(&STANDARD_NO_PAD, value, offset));
        needles.push(base64_at(&URL_SAFE_NO_PAD, value, offset));
    }
    needles.push(whole(hex::encode(value).into_bytes()));
    let mut distinct: Vec<Needle> = Vec::with_capacity(needles.len());
    for needle in needles {
        if !distinct.iter().any(|other| other.bytes.eq_ignore_ascii_case(&needle.bytes)) {
            distinct.push(needle);
        }
    }
    distinct
}

fn whole(bytes: Vec<u8>) -> Needle {
    Needle { bytes: Zeroizing::new(bytes), edges: Edges::default() }
}

/// The characters that depend on the value alone when it stands `offset` bytes (modulo 3) into what was
/// encoded, whatever stands before and after it.
fn base64_at(engine: &impl base64::Engine, value: &[u8], offset: usize) -> Needle {
    let mut bytes = Zeroizing::new(vec![0; offset]);
    bytes.extend_from_slice(value);
    let encoded = Zeroizing::new(engine.encode(&*bytes).into_bytes());
    let first = (8 * offset).div_ceil(6);
    let end = 8 * bytes.len() / 6;
    let edges = Edges { left: !(8 * offset).is_multiple_of(6), right: !(8 * bytes.len()).is_multiple_of(6) };
    Needle { bytes: Zeroizing::new(encoded[first..end].to_vec()), edges }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn x03_the_needles_of_base64_are_in_every_encoding_whatever_stands_around_the_value() {
        let value = b"sk_live_>>>???canary";
        for before in 0..7 {
            for after in 0..7 {
                let text = [b"U".repeat(before), value.to_vec(), b"~".repeat(after)].concat();
                for encoded in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let found = needles_of(value)
                        .iter()
                        .any(|needle| encoded.as_bytes().windows(needle.bytes.len()).any(|w| w == &**needle.bytes));
                    assert!(found, "{before} before, {after} after: {encoded}");
                }
            }
        }
    }

    #[test]
    fn no_form_of_a_value_is_shorter_than_the_shortest_value() {
        for value in [b"0123456789abcdef".as_slice(), b"%41%41%41%41%41%41", br"\u0041\u0041\u0041"] {
            assert!(needles_of(value).iter().all(|needle| needle.bytes.len() >= VALUE_BYTES_MIN));
        }
    }
}
