//! What is wrong with the shape of a body, in words: which field, and what may stand there. Never what stood there: a
//! body may hold a credential, and a caller's mistake may be to have put it in the wrong place (threats X11).

use serde_json::Error;
use serde_path_to_error::Path;
use serde_path_to_error::Segment;

/// A refused shape: where it is, as a JSON pointer (RFC 6901), and a sentence. No pointer stands for the whole body.
pub(super) struct Shape {
    pub(super) pointer: Option<String>,
    pub(super) said: String,
}

impl Shape {
    pub(super) fn of(path: &Path, error: &Error) -> Self {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&place).unwrap_or(&message);
        let pointer = pointer(path, message.strip_prefix(UNKNOWN_FIELD).and_then(|rest| rest.split('`').next()));
        let said = if is_own(message) { message.to_owned() } else { sentence(message, &place) };
        Self { pointer: (!pointer.is_empty()).then_some(pointer), said }
    }
}

/// Our own types say what a text must be in such words, and quote nothing: see `NameMalformed`, `IdMalformed`,
/// `DigestMalformed`, `UrlMalformed`, `PatternMalformed`.
fn is_own(message: &str) -> bool {
    message.starts_with("not a ") || message.starts_with("not an ")
}

const UNKNOWN_FIELD: &str = "unknown field `";

/// What serde says, without the value that it found. What may stand there comes last in its sentences.
fn sentence(message: &str, place: &str) -> String {
    let expected = || message.rsplit_once("expected ").map(|(_, expected)| plain(expected));
    let known = || if message.ends_with("there are no fields") { None } else { expected() };
    if let Some(rest) = message.strip_prefix(UNKNOWN_FIELD) {
        let unknown = match word(rest.split('`').next().unwrap_or_default()) {
            Some(name) => format!("unknown field `{name}`"),
            None => format!("unknown field{place}"),
        };
        return known().map_or_else(|| unknown.clone(), |known| format!("{unknown}, expected {known}"));
    }
    // Their names are of our types.
    if message.starts_with("missing field `") || message.starts_with("duplicate field `") {
        return message.to_owned();
    }
    let found = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant `"];
    match expected().filter(|_| found.iter().any(|found| message.starts_with(found))) {
        Some(expected) => format!("expected {expected}"),
        // serde_json, of something other than a name out of a list of names.
        None if message == "expected value" => "expected a string".to_owned(),
        None => "what stands here is not understood".to_owned(),
    }
}

/// What was expected, in words of JSON where serde has those of Rust.
fn plain(expected: &str) -> String {
    let first = expected.split(' ').next().unwrap_or_default();
    match first {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i32" | "i64" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "struct" | "internally" | "map" => "an object".to_owned(),
        _ => match expected {
            "a map" => "an object".to_owned(),
            "a sequence" => "a list".to_owned(),
            "a boolean" => "`true` or `false`".to_owned(),
            other => other.to_owned(),
        },
    }
}

/// The path, as far as its names are plain words: those of a map are the caller's. It stops before an unknown field.
fn pointer(path: &Path, unknown: Option<&str>) -> String {
    let mut pointer = String::new();
    let mut segments = path.iter().peekable();
    while let Some(segment) = segments.next() {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } if segments.peek().is_none() && unknown == Some(key) => break,
            Segment::Map { key } => match word(key) {
                Some(word) => word.to_owned(),
                None => break,
            },
            Segment::Enum { .. } | Segment::Unknown => break,
        };
        pointer.push('/');
        pointer.push_str(&step);
    }
    pointer
}

/// The longest name of a field of ours is shorter.
const WORD_BYTES_MAX: usize = 32;

/// A name as fields have them, of letters and `_`: what has digits or is long might be a value in the wrong place.
fn word(text: &str) -> Option<&str> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    (is_word && (1..=WORD_BYTES_MAX).contains(&text.len())).then_some(text)
}
