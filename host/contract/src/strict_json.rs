//! JSON that two parsers cannot read in two ways: one pass over a text which refuses what RFC 8259
//! leaves open (duplicate names, depth, numbers beyond a double) with what it forbids (a byte order
//! mark, `NaN`, lone surrogates, bytes after the value). Its errors never quote the text, because it may
//! hold a secret.

use std::collections::HashSet;
use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Map;
use serde_json::Value;

/// The text is not strict JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {offset}")]
pub struct StrictJsonError {
    /// What is wrong, in words that quote nothing of the text.
    pub what: String,
    /// About where: an offset in bytes from the start of the text.
    pub offset: usize,
}

/// The deepest nesting that the API takes; a tool's arguments that need more are a mistake.
pub const DEPTH_MAX: usize = 64;

/// The parser's own recursion limit, which must not be what decides.
const PARSER_DEPTH: usize = 127;

/// Checks that a text is exactly one JSON value, nested no deeper than `depth_max` (at most 127), in
/// which no object has a name twice.
///
/// # Errors
/// [`StrictJsonError`] says what is wrong and where.
pub fn check(text: &[u8], depth_max: usize) -> Result<(), StrictJsonError> {
    walk::<false>(text, depth_max).map(drop)
}

/// The same, with the value that the text says.
///
/// # Errors
/// As [`check`].
pub fn parse(text: &[u8], depth_max: usize) -> Result<Value, StrictJsonError> {
    walk::<true>(text, depth_max)
}

fn walk<const KEEP: bool>(text: &[u8], depth_max: usize) -> Result<Value, StrictJsonError> {
    let depth_max = depth_max.min(PARSER_DEPTH);
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(StrictJsonError { what: "a byte order mark".to_owned(), offset: 0 });
    }
    let mut parser = serde_json::Deserializer::from_slice(text);
    Walk::<KEEP> { levels_left: depth_max }
        .deserialize(&mut parser)
        .and_then(|value| parser.end().map(|()| value))
        .map_err(|error| StrictJsonError { what: words(&error), offset: offset(text, &error) })
}

/// The parser's message without the position, which is told as an offset.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(front, _)| front).to_owned()
}

fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let before: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column().saturating_sub(1)).min(text.len())
}

/// Walks one value, which it keeps; or keeps nothing of it, and says null.
#[derive(Clone, Copy)]
struct Walk<const KEEP: bool> {
    levels_left: usize,
}

impl<const KEEP: bool> Walk<KEEP> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom("nesting is too deep"))?;
        Ok(Self { levels_left })
    }
}

impl<'de, const KEEP: bool> DeserializeSeed<'de> for Walk<KEEP> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const KEEP: bool> Visitor<'de> for Walk<KEEP> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(if KEEP { Value::String(text.to_owned()) } else { Value::Null })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = self.deeper()?;
        let mut kept = Vec::new();
        while let Some(value) = items.next_element_seed(item)? {
            if KEEP {
                kept.push(value);
            }
        }
        Ok(Value::Array(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let value = self.deeper()?;
        let (mut names, mut kept) = (Names::default(), Map::new());
        while let Some(name) = members.next_key_seed(Name)? {
            let is_new = if KEEP { !kept.contains_key(&*name) } else { names.add(name.clone()) };
            if !is_new {
                return Err(A::Error::custom("an object has a name twice"));
            }
            let value = members.next_value_seed(value)?;
            if KEEP {
                kept.insert(name.into_owned(), value);
            }
        }
        Ok(Value::Object(kept))
    }
}

/// The names of one object: a short list is searched, a long one is hashed (with the random keys of
/// the standard library, so that nobody can choose names that collide).
#[derive(Default)]
struct Names<'de> {
    few: Vec<std::borrow::Cow<'de, str>>,
    many: HashSet<std::borrow::Cow<'de, str>>,
}

const FEW_NAMES: usize = 12;

impl<'de> Names<'de> {
    /// Whether the name is new.
    fn add(&mut self, name: std::borrow::Cow<'de, str>) -> bool {
        if self.many.is_empty() {
            if self.few.contains(&name) {
                return false;
            }
            self.few.push(name);
            if self.few.len() > FEW_NAMES {
                self.many.extend(self.few.drain(..));
            }
            return true;
        }
        self.many.insert(name)
    }
}

/// A member's name: borrowed where it has no escapes, and compared after unescaping.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(std::borrow::Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(std::borrow::Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn plain_json_passes() {
        for good in [
            r#"{"a":1,"b":{"a":[1,2.5,-0,"x\n\ud83d\ude00",null,true]}}"#,
            " [] ",
            "0",
            r#""text""#,
            r#"{"":1}"#,
            r#"[{"a":1},{"a":1}]"#,
            "123456789012345678901234567890",
        ] {
            assert_eq!(check(good.as_bytes(), DEPTH_MAX), Ok(()), "{good}");
            let value: Value = serde_json::from_str(good).expect("JSON");
            assert_eq!(parse(good.as_bytes(), DEPTH_MAX), Ok(value), "{good}");
        }
    }

    #[test]
    fn h02_what_two_parsers_could_read_in_two_ways_is_refused() {
        for bad in [
            &br#"{"a":1,"a":2}"#[..],
            br#"{"a":1,"\u0061":2}"#,
            br#"{"x":[{"deep":{"b":1,"b":1}}]}"#,
            b"\xef\xbb\xbf{}",
            b"NaN",
            b"[Infinity]",
            b"[1e400]",
            b"[-1e400]",
            b"{} x",
            b"{}{}",
            b"{}\0",
            br#""\ud800""#,
            br#"{"\udc00":1}"#,
            br#""\ud800\ud800""#,
            b"\"\xff\"",
            b"\"\xc0\xaf\"",
            b"\"a\nb\"",
            b"[01]",
            b"[1,]",
            b"{'a':1}",
            b"[.5]",
            b"[+1]",
            b"/*c*/1",
            b"",
            b" ",
            b"{\"a\"",
        ] {
            assert!(check(bad, DEPTH_MAX).is_err(), "{}", String::from_utf8_lossy(bad));
            assert_eq!(parse(bad, DEPTH_MAX).err(), check(bad, DEPTH_MAX).err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn h02_nesting_is_counted_and_a_deep_text_does_not_overflow_the_stack() {
        assert_eq!(check(nested(64).as_bytes(), 64), Ok(()));
        assert_eq!(check(nested(65).as_bytes(), 64).expect_err("too deep").what, "nesting is too deep");
        assert!(check(nested(100_000).as_bytes(), 64).is_err());
        assert!(check("[".repeat(100_000).as_bytes(), usize::MAX).is_err());
        let objects = format!("{}1{}", r#"{"a":"#.repeat(65), "}".repeat(65));
        assert!(check(objects.as_bytes(), 64).is_err());
    }

    #[test]
    fn h02_a_name_twice_is_found_among_many_names_too() {
        let mut members: Vec<String> = (0..50_000).map(|index| format!("\"n{index}\":0")).collect();
        assert_eq!(check(format!("{{{}}}", members.join(",")).as_bytes(), 64), Ok(()));
        members.push("\"n7\":0".to_owned());
        let text = format!("{{{}}}", members.join(","));
        let error = check(text.as_bytes(), 64).expect_err("twice");
        assert_eq!(error.what, "an object has a name twice");
        assert_eq!(parse(text.as_bytes(), 64), Err(error));
    }

    #[test]
    fn x11_an_error_says_where_and_quotes_nothing() {
        let error = check(b"{\n \"sk_live_abc\": sk_live_def}", 64).expect_err("no JSON");
        assert!(!error.to_string().contains("sk_live"), "{error}");
        assert_eq!(error.offset, 18);
        let error = check(br#"{"sk_live_abc":1,"sk_live_abc":1}"#, 64).expect_err("twice");
        assert!(!error.to_string().contains("sk_live"), "{error}");
    }
}
