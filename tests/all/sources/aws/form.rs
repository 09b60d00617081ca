//! The fields of a form, as STS reads them.

use keybearer_tests::Recorded;

pub(super) fn form(request: &Recorded) -> Vec<(String, String)> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decode(name), decode(value))).collect()
}

pub(super) fn field(form: &[(String, String)], name: &str) -> Option<String> {
    form.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone())
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).1,
            None => (bytes.push(if *first == b'+' { b' ' } else { *first }), rest = after).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
