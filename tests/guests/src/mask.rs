//! Hides bytes from the host's scrubber, so that a test sees what the guest saw and not what was taken
//! out of its result on the way: every byte is turned by a constant and written as hex.

/// Turned by this; the tests turn it back.
const MASK: u8 = 0x5a;

/// The bytes, masked.
pub(crate) fn mask(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    mask_into(&mut text, bytes);
    text
}

/// The same, at the end of a text.
pub(crate) fn mask_into(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let turned = byte ^ MASK;
        for digit in [turned >> 4, turned & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
}
