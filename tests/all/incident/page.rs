//! Whether a page is well-formed, by the rules of XML that it uses.

/// Every element is closed in its order, every `&` begins a reference, and there is no script.
pub(super) fn assert_well_formed(page: &str) {
    let body = page.strip_prefix("<!DOCTYPE html>\n").expect("a document type");
    let mut open: Vec<&str> = Vec::new();
    let mut rest = body;
    while let Some(at) = rest.find('<') {
        assert_text(&rest[..at]);
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        assert!(!tag.contains('<'), "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "what is closed is what is open");
        } else if !tag.ends_with('/') {
            let name = tag.split(' ').next().expect("a name");
            assert!(!matches!(name, "script" | "iframe" | "img" | "link" | "object" | "form"), "{tag}");
            open.push(name);
        }
        assert!(!tag.contains("href") && !tag.contains("src=") && !tag.contains(" on"), "{tag}");
        rest = &rest[end + 1..];
    }
    assert_text(rest);
    assert!(open.is_empty(), "{open:?}");
    assert!(page.len() > 1_000 && page.contains("</html>"));
}

fn assert_text(text: &str) {
    for (at, _) in text.match_indices('&') {
        let reference = text[at..].split(';').next().unwrap_or_default();
        assert!(matches!(reference, "&amp" | "&lt" | "&gt" | "&quot" | "&#39"), "{reference}");
    }
}
