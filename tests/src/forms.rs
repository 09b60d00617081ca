//! The forms in which a credential's value may come back or be left behind, written anew here so that they
//! share no mistake with the scrubber; and a search for all of them (oracle O1).

use std::io::Read as _;

use aho_corasick::AhoCorasick;

/// A value in one form, with something before and after it.
#[derive(Debug, Clone)]
pub struct Form {
    /// What it is called.
    pub name: &'static str,
    /// The text.
    pub text: Vec<u8>,
}

const BEFORE: &str = "before ";
const AFTER: &str = " after";

/// Every form of a value that the scrubber claims to find.
#[must_use]
pub fn forms(value: &str) -> Vec<Form> {
    let each = |encode: &dyn Fn(u8) -> String| value.bytes().map(encode).collect::<String>();
    let long = format!("{}{value}{}", "before ".repeat(9), " after".repeat(20));
    let inner = json_string(&json_string(value));
    let mut forms = vec![
        ("raw", value.to_owned()),
        ("upper case", value.to_ascii_uppercase()),
        ("hex, lower", each(&|byte| format!("{byte:02x}"))),
        ("hex, upper", each(&|byte| format!("{byte:02X}"))),
        ("hex, mixed", each(&|byte| if byte % 2 == 0 { format!("{byte:02x}") } else { format!("{byte:02X}") })),
        ("backslash x", each(&|byte| format!("\\x{byte:02x}"))),
        ("percent, all, lower", each(&|byte| format!("%{byte:02x}"))),
        ("percent, all, upper", each(&|byte| format!("%{byte:02X}"))),
        (
            "percent, every other",
            each(&|byte| if byte % 2 == 0 { format!("%{byte:02x}") } else { char::from(byte).to_string() }),
        ),
        ("percent, where needed", percent(value)),
        ("percent, twice", percent(&each(&|byte| format!("%{byte:02X}")))),
        ("form", percent(value).replace("%20", "+")),
        ("json, where needed", json_string(value)),
        ("json, all, lower", each(&|byte| format!("\\u{byte:04x}"))),
        ("json, all, upper", each(&|byte| format!("\\u{byte:04X}"))),
        ("json in json", inner),
        ("html, where needed", html(value)),
        ("html, decimal", each(&|byte| format!("&#{byte};"))),
        ("html, hex", each(&|byte| format!("&#x{byte:X};"))),
        ("base64, at 0", base64(value.as_bytes(), STANDARD)),
        ("base64, at 1", base64(format!("u{value}:after").as_bytes(), STANDARD)),
        ("base64, at 2", base64(format!("us{value}:after").as_bytes(), STANDARD)),
        ("base64url, at 0", base64(value.as_bytes(), URL)),
        ("base64url, at 1", base64(format!("u{value}:after").as_bytes(), URL)),
        ("base64url, at 2", base64(format!("us{value}:after").as_bytes(), URL)),
        ("base64, no padding", base64(value.as_bytes(), STANDARD).trim_end_matches('=').to_owned()),
        ("base64, in lines", wrapped(&base64(long.as_bytes(), STANDARD), "\r\n")),
        ("base64, in unix lines", wrapped(&base64(long.as_bytes(), STANDARD), "\n")),
        ("base64, percent-coded", percent(&base64(value.as_bytes(), STANDARD))),
    ];
    let wide = |high_first: bool| -> Vec<u8> {
        value.bytes().flat_map(|byte| if high_first { [0, byte] } else { [byte, 0] }).collect()
    };
    let mut all: Vec<Form> = forms.drain(..).map(|(name, text)| Form { name, text: text.into_bytes() }).collect();
    all.push(Form { name: "utf-16, little", text: wide(false) });
    all.push(Form { name: "utf-16, big", text: wide(true) });
    for form in &mut all {
        form.text = [BEFORE.as_bytes(), &form.text, AFTER.as_bytes()].concat();
    }
    all
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = alphabet[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn wrapped(text: &str, end: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line)).collect();
    lines.join(end)
}

fn percent(text: &str) -> String {
    let coded = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(coded).collect()
}

fn json_string(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Searches for what is left of values: any piece of `WINDOW_BYTES`, in any of the forms, in any case of
/// letters, in the bytes as they are, without white space, and in what they decompress to.
pub struct Traces {
    finder: AhoCorasick,
    names: Vec<String>,
}

/// The length of a piece of a value that counts as a trace.
const WINDOW_BYTES: usize = 12;

impl Traces {
    /// Of these values, each with a name.
    ///
    /// # Errors
    /// If a value is too short to be searched for.
    pub fn of(values: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut needles = Vec::new();
        let mut names = Vec::new();
        for (name, value) in values {
            anyhow::ensure!(value.len() >= WINDOW_BYTES, "{name} is too short to be searched for");
            let reversed: String = value.chars().rev().collect();
            for (form, needle) in pieces(value).chain(pieces(&reversed)) {
                names.push(format!("{name} ({form})"));
                needles.push(needle);
            }
        }
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(&needles)?;
        Ok(Self { finder, names })
    }

    /// The first trace in these bytes: whose, in which form, and where.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        self.find_to_depth(bytes, 2)
    }

    fn find_to_depth(&self, bytes: &[u8], depth: usize) -> Option<String> {
        if let Some(found) = self.finder.find(bytes) {
            return Some(format!("{} at byte {}", self.names[found.pattern().as_usize()], found.start()));
        }
        let narrow: Vec<u8> = bytes.iter().copied().filter(|byte| !b" \t\r\n".contains(byte)).collect();
        if let Some(found) = self.finder.find(&narrow) {
            return Some(format!("{} between white space", self.names[found.pattern().as_usize()]));
        }
        if depth == 0 {
            return None;
        }
        unpacked(bytes).find_map(|inner| self.find_to_depth(&inner, depth - 1).map(|found| format!("packed: {found}")))
    }
}

/// Pieces of a value in every form.
fn pieces(value: &str) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let mut pieces = Vec::new();
    for window in value.as_bytes().windows(WINDOW_BYTES) {
        let each = |encode: &dyn Fn(u8) -> String| window.iter().map(|byte| encode(*byte)).collect::<String>();
        let text = String::from_utf8_lossy(window).into_owned();
        pieces.push(("raw", window.to_vec()));
        pieces.push(("hex", each(&|byte| format!("{byte:02x}")).into_bytes()));
        pieces.push(("percent", each(&|byte| format!("%{byte:02x}")).into_bytes()));
        pieces.push(("percent, where needed", percent(&text).into_bytes()));
        pieces.push(("json", each(&|byte| format!("\\u{byte:04x}")).into_bytes()));
        pieces.push(("json, where needed", json_string(&text).into_bytes()));
        pieces.push(("html", html(&text).into_bytes()));
        pieces.push(("utf-16", window.iter().flat_map(|byte| [*byte, 0]).collect()));
        // The characters that depend on these bytes alone, whatever stands before them.
        for alphabet in [STANDARD, URL] {
            for offset in 0..3_usize {
                let shifted = [&vec![0; offset], window].concat();
                let encoded = base64(&shifted, alphabet).into_bytes();
                pieces.push(("base64", encoded[(8 * offset).div_ceil(6)..8 * shifted.len() / 6].to_vec()));
            }
        }
    }
    pieces.into_iter()
}

/// Whatever in these bytes begins like gzip, zlib or zstd, decompressed as far as it goes.
fn unpacked(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len().saturating_sub(4)).filter_map(|at| {
        let rest = &bytes[at..];
        let mut inner = Vec::new();
        // What is no such thing after all decodes to little or nothing, and how it ends is of no interest.
        let _end = match rest {
            [0x1f, 0x8b, 8, ..] => flate2::read::MultiGzDecoder::new(rest).take(1 << 20).read_to_end(&mut inner),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
                flate2::read::ZlibDecoder::new(rest).take(1 << 20).read_to_end(&mut inner)
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => match ruzstd::decoding::StreamingDecoder::new(rest) {
                Ok(decoder) => decoder.take(1 << 20).read_to_end(&mut inner),
                Err(_) => return None,
            },
            _ => return None,
        };
        (!inner.is_empty()).then_some(inner)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const VALUE: &str = "tok_0123456789/abcdef+\"<&%";

    #[test]
    fn o1_a_trace_is_found_in_every_form_and_in_what_is_packed() {
        let traces = Traces::of(&[("value", VALUE)]).expect("a search");
        for form in forms(VALUE) {
            // These two change a value by more than the search undoes; the scrubber is tried with them.
            if ["backslash x", "percent, every other", "percent, twice", "json in json", "base64, percent-coded"]
                .contains(&form.name)
                || form.name.starts_with("html, ")
            {
                continue;
            }
            assert!(traces.find(&form.text).is_some(), "{}", form.name);
        }
        let reversed: String = VALUE.chars().rev().collect();
        assert!(traces.find(reversed.as_bytes()).is_some());
        let mut encoder = flate2::write::GzEncoder::new(b"junk".to_vec(), flate2::Compression::default());
        encoder.write_all(format!("some text around {VALUE} and after").as_bytes()).expect("written");
        assert!(traces.find(&encoder.finish().expect("packed")).is_some());
        assert_eq!(traces.find(b"before [redacted] after, tok_0123"), None);
    }

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(text.as_bytes(), STANDARD), expected);
        }
    }
}
