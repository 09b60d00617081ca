//! One text for every way of writing the same JSON: members in the order of their names, no white space,
//! strings with the escapes that must be. Numbers stay as they are written: a guest gets the text, and what
//! it makes of `1` and of `1.0` is its own affair. For comparing requests; nothing that is sent or kept.

/// The canonical text of a JSON value that was parsed before; the text itself, should it be none.
pub(crate) fn canonical(text: &str) -> String {
    let mut scan = Scan { text, at: 0 };
    match scan.value(DEPTH_MAX) {
        Some(canonical) if scan.rest().trim_matches(BLANK).is_empty() => canonical,
        _ => text.to_owned(),
    }
}

/// serde_json, which has parsed the text, nests no deeper.
const DEPTH_MAX: usize = 128;

const BLANK: [char; 4] = [' ', '\t', '\n', '\r'];

/// Reads a text from front to back.
struct Scan<'text> {
    text: &'text str,
    at: usize,
}

impl<'text> Scan<'text> {
    fn rest(&self) -> &'text str {
        &self.text[self.at..]
    }

    /// Takes a character, if it is the next one after white space.
    fn take(&mut self, wanted: char) -> Option<()> {
        let rest = self.rest().trim_start_matches(BLANK);
        self.at = self.text.len() - rest.len();
        rest.strip_prefix(wanted)?;
        self.at += wanted.len_utf8();
        Some(())
    }

    fn value(&mut self, levels_left: usize) -> Option<String> {
        let deeper = levels_left.checked_sub(1)?;
        if self.take('{').is_some() {
            self.object(deeper)
        } else if self.take('[').is_some() {
            let items = self.list(']', |scan| scan.value(deeper))?;
            Some(format!("[{}]", items.join(",")))
        } else if self.take('"').is_some() {
            self.string()
        } else {
            let rest = self.rest();
            let end = rest.find(|next| BLANK.contains(&next) || matches!(next, ',' | ']' | '}')).unwrap_or(rest.len());
            self.at += end;
            (end > 0).then(|| rest[..end].to_owned())
        }
    }

    fn object(&mut self, deeper: usize) -> Option<String> {
        let mut members = self.list('}', |scan| {
            scan.take('"')?;
            let name = scan.string()?;
            scan.take(':')?;
            Some((name, scan.value(deeper)?))
        })?;
        members.sort();
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        Some(format!("{{{}}}", members.join(",")))
    }

    /// What stands between commas, up to the end.
    fn list<T>(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if self.take(end).is_some() {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(end).is_some() {
                return Some(items);
            }
            self.take(',')?;
        }
    }

    /// A string whose opening mark was taken, with its escapes resolved and made again.
    fn string(&mut self) -> Option<String> {
        let begin = self.at - 1;
        let mut escaped = false;
        let length = self.rest().find(|next| {
            let is_end = next == '"' && !escaped;
            escaped = next == '\\' && !escaped;
            is_end
        })?;
        self.at += length + 1;
        let plain: String = serde_json::from_str(&self.text[begin..self.at]).ok()?;
        serde_json::to_string(&plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn t09_order_white_space_and_escapes_make_no_difference() {
        let one = canonical(r#"{"b":[1,{"y":null,"x":true}],"a":"A/\n\"é\\","c":{}}"#);
        let other = canonical(
            " {\r\n\t\"c\" : { } , \"a\":\"\\u0041\\/\\u000a\\\"\\u00e9\\\\\",\"b\" :[ 1 , {\"x\":true, \"y\": null}] } ",
        );
        assert_eq!(one, other);
        assert_eq!(one, r#"{"a":"A/\n\"é\\","b":[1,{"x":true,"y":null}],"c":{}}"#);
    }

    #[test]
    fn t09_what_a_guest_could_tell_apart_makes_a_difference() {
        let texts = [
            "{}",
            "[]",
            "\"{}\"",
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":1e0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":null}"#,
            r#"{"b":1}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":18446744073709551617}"#,
            r#"{"a":"\\n"}"#,
            r#"{"a":"\n"}"#,
            r#"{"a":"1,b"}"#,
            r#"{"a":" 1"}"#,
        ];
        for (at, one) in texts.iter().enumerate() {
            for other in &texts[at + 1..] {
                assert_ne!(canonical(one), canonical(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn it_is_the_same_value_and_canonical_already() {
        for text in [r#"{"b":[1.50,-0,{"z":"\u0000","a":[[],{}]}],"a":false}"#, "[[[]]]", "\"\\ud83d\\ude00\"", "1"] {
            let canonical_text = canonical(text);
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
            assert_eq!(value(&canonical_text), value(text));
            assert_eq!(canonical(&canonical_text), canonical_text);
        }
    }

    #[test]
    fn what_is_no_json_stays_as_it_is() {
        for text in ["", "{", "{\"a\"}", "[1,]x", "\"", "{} {}", "\"\\\"", &"[".repeat(100_000)] {
            assert_eq!(canonical(text), text);
        }
    }
}
