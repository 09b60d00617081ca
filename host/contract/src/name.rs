//! Names that people choose: of tenants, packages, tools, slots and hosts. Each is one strict
//! alphabet, so that no name is ever a path, a pattern, a header or two spellings of one thing.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

/// A name is not in its alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: it must be {rule}")]
pub struct NameMalformed {
    what: &'static str,
    rule: &'static str,
}

/// The longest name; what a DNS label may hold (RFC 1035 §2.3.4), so that a name fits anywhere.
const NAME_BYTES_MAX: usize = 63;

fn is_word(text: &str, extra: u8) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != extra
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == extra)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameMalformed;

            fn from_str(text: &str) -> Result<Self, NameMalformed> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameMalformed { what: $what, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameMalformed;

            fn try_from(text: String) -> Result<Self, NameMalformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A tenant's name: what people call it. The id is what it is.
    TenantName, "tenant name", "1 to 63 of a-z, 0-9 and `-`, beginning with a letter",
    |text| is_word(text, b'-')
);
name!(
    /// A package's name.
    PackageName, "package name", "1 to 63 of a-z, 0-9 and `-`, beginning with a letter",
    |text| is_word(text, b'-')
);
name!(
    /// A tool's name within its package.
    ToolName, "tool name", "1 to 63 of a-z, 0-9 and `_`, beginning with a letter",
    |text| is_word(text, b'_')
);
name!(
    /// A slot's name within its package.
    SlotName, "slot name", "1 to 63 of a-z, 0-9 and `_`, beginning with a letter",
    |text| is_word(text, b'_')
);
name!(
    /// What an agent calls itself, for records: a name, never a sentence.
    AgentName, "name of an agent", "1 to 63 of a-z, A-Z, 0-9 and `-_.:/@`, beginning with a letter or digit",
    is_agent
);
name!(
    /// A DNS host name in its one canonical form: lower-case ASCII, at least two labels, no trailing
    /// dot, and a last label that begins with a letter, so that no spelling of an address fits.
    Host, "host", "a lower-case DNS name of two labels or more, without a trailing dot; addresses have no place here",
    is_host
);

fn is_agent(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=NAME_BYTES_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@".contains(byte))
}

/// RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text.
const HOST_BYTES_MAX: usize = 253;

fn is_host(text: &str) -> bool {
    let mut labels = 0;
    let mut last = "";
    for label in text.split('.') {
        let bytes = label.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-';
        if !fits {
            return false;
        }
        labels += 1;
        last = label;
    }
    // `127.0.0.1`, `0x7f.1`: every spelling that an address parser accepts ends in a label that
    // begins with a digit (WHATWG URL, "ends in a number").
    labels >= 2 && text.len() <= HOST_BYTES_MAX && last.as_bytes()[0].is_ascii_lowercase()
}

/// A tool as callers name it: `package.tool`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ToolRef {
    /// The package.
    pub package: PackageName,
    /// The operation within it.
    pub tool: ToolName,
}

impl FromStr for ToolRef {
    type Err = NameMalformed;

    fn from_str(text: &str) -> Result<Self, NameMalformed> {
        let (package, tool) =
            text.split_once('.').ok_or(NameMalformed { what: "tool reference", rule: "`package.tool`" })?;
        Ok(Self { package: package.parse()?, tool: tool.parse()? })
    }
}

impl TryFrom<String> for ToolRef {
    type Error = NameMalformed;

    fn try_from(text: String) -> Result<Self, NameMalformed> {
        text.parse()
    }
}

impl From<ToolRef> for String {
    fn from(tool: ToolRef) -> Self {
        [tool.package.as_str(), ".", tool.tool.as_str()].concat()
    }
}

impl fmt::Display for ToolRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.package, self.tool)
    }
}

impl fmt::Debug for ToolRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n03_no_spelling_of_an_address_is_a_host() {
        for bad in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "0x7f000001.",
            "0177.0.0.1",
            "[::1]",
            "localhost",
            "api.stripe.com.",
            "API.stripe.com",
            "api..com",
            "-a.com",
            "a-.com",
            "１２７.０.０.１",
            "а.com",
            "a_b.com",
            "api.stripe.com%2eevil.test",
            "*.example.com",
            "",
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad}");
        }
        for good in ["api.stripe.com", "xn--bcher-kva.example", "a.b"] {
            assert!(good.parse::<Host>().is_ok(), "{good}");
        }
    }

    #[test]
    fn w05_names_that_are_paths_are_refused() {
        for bad in ["../../x", "a/b", "A", "1a", "a.b", "a_", "con ", "\u{202e}a", &"a".repeat(64)] {
            assert!(bad.parse::<ToolName>().is_err(), "{bad}");
        }
        assert!("stripe.create_refund".parse::<ToolRef>().is_ok());
        assert!("stripe.create_refund.x".parse::<ToolRef>().is_err());
    }
}
