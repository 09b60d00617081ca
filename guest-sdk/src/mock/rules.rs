//! What the host refuses in any request, whatever the manifest says, so that a test finds it before a
//! call does. Coarser than the host: what passes here may still be refused there.

use super::Request;
use crate::http::Error;
use crate::http::GuestFault;

/// Fields that no manifest can hand to a tool.
const HOST_HEADERS: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-range",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "range",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

pub(super) fn check(request: &Request) -> Result<(), Error> {
    if !is_canonical(&request.url) {
        return Err(Error::Guest(GuestFault::MalformedUrl));
    }
    for (name, value) in &request.headers {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_value = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80;
        if name.is_empty() || !name.bytes().all(is_name) || !value.iter().copied().all(is_value) {
            return Err(Error::Guest(GuestFault::MalformedHeader));
        }
        if HOST_HEADERS.contains(&name.as_str()) {
            return Err(Error::Denied);
        }
    }
    Ok(())
}

pub(super) fn is_canonical(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let (authority, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
    matches!(scheme, "https" | "http")
        && authority.contains('.')
        && authority.bytes().all(is_host)
        && !(scheme == "https" && authority.ends_with(":443"))
        && is_path(path)
        && is_encoded(query, b"/?!$&()*+,=:@;[]", |_| true)
}

fn is_path(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return false };
    let (front, _last) = segments.rsplit_once('/').unwrap_or(("-", segments));
    !front.split('/').any(str::is_empty)
        && !segments.split('/').any(|segment| matches!(segment, "." | ".."))
        && is_encoded(path, b"/!$&'()*+,=:@", |byte| !matches!(byte, b'/' | b'\\' | b'%' | 0..=31 | 127))
}

/// Unreserved characters, those given, and `%XX` in upper case for a byte that had to be encoded and
/// may be.
fn is_encoded(text: &str, plain: &[u8], may_be_encoded: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'%' {
            let digits =
                text.get(index + 1..index + 3).filter(|hex| !hex.bytes().any(|byte| byte.is_ascii_lowercase()));
            let Some(byte) = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else { return false };
            if unreserved(byte) || !may_be_encoded(byte) {
                return false;
            }
            index += 3;
        } else if unreserved(bytes[index]) || plain.contains(&bytes[index]) {
            index += 1;
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n03_n17_urls_that_the_host_would_refuse_are_refused_here() {
        for bad in [
            "api.stripe.com/v1",
            "https://api.stripe.com",
            "https://API.stripe.com/",
            "https://user@api.stripe.com/",
            "https://api.stripe.com:443/",
            "https://api.stripe.com/../x",
            "https://api.stripe.com/a//b",
            "https://api.stripe.com/a b",
            "https://api.stripe.com/a%2fb",
            "https://api.stripe.com/a%2Fb",
            "https://api.stripe.com/a;b",
            "https://localhost/",
            "https://api.stripe.com/%41",
            "https://api.stripe.com/a?q=x y",
            "https://api.stripe.com/a?q=%zz",
            "https://api.stripe.com/a#x",
            "ftp://api.stripe.com/",
        ] {
            assert!(!is_canonical(bad), "{bad}");
        }
        for good in
            ["https://api.stripe.com/", "https://a.b:8443/v1/charges?q=a%20b%2Fc&limit=3", "https://a.b/a%20b/c/"]
        {
            assert!(is_canonical(good), "{good}");
        }
    }
}
