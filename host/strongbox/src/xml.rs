//! As much of XML as the answers of AWS's older services are written in: elements, attributes that are passed over, text with
//! the five entities that XML itself has. Everything else, as a document type, a comment, an entity of the document's own, makes the
//! answer malformed.

use zeroize::Zeroizing;

/// Such answers are four or five deep.
const DEPTH_MAX: usize = 16;

/// The document is not of this kind, or what was asked for stands in it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The text of the one element at the end of a path of names, the root's first; none if there is no such element.
///
/// # Errors
/// [`Malformed`], also for an element that is there twice, or has elements within.
pub(crate) fn text_at(document: &[u8], path: &[String]) -> Result<Option<Zeroizing<String>>, Malformed> {
    let document = std::str::from_utf8(document).map_err(|_| Malformed)?.trim_ascii();
    let mut rest = match document.strip_prefix("<?xml ") {
        Some(declaration) => declaration.split_once("?>").ok_or(Malformed)?.1,
        None => document,
    };
    // By name, and whether elements are within.
    let mut open: Vec<(&str, bool)> = Vec::new();
    let mut found = None;
    loop {
        let (text, tag) = rest.split_once('<').ok_or(Malformed)?;
        let (tag, after) = tag.split_once('>').ok_or(Malformed)?;
        rest = after;
        // Text beside elements is white space, or nothing that is known here.
        let is_blank = text.trim_ascii().is_empty();
        if let Some(name) = tag.strip_prefix('/') {
            let (opened, has_elements) = open.pop().filter(|(opened, _)| *opened == name).ok_or(Malformed)?;
            let here = open.iter().map(|(name, _)| *name).chain([opened]);
            let is_asked_for = here.eq(path.iter().map(String::as_str));
            if has_elements && (is_asked_for || !is_blank) {
                return Err(Malformed);
            }
            if is_asked_for && found.replace(decoded(text)?).is_some() {
                return Err(Malformed);
            }
        } else {
            let (name, is_empty) = opening(tag)?;
            if !is_blank || open.len() >= DEPTH_MAX {
                return Err(Malformed);
            }
            if let Some(parent) = open.last_mut() {
                parent.1 = true;
            }
            if !is_empty {
                open.push((name, false));
            }
        }
        if open.is_empty() {
            return if rest.trim_ascii().is_empty() { Ok(found) } else { Err(Malformed) };
        }
    }
}

/// The name of an opening tag, and whether it closes itself. An attribute's value holds neither `<` nor `>` here.
fn opening(tag: &str) -> Result<(&str, bool), Malformed> {
    let (tag, is_empty) = tag.strip_suffix('/').map_or((tag, false), |tag| (tag, true));
    let (name, attributes) = tag.split_once(|space: char| space.is_ascii_whitespace()).unwrap_or((tag, ""));
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    let is_name = name.bytes().all(fits) && name.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_quoted = attributes.bytes().filter(|byte| *byte == b'"').count() % 2 == 0;
    if is_name && is_quoted { Ok((name, is_empty)) } else { Err(Malformed) }
}

fn decoded(text: &str) -> Result<Zeroizing<String>, Malformed> {
    // Reserved whole, so that it is never moved while it grows.
    let mut decoded = Zeroizing::new(String::with_capacity(text.len()));
    let mut parts = text.split('&');
    decoded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (entity, plain) = part.split_once(';').ok_or(Malformed)?;
        decoded.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => return Err(Malformed),
        });
        decoded.push_str(plain);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(document: &str, path: &[&str]) -> Result<Option<String>, Malformed> {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        text_at(document.as_bytes(), &path).map(|text| text.map(|text| (*text).clone()))
    }

    const ANSWER: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <Answer xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <Result>\n    <Id>ASIA</Id>\n    \
        <Token>a+/=&amp;&lt;b&gt;</Token>\n    <None/>\n    <List><member>1</member><member>2</member></List>\n  \
        </Result>\n</Answer>\n";

    #[test]
    fn text_is_found_by_the_path_that_leads_to_it() {
        assert_eq!(at(ANSWER, &["Answer", "Result", "Id"]), Ok(Some("ASIA".to_owned())));
        assert_eq!(at(ANSWER, &["Answer", "Result", "Token"]), Ok(Some("a+/=&<b>".to_owned())));
        assert_eq!(at(ANSWER, &["Answer", "Id"]), Ok(None));
        assert_eq!(at(ANSWER, &["Result", "Id"]), Ok(None));
        assert_eq!(at(ANSWER, &["Answer", "Result", "None"]), Ok(None));
    }

    // If it failed, whoever answers could have this process expand, fetch or guess.
    #[test]
    fn a01_what_is_no_plain_element_makes_the_answer_malformed() {
        assert_eq!(at(ANSWER, &["Answer", "Result", "List", "member"]), Err(Malformed), "which of the two");
        assert_eq!(at(ANSWER, &["Answer", "Result"]), Err(Malformed), "no text");
        let deep = format!("{}x{}", "<a>".repeat(20), "</a>".repeat(20));
        for bad in [
            "",
            "<a>",
            "<a></b>",
            "<a></a><b></b>",
            "</a>",
            "<a>1</a>2",
            "2<a>1</a>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<a>&x;</a>",
            "<a>&#65;</a>",
            "<a>&amp</a>",
            "<a><!-- 1 --></a>",
            "<a><![CDATA[1]]></a>",
            "<a><?php 1?></a>",
            "<a>1<b>2</b></a>",
            "<a><b>2</b>1</a>",
            "<a b=\"1>2</a>",
            "<1>2</1>",
            &deep,
        ] {
            assert_eq!(at(bad, &["a"]), Err(Malformed), "{bad}");
        }
    }
}
