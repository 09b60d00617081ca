//! Opaque ids. Each kind of thing has a type of its own, so that one cannot stand in another's
//! place. An id is 128 random bits in base32, never derived from a name and never reused: a
//! re-created name is a new tenant.

use std::cell::RefCell;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use serde::Serializer;

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

/// The body of a new id.
fn random_body() -> [u8; BODY_CHARS] {
    let number = u128::from_be_bytes(random_bytes());
    let mut body = [0_u8; BODY_CHARS];
    for (index, place) in body.iter_mut().rev().enumerate() {
        let five_bits = (number >> (index * 5)) & 31;
        *place = ALPHABET[usize::try_from(five_bits).expect("five bits fit")];
    }
    body
}

/// Whether text can be the body of an id.
fn is_body(text: &[u8]) -> bool {
    text.len() == BODY_CHARS && text.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
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
        // The text lies in the id itself: ids are cloned, compared and hashed many times a call, on all threads.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name([u8; concat!($prefix, "_").len() + BODY_CHARS]);

        impl $name {
            const PREFIX: &str = concat!($prefix, "_");

            /// A new id that no one has had before.
            #[must_use]
            pub fn random() -> Self {
                Self::of(&random_body())
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("prefixes and the alphabet are ASCII")
            }

            fn of(body: &[u8]) -> Self {
                let mut text = [0; _];
                let (prefix, rest) = text.split_at_mut(Self::PREFIX.len());
                prefix.copy_from_slice(Self::PREFIX.as_bytes());
                rest.copy_from_slice(body);
                Self(text)
            }
        }

        impl FromStr for $name {
            type Err = IdMalformed;

            fn from_str(text: &str) -> Result<Self, IdMalformed> {
                let body = text.strip_prefix(Self::PREFIX).map(str::as_bytes).filter(|body| is_body(body));
                body.map(Self::of).ok_or(IdMalformed { prefix: $prefix })
            }
        }

        impl Hash for $name {
            /// The last characters: forty of an id's bits, all of them random.
            fn hash<H: Hasher>(&self, state: &mut H) {
                let last = self.0.last_chunk().expect("an id is longer");
                state.write_u64(u64::from_ne_bytes(*last));
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
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
                id.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
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
