//! One record as one line of text: how it is sealed onto the chain, and how that is checked again.
//! Knows nothing of what a record means, nor of files.
//!
//! A line is `{"seq":…,"time":…,"prev":"…","kind":"…",…,"hash":"…"}` in exactly this form. Its hash
//! covers the bytes of the line itself, up to `,"hash"`: there is no canonical form to disagree about,
//! and because `prev` is among them, no line can be moved, left out or said twice.

use std::fmt;
use std::sync::LazyLock;

use keybearer_contract::UnixMillis;
use serde::Deserialize;
use serde::Serialize;

use crate::Why;

/// A blake3 hash of the chain, as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainHash([u8; 32]);

/// Where a chain stands: its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The last record's number; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: ChainHash,
}

/// The longest line. A record names things; the longest of them is a path of 8 KiB.
pub(crate) const LINE_BYTES_MAX: usize = 64 << 10;

/// What a whole line says of itself, once it is known to continue the chain.
pub(crate) struct Opened<'line> {
    pub(crate) head: Head,
    pub(crate) kind: &'line str,
}

/// Separates this use of blake3 from every other one. Setting up a context hashes it, so it is done once.
static CHAIN: LazyLock<blake3::Hasher> =
    LazyLock::new(|| blake3::Hasher::new_derive_key("keybearer 2026-11 ledger chain"));

const GENESIS_CONTEXT: &str = "keybearer 2026-11 ledger genesis: public key";

impl Head {
    /// Where a chain begins: bound to its key, so that one ledger cannot stand in another's place.
    pub(crate) fn genesis(public_key: &[u8; 32]) -> Self {
        Self { seq: 0, hash: ChainHash(blake3::derive_key(GENESIS_CONTEXT, public_key)) }
    }
}

/// Seals one record onto `head` and appends its line, newline included, to `buffer`. `body` is the inner
/// text of a JSON object, without its braces; it may be empty.
pub(crate) fn seal(buffer: &mut Vec<u8>, head: Head, time: UnixMillis, kind: &str, body: &[u8]) -> Head {
    let start = buffer.len();
    let seq = head.seq + 1;
    buffer.extend_from_slice(b"{\"seq\":");
    digits(buffer, seq);
    buffer.extend_from_slice(b",\"time\":");
    digits(buffer, time.0);
    buffer.extend_from_slice(b",\"prev\":\"");
    buffer.extend_from_slice(head.hash.to_hex().as_bytes());
    buffer.extend_from_slice(b"\",\"kind\":\"");
    buffer.extend_from_slice(kind.as_bytes());
    buffer.push(b'"');
    if !body.is_empty() {
        buffer.push(b',');
        buffer.extend_from_slice(body);
    }
    let hash = ChainHash::of(&buffer[start..]);
    buffer.extend_from_slice(HASH_FIELD);
    buffer.extend_from_slice(hash.to_hex().as_bytes());
    buffer.extend_from_slice(b"\"}\n");
    Head { seq, hash }
}

/// Without the formatter, as each call has dozens.
fn digits(buffer: &mut Vec<u8>, number: u64) {
    serde_json::to_writer(buffer, &number).expect("a vector takes every write");
}

const HASH_FIELD: &[u8] = b",\"hash\":\"";
const HEX_CHARS: usize = 64;
/// `,"hash":"` + 64 hex digits + `"}`
const TAIL_BYTES: usize = HASH_FIELD.len() + HEX_CHARS + 2;

/// Checks that a line, without its newline, is the one that follows `head`.
pub(crate) fn open(line: &[u8], head: Head) -> Result<Opened<'_>, Why> {
    let (sealed, tail) = line
        .split_at_checked(line.len().saturating_sub(TAIL_BYTES))
        .filter(|_| line.len() > TAIL_BYTES)
        .ok_or(Why::Malformed)?;
    let written = tail.strip_prefix(HASH_FIELD).and_then(|rest| rest.strip_suffix(b"\"}")).ok_or(Why::Malformed)?;
    let front = Front::parse(sealed).ok_or(Why::Malformed)?;
    if front.seq != head.seq + 1 {
        return Err(Why::OutOfOrder { expected: head.seq + 1, found: front.seq });
    }
    let hash = ChainHash::of(sealed);
    if hash.to_hex().as_bytes() != written {
        return Err(Why::Edited);
    }
    if head.hash.to_hex().as_bytes() != front.prev {
        return Err(Why::OffTheChain);
    }
    Ok(Opened { head: Head { seq: front.seq, hash }, kind: front.kind })
}

/// What a line says of itself, taken at its word: for finding one's place in a file that is checked
/// elsewhere.
pub(crate) fn claimed_head(line: &[u8]) -> Option<Head> {
    let (sealed, tail) = line.split_at_checked(line.len().checked_sub(TAIL_BYTES)?)?;
    let hex = tail.strip_prefix(HASH_FIELD)?.strip_suffix(b"\"}")?;
    let hash = ChainHash::from_hex(std::str::from_utf8(hex).ok()?)?;
    Some(Head { seq: Front::parse(sealed)?.seq, hash })
}

/// The fixed front of a line.
struct Front<'line> {
    seq: u64,
    prev: &'line [u8],
    kind: &'line str,
}

impl<'line> Front<'line> {
    fn parse(sealed: &'line [u8]) -> Option<Self> {
        let (seq, rest) = number(sealed.strip_prefix(b"{\"seq\":")?)?;
        let (_, rest) = number(rest.strip_prefix(b",\"time\":")?)?;
        let (prev, rest) = rest.strip_prefix(b",\"prev\":\"")?.split_at_checked(HEX_CHARS)?;
        let rest = rest.strip_prefix(b"\",\"kind\":\"")?;
        let kind = &rest[..rest.iter().position(|byte| *byte == b'"')?];
        Some(Self { seq, prev, kind: std::str::from_utf8(kind).ok()? })
    }
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

impl ChainHash {
    fn of(sealed: &[u8]) -> Self {
        Self(*CHAIN.clone().update(sealed).finalize().as_bytes())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn to_hex(self) -> impl std::ops::Deref<Target = str> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }

    fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        blake3::Hash::from_hex(text).ok().map(|hash| Self(*hash.as_bytes()))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_hex())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl TryFrom<String> for ChainHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::from_hex(&text).ok_or("not a hash: it must be 64 lower-case hex digits")
    }
}

impl From<ChainHash> for String {
    fn from(hash: ChainHash) -> Self {
        hash.to_hex().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head::genesis(&[7; 32])
    }

    #[test]
    fn a_sealed_line_opens_onto_the_head_that_it_was_sealed_onto_and_no_other() {
        let mut buffer = Vec::new();
        let next = seal(&mut buffer, head(), UnixMillis(5), "act", b"\"a\":1");
        let line = buffer.strip_suffix(b"\n").expect("newline");
        let opened = open(line, head()).expect("opens");
        assert_eq!((opened.head, opened.kind), (next, "act"));
        assert_eq!(claimed_head(line), Some(next));
        assert!(matches!(open(line, next), Err(Why::OutOfOrder { expected: 2, found: 1 })));
        assert!(matches!(open(line, Head::genesis(&[8; 32])), Err(Why::OffTheChain)));
    }

    #[test]
    fn a_line_is_json_as_it_stands() {
        let mut buffer = Vec::new();
        seal(&mut buffer, head(), UnixMillis(5), "resumed", b"");
        let value: serde_json::Value = serde_json::from_slice(&buffer).expect("JSON");
        assert_eq!(value["prev"], head().hash.to_string());
    }

    #[test]
    fn a_line_that_is_none_is_malformed_and_never_a_panic() {
        for line in ["", "{}", "{\"seq\":1", &"x".repeat(TAIL_BYTES), &"é".repeat(TAIL_BYTES)] {
            assert!(matches!(open(line.as_bytes(), head()), Err(Why::Malformed)), "{line}");
            assert_eq!(claimed_head(line.as_bytes()), None);
        }
    }
}
