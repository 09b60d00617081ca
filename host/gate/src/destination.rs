//! Destinations: a URL is parsed once, into what is then matched, resolved, dialled and named in SNI.
//! What is not already in canonical form is refused, never repaired: parsers disagree about repairs,
//! and every disagreement is a way around a binding (threats N03, N12–N17).

use std::fmt;
use std::str::FromStr;

use keybearer_contract::Host;
use keybearer_contract::Scheme;
use serde::Deserialize;
use serde::Serialize;

/// The text is not a URL in canonical form; says which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCanonical(pub(crate) &'static str);

/// The same as a whole sentence, for whoever reads it where a URL stood among other things. Quotes nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a URL in canonical form: {0}")]
pub struct UrlMalformed(#[from] NotCanonical);

/// Scheme, host and port: what is dialled, and what TLS is asked to prove.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    scheme: Scheme,
    host: Host,
    port: u16,
}

impl Destination {
    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, written out or the scheme's own.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host` or `host:port`: the value of the Host header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A whole URL: destination, path and query.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    destination: Destination,
    path: String,
    query: Option<String>,
}

impl Target {
    /// Scheme, host and port.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// The path, beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The query, without `?`, as given.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The parts.
    #[must_use]
    pub fn into_parts(self) -> (Destination, String, Option<String>) {
        (self.destination, self.path, self.query)
    }

    /// Destination and path: what a record may name. Queries hold what people search for.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}{}", self.destination, self.path)
    }
}

/// The longest URL; what common servers accept (RFC 9110 §4.1 recommends 8000 octets at least).
const URL_BYTES_MAX: usize = 8 << 10;

impl FromStr for Target {
    type Err = NotCanonical;

    fn from_str(text: &str) -> Result<Self, NotCanonical> {
        if text.len() > URL_BYTES_MAX {
            return Err(NotCanonical("it is longer than 8 KiB"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotCanonical("it holds a character outside printable ASCII: percent-encode it"));
        }
        let (scheme, rest) = if let Some(rest) = text.strip_prefix("https://") {
            (Scheme::Https, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            (Scheme::Http, rest)
        } else {
            return Err(NotCanonical("it must begin with `https://` or `http://`"));
        };
        let slash = rest.find('/').ok_or(NotCanonical("it must have a path: write `/` after the host"))?;
        let (authority, rest) = rest.split_at(slash);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let destination = parse_authority(scheme, authority)?;
        check_path(path)?;
        query.map_or(Ok(()), check_query)?;
        // The second opinion: what the parser of browsers makes of it must be the same, byte for byte.
        match url::Url::parse(text) {
            Ok(url) if url.as_str() == text => {}
            _ => return Err(NotCanonical("it is not what its own parse would be written as")),
        }
        Ok(Self { destination, path: path.to_owned(), query: query.map(str::to_owned) })
    }
}

fn parse_authority(scheme: Scheme, authority: &str) -> Result<Destination, NotCanonical> {
    if authority.contains('@') {
        return Err(NotCanonical("it must not hold a user or a password"));
    }
    let (host, port) = match authority.split_once(':') {
        None => (authority, scheme.default_port()),
        Some((host, port)) => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
            let number = if digits { port.parse::<u16>().ok() } else { None };
            let number =
                number.ok_or(NotCanonical("its port must be a number from 1 to 65535 without leading zeros"))?;
            if number == scheme.default_port() {
                return Err(NotCanonical("its port is the scheme's own: leave it out"));
            }
            (host, number)
        }
    };
    let host = host.parse().map_err(|_| {
        NotCanonical(
            "its host must be a lower-case DNS name of two labels or more, without a trailing dot; not an address",
        )
    })?;
    Ok(Destination { scheme, host, port })
}

fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        // Upper case only: RFC 3986 §2.1 names it as the canonical one.
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Walks text and hands every percent-encoded byte, decoded, to `check`.
fn check_encoded(
    text: &str,
    literal: &[u8],
    check: impl Fn(u8) -> Result<(), NotCanonical>,
) -> Result<(), NotCanonical> {
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let byte = bytes[index];
        if byte == b'%' {
            let high = bytes.get(index + 1).copied().and_then(hex_value);
            let low = bytes.get(index + 2).copied().and_then(hex_value);
            let (Some(high), Some(low)) = (high, low) else {
                return Err(NotCanonical("`%` must be followed by two upper-case hex digits"));
            };
            let decoded = high << 4 | low;
            if is_unreserved(decoded) {
                return Err(NotCanonical("a letter, digit or one of -._~ must not be percent-encoded"));
            }
            check(decoded)?;
            index += 3;
        } else if is_unreserved(byte) || literal.contains(&byte) {
            index += 1;
        } else {
            return Err(NotCanonical("it holds a character that must be percent-encoded"));
        }
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), NotCanonical> {
    // `;` is not literal here: servers strip or split at it before they route (threats N17).
    check_encoded(path, b"/!$&'()*+,=:@", |decoded| match decoded {
        b'/' | b'\\' | b'%' | 0..=31 | 127 => {
            Err(NotCanonical("an encoded slash, backslash, percent sign or control character has no place in a path"))
        }
        _ => Ok(()),
    })?;
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment == "." || segment == ".." {
            return Err(NotCanonical("a dot segment has no place in a path"));
        }
        if segment.is_empty() && segments.peek().is_some() {
            return Err(NotCanonical("an empty segment has no place in a path"));
        }
    }
    Ok(())
}

fn check_query(query: &str) -> Result<(), NotCanonical> {
    check_encoded(query, b"/?!$&()*+,=:@;[]", |_| Ok(()))
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.destination, self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(formatter, "?{query}"))
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place())
    }
}

impl TryFrom<String> for Target {
    type Error = UrlMalformed;

    fn try_from(text: String) -> Result<Self, UrlMalformed> {
        Ok(text.parse::<Self>()?)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(texts: &[&str]) {
        for text in texts {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn canonical_urls_parse_to_themselves() {
        for text in [
            "https://api.stripe.com/",
            "https://api.stripe.com/v1/refunds",
            "https://api.stripe.com:8443/v1/a%20b/c@d?x=1&x=2&q=a%3Ab%2Fc+d",
            "http://example.com/a/",
            "https://api.github.com/search/code?q=repo%3Aa%2Fb",
        ] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn n02_n03_n04_no_address_in_any_spelling_is_a_destination() {
        refused(&[
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://0/",
            "https://0x7f000001./",
            "https://１２７.０.０.１/",
            "https://①②⑦.⓪.⓪.①/",
            "https://%31%32%37.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fe80::1%25eth0]/",
            "https://[64:ff9b::7f00:1]/",
            "https://8.8.8.8/",
        ]);
    }

    #[test]
    fn n12_n13_n14_userinfo_and_repairs_are_refused() {
        refused(&[
            "https://api.stripe.com@evil.test/",
            "https://user:pw@api.stripe.com/",
            "https://@api.stripe.com/",
            "https://:@api.stripe.com/",
            "http:\\\\api.stripe.com/",
            "http:api.stripe.com/",
            "http:///api.stripe.com/",
            "https://api.str\tipe.com/",
            "https://api.stripe.com/a?b=c\r\nX: y",
            "https://api.stripe.com./",
            "https://API.stripe.com/",
            "https://аpi.stripe.com/",
            "https://api.stripe.com%2eevil.test/",
            "https://api%2estripe.com/",
            "https://evil.test\\@api.stripe.com/",
            "HTTPS://api.stripe.com/",
            " https://api.stripe.com/",
            "https://api.stripe.com",
            "https://localhost/",
            "https://metadata/",
        ]);
    }

    #[test]
    fn n15_n16_ports_and_schemes_are_one_spelling() {
        refused(&[
            "https://a.example:0/",
            "https://a.example:00443/",
            "https://a.example:65536/",
            "https://a.example:443/",
            "https://a.example:80:443/",
            "https://a.example:/",
            "https://a.example:+1/",
            "ftp://a.example/",
            "file:///etc/passwd",
            "data:text/plain,x",
            "ws://a.example/",
            "gopher://a.example/",
            "javascript:alert(1)",
        ]);
    }

    #[test]
    fn n17_path_tricks_are_refused() {
        refused(&[
            "https://a.example/../x",
            "https://a.example/%2e%2e/x",
            "https://a.example/v1/..%2fadmin",
            "https://a.example/v1/%252e%252e/admin",
            "https://a.example//x",
            "https://a.example/v1\\..\\admin",
            "https://a.example/a;b",
            "https://a.example/a%00",
            "https://a.example/a%5Cb",
            "https://a.example/a%2Fb",
            "https://a.example/%41",
            "https://a.example/%zz",
            "https://a.example/a%2",
            "https://a.example/a%3d",
            "https://a.example/#f",
            "https://a.example/?q#f",
            "https://a.example/./a",
            "https://a.example/a|b",
        ]);
    }
}
