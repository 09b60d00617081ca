//! Views of a text: what it says after one round of decoding, and where in the text each byte of that
//! comes from. A value that was percent-coded, escaped for JSON or HTML, wrapped into lines, or widened
//! to UTF-16 is found in a view as it is, and cut out of the text where it stands.
//!
//! One round undoes all escapes at once, since the encoders of one text may differ from character to
//! character. Two rounds undo what was encoded twice, as a URL in a JSON string in a JSON string.

use std::borrow::Cow;
use std::ops::Range;

/// Rounds of decoding. The second is for what is encoded twice; nothing is promised of what is encoded
/// three times.
pub(super) const ROUNDS: usize = 2;

/// Which escapes a round undoes: the bytes that they begin with, one of them three times where it is alone.
type Escapes = [u8; 3];

const ALL: Escapes = *b"%\\&";

/// Each kind alone, in every order, for a set with a value that itself holds `%`, `\` or `&`: undoing all
/// at once could then decode more of the text than its encoder encoded.
const SINGLE: [Escapes; 3] = [*b"%%%", *b"\\\\\\", *b"&&&"];

/// Whether a value looks encoded itself.
pub(super) fn looks_encoded(value: &[u8]) -> bool {
    value.iter().any(|byte| b"%\\&".contains(byte))
}

/// One round over a value, all escapes at once.
pub(super) fn decoded(bytes: &[u8]) -> Vec<u8> {
    View::of(bytes).decode(ALL).map_or_else(|| bytes.to_vec(), |view| view.bytes.into_owned())
}

/// One round over a text, percent-coding only.
pub(super) fn percent_decoded(bytes: &[u8]) -> Vec<u8> {
    View::of(bytes).decode(SINGLE[0]).map_or_else(|| bytes.to_vec(), |view| view.bytes.into_owned())
}

/// Shows every view of a text that differs from the text to `look`, and the text itself first.
pub(super) fn each_view(text: &[u8], with_single_escapes: bool, look: &mut dyn FnMut(&View<'_>)) {
    let whole = View::of(text);
    each_view_of(&whole, with_single_escapes, look);
    // UTF-16 and UTF-32 of ASCII, in either byte order, are the ASCII with zeros between.
    if memchr::memchr(0, text).is_some() {
        each_view_of(&whole.without(Stripped::Zeros), with_single_escapes, look);
    }
}

fn each_view_of(base: &View<'_>, with_single_escapes: bool, look: &mut dyn FnMut(&View<'_>)) {
    look_at(base, look);
    each_round(base, &[ALL], ROUNDS, look);
    if with_single_escapes {
        each_round(base, &SINGLE, ROUNDS, look);
    }
}

fn each_round(base: &View<'_>, choices: &[Escapes], rounds: usize, look: &mut dyn FnMut(&View<'_>)) {
    if rounds == 0 {
        return;
    }
    for view in choices.iter().filter_map(|escapes| base.decode(*escapes)) {
        look_at(&view, look);
        each_round(&view, choices, rounds - 1, look);
    }
}

fn look_at(view: &View<'_>, look: &mut dyn FnMut(&View<'_>)) {
    look(view);
    // Base64 is wrapped into lines by mail and PEM (RFC 2045 §6.8, RFC 7468).
    if memchr::memchr2(b'\r', b'\n', &view.bytes).is_some() {
        look(&view.without(Stripped::WhiteSpace));
    }
}

/// A text as it reads after some decoding.
pub(super) struct View<'text> {
    pub(super) bytes: Cow<'text, [u8]>,
    /// Where the view's bytes come from, as runs of bytes that lie side by side in both.
    runs: Vec<Run>,
    /// What this was decoded from; none for the text itself.
    parent: Option<&'text View<'text>>,
    /// Whether bytes between two of the view's were left out.
    is_stripped: bool,
}

/// From `out` on, up to the next run, the view's bytes are those from `source` on.
#[derive(Debug, Clone, Copy)]
struct Run {
    out: usize,
    source: usize,
}

/// Two for each escape, of a few dozen names and values in a JSON text within a JSON text.
const RUNS_TYPICAL: usize = 128;

enum Stripped {
    WhiteSpace,
    Zeros,
}

impl<'text> View<'text> {
    fn of(text: &'text [u8]) -> Self {
        Self { bytes: Cow::Borrowed(text), runs: Vec::new(), parent: None, is_stripped: false }
    }

    /// Where in the text a range of the view comes from, escapes and all.
    pub(super) fn in_text(&self, range: Range<usize>) -> Range<usize> {
        let Some(parent) = self.parent else { return range };
        let start = self.source_of(range.start);
        // What was left out after the last byte stays in the text; an escape goes as a whole.
        let end = if self.is_stripped { self.source_of(range.end - 1) + 1 } else { self.source_of(range.end) };
        parent.in_text(start..end)
    }

    fn source_of(&self, out: usize) -> usize {
        let next = self.runs.partition_point(|run| run.out <= out);
        match next.checked_sub(1).map(|index| self.runs[index]) {
            Some(run) => run.source + (out - run.out),
            None => out,
        }
    }

    /// The view after one more round; none if the round changes nothing.
    fn decode(&self, escapes: Escapes) -> Option<View<'_>> {
        let bytes = &*self.bytes;
        let next_trigger = |from: usize| {
            let ahead = memchr::memchr3(escapes[0], escapes[1], escapes[2], &bytes[from..]);
            ahead.map_or(bytes.len(), |ahead| from + ahead)
        };
        let mut at = next_trigger(0);
        let mut out = Vec::new();
        let mut runs = Vec::new();
        let mut copied = 0;
        while at < bytes.len() {
            match escape(&bytes[at..]) {
                Some((byte, length)) => {
                    if runs.is_empty() {
                        out.reserve(bytes.len());
                        runs.reserve(RUNS_TYPICAL);
                    }
                    out.extend_from_slice(&bytes[copied..at]);
                    runs.push(Run { out: out.len(), source: at });
                    out.push(byte);
                    at += length;
                    copied = at;
                    runs.push(Run { out: out.len(), source: at });
                }
                // Not an escape after all: the character itself.
                None => at += 1,
            }
            at = next_trigger(at);
        }
        if runs.is_empty() {
            return None;
        }
        out.extend_from_slice(&bytes[copied..]);
        Some(View { bytes: Cow::Owned(out), runs, parent: Some(self), is_stripped: false })
    }

    fn without(&self, stripped: Stripped) -> View<'_> {
        let mut is_stripped = [false; 256];
        let bytes: &[u8] = match stripped {
            Stripped::WhiteSpace => b" \t\r\n",
            Stripped::Zeros => b"\0",
        };
        bytes.iter().for_each(|byte| is_stripped[usize::from(*byte)] = true);
        let mut out = Vec::with_capacity(self.bytes.len());
        let mut runs = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            let rest = &self.bytes[at..];
            let length = rest.iter().position(|byte| is_stripped[usize::from(*byte)]).unwrap_or(rest.len());
            if length > 0 {
                runs.push(Run { out: out.len(), source: at });
                out.extend_from_slice(&rest[..length]);
            }
            at += length + 1;
        }
        View { bytes: Cow::Owned(out), runs, parent: Some(self), is_stripped: true }
    }
}

/// What stands in a view for a character outside ASCII: values are ASCII, so which one makes no
/// difference.
const NOT_ASCII: u8 = 0xff;

/// The byte that an escape stands for, and the escape's length; `text` begins with `%`, `\` or `&`.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    match text[0] {
        b'%' => Some((hex_number(text.get(1..3)?)? as u8, 3)),
        b'\\' => backslash(text),
        _ => entity(text),
    }
}

/// JSON (RFC 8259 §7), and `\xNN` of C, Python and JavaScript.
fn backslash(text: &[u8]) -> Option<(u8, usize)> {
    let byte = match text.get(1)? {
        b'u' => return Some((ascii_or_mark(hex_number(text.get(2..6)?)?), 6)),
        b'x' => return Some((hex_number(text.get(2..4)?)? as u8, 4)),
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        byte @ (b'"' | b'\'' | b'\\' | b'/') => *byte,
        _ => return None,
    };
    Some((byte, 2))
}

/// HTML: the five names that encoders write, and numbers. The semicolon of a number may be missing, as
/// in what browsers accept.
fn entity(text: &[u8]) -> Option<(u8, usize)> {
    const NAMES: [(&[u8], u8); 6] =
        [(b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&quot;", b'"'), (b"&apos;", b'\''), (b"&nbsp;", b' ')];
    let named =
        NAMES.iter().find(|(name, _)| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)));
    if let Some((name, byte)) = named {
        return Some((*byte, name.len()));
    }
    let digits = text.strip_prefix(b"&#")?;
    let (digits, radix, before) = match digits.first()? {
        b'x' | b'X' => (&digits[1..], 16, 3),
        _ => (digits, 10, 2),
    };
    // Leading zeros are allowed; more than seven digits are no character.
    let count = digits.iter().take(8).take_while(|byte| char::from(**byte).is_digit(radix)).count();
    if count == 0 || count == 8 {
        return None;
    }
    let number = u32::from_str_radix(std::str::from_utf8(&digits[..count]).ok()?, radix).ok()?;
    let semicolon = usize::from(digits.get(count) == Some(&b';'));
    Some((ascii_or_mark(number), before + count + semicolon))
}

fn hex_number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

fn ascii_or_mark(number: u32) -> u8 {
    u8::try_from(number).ok().filter(u8::is_ascii).unwrap_or(NOT_ASCII)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn views(text: &[u8]) -> Vec<(Vec<u8>, Vec<Range<usize>>)> {
        let mut seen = Vec::new();
        each_view(text, false, &mut |view| {
            let places = (0..view.bytes.len()).map(|at| view.in_text(at..at + 1)).collect();
            seen.push((view.bytes.to_vec(), places));
        });
        seen
    }

    #[test]
    fn a_text_without_escapes_has_no_other_view() {
        assert_eq!(views(b"plain text, 100%, a & b, c:\\d").len(), 1);
    }

    #[test]
    fn each_byte_of_a_view_knows_the_escape_it_comes_from() {
        let seen = views(br"a%62\u0063&#100;e");
        assert_eq!(seen[1].0, b"abcde");
        assert_eq!(seen[1].1, [0..1, 1..4, 4..10, 10..16, 16..17]);
        let seen = views(b"%2562");
        assert_eq!(seen[1].0, b"%62");
        assert_eq!((seen[2].0.as_slice(), &seen[2].1[0]), (b"b".as_slice(), &(0..5)));
    }

    #[test]
    fn what_is_stripped_after_a_match_stays_in_the_text() {
        let seen = views(b"ab\r\n c\nd");
        assert_eq!(seen[1].0, b"abcd");
        assert_eq!(seen[1].1, [0..1, 1..2, 5..6, 7..8]);
        let seen = views(b"a\0b\0");
        assert_eq!(seen[1].0, b"ab");
        assert_eq!(seen[1].1, [0..1, 2..3]);
    }

    #[test]
    fn escapes_that_are_cut_off_or_wrong_are_left_as_they_are() {
        for text in [br"%".as_slice(), b"%4", b"%zz", br"\", br"\u00", br"\x4", br"\q", b"&", b"&#", b"&#x;", b"&amp"] {
            assert_eq!(decoded(text), text, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(decoded(br"%%41\\\/&AMP;&#65&#X41;&#0000065;&#99999999;"), br"%A\/&AAA&#99999999;");
    }
}
