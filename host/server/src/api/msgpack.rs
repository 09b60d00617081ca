//! MessagePack bodies: read into JSON text, so that there is one strict reading of a body and one form
//! of arguments. Maps have string keys; what JSON cannot say (bytes, extensions, NaN) is refused.

use std::fmt;

use keybearer_contract::Code;
use keybearer_contract::Problem;
use serde::Serialize;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// The JSON text of one MessagePack value, nested no deeper than `depth_max`.
pub(crate) fn to_json(bytes: &[u8], depth_max: usize) -> Result<String, Problem> {
    let refused = |what: &str| Problem::new(Code::MalformedBody, format!("mend the MessagePack: {what}"));
    let mut rest = bytes;
    let mut json = String::with_capacity(bytes.len() + bytes.len() / 4);
    let mut decoder = rmp_serde::Deserializer::new(&mut rest);
    // One more level than the walk allows, so that it is the walk which says so.
    decoder.set_max_depth(depth_max + 8);
    Write { json: &mut json, levels_left: depth_max }
        .deserialize(&mut decoder)
        .map_err(|error| refused(words(&error)))?;
    drop(decoder);
    if rest.is_empty() { Ok(json) } else { Err(refused("bytes follow the value")) }
}

/// The MessagePack of what serialises, with names; via JSON, because a result is JSON text.
pub(crate) fn from_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    let internal = || Problem::new(Code::Internal, "an answer could not be written as MessagePack");
    let json = serde_json::to_vec(value).map_err(|_| internal())?;
    let value: serde_json::Value = serde_json::from_slice(&json).map_err(|_| internal())?;
    rmp_serde::to_vec_named(&value).map_err(|_| internal())
}

/// Words that quote nothing of the body.
fn words(error: &rmp_serde::decode::Error) -> &'static str {
    use rmp_serde::decode::Error;
    match error {
        Error::Uncategorized(text) => KNOWN.iter().find(|known| *known == text).unwrap_or(&"it does not parse"),
        Error::DepthLimitExceeded => DEEP,
        Error::InvalidMarkerRead(_) | Error::InvalidDataRead(_) => "it ends early",
        _ => "it does not parse",
    }
}

const DEEP: &str = "nesting is too deep";
const BYTES: &str = "bytes and extensions have no place here";
const KEYS: &str = "maps have string keys here";
const NUMBER: &str = "NaN and infinities have no place here";
const KNOWN: &[&str] = &[DEEP, BYTES, KEYS, NUMBER];

/// Writes one value.
struct Write<'json> {
    json: &'json mut String,
    levels_left: usize,
}

impl Write<'_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<Write<'_>, E> {
        let levels_left = self.levels_left.checked_sub(1).ok_or_else(|| E::custom(DEEP))?;
        Ok(Write { json: self.json, levels_left })
    }

    fn put<E: serde::de::Error, T: Serialize + ?Sized>(self, value: &T) -> Result<(), E> {
        self.json.push_str(&serde_json::to_string(value).map_err(E::custom)?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Write<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Write<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value that JSON can say")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.put(&())
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.put(&())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        if value.is_finite() { self.put(&value) } else { Err(E::custom(NUMBER)) }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.put(value)
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<(), E> {
        Err(E::custom(BYTES))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(D::Error::custom(BYTES))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.json.push('[');
        let mut separator = "";
        loop {
            let length = self.json.len();
            self.json.push_str(separator);
            if items.next_element_seed(self.deeper()?)?.is_none() {
                self.json.truncate(length);
                break;
            }
            separator = ",";
        }
        self.json.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.json.push('{');
        let mut separator = "";
        loop {
            let length = self.json.len();
            self.json.push_str(separator);
            if members.next_key_seed(Key(self.json))?.is_none() {
                self.json.truncate(length);
                break;
            }
            self.json.push(':');
            members.next_value_seed(self.deeper()?)?;
            separator = ",";
        }
        self.json.push('}');
        Ok(())
    }
}

/// Writes one key, a string.
struct Key<'json>(&'json mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(KEYS)
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<(), E> {
        self.0.push_str(&serde_json::to_string(key).map_err(E::custom)?);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Err(E::custom(KEYS))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Err(E::custom(KEYS))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<(), E> {
        Err(E::custom(KEYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_json_can_say_comes_through_unchanged() {
        for value in [
            json!({"tool": "a.b", "arguments": {"x": [1, -2, 2.5, null, true, "ü\"\n"], "y": {}, "z": []}}),
            json!(u64::MAX),
            json!([[], {}]),
        ] {
            let bytes = rmp_serde::to_vec_named(&value).expect("writes");
            let text = to_json(&bytes, 64).expect("reads");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
            assert_eq!(from_json(&value).expect("writes"), bytes);
        }
    }

    #[test]
    fn h02_what_json_cannot_say_is_refused() {
        let deep = [vec![0x91; 65], vec![0xc0]].concat();
        for (what, bad) in [
            ("bytes", &[0xc4, 1, 0][..]),
            ("an extension", &[0xd4, 1, 0]),
            ("an integer key", &[0x81, 1, 1]),
            ("NaN", &[0xca, 0x7f, 0xc0, 0, 0]),
            ("infinity", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("two values", &[0xc0, 0xc0]),
            ("nothing", &[]),
            ("a string cut short", &[0xa5, b'a']),
            ("a string that is not UTF-8", &[0xa1, 0xff]),
            ("a reserved marker", &[0xc1]),
            ("a length that is a lie", &[0xdd, 0xff, 0xff, 0xff, 0xff]),
            ("depth", &deep),
        ] {
            let answer = to_json(bad, 64);
            assert_eq!(answer.map_err(|problem| problem.code), Err(Code::MalformedBody), "{what}");
        }
        assert!(to_json(&[vec![0x91; 64], vec![0xc0]].concat(), 64).is_ok());
    }

    #[test]
    fn h02_a_key_twice_does_not_survive_the_strict_reading() {
        let text = to_json(&[0x82, 0xa1, b'a', 1, 0xa1, b'a', 2], 64).expect("reads");
        assert!(crate::api::body::check(text.as_bytes(), 64).is_err());
    }
}
