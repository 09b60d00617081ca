//! Text of a guest's making, before anybody else reads it: one line, no control characters, no marks
//! that reorder what a terminal shows, and no longer than was agreed (threats G15, G19).

/// Escapes what is not plain and cuts after `bytes_max` bytes. Returns whether anything was cut.
pub(crate) fn escape_into(out: &mut String, text: &str, bytes_max: usize) -> bool {
    let end = out.len() + bytes_max;
    for character in text.chars() {
        let before = out.len();
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if is_unfit(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
        if out.len() > end {
            out.truncate(before);
            return true;
        }
    }
    false
}

/// One line of at most `bytes_max` bytes, with an ellipsis where it was cut.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let mut line = String::with_capacity(text.len().min(bytes_max));
    if escape_into(&mut line, text, bytes_max) {
        line.push('…');
    }
    line
}

/// Control characters, and the marks that change the direction or break of a line: U+061C, U+200B to
/// U+200F, U+2028 to U+202E, U+2060 to U+206F, U+FEFF and the tags.
fn is_unfit(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g15_no_line_forges_another_or_speaks_to_a_terminal() {
        let line = one_line("a\r\n{\"level\":\"error\"}\u{1b}[2J\u{202e}b\\n", 1000);
        assert_eq!(line, "a\\r\\n{\"level\":\"error\"}\\u{1b}[2J\\u{202e}b\\\\n");
    }

    #[test]
    fn g19_a_long_text_is_cut_on_a_character() {
        assert_eq!(one_line("ééé", 5), "éé…");
        assert_eq!(one_line("éé", 4), "éé");
        assert_eq!(one_line("\u{1b}", 3), "…");
    }
}
