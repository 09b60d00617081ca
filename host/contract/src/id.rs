//! Opaque ids. Each kind of thing has a type of its own, so that one cannot stand in another's
//! place. An id is 128 random bits in base32, never derived from a name and never reused: a
//! re-created name is a new tenant.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

/// The text is not `prefix_` followed by 26 characters of `[a-z2-7]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind: it must be `{prefix}_` and 26 characters of a-z and 2-7")]
pub struct IdMalformed {
    prefix: &'static str,
}

/// RFC 4648 base32, lower-case: no character that a path, a header or a shell would treat specially.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// 128 bits in base32.
const BODY_CHARS: usize = 26;

/// The longest prefix, with its underscore.
const PREFIX_CHARS_MAX: usize = 8;

fn random_text(prefix: &str) -> Arc<str> {
    let number = u128::from_be_bytes(random_bytes());
    let mut text = [0_u8; PREFIX_CHARS_MAX + BODY_CHARS];
    let length = prefix.len() + BODY_CHARS;
    text[..prefix.len()].copy_from_slice(prefix.as_bytes());
    for (index, place) in text[prefix.len()..length].iter_mut().rev().enumerate() {
        let five_bits = (number >> (index * 5)) & 31;
        *place = ALPHABET[usize::try_from(five_bits).expect("five bits fit")];
    }
    std::str::from_utf8(&text[..length]).expect("prefixes and the alphabet are ASCII").into()
}

/// Random bytes that a thread has in store, so that not every id is a system call. What was given out is not in
/// it any more; ids are no secrets.
struct Store {
    bytes: [u8; STORE_BYTES],
    left: usize,
}

/// 32 ids.
const STORE_BYTES: usize = 512;

thread_local! {
    static STORE: RefCell<Store> = const { RefCell::new(Store { bytes: [0; STORE_BYTES], left: 0 }) };
}

fn random_bytes() -> [u8; 16] {
    STORE.with_borrow_mut(|store| {
        if store.left == 0 {
            getrandom::fill(&mut store.bytes).expect("the kernel's random source does not fail once seeded");
            store.left = STORE_BYTES;
        }
        let from = store.left - 16;
        let mut taken = [0; 16];
        taken.copy_from_slice(&store.bytes[from..store.left]);
        store.bytes[from..store.left].fill(0);
        store.left = from;
        taken
    })
}

macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A new id that no one has had before.
            #[must_use]
            pub fn random() -> Self {
                Self(random_text(concat!($prefix, "_")))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdMalformed;

            fn from_str(text: &str) -> Result<Self, IdMalformed> {
                let malformed = IdMalformed { prefix: $prefix };
                let body = text.strip_prefix(concat!($prefix, "_")).ok_or(malformed.clone())?;
                if body.len() == BODY_CHARS && body.bytes().all(|byte| ALPHABET.contains(&byte)) {
                    Ok(Self(text.into()))
                } else {
                    Err(malformed)
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdMalformed;

            fn try_from(text: String) -> Result<Self, IdMalformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
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

opaque_id!(
    /// A tenant. Knowing one gives nothing: a tenant context is made from a verified principal only.
    TenantId, "ten"
);
opaque_id!(
    /// A credential of one tenant.
    CredentialId, "cred"
);
opaque_id!(
    /// A grant of one tenant.
    GrantId, "grant"
);
opaque_id!(
    /// An API token (its public half).
    TokenId, "tok"
);
opaque_id!(
    /// A hook: where a source outside says that something changed.
    HookId, "hook"
);
opaque_id!(
    /// An incident.
    IncidentId, "inc"
);
opaque_id!(
    /// A run.
    RunId, "run"
);
opaque_id!(
    /// A call.
    CallId, "call"
);
opaque_id!(
    /// One outbound request of a call.
    DispatchId, "disp"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_another_kinds_text_does_not_parse() {
        let id = TenantId::random();
        assert_eq!(id.as_str().parse::<TenantId>(), Ok(id.clone()));
        assert!(id.as_str().parse::<CallId>().is_err());
        assert_ne!(id, TenantId::random());
    }

    #[test]
    fn t03_ids_that_would_build_paths_or_fold_are_refused() {
        let good = TenantId::random().to_string();
        for bad in [
            good.to_uppercase(),
            format!("{good}/../x"),
            format!("{good}%2f"),
            format!("{good}\0"),
            format!("{good}\u{200b}"),
            "ten_".to_owned() + &"a".repeat(300),
            String::new(),
        ] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?}");
        }
    }
}
