//! A sieve before the automaton: nearly every text holds nothing, and this finds out by looking at a
//! thirteenth of it. Every needle is sixteen bytes or longer, so that of four-byte pieces at every
//! thirteenth place of a text, one lies within the first sixteen bytes of any needle that is there. If
//! none of those pieces is one of a needle's, there is no needle.
//!
//! Not a proof that something is there: where the sieve holds something back, the automaton looks.

use std::ops::Range;

/// The shortest needle that the sieve is for.
const NEEDLE_BYTES_MIN: usize = crate::accept::VALUE_BYTES_MIN;

const PIECE_BYTES: usize = 4;

/// A piece that begins at one of so many places in a row lies within a needle's first bytes.
const STRIDE: usize = NEEDLE_BYTES_MIN - PIECE_BYTES + 1;

/// 64 Ki bits: of forty needles, half a thousand are set, and one piece in a hundred is held back in vain.
const WORDS: usize = 1024;

/// The pieces of all needles, hashed.
pub(super) struct Sieve {
    bits: Box<[u64; WORDS]>,
    needle_bytes_max: usize,
}

impl Sieve {
    pub(super) fn of<'needle>(needles: impl Iterator<Item = &'needle [u8]>) -> Self {
        let mut sieve = Self { bits: Box::new([0; WORDS]), needle_bytes_max: 0 };
        for needle in needles {
            sieve.needle_bytes_max = sieve.needle_bytes_max.max(needle.len());
            if needle.len() < NEEDLE_BYTES_MIN {
                // Then everything is held back: slow, and still right.
                sieve.bits.fill(u64::MAX);
            }
            for piece in needle.array_windows::<PIECE_BYTES>().take(STRIDE) {
                let (word, bit) = place(*piece);
                sieve.bits[word] |= 1 << bit;
            }
        }
        sieve
    }

    /// Shows every part of the text in which a needle can lie as a whole: in order, apart from one another.
    pub(super) fn each_part(&self, text: &[u8], look: &mut dyn FnMut(Range<usize>)) {
        let mut part: Option<Range<usize>> = None;
        let mut at = 0;
        // At the end of the text, a piece may be cut off; no needle that is there begins so late.
        while let Some(piece) = text.get(at..).and_then(<[u8]>::first_chunk) {
            let (word, bit) = place(*piece);
            let here = at;
            at += STRIDE;
            if self.bits[word] & (1 << bit) == 0 {
                continue;
            }
            let next = here.saturating_sub(STRIDE - 1)..text.len().min(here + self.needle_bytes_max);
            match &mut part {
                Some(part) if next.start <= part.end => part.end = next.end,
                _ => {
                    if let Some(part) = part.replace(next) {
                        look(part);
                    }
                }
            }
        }
        part.into_iter().for_each(look);
    }
}

/// Where a piece is noted, the same for either case of its letters.
fn place(piece: [u8; PIECE_BYTES]) -> (usize, u32) {
    let piece = u32::from_le_bytes(piece) | 0x2020_2020;
    // Fibonacci hashing: the upper bits are the mixed ones.
    let hash = piece.wrapping_mul(0x9e37_79b1) >> 16;
    ((hash >> 6) as usize, hash & 63)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(sieve: &Sieve, text: &[u8]) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        sieve.each_part(text, &mut |part| parts.push(part));
        parts
    }

    #[test]
    fn a_text_without_a_needle_is_nearly_always_let_through_whole() {
        let sieve = Sieve::of([b"sk_live_0123456789abcdef".as_slice()].into_iter());
        let text = include_bytes!("../place.rs");
        assert!(parts(&sieve, text).iter().map(Range::len).sum::<usize>() < text.len() / 10);
        assert!(parts(&sieve, b"").is_empty());
    }

    proptest! {
        #[test]
        fn no_needle_is_let_through_wherever_it_lies_and_in_whatever_case(
            needle in "[ -~]{16,50}",
            other in "[ -~]{16,90}",
            before in "[ -~]{0,60}",
            after in "[ -~]{0,60}",
        ) {
            let sieve = Sieve::of([needle.as_bytes(), other.as_bytes()].into_iter());
            let text = format!("{before}{}{after}", needle.to_ascii_uppercase());
            let place = before.len()..before.len() + needle.len();
            let parts = parts(&sieve, text.as_bytes());
            prop_assert!(parts.iter().any(|part| part.start <= place.start && place.end <= part.end));
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
