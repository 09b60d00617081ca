//! Protocol Buffers, as far as two messages of the Workload API need them: the length-delimited fields of one
//! message, borrowed from it. Not a decoder for anything else, and nothing is copied.

/// The fields of that number and of bytes, in order; a `None` where the message breaks off.
pub(super) fn bytes_of(message: &[u8], number: u64) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match field(&mut rest) {
                Some((found, Some(bytes))) if found == number => return Some(Some(bytes)),
                Some(_) => {}
                None => {
                    rest = &[];
                    return Some(None);
                }
            }
        }
        None
    })
}

/// The first field of that number, as text.
pub(super) fn text_of(message: &[u8], number: u64) -> Option<&str> {
    std::str::from_utf8(bytes_of(message, number).next()??).ok()
}

/// Its number, and its bytes if it has some.
fn field<'message>(rest: &mut &'message [u8]) -> Option<(u64, Option<&'message [u8]>)> {
    let tag = varint(rest)?;
    let bytes = match tag & 7 {
        0 => {
            varint(rest)?;
            None
        }
        1 => {
            skip(rest, 8)?;
            None
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Some(skip(rest, length)?)
        }
        5 => {
            skip(rest, 4)?;
            None
        }
        _ => return None,
    };
    Some((tag >> 3, bytes))
}

fn skip<'message>(rest: &mut &'message [u8], length: usize) -> Option<&'message [u8]> {
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_number_whatever_stands_between_them() {
        let message = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x12, 0];
        let found: Vec<_> = bytes_of(&message, 2).collect();
        assert_eq!(found, [Some(&b"hi"[..]), Some(&b""[..])]);
        assert_eq!(text_of(&message, 2), Some("hi"));
        assert_eq!(text_of(&message, 3), None);
    }

    // If it failed, a broken message would be read as a shorter one that is whole, or never come to an end.
    #[test]
    fn a_message_that_breaks_off_is_no_message() {
        for broken in [
            &[0x12][..],
            &[0x12, 3, b'h', b'i'],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x13, 1],
            &[0x80; 12],
            &[0x1d, 1],
        ] {
            assert_eq!(bytes_of(broken, 2).collect::<Vec<_>>(), [None], "{broken:?}");
        }
    }
}
